# SPDX-License-Identifier: Apache-2.0
"""The service on two lab hosts. They have a cable for themselves and one to the client's network, and share a directory."""
import os
import shutil
import threading
import time

from lab import guests
from lab.cable import Cable
from lab.common import LabError, path, say, write_text
from lab.machine import Machine
from lab.protect import BRIDGE, CLIENT, DOMAIN, Side, begin_pair, install, pause_both, protect_by, stand_by, took_over

CHECKPOINTS = 10
CABLES = """
mkdir -p /shared
mount -t 9p -o trans=virtio,version=9p2000.L,cache=none shared /shared
for address in /sys/class/net/*/address; do
  case $(cat $address) in
  52:54:00:c0:02:*) interface=${address%/address}; ip link set ${interface##*/} master br0 up ;;
  esac
done
"""
LOCK = 'kind = "lock"\ndirectory = "/shared"'
COMMAND = 'kind = "command"\ncommand = "/root/fence"\ntimeout_ms = 40000'
# What stands for a fence agent: asks the switch of the power for the other host's.
FENCE = """#!/bin/sh
: >/shared/{me}-wants-{peer}-off
tries=0
until [ -e /shared/{peer}-is-off ]; do
  tries=$((tries + 1))
  [ $tries -lt 600 ] || exit 1
  sleep 0.05
done
"""


class Pair:
    """The two machines; b has the client."""

    def __init__(self):
        self.cables = {"peer": Cable(), "lan": Cable()}
        self.shared = path("run", "shared")
        self.machines = [Machine(f"test-{side}", number, {"shared": self.shared}) for number, side in ((1, "a"), (2, "b"))]
        self.name = "test-a and test-b"

    def boot(self):
        shutil.rmtree(self.shared, ignore_errors=True)
        os.makedirs(self.shared, mode=0o700)
        return self.boot_one(0) + self.boot_one(1)

    def boot_one(self, end):
        machine = self.machines[end]
        seconds = machine.boot({name: cable.options(end) for name, cable in self.cables.items()})
        install(machine)
        machine.run(BRIDGE + CABLES + (CLIENT if end == 1 else ""))
        write_text(machine.file("share", "fence"), FENCE.format(me="ab"[end], peer="ba"[end]))
        machine.run("cp /share/fence /root/fence; chmod +x /root/fence")
        return seconds

    def stop(self):
        for machine in self.machines:
            machine.stop()
        for cable in self.cables.values():
            cable.close()

    def signs_of_lost_state(self):
        signs = [machine.signs_of_lost_state() for machine in self.machines if machine.pid()]
        return tuple("\n".join(filter(None, (one[kind] for one in signs))) for kind in range(3))

    def sides(self, arbiter):
        addresses = [f"192.168.77.{machine.number}" for machine in self.machines]
        return [Side(machine, side, arbiter, (addresses[end], addresses[1 - end]))
                for end, (machine, side) in enumerate(zip(self.machines, "ab"))]


class PowerSwitch:
    """Turns a host off for the other one. It is in the client's network, as b is; a is connected to that by a cable."""

    def __init__(self, pair):
        self.pair, self.ends, self.trouble = pair, False, None
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ends = True
        self.thread.join()
        if self.trouble:   # whatever else failed, failed because of it
            raise LabError(f"the power switch broke: {self.trouble}")

    def file(self, name):
        return os.path.join(self.pair.shared, name)

    def run(self):
        try:
            while not self.ends:
                time.sleep(0.05)
                self.look()
        except Exception as e:   # a thread's would be lost
            self.trouble = repr(e)

    def look(self):
        for end, me, peer in ((1, "a", "b"), (0, "b", "a")):
            wish = self.file(f"{me}-wants-{peer}-off")
            if not os.path.exists(wish):
                continue
            os.unlink(wish)   # what is not heard is lost
            if me == "a" and not self.pair.cables["lan"].whole:
                say(f"host {me} wants {peer} turned off, and is not heard")
                continue
            say(f"host {peer} is turned off")
            self.pair.machines[end].stop()
            write_text(self.file(f"{peer}-is-off"), "")


def compare_frames(a, b):
    pause_both(a, b)
    mine, theirs = (side.machine.out(f"/root/xen_compare {name}", timeout=300).splitlines()
                    for side, name in ((a, DOMAIN), (b, DOMAIN + "--incoming")))
    differ = [pair for pair in zip(mine, theirs) if pair[0] != pair[1]]
    if differ or len(mine) != len(theirs) or not mine:
        raise LabError(f"at a cut of both sides {len(differ)} of {len(mine)} and {len(theirs)} frames differ: {differ[:16]}")
    say(f"at a cut of both hosts 0 of {len(mine)} frames differ")
    a.ctl(f"qmp {DOMAIN} cont")


def checkpoints(a, load):
    a.wait_checkpoints(CHECKPOINTS)
    say(f"after {CHECKPOINTS} checkpoints: {load.check()}")


def one_of(a, b):
    """The link is cut: waits until one side is the domain and the other one knows that it is not; returns them in this order."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        states = a.status(), b.status()
        for (winner, mine), (loser, theirs) in (((a, states[0]), (b, states[1])), ((b, states[1]), (a, states[0]))):
            if mine["role"] == "primary" and mine["state"] == "unprotected" and theirs.get("outdated"):
                return winner, loser
        time.sleep(0.5)
    raise LabError(f"no winner after the link was cut: {states}\n{a.words()}\n{b.words()}")


def lock(pair):
    """The hosts lose each other: one of them goes on, with everything; then they find each other again."""
    a, b = pair.sides(LOCK)
    load = begin_pair(a, b)
    checkpoints(a, load)
    compare_frames(a, b)
    load.wait_more()
    pair.cables["peer"].cut()
    winner, loser = one_of(a, b)
    say(f"the link is cut, and {winner.side} goes on")
    load.wait_more()

    pair.cables["peer"].mend()
    loser.kill()
    stand_by(loser)
    protect_by(winner)
    load.wait_more()
    compare_frames(winner, loser)
    load.wait_more()
    say(f"protected again: {load.check()}")


def command(pair):
    """One host is cut off from everything: the other one turns it off before it goes on; then it is replaced."""
    a, b = pair.sides(COMMAND)
    with PowerSwitch(pair) as power:
        load = begin_pair(a, b)
        checkpoints(a, load)
        for cable in pair.cables.values():
            cable.cut()
        took_over(b.machine, b, load, 0)
        if a.machine.pid():
            raise LabError(f"host a was not turned off, and b goes on\n{b.words()}")

        for cable in pair.cables.values():
            cable.mend()
        os.unlink(power.file("a-is-off"))
        pair.boot_one(0)
        a, _ = pair.sides(COMMAND)   # what it had is gone
        stand_by(a)
        protect_by(b)
        load.wait_more()
        compare_frames(b, a)
        load.wait_more()
        say(f"protected again, by a host that began anew: {load.check()}")
