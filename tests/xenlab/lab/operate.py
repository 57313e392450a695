# SPDX-License-Identifier: Apache-2.0
"""What an operator, or a dom0 in trouble, does behind the service's back."""
import time

from lab import guests, protect
from lab.common import LabError, say
from lab.protect import DOMAIN

COPY = DOMAIN + "--incoming"
STOPPED_SECONDS = 8


def goes_on(side, what, more=3):
    """Checkpoints follow each other, and nobody took over."""
    status = side.wait_checkpoints(more, f"{what}: ", 120)
    if status["state"] != "protected" or status["role"] != "primary":
        raise LabError(f"{what}: {status['role']}, {status['state']}: {status['reason']}\n{side.words()}")


def held(status):
    return any("xl unpause" in text for text in status["warnings"])


def pauses(machine, a, b, load):
    """`xl pause` of either side: noticed, no failure, and over with `xl unpause`."""
    machine.run(f"xl pause {DOMAIN}")
    a.wait(lambda s: s["run-state"] == "paused" and held(s), "the primary says that it is held", 20)
    goes_on(a, "with a primary that an operator paused")
    if b.status()["role"] != "secondary" or not protect.is_paused(machine, DOMAIN):
        raise LabError(f"the pause was lost:\n{machine.out('xl list')}")
    machine.run(f"xl unpause {DOMAIN}")
    a.wait(lambda s: s["run-state"] == "running" and not held(s), "the primary runs again", 20)
    load.wait_more()
    goes_on(a, "after the pause")
    say(f"a paused primary is no loss: {load.check()}")

    machine.run(f"xl pause {COPY}")
    b.wait(held, "the secondary says that it is held", 30)
    goes_on(a, "with a secondary that an operator paused", 4)
    load.wait_more()
    for _ in range(10):   # a checkpoint that is being loaded looks the same, for a moment
        if not protect.is_paused(machine, COPY):
            raise LabError(f"the pause was lost:\n{machine.out('xl list')}")
        time.sleep(0.3)
    machine.run(f"xl unpause {COPY}")
    b.wait(lambda s: not held(s), "the secondary runs again", 30)
    goes_on(a, "after the pause of the secondary")
    protect.compare_frames(machine, a, b)
    load.wait_more()
    say(f"a paused secondary is no loss: {load.check()}")


def other_name(machine, a, load):
    machine.run(f"xl rename {DOMAIN} renamed")
    goes_on(a, "under another name")
    load.wait_more()
    machine.run(f"xl rename renamed {DOMAIN}")


def stopped_xenstored(machine, a, load):
    """A device model writes there at each `cont`, so that checkpoints wait for it. That is no failure, if it is not for long."""
    machine.run("pkill -STOP -x 'o?xenstored'")
    try:
        time.sleep(STOPPED_SECONDS)
    finally:
        machine.run("pkill -CONT -x 'o?xenstored'")
    goes_on(a, "after xenstored stood still")
    load.wait_more()
    say(f"xenstored stood still for {STOPPED_SECONDS} s: {load.check()}")


def saved(machine, a, b, load):
    """`xl save -c`: the guest stands still meanwhile and goes on; at most a full copy is the price."""
    machine.run(f"xl save -c {DOMAIN} /root/saved", timeout=300)
    machine.run("rm /root/saved")
    a.wait(lambda s: s["role"] == "primary" and s["state"] == "protected" and s["run-state"] == "running" and not held(s),
           "protected after xl save -c", 120)
    goes_on(a, "after xl save -c")
    load.wait_more()
    protect.compare_frames(machine, a, b)   # what xl leaves behind is two dirty logs that are off
    say(f"xl save -c of the primary is no loss: {load.check()}")


def saved_away(machine, a, b, load):
    """`xl save` destroys the domain in the end: a loss, and the copy goes on."""
    domid = guests.domid(machine, DOMAIN)
    machine.run(f"xl save {DOMAIN} /root/saved", timeout=300)
    protect.took_over(machine, b, load, domid)
    a.wait(lambda s: s["outdated"], "the old primary knows that it is outdated", 60)
    protect.no_remains(machine, [DOMAIN])
    say(f"after an xl save the copy goes on: {load.check()}")


def another_copy(machine, a, b, load, lost, what):
    """One is made: in the middle of a checkpoint of what the secondary holds, else for the next session."""
    if not guests.another(machine, COPY, lost, 120):
        raise LabError(f"{what}, and no other copy is made:\n{machine.out('xl list')}\n{b.words()}")
    b.wait(lambda s: s["state"] == "protected" or "waits for a primary" in s["reason"], "the secondary has another copy", 120)
    if a.status()["state"] == "unprotected":
        protect.protect_by(a)
    goes_on(a, "with another copy")
    load.wait_more()
    protect.no_remains(machine, [DOMAIN, COPY])
    protect.compare_frames(machine, a, b)
    say(f"{what}, and another one follows: {load.check()}")


def destroyed_copy(machine, a, b, load):
    lost = guests.domid(machine, COPY)
    machine.run(f"xl destroy {lost}")
    another_copy(machine, a, b, load, lost, "the copy was destroyed")


def no_memory(machine, a, b, load):
    """A copy for which there is no memory: refused with the reason, and nothing is left of the attempt."""
    b.kill()
    machine.run(f"xl destroy {COPY}")
    a.wait(lambda s: s["state"] == "unprotected", "the primary goes on alone", 60)
    free = int(machine.out("xl info free_memory"))
    file = guests.write_config(machine, "hog", memory=free - 64)
    machine.run(f"xl create -p -q {file}", timeout=300)
    b.start("secondary")
    status = b.wait(lambda s: "is there memory left?" in s["reason"], "the secondary says that there is no memory", 120)
    say(f"without memory: {status['state']}: {status['reason'][:300]}")
    protect.no_remains(machine, [DOMAIN, "hog"])
    load.wait_more()
    b.kill()
    machine.run("xl destroy hog")
    protect.stand_by(b)
    protect.protect_by(a)


def operate(machine):
    a, b, load = protect.begin(machine)
    pauses(machine, a, b, load)
    other_name(machine, a, load)
    saved(machine, a, b, load)
    stopped_xenstored(machine, a, load)
    destroyed_copy(machine, a, b, load)
    no_memory(machine, a, b, load)
    goes_on(a, "after all that")
    load.wait_more()
    protect.compare_frames(machine, a, b)
    saved_away(machine, a, b, load)


def has_ended(side, what):
    """After SIGTERM. With status 0: systemd would call anything else a failure."""
    machine = side.machine
    machine.run(f"kill $(cat {side.files}/pid)")
    machine.run(f"until grep -q 'colod ended with status' {side.files}/out; do sleep 0.2; done", timeout=90)
    if "colod ended with status 0" not in machine.out(f"tail -n 1 {side.files}/out"):
        raise LabError(f"{what}:\n{side.words()}")


def maintenance(machine):
    """The host of the primary is to be worked on: the service moves in order, and nobody notices. And a copy without its device model."""
    a, b, load = protect.begin(machine)
    lost = guests.domid(machine, COPY)
    machine.run(f"kill -9 $(xenstore-read /local/domain/{lost}/image/device-model-pid)")
    another_copy(machine, a, b, load, lost, "the device model of the copy was killed")

    before = guests.domid(machine, DOMAIN)
    b.ctl(f"failover {DOMAIN}")
    a.wait(lambda s: s["outdated"], "the side that handed over knows it", 60)
    load.wait_more()
    protect.no_remains(machine, [DOMAIN, COPY])   # the old one stays, stopped, and in one dom0 it has the name
    has_ended(a, "a daemon that handed over is stopped")
    protect.took_over(machine, b, load, before)
    protect.no_remains(machine, [DOMAIN])
    protect.stand_by(a)
    protect.protect_by(b)
    load.wait_more()
    protect.compare_frames(machine, b, a)
    say(f"the service moved to the other side, and is protected there: {load.check()}")

    before = guests.domid(machine, DOMAIN)
    has_ended(b, "the primary's daemon is stopped")
    protect.took_over(machine, a, load, before)
    protect.no_remains(machine, [DOMAIN])
    say(f"the primary's daemon was stopped, and the copy went on first: {load.check()}")

    load.end()
    has_ended(a, "the daemon of an unprotected domain is stopped")
    protect.no_remains(machine, [])
