# SPDX-License-Identifier: Apache-2.0
"""A peer that is lost, hangs, lies or cannot be reached, and device models that die."""
import os
import signal
import socket
import struct
import threading
import time

from relay import Relay
from scenario import BUSY, CALM, expect, finish, gaps_after, guest_is_sound, scenario, wait_flowing
from colo_lab import LabError
from colo_lab.config import REPLICATION_PORT
from colo_lab.net import address, run
from colo_lab.processes import socket_in, state_of
from colo_lab.qmp import QmpError
from colo_lab.sniffer import Sniffer


def standby_loss(lab, load, say, what, strike):
    """Something happens to the secondary b; the primary a must serve on and say that it is unprotected."""
    load.mark()
    moment = strike()
    status = lab.wait_alone(lab.a, 10)
    report = wait_flowing(load, moment)
    expect(not status["healthy"] and status["reason"], f"{what}: unprotected without saying so: {status}")
    say(f"{what}: answers after {gaps_after(report, moment)[0]:.0f}..{gaps_after(report, moment)[1]:.0f} ms; "
        f"status says '{status['reason']}'")


@scenario(120)
def standby_lost_and_hung(lab_factory, say):
    """Standby killed with its links, killed with links up, frozen whole, only its daemon frozen."""
    with lab_factory() as lab:
        lab.boot()
        load = lab.load(*CALM)
        lab.protect(lab.a)
        lab.settle(load, 1)
        standby_loss(lab, load, say, "standby lost", lab.b.die)
        lab.revive(lab.b)
        lab.protect(lab.a)
        standby_loss(lab, load, say, "standby killed, links up", lab.b.kill)
        lab.protect(lab.a)
        standby_loss(lab, load, say, "standby frozen (SIGSTOP)", lab.b.freeze)
        lab.b.thaw()
        time.sleep(1.0)
        expect(lab.b.status()["run-state"] != "running", "the woken standby runs the guest")
        expect(lab.a.status()["state"] == "unprotected", "the primary did not stay unprotected")
        lab.b.stop()
        lab.protect(lab.a)

        def freeze_daemon():
            moment = time.monotonic()
            os.kill(lab.b.pid, signal.SIGSTOP)
            return moment
        standby_loss(lab, load, say, "standby's daemon frozen, its device model runs", freeze_daemon)
        lab.b.kill()
        finish(lab, load, say)


@scenario(120)
def device_model_killed(lab_factory, say):
    """QEMU dies under either daemon: the primary abdicates at once; the secondary rolls forward or resigns."""
    with lab_factory() as lab:
        lab.boot()
        lab.protect(lab.a)
        load = lab.load(*CALM)
        lab.settle(load, 1)
        load.mark()
        moment = time.monotonic()
        os.kill(lab.b.qemu_pid(), signal.SIGKILL)
        report = wait_flowing(load, moment)
        time.sleep(1)
        status = lab.a.status()
        say(f"secondary's QEMU killed: answers after {gaps_after(report, moment)[1]:.0f} ms, primary is {status['state']} "
            f"('{status['reason']}')")
        if status["state"] != "protected":
            lab.wait_alone(lab.a)
            lab.b.stop()
            lab.protect(lab.a)
        lab.wait_protected(lab.a)
        load.mark()
        moment = time.monotonic()
        os.kill(lab.a.qemu_pid(), signal.SIGKILL)
        lab.wait_alone(lab.b, 10)
        report = wait_flowing(load, moment)
        say(f"primary's QEMU killed: next answer after {gaps_after(report, moment)[0]:.0f} ms")
        expect(lab.a.running(), "the daemon died with its device model")
        expect(lab.a.status()["run-state"] != "running", "the old primary says that it runs")
        lab.a.stop()
        lab.protect(lab.b)
        finish(lab, load, say)


@scenario(120)
def device_model_hung(lab_factory, say):
    """QEMU stops answering (SIGSTOP of QEMU alone) on the primary: it is killed, and the other side takes over."""
    with lab_factory() as lab:
        lab.boot()
        lab.protect(lab.a)
        load = lab.load(*CALM)
        lab.settle(load, 1)
        load.mark()
        moment = time.monotonic()
        os.kill(lab.a.qemu_pid(), signal.SIGSTOP)
        lab.wait_alone(lab.b, 15)
        report = wait_flowing(load, moment)
        say(f"primary's QEMU hung: next answer after {gaps_after(report, moment)[0]:.0f} ms")
        finish(lab, load, say)


def never_again(lab, sniffer, since, host, say, what):
    """The host that was granted away must not emit in the guest's name nor run, now that it can again."""
    time.sleep(3)
    frames = sniffer.count(since)
    expect(frames == 0, f"{what}: {frames} frames of the guest from host {host.name}: {sniffer.last_frames()}")
    if host.running():
        status = host.status()
        expect(status["run-state"] != "running", f"{what}: host {host.name} says that it runs: {status['state']}")
        expect(status["state"] == "outdated", f"{what}: host {host.name} does not know that it is outdated: {status['state']}")
        for pid in host.qemu_pids():
            before = cpu_ticks(pid)
            time.sleep(0.5)
            expect(cpu_ticks(pid) - before < 10, f"{what}: the old guest still uses CPU")
        try:
            host.qmp.execute("x-colo-lost-heartbeat")
            raise LabError(f"{what}: an outdated host accepts x-colo-lost-heartbeat")
        except QmpError as error:
            say(f"{what}: old primary emitted nothing, is {status['state']} and refuses to run: {error.description}")


def cpu_ticks(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@scenario(100)
def host_frozen_and_woken(lab_factory, say):
    """Both processes of the primary's host stop (SIGSTOP); the secondary is granted; then they wake up."""
    with lab_factory() as lab:
        lab.boot()
        lab.protect(lab.a)
        load = lab.load(*BUSY)
        lab.settle(load, 1.5)
        sniffer = Sniffer(lab.network, "a-wire")
        load.mark()
        moment = lab.a.freeze()
        expect(state_of(lab.a.pid) in ("T", "R", "S", "D"), "the daemon is gone instead of stopped")
        lab.wait_alone(lab.b, 10)
        granted = time.monotonic()
        report = wait_flowing(load, moment)
        say(f"host frozen: next answer after {gaps_after(report, moment)[0]:.0f} ms")
        lab.a.thaw()
        never_again(lab, sniffer, granted, lab.a, say, "frozen host woken")
        sniffer.close()
        lab.a.stop()
        lab.protect(lab.b)
        lab.wait_protected(lab.b)
        guest_is_sound(lab)
        finish(lab, load, say)


@scenario(100)
def host_black_holed(lab_factory, say):
    """Every link of the primary's host swallows frames, carrier on; the secondary takes over; the links come back."""
    # The arbiter can still be asked by both: who hears no client lets the other one go first, here by a wide margin.
    with lab_factory(settings={"arbiter": {"unreached_delay_ms": 5000}}) as lab:
        lab.boot()
        lab.protect(lab.a)
        load = lab.load(*CALM)
        lab.settle(load, 1)
        sniffer = Sniffer(lab.network, "a-wire")
        load.mark()
        moment = time.monotonic()
        lab.network.black_hole("a", ("wire", "repl", "beat0", "beat1"))
        lab.wait_alone(lab.b, 10)
        granted = time.monotonic()
        report = wait_flowing(load, moment)
        say(f"links black-holed: next answer after {gaps_after(report, moment)[0]:.0f} ms")
        lab.network.restore("a")
        never_again(lab, sniffer, granted, lab.a, say, "links are back")
        sniffer.close()
        finish(lab, load, say)


@scenario(120)
def link_between_hosts_black_holed(lab_factory, say):
    """Clients reach both hosts, the hosts not each other: the arbiter decides, exactly one side serves, none resets."""
    with lab_factory() as lab:
        lab.boot()
        lab.protect(lab.a)
        load = lab.load(*CALM)
        lab.settle(load, 1)
        load.mark()
        moment = time.monotonic()
        lab.network.black_hole("a", ("repl", "beat0", "beat1"))
        deadline = time.monotonic() + 10
        alone = []
        while time.monotonic() < deadline and not alone:
            alone = [host for host in (lab.a, lab.b) if host.status()["state"] == "unprotected"]
            time.sleep(0.05)
        report = wait_flowing(load, moment)
        time.sleep(2)
        running = [host.name for host in (lab.a, lab.b) if host.status()["run-state"] == "running"]
        expect(len(running) == 1, f"hosts that run the guest: {running}")
        winner = lab.hosts[running[0]]
        loser = lab.other(winner)
        status = loser.status()
        # An old secondary has nothing to keep: it waits already to be made a copy again, and says why.
        expect(status["state"] == "outdated" or (status["state"] == "waiting" and status["reason"].startswith("outdated")),
               f"the loser {loser.name} is not outdated: {status['state']}, {status['reason']}")
        say(f"{winner.name} went on, {loser.name} is outdated; answers after {gaps_after(report, moment)[0]:.0f} ms")
        lab.network.restore("a")
        time.sleep(1)
        expect(loser.status()["run-state"] != "running", "the loser runs again after the links came back")
        loser.stop()
        lab.protect(winner)
        finish(lab, load, say)


@scenario(150)
def one_path_of_many(lab_factory, say):
    """Losing one heartbeat path changes nothing; one direction of all of them ends the session on exactly one side."""
    with lab_factory() as lab:
        lab.boot()
        lab.protect(lab.a)
        load = lab.load(*CALM)
        generation = lab.a.status()["generation"]
        lab.network.black_hole("a", ("beat0",))
        time.sleep(2)
        status = lab.a.status()
        expect(status["state"] == "protected" and status["generation"] == generation, f"one path lost: {status['state']}")
        dead = [path["local"] for path in status["heartbeat"] if not path["alive"]]
        expect(len(dead) == 1, f"paths shown as dead: {dead}")
        say(f"one heartbeat path lost: still protected, status shows {dead[0]} as dead")
        lab.network.restore("a", ("beat0",))
        time.sleep(0.5)
        moment = time.monotonic()
        lab.network.deafen("a", "b", ("repl", "beat0", "beat1"))
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            states = [host.status() for host in (lab.a, lab.b)]
            if any(s["state"] == "unprotected" for s in states):
                break
            time.sleep(0.05)
        wait_flowing(load, moment)
        time.sleep(1.5)
        running = [host.name for host in (lab.a, lab.b) if host.status()["run-state"] == "running"]
        expect(len(running) == 1, f"one direction lost: hosts that run the guest: {running}")
        say(f"a to b lost, b to a works: {running[0]} serves")
        lab.network.undeafen("a", "b", ("repl", "beat0", "beat1"))
        finish(lab, load, say)


def fake_peer(lab, behaviour, port):
    """A listener in b's namespace that accepts connections and misbehaves. Returns (close, accepted connections)."""
    listener = socket_in(lab.network.namespace("b"))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address("b"), port))
    listener.listen(8)
    accepted = []

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            accepted.append(connection)
            threading.Thread(target=behaviour, args=(connection,), daemon=True).start()
    threading.Thread(target=serve, daemon=True).start()
    return listener.close, accepted


def half_an_answer(connection):
    head = connection.recv(24)
    connection.sendall(head[:13])
    connection.close()


def garbage(connection):
    connection.sendall(os.urandom(4096))


def silence(connection):
    while connection.recv(65536):
        pass


@scenario(120)
def peer_misbehaves(lab_factory, say):
    """What listens at the peer's address closes mid-frame, talks garbage, or says nothing; then callers do the same to a
    waiting secondary. Neither daemon may crash, hang or touch its guest, and a real session works afterwards."""
    with lab_factory() as lab:
        lab.boot()
        load = lab.load(*CALM)
        for port, behaviour in enumerate((half_an_answer, garbage, silence), REPLICATION_PORT + 1):
            close, accepted = fake_peer(lab, behaviour, port)
            lab.a.coloctl("protect", "--wait", "5", "--to", f"tcp:{address('b')}:{port}", check=False)
            status = lab.a.wait_status(lambda s: s["state"] == "unprotected" and s["run-state"] == "running",
                                       f"unprotected again after {behaviour.__name__}", 20)
            expect(accepted, f"{behaviour.__name__}: the primary never connected")
            say(f"peer does {behaviour.__name__}: '{status['reason']}'")
            close()
        lab.b.start("secondary")
        frames = (b"", b"C", os.urandom(3), os.urandom(20), os.urandom(70000), struct.pack("<I", 0xffffffff) * 64,
                  b"\x00" * 100)
        for data in frames:
            with socket_in(lab.network.namespace("a")) as connection:
                connection.settimeout(5)
                connection.connect((address("b"), REPLICATION_PORT))
                try:
                    connection.sendall(data)
                except OSError:
                    pass
        time.sleep(0.5)
        expect(lab.b.running(), f"the secondary died\n{lab.b.log_tail()}")
        lab.b.stop()
        lab.protect(lab.a)
        say(f"secondary survived {len(frames)} broken callers")
        finish(lab, load, say)


@scenario(90)
def page_connection_lost_on_the_way(lab_factory, say):
    """One of the two page connections never arrives: the secondary must not wait for its chunks, but say what is wrong."""
    with lab_factory(settings={"replication": {"page_channels": 2}}) as lab:
        lab.boot()
        load = lab.load(*CALM)
        lab.b.start("secondary")
        relay = Relay(lab, "b", REPLICATION_PORT + 10, swallow=2)  # control, page, page, proxy
        lab.a.qmp.execute("x-colo-protect", {"uri": relay.uri})
        expected = "Hello names 2 page channels, but 1 came"
        status = lab.a.wait_status(lambda s: s["state"] == "unprotected" and s["reason"] and relay.swallowed,
                                   "unprotected again", 20)
        expect(status["run-state"] == "running", f"the guest does not run: {status}")
        expect(expected in lab.b.log(), f"the secondary does not say why\n{lab.b.log_tail()}")
        say(f"the primary says '{status['reason']}', the secondary '{expected}'")
        relay.close()
        if lab.b.status()["state"] != "waiting":
            lab.b.stop()
        lab.protect(lab.a)
        say("the next session is whole")
        finish(lab, load, say)


def connections_to(lab, host):
    """TCP connections of a session, as the host that was dialled sees them."""
    lines = run(*lab.network.command(host.name, "ss", "-Htn", "state", "established",
                                     "sport", "=", f":{REPLICATION_PORT}")).splitlines()
    return len([line for line in lines if line.strip()])


@scenario(90)
def page_connections_of_the_next_session(lab_factory, say):
    """multifd-channels while protected changes nothing of this session, and the number of page connections of the next."""
    with lab_factory(settings={"replication": {"page_channels": 2}}) as lab:
        lab.boot()
        lab.protect(lab.a)
        others = connections_to(lab, lab.b) - 2
        expect(others == 2, f"{others} connections beside two of pages, not control and proxy")
        lab.a.qmp.execute("migrate-set-parameters", {"multifd-channels": 5})
        lab.wait_protected(lab.a, checkpoints=lab.a.status()["checkpoints"]["count"] + 2)
        expect(connections_to(lab, lab.b) - others == 2, "a session under way changed its page connections")
        lab.b.stop()
        lab.wait_alone(lab.a)
        lab.protect(lab.a)
        came = connections_to(lab, lab.b) - others
        expect(came == 5, f"{came} page connections instead of 5")
        load = lab.load(*CALM)
        lab.settle(load, 1)
        say("2 page connections, 5 in the next session, which carries checkpoints")
        finish(lab, load, say)


@scenario(120)
def peer_closes_mid_frame(lab_factory, say):
    """Every replication connection breaks in the middle of a chunk of pages, while both daemons and the heartbeat live.
    One side goes on with the service, by the arbiter's word; the other one stops and can be the next secondary."""
    with lab_factory() as lab:
        lab.boot()
        load = lab.load(*CALM)
        lab.control("dirty 100 96")
        primary = lab.a
        for number, first in enumerate(("near", "far")):
            secondary = lab.other(primary)
            if secondary.running():
                secondary.stop()
            secondary.start("secondary")
            relay = Relay(lab, secondary.name, REPLICATION_PORT + 10 + number)
            primary.qmp.execute("x-colo-protect", {"uri": relay.uri})
            before = lab.wait_protected(primary)
            load.mark()
            relay.cut(first)
            moment = time.monotonic()
            winner = goes_on_alone(lab)
            took_ms = (time.monotonic() - moment) * 1000
            relay.close()
            report = lab.settle(load, 1)
            loser = lab.other(winner)
            expect(primary.running() and secondary.running(), "a daemon ended; only its connections were to break")
            status = loser.status()
            expect(status["run-state"] != "running", f"both sides run the guest: {status['state']}, {status['reason']}")
            expect(winner.status()["generation"] > before["generation"], "it went on without a grant")
            say(f"cut, the {'primary' if first == 'near' else 'secondary'} hears first: {winner.name} goes on after "
                f"{took_ms:.0f} ms, longest gap {report['sums']['longest_gap_ms']:.0f} ms; "
                f"{loser.name} is {status['state']}: {status['reason']}")
            primary = winner
        guest_is_sound(lab)
        finish(lab, load, say)


def goes_on_alone(lab, timeout=20.0):
    """The one host that serves unprotected after both had lost each other."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        for host in (lab.a, lab.b):
            status = host.status()
            if status["role"] == "primary" and status["state"] == "unprotected" and status["run-state"] == "running":
                return host
        time.sleep(0.02)
    raise LabError(f"nobody went on: {[host.status()['state'] for host in (lab.a, lab.b)]}\n{lab.a.log_tail()}")
