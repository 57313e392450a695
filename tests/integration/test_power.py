# SPDX-License-Identifier: Apache-2.0
"""Power events are outputs of the guest: both copies follow them in order, nobody takes them for a crash."""
import time

from scenario import expect, refused, scenario
from colo_lab import guest


@scenario(60)
def guest_power_off(lab_factory, say):
    with lab_factory() as lab:
        lab.boot()
        lab.protect(lab.a)
        generation = lab.a.status()["generation"]
        lab.control("poweroff", answer=False)
        lab.a.qmp.wait_event("SHUTDOWN", 15)
        time.sleep(3)
        for host in (lab.a, lab.b):
            if not host.running():
                continue
            status = host.status()
            expect(status["run-state"] != "running", f"host {host.name} runs a guest that was powered off")
            expect(status["generation"] == generation, f"host {host.name} failed over because of a power-off")
        expect(not lab.guest_answers(1.0), "the guest answers although it was powered off")
        say(f"both sides stopped; a is {lab.a.status()['state'] if lab.a.running() else 'ended'}, "
            f"b is {lab.b.status()['state'] if lab.b.running() else 'ended'}; no failover")


@scenario(100)
def guest_reboot(lab_factory, say):
    with lab_factory() as lab:
        lab.boot()
        lab.protect(lab.a)
        generation = lab.a.status()["generation"]
        start = time.monotonic()
        lab.control("reboot", answer=False)
        time.sleep(1.5)
        guest.wait_answering(lab.network, 60, lab.a.running)
        say(f"the guest answers again {time.monotonic() - start:.1f} s after its reboot")
        lab.wait_protected(lab.a)
        expect(lab.a.status()["generation"] == generation, "a reboot caused a failover")
        load = lab.load("echo count=4 interval_ms=10")
        lab.settle(load, 1)
        lab.a.die()
        lab.wait_alone(lab.b)
        lab.settle(load, 1, "traffic after a failover that followed a reboot")
        load.stop()
        say("still protected after the reboot: a failover keeps the new connections")


@scenario(60)
def guest_panic(lab_factory, say):
    """A panicked guest is the same on both sides: taking over would only show the same panic."""
    with lab_factory() as lab:
        lab.boot()
        lab.protect(lab.a)
        generation = lab.a.status()["generation"]
        lab.a.qmp.take_events()
        lab.b.qmp.take_events()
        lab.control("panic", answer=False)
        data = lab.a.qmp.wait_event("GUEST_PANICKED", 15)["data"]
        expect(data == {"action": "pause"}, f"GUEST_PANICKED says {data}")
        time.sleep(3)
        status = lab.a.status()
        expect(status["generation"] == generation, f"a panic caused a failover: {status}")
        expect(status_of(lab.a) == "guest-panicked", f"run state {status_of(lab.a)}")
        events = [event["event"] for event in lab.a.qmp.take_events()]
        expect("STOP" in events, f"no STOP behind GUEST_PANICKED: {events}")
        expect("SHUTDOWN" not in events, f"a guest that panicked is paused, it did not shut down: {events}")
        expect(status_of(lab.b) != "running", f"the secondary runs a guest that panicked: {status_of(lab.b)}")
        other = {event["event"] for event in lab.b.qmp.take_events()} & {"GUEST_PANICKED", "SHUTDOWN"}
        expect(not other, f"the secondary tells of a panic of its own: {other}")
        say(f"primary after the panic: {status['state']}, {status['run-state']} ('{status['reason']}')")


def paused(status):
    return status["run-state"] == "paused"


@scenario(90)
def paused_by_the_operator(lab_factory, say):
    """`stop` and `cont` on a protected domain: both copies follow, and a takeover leaves a paused guest paused."""
    with lab_factory() as lab:
        lab.boot()
        lab.protect(lab.a)
        load = lab.load("echo count=4 interval_ms=10")
        lab.settle(load, 1)
        there = "This side follows the primary: the domain is stopped and resumed there"
        text = refused(lab.b, "stop")
        expect(text == there, f"stop on the secondary: {text}")
        lab.settle(load, 1, "traffic after a stop that the secondary refused")
        lab.a.qmp.execute("stop")
        lab.a.wait_status(paused, "paused", 5)
        lab.b.wait_status(paused, "following the pause", 5)
        expect(not lab.guest_answers(1.0), "a paused guest answers")
        text = refused(lab.b, "cont")
        expect(text == there, f"cont on the secondary: {text}")
        lab.b.qmp.execute("stop")  # it stands still already
        text = refused(lab.a, "xen-load-devices-state", {"filename": "/f"})
        expect(text == "The domain is protected; its device state belongs to the session", text)
        lab.a.qmp.execute("cont")
        lab.settle(load, 1, "traffic after cont")
        say("both sides paused and resumed with the connections intact")

        lab.a.qmp.execute("stop")
        lab.b.wait_status(paused, "following the second pause", 5)
        lab.a.die()
        lab.b.wait_status(lambda s: s["role"] == "primary" and s["state"] == "unprotected", "taking over", 10)
        time.sleep(1)
        expect(paused(lab.b.status()), "a takeover let a paused guest run")
        lab.revive(lab.a)
        lab.protect(lab.b, checkpoints=1)  # nothing changes that a second one could carry
        lab.b.qmp.execute("cont")
        lab.settle(load, 1, "traffic after a takeover while paused")
        load.stop()
        say("taken over paused, protected again while paused, resumed: no connection lost")


def status_of(host):
    return host.qmp.execute("query-status")["status"]


@scenario(120)
def reset_button(lab_factory, say):
    """system_reset is a power event of the primary: the copy follows with a checkpoint."""
    with lab_factory() as lab:
        lab.boot()
        lab.protect(lab.a)
        generation = lab.a.status()["generation"]
        for command in ("system_reset", "system_powerdown"):
            expect("secondary" in refused(lab.b, command), f"{command} on the secondary: no reason")
        lab.a.qmp.take_events()
        lab.b.qmp.take_events()
        lab.a.qmp.execute("system_reset")
        data = lab.a.qmp.wait_event("RESET", 10)["data"]
        expect(data == {"guest": False, "reason": "host-qmp-system-reset"}, f"RESET says {data}")
        time.sleep(1.5)
        guest.wait_answering(lab.network, 60, lab.a.running)
        lab.wait_protected(lab.a)
        status = lab.a.status()
        expect(status["generation"] == generation, "a reset caused a failover")
        triggers = {entry["trigger"]: entry["count"] for entry in status["checkpoints"]["by-trigger"]}
        expect(triggers.get("power-event", 0) >= 1, f"no checkpoint because of the reset: {triggers}")
        expect(not [e for e in lab.b.qmp.take_events() if e["event"] == "RESET"], "the secondary tells of a reset of its own")
        load = lab.load("echo count=4 interval_ms=10")
        lab.settle(load, 1)
        lab.a.die()
        lab.wait_alone(lab.b)
        lab.settle(load, 1, "traffic after a failover that followed a reset")
        load.stop()
        say(f"both sides followed; checkpoints by trigger: {triggers}")


@scenario(150)
def power_button(lab_factory, say):
    """system_powerdown: the guest powers itself off in order, both sides stay off, a reset starts it again."""
    with lab_factory() as lab:
        lab.boot()
        lab.protect(lab.a)
        generation = lab.a.status()["generation"]
        lab.a.qmp.take_events()
        lab.a.qmp.execute("system_powerdown")
        lab.a.qmp.wait_event("POWERDOWN", 10)
        data = lab.a.qmp.wait_event("SHUTDOWN", 30)["data"]
        expect(data == {"guest": True, "reason": "guest-shutdown"}, f"SHUTDOWN says {data}")
        time.sleep(2)
        for host in (lab.a, lab.b):
            status = host.status()
            expect(status["run-state"] != "running", f"host {host.name} runs a guest that was powered off")
            expect(status["generation"] == generation, f"host {host.name} failed over because of a power-off")
        expect(status_of(lab.a) == "shutdown", f"run state {status_of(lab.a)}")
        say("the guest reacted to the button; both sides are off, no failover")
        lab.a.qmp.execute("system_reset")
        lab.a.qmp.wait_event("RESET", 10)
        guest.wait_answering(lab.network, 60, lab.a.running)
        lab.wait_protected(lab.a)
        expect(status_of(lab.a) in ("running", "colo"), f"run state {status_of(lab.a)}")
        load = lab.load("echo count=4 interval_ms=10")
        lab.settle(load, 1)
        lab.a.die()
        lab.wait_alone(lab.b)
        lab.settle(load, 1, "traffic after a failover that followed power off and reset")
        load.stop()
        say("a reset of the powered-off guest boots it on both sides, still protected")


@scenario(100)
def power_button_alone(lab_factory, say):
    """Without a copy: off means that `cont` wants a reset first, and a reset guest waits for it."""
    with lab_factory() as lab:
        lab.boot()
        lab.a.qmp.take_events()
        lab.a.qmp.execute("system_powerdown")
        lab.a.qmp.wait_event("SHUTDOWN", 30)
        lab.a.qmp.wait_event("STOP", 10)
        expect(status_of(lab.a) == "shutdown", f"run state {status_of(lab.a)}")
        expect(refused(lab.a, "cont") == "Resetting the Virtual Machine is required", "cont of a guest that is off")
        lab.a.qmp.execute("system_reset")
        lab.a.qmp.wait_event("RESET", 10)
        expect(status_of(lab.a) == "prelaunch", f"run state {status_of(lab.a)}")
        lab.a.qmp.execute("cont")
        lab.a.qmp.wait_event("RESUME", 10)
        expect(status_of(lab.a) == "running", f"run state {status_of(lab.a)}")
        guest.wait_answering(lab.network, 60, lab.a.running)
        say("off, reset, prelaunch, cont: running")
