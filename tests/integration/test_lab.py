# SPDX-License-Identifier: Apache-2.0
"""The lab itself, with a plain guest: that its cuts cut, its watchers see, and a lost guest is noticed as lost."""
import os
import signal
import socket
import time

from scenario import expect, gaps_after, scenario
from colo_lab import LabError
from colo_lab.lab import check_unharmed
from colo_lab.net import address, run
from colo_lab.processes import socket_in
from colo_lab.sniffer import Sniffer


def heard(lab, sender, receiver, purpose):
    """Does a datagram from sender arrive at receiver?"""
    with socket_in(lab.network.namespace(receiver), kind=socket.SOCK_DGRAM) as ear, \
            socket_in(lab.network.namespace(sender), kind=socket.SOCK_DGRAM) as mouth:
        ear.bind((address(receiver, purpose), 5555))
        ear.settimeout(0.3)
        for _ in range(3):
            try:
                mouth.sendto(b"x", (address(receiver, purpose), 5555))
                if ear.recv(10) == b"x":
                    return True
            except OSError:
                pass
        return False


def carrier(lab, which, device):
    return "LOWER_UP" in run("ip", "-n", lab.network.namespace(which), "link", "show", "dev", device)


@scenario(10)
def lab_measures_or_says_so(_lab_factory, say):
    """A gap that nobody measured is an error, not 0 ms."""
    def flow(ended, is_open=False, kind="echo"):
        return {"kind": kind, "gap_ended_s": ended, "gap_open": is_open}
    expect(gaps_after({"flows": [flow(10.5), flow(11), flow(9), flow(12, True)]}, 10) == (500.0, 1000.0), "wrong gaps")
    for flows in ([], [flow(9)], [flow(12, True)], [flow(12, kind="udp")]):
        try:
            measured = gaps_after({"flows": flows}, 10)
        except LabError:
            continue
        raise LabError(f"{flows} were taken for gaps of {measured} ms")
    say("gaps are measured or refused")


@scenario(60)
def lab_cuts_cut(lab_factory, say):
    with lab_factory() as lab:
        network = lab.network
        expect(heard(lab, "a", "b", "repl") and heard(lab, "b", "a", "beat1"), "the links do not work to begin with")
        network.black_hole("a", ("repl",))
        expect(carrier(lab, "a", "repl0"), "a black hole takes the carrier away")
        expect(not heard(lab, "a", "b", "repl") and not heard(lab, "b", "a", "repl"), "a black hole lets frames through")
        expect(heard(lab, "a", "b", "beat0"), "a black hole cuts another link too")
        network.restore("a", ("repl",))
        expect(heard(lab, "a", "b", "repl"), "a restored link does not work")
        network.drop("a")
        expect(not carrier(lab, "a", "repl0") and not carrier(lab, "a", "wire0"), "a dropped link has its carrier")
        expect(not heard(lab, "b", "a", "beat0"), "a dropped link lets frames through")
        network.restore("a")
        expect(heard(lab, "b", "a", "beat0") and heard(lab, "a", "b", "repl"), "links do not come back after a drop")
        network.deafen("a", "b", ("beat0",))
        expect(not heard(lab, "a", "b", "beat0"), "the deaf direction hears")
        expect(heard(lab, "b", "a", "beat0"), "the other direction is deaf too")
        network.undeafen("a", "b", ("beat0",))
        expect(heard(lab, "a", "b", "beat0"), "still deaf")
        say("drop, black hole and one-way cut do what they say, and are undone")


@scenario(60)
def lab_notices_a_lost_guest(lab_factory, say):
    """Without protection a killed guest must show up as harm: a test that could not fail would prove nothing."""
    with lab_factory() as lab:
        plain = lab.plain()
        sniffer = Sniffer(lab.network, "plain0")
        load = lab.load("echo count=2 interval_ms=5", "upload mb_per_s=2", "download mb_per_s=2")
        lab.settle(load, 1)
        expect(sniffer.count() > 100, f"the watcher saw {sniffer.count()} frames of a busy guest")
        os.kill(plain.process.pid, signal.SIGSTOP)
        load.mark()
        time.sleep(0.7)
        os.kill(plain.process.pid, signal.SIGCONT)
        time.sleep(0.5)
        gap = load.report()["sums"]["longest_gap_ms"]
        expect(gap > 650, f"a stop of 700 ms was measured as {gap} ms")
        stopped_at = time.monotonic()
        os.kill(plain.process.pid, signal.SIGSTOP)
        time.sleep(0.3)
        expect(sniffer.count(stopped_at + 0.1) == 0, "frames of a stopped guest")
        os.kill(plain.process.pid, signal.SIGCONT)
        # The same machine, booted again: its kernel knows nothing of the old connections and resets them.
        plain.stop()
        plain.start()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and load.report()["sums"]["lost"] < 4:
            time.sleep(0.2)
        try:
            check_unharmed(load.report())
        except LabError as error:
            say(f"a guest that was merely restarted is noticed: {error}")
        else:
            raise LabError("a restarted guest went unnoticed")
        sniffer.close()
        load.close()
