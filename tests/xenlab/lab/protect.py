# SPDX-License-Identifier: Apache-2.0
"""The service on a real Xen: two colod in one dom0 protect an HVM domain, with a client behind the proxy."""
import json
import os
import re
import time

from lab import guests, smoke
from lab.common import LabError, say, write_text
from lab.probe import BUILD

PROGRAMS = {"colod": "colo/colod", "coloctl": "colo/ctl/coloctl", "xen_compare": "tests/xenlab/xen_compare",
            "xen_probe": "tests/xenlab/xen_probe", "colo-load": "tests/bench/load/colo-load"}
DOMAIN, GUEST_IP = "demo", "10.77.0.2"
CHECKPOINTS = 20
LEAST_FRAMES = 30000   # that a domain of 128 MiB has
# The client lives in a network namespace, its cable ends in a bridge; each daemon joins it with a tap, as two hosts would
# be at one switch.
BRIDGE = """
set -e
ip link add br0 type bridge
ip link set br0 up
mkdir -p /run/lock-colo
"""
CLIENT = """
ip netns add client
ip link add w0 type veth peer name c0
ip link set c0 netns client
ip link set w0 master br0 up
ip netns exec client ip addr add 10.77.0.1/24 dev c0
ip netns exec client ip link set c0 up
ip netns exec client ip link set lo up
"""
# Everything is some ten times slower than on hardware, and all of it shares two emulated CPUs: times that would only say how
# busy this machine is are long.
CONFIG = """
[domain]
name = "demo"
uuid = "6b1f8a52-3c1e-4f0e-9d57-0a5d3b9c7e11"
[guest]
type = "xen"
xl_config = "/share/demo.cfg"
xl_create = "xl restore -e {{pause}} {{config}} /cache/booted.save"
xl_warm_up_ms = 0
start_timeout_ms = 240000
[[nic]]
id = "net0"
mac = "{mac}"
wire = "tap:w{side}@br0"
[peer]
address = "tcp:{peer_address}:{peer_port}"
[replication]
listen = "tcp:{address}:{port}"
page_channels = 1
checkpoint_interval_ms = 1000
checkpoint_interval_min_ms = 200
pause_limit_ms = 5000
transfer_deadline_ms = 30000
staged_deadline_ms = 30000
apply_deadline_ms = 30000
staging_limit_mib = 128
delta_cache_mib = 16
[proxy]
hold_min_ms = 200
hold_max_ms = 2000
[heartbeat]
interval_ms = 100
loss_ms = 3000
lease_ms = 2500
progress_timeout_ms = 20000
[[heartbeat.path]]
local = "{address}:{beat}"
peer = "{peer_address}:{peer_beat}"
[arbiter]
{arbiter}
[qmp]
socket = "/run/{side}/qmp.sock"
[state]
directory = "/run/{side}/state"
[log]
level = "debug"
file = "/run/{side}/colod.log"
"""


LOCK = 'kind = "lock"\ndirectory = "/run/lock-colo"'


class Side:
    """One daemon, in a dom0. `addresses`: its own and that of its peer."""

    def __init__(self, machine, side, arbiter=LOCK, addresses=("127.0.0.1", "127.0.0.1")):
        self.machine, self.side = machine, side
        self.domain, self.files = DOMAIN, f"/run/{side}"
        # Both have the same configuration of the domain, as they must, and a console each.
        self.program = f"unshare --mount --propagation private sh -c 'mount --bind {self.files}/console /run/console && exec \"$0\" \"$@\"' /root/colod --config /share/{side}.toml"
        first = side == "a"
        text = CONFIG.format(side=side, mac=guests.MAC, arbiter=arbiter, address=addresses[0], peer_address=addresses[1],
                             port=9000 if first else 9001, peer_port=9001 if first else 9000,
                             beat=9100 if first else 9101, peer_beat=9101 if first else 9100)
        write_text(machine.file("share", f"{side}.toml"), text)
        machine.run(f"mkdir -p {self.files}/state {self.files}/console /run/console")

    def start(self, role):
        out, pid = f"{self.files}/out", f"{self.files}/pid"
        self.machine.run(f"rm -f {pid}; (setsid {self.program} --role {role} </dev/null >{out} 2>&1 & p=$!; echo $p >{pid}.new; mv {pid}.new {pid}; "
                         f"wait $p; echo colod ended with status $? >>{out}) >/dev/null 2>&1 & until [ -e {pid} ]; do sleep 0.01; done")

    def ctl(self, arguments, check=True):
        return self.machine.run(f"/root/coloctl --timeout 30 --socket {self.files}/qmp.sock {arguments}", check=check)

    def status(self):
        status, out, _ = self.ctl("-o json qmp x-query-colo", check=False)
        return json.loads(out) if status == 0 else {"state": f"coloctl ends with {status}", "role": "", "reason": "", "warnings": [],
                                                          "run-state": "", "epoch": 0, "checkpoints": {"count": 0}}

    def wait(self, condition, what, seconds=120):
        deadline = time.monotonic() + seconds
        while True:
            status = self.status()
            if condition(status):
                return status
            ended = self.machine.run(f"kill -0 $(cat {self.files}/pid)", check=False)[0] != 0
            if ended or time.monotonic() > deadline:
                raise LabError(f"{what}: {'colod has ended' if ended else f'not within {seconds} s'}; status {json.dumps(status)[:1500]}\n{self.words()}")
            time.sleep(0.5)

    def wait_checkpoints(self, more, what="", seconds=240):
        first = self.status()["checkpoints"]["count"]
        return self.wait(lambda s: s["checkpoints"]["count"] >= first + more, f"{what}{more} more checkpoints", seconds)

    def words(self):
        return self.machine.run(f"tail -n 25 {self.files}/colod.log {self.files}/out {self.files}/state/guest/toolstack.log "
                                "/var/log/xen/qemu-dm-*.log; dmesg | tail -n 5", check=False)[1]

    def kill(self):
        self.machine.run(f"kill -9 $(cat {self.files}/pid)")


class Load:
    """The client; its answers are verified byte by byte."""

    def __init__(self, machine):
        self.machine = machine
        machine.run("mkfifo /run/load.in; sleep 100000 >/run/load.in & "
                    f"ip netns exec client /root/colo-load --guest {GUEST_IP} --progress-ms 1000 --add 'echo count=3 interval_ms=50' "
                    "--add 'download mb_per_s=0.2' </run/load.in >/run/load.out 2>/run/load.err & sleep 0.1")

    def end(self):
        self.check()
        self.machine.run("pkill -x colo-load; pkill -x sleep; rm -f /run/load.in")

    def last(self):
        lines = [line for line in self.machine.out("tail -n 40 /run/load.out").splitlines() if line.startswith("{")]
        for line in reversed(lines):
            report = json.loads(line)
            if "sums" in report:
                return report["sums"]
        if not self.machine.out("pgrep colo-load || true"):
            raise LabError(f"colo-load has ended:\n{lines[-3:]}\n{self.machine.out('cat /run/load.err')}")
        return {"answers": 0}   # it has only begun

    def check(self):
        sums = self.last()
        bad = {key: value for key, value in sums.items() if ("lost" in key or "wrong" in key) and value}
        if bad:
            told = self.machine.out("grep -v progress /run/load.out | tail -n 5")
            logs = self.machine.out("tail -n 60 /run/[ab]/colod.log 2>/dev/null || true")
            raise LabError(f"the clients were harmed: {bad}\n{told}\n{sums}\n{logs}")
        return sums

    def wait_more(self, seconds=90):
        """New answers came."""
        before, deadline = self.check()["answers"], time.monotonic() + seconds
        while self.check()["answers"] < before + 3:
            if time.monotonic() > deadline:
                raise LabError(f"no answers from the guest for {seconds} s; {self.last()}")
            time.sleep(1)


def install(machine):
    for name, where in PROGRAMS.items():
        program = os.path.join(BUILD, where)
        if not os.path.exists(program):
            raise LabError(f"there is no {program}; build it: ninja -C {BUILD} xenlab_programs")
        machine.put(program, "/root/" + name)
    config = guests.config(DOMAIN, device_model_args_hvm=None, serial="file:/run/console/serial")
    write_text(machine.file("share", "demo.cfg"), config)


def begin(machine):
    """Both sides, protected, and the client."""
    install(machine)
    machine.run(BRIDGE + CLIENT)
    a, b = Side(machine, "a"), Side(machine, "b")
    return a, b, begin_pair(a, b)


def begin_pair(a, b):
    """The client is where b is."""
    stand_by(b)
    keep_console(a)
    a.start("primary")
    a.wait(lambda s: s["state"] == "unprotected", "the primary serves", 300)
    protect_by(a)
    load = Load(b.machine)
    load.wait_more()
    return load


def keep_console(side):
    """What the domains of a side say, one after the other, until something is loaded into one of them."""
    kept = f"{side.files}/console/kept"
    side.machine.run(f"tail -n +1 -F {side.files}/console/serial </dev/null >{kept} 2>/dev/null & sleep 0.1")
    type(side.machine).genuine_console = kept


def stand_by(side):
    if type(side.machine).genuine_console == f"{side.files}/console/kept":
        type(side.machine).genuine_console = None
    side.start("secondary")
    side.wait(lambda s: s["state"] == "waiting" and "waits for a primary" in s["reason"], "secondary ready", 300)


def protect_by(primary):
    primary.ctl(f"qmp {primary.domain} x-colo-protect")
    wait_protected(primary)


def wait_protected(primary):
    type(primary.machine).copies_loaded = True
    primary.wait(lambda s: s["state"] == "protected", "protected", 300)
    say(f"protected: {primary.machine.out('xl list')}")


def protect(machine):
    a, b, load = begin(machine)
    a.wait_checkpoints(CHECKPOINTS)
    say(f"after {CHECKPOINTS} checkpoints: {load.check()}")
    compare_frames(machine, a, b)
    load.wait_more()
    fail_over(machine, a, b, load)


def pause_both(a, b):
    """An operator's pause is a cut that both sides stay at."""
    a.ctl(f"qmp {DOMAIN} stop")
    epoch = a.wait(lambda s: s["run-state"] == "paused", "the primary is paused")["epoch"]
    b.wait(lambda s: s["epoch"] >= epoch and is_paused(b.machine, DOMAIN + "--incoming"),
           "the secondary is paused at the same cut")


def compare_frames(machine, a, b):
    pause_both(a, b)
    status, out, _ = machine.run(f"/root/xen_compare {DOMAIN} {DOMAIN}--incoming", timeout=300, check=False)
    found = re.search(r"of (\d+) frames", out)
    if status != 0 or found is None or int(found[1]) < LEAST_FRAMES:
        raise LabError(f"at a cut of both sides:\n{out}")
    say(f"at a cut of both sides {out.strip()}")
    a.ctl(f"qmp {DOMAIN} cont")


def fail_over(machine, a, b, load):
    domid = guests.domid(machine, DOMAIN)
    a.kill()
    machine.run(f"xl destroy {domid}")
    took_over(machine, b, load, domid)


def took_over(machine, side, load, old):
    """The copy is the domain now: by its role, by its name, and for its clients."""
    side.wait(lambda s: s["role"] == "primary", "the secondary takes over", 60)
    if not guests.another(machine, side.domain, old, 30):
        raise LabError(f"the copy did not get the name:\n{machine.out('xl list')}\n{side.words()}")
    load.wait_more()
    smoke.check_runs(machine, side.domain, guests.domid(machine, side.domain))
    say(f"after the failover: {load.check()}\n{machine.out('xl list')}")


def is_paused(machine, name):
    return "p" in machine.out(f"xl list {name} | tail -n 1 | awk '{{print $5}}'")


def no_remains(machine, names, seconds=20):
    """These domains and no others, none that is dying ("(null)"); xenstore knows of no others, and no other has a device model."""
    deadline = time.monotonic() + seconds
    while True:
        listed = {line.split()[0]: line.split()[1] for line in machine.out("xl list").splitlines()[2:]}
        known = {"0", *listed.values()}
        stale = set()
        for where in ("/local/domain", "/libxl", "/local/domain/0/device-model", "/local/domain/0/backend/console", "/local/domain/0/backend/vfb"):
            stale |= {f"{where}/{entry}" for entry in machine.out(f"xenstore-list {where} 2>/dev/null || true").split() if entry not in known}
        kept = machine.out("xenstore-list /vm 2>/dev/null || true").split()
        if len(kept) != len(listed):
            stale |= {f"/vm/{entry}" for entry in kept}
        models = machine.out("for p in $(pgrep qemu-system); do tr '\\0' ' ' </proc/$p/cmdline | "
                             "grep -o 'xen-domid [0-9]*'; done || true")
        stale |= {f"device model of {line.split()[1]}" for line in models.splitlines() if line.split()[1] not in known}
        if sorted(listed) == sorted(names) and not stale:
            return
        if time.monotonic() > deadline:
            raise LabError(f"wanted: {names}\n{machine.out('xl list')}\nleft of others: {sorted(stale)}")
        time.sleep(0.5)


def log_is_off(machine, domid):
    """Asks without changing it, see xen_probe.cpp."""
    return machine.out(f"/root/xen_probe --log {domid}") == "log=off"


def half_made(machine):
    """A daemon that is killed while its toolstack is at work: the next one clears away what there is."""
    install(machine)
    machine.run(BRIDGE)
    b, records = Side(machine, "b"), []
    for delay in (0, 0.3, 1.0, 2.5):
        last = machine.out("xl list | awk 'NR > 1 { print $2 }' | sort -n | tail -n 1")
        b.start("secondary")
        machine.run(f"until [ $(xl list | awk 'NR > 1 {{ print $2 }}' | sort -n | tail -n 1) -gt {last} ]; do sleep 0.05; done; sleep {delay}; "
                    f"kill -9 $(cat {b.files}/pid)", timeout=240)
        record = machine.out(f"cat {b.files}/state/guest/domain || true")
        records.append(record)
        say(f"killed {delay} s after its domain appeared; its record: {record}\n{machine.out('xl list')}")
        left = machine.out("pgrep -a 'xl|libxl-save' || true")
        if left:
            raise LabError(f"a toolstack goes on without its daemon: {left}")
    if not any(record.startswith("making ") for record in records):
        raise LabError(f"no daemon was killed while it made a domain: {records}")
    stand_by(b)
    no_remains(machine, [DOMAIN + "--incoming"])


def failures(machine):
    """What can fail of it, one after the other, with the same connections all the time."""
    a, b, load = begin(machine)

    # The standby's daemon dies: its domain has no say, and is cleared away when the daemon is back.
    b.kill()
    a.wait(lambda s: s["state"] == "unprotected", "the primary goes on alone", 60)
    load.wait_more()
    stand_by(b)
    no_remains(machine, [DOMAIN, DOMAIN + "--incoming"])
    protect_by(a)
    say("a standby came back")

    # The primary's device model dies, its domain with it; the daemon lives and says so.
    domid = guests.domid(machine, DOMAIN)
    machine.run(f"kill -9 $(xenstore-read /local/domain/{domid}/image/device-model-pid)")
    took_over(machine, b, load, domid)
    a.wait(lambda s: s["outdated"], "the old primary knows that it is outdated", 60)
    no_remains(machine, [DOMAIN])   # although its daemon lives, and had mapped its memory
    if not log_is_off(machine, guests.domid(machine, DOMAIN)):
        raise LabError("the dirty log of the copy that took over is still on")
    a.kill()
    say("nothing is left of a domain that was lost")

    # A primary's daemon dies and there is no standby: the domain runs on, and the next daemon takes it as it is.
    survivor = guests.domid(machine, DOMAIN)
    b.kill()
    b.start("primary")
    b.wait(lambda s: s["state"] == "unprotected", "the domain is served again", 60)
    taken_up(machine, load, survivor)
    say(f"a daemon came back to its domain: {load.check()}")


def taken_up(machine, load, survivor):
    if guests.domid(machine, DOMAIN) != survivor:
        raise LabError("the domain was made anew")
    load.wait_more()
    no_remains(machine, [DOMAIN])
    if not log_is_off(machine, survivor):
        raise LabError("the dirty log of the daemon that died is still on")


def daemons(machine):
    """Both daemons die in the middle of protection. Nobody knows who was last, an operator says so, and the domain goes on as it is."""
    a, b, load = begin(machine)
    survivor = guests.domid(machine, DOMAIN)
    if log_is_off(machine, survivor):
        raise LabError("a protected domain has no dirty log?")
    a.kill()
    b.kill()
    machine.run(f"xl destroy {DOMAIN}--incoming")
    a.start("primary")
    a.wait(lambda s: s["state"] == "outdated", "it does not go on by itself", 60)
    a.ctl(f"failover {DOMAIN} --accept-data-loss")
    a.wait(lambda s: s["state"] == "unprotected", "the domain is served again", 120)
    taken_up(machine, load, survivor)
    say(f"an operator let the domain go on: {load.check()}")


CONTROL = """
import socket
s = socket.create_connection(("%s", 2000), timeout=20)
s.sendall(b"%s\\n")
print(s.recv(100))
"""


def tell_guest(machine, word):
    machine.run(f"ip netns exec client python3 -c '{CONTROL % (GUEST_IP, word)}'", check=False)   # it may be gone before it answers


def stays_protected(machine, a, b, what):
    status = a.wait(lambda s: s["role"] == "primary" and s["state"] == "protected" and s["run-state"] == "running", f"protected, {what}", 300)
    a.wait(lambda s: s["epoch"] >= status["epoch"] + 3, f"checkpoints, {what}", 120)
    if a.status()["generation"] != status["generation"] or b.status()["role"] != "secondary":
        raise LabError(f"{what}: not the same pair any more: {a.status()}, {b.status()}\n{a.words()}")
    compare_frames(machine, a, b)
    say(f"{what}: it stays protected")


def power(machine):
    """The guest reboots and goes off; the other side follows, and a rebooting guest stays protected."""
    a, b, load = begin(machine)
    load.end()
    before = guests.domid(machine, DOMAIN)
    tell_guest(machine, "reboot")
    if not guests.another(machine, DOMAIN, before, 60):
        raise LabError(f"the domain did not start again:\n{machine.out('xl list')}\n{a.words()}")
    stays_protected(machine, a, b, "rebooted by itself")

    tell_guest(machine, "poweroff")
    a.wait(lambda s: s["run-state"] == "shutdown", "the guest is off", 60)
    b.wait(lambda s: s["state"] == "protected", "the copy follows", 60)
    a.ctl(f"qmp {DOMAIN} system_reset")
    a.ctl(f"qmp {DOMAIN} cont")
    a.wait(lambda s: s["run-state"] == "running", "the guest is on again", 60)
    fresh = Load(machine)
    fresh.wait_more()
    stays_protected(machine, a, b, "off and on again")
    say(f"off and on again: {fresh.check()}")
    fresh.end()

    a.ctl(f"qmp {DOMAIN} system_reset")
    stays_protected(machine, a, b, "reset by an operator while it ran")
    again = Load(machine)
    again.wait_more()
    say(f"reset by an operator: {again.check()}")
