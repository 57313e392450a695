# SPDX-License-Identifier: Apache-2.0
"""What the operator types: planned failover, x-colo-lost-heartbeat, the arbiters, refusals."""
import json
import os
import time

from scenario import CALM, expect, finish, lose_primary, refused, scenario, wait_flowing
from colo_lab import LabError, guest
from colo_lab.config import REPLICATION_PORT
from colo_lab.net import address


@scenario(90)
def planned_failover(lab_factory, say):
    """Negotiated with both sides alive: on the secondary the primary hands over, on the primary the secondary resigns."""
    with lab_factory() as lab:
        lab.boot()
        lab.protect(lab.a)
        load = lab.load(*CALM)
        lab.settle(load, 1)
        load.mark()
        moment = time.monotonic()
        lab.b.coloctl("failover")
        lab.wait_alone(lab.b)
        report = wait_flowing(load, moment)
        expect(lab.a.status()["run-state"] != "running", "both sides run after a handover")
        say(f"failover asked of the secondary: longest gap {report['sums']['longest_gap_ms']:.0f} ms")
        lab.a.stop()
        lab.protect(lab.b)
        load.mark()
        moment = time.monotonic()
        lab.b.coloctl("failover")
        lab.wait_alone(lab.b)
        report = wait_flowing(load, moment)
        expect(lab.a.status()["run-state"] != "running", "the secondary runs after it resigned")
        say(f"failover asked of the primary: longest gap {report['sums']['longest_gap_ms']:.0f} ms")
        lab.a.stop()
        lab.protect(lab.b)
        lab.b.qmp.execute("x-colo-unprotect")
        lab.wait_alone(lab.b)
        finish(lab, load, say)


@scenario(120)
def lost_heartbeat_command(lab_factory, say):
    """x-colo-lost-heartbeat with a live peer on either side, and with arbiter manual after a real loss."""
    with lab_factory(settings={"arbiter": {"kind": "manual", "directory": None}}) as lab:
        lab.boot()
        say(f"without a session: {refused(lab.a, 'x-colo-lost-heartbeat')}")
        lab.protect(lab.a)
        load = lab.load(*CALM)
        lab.settle(load, 1)
        lab.a.die()
        lab.b.wait_status(lambda s: s["state"] == "peer-lost", "peer lost, waiting for the operator", 10)
        time.sleep(1.5)
        status = lab.b.status()
        expect(status["state"] == "peer-lost" and status["run-state"] != "running" or status["role"] == "secondary",
               f"arbiter manual, but it went on by itself: {status['state']}")
        expect(not status["healthy"] and status.get("advice"), f"no advice for the operator: {status}")
        say(f"arbiter manual waits and advises: {status['advice']}")
        moment = time.monotonic()
        lab.b.qmp.execute("x-colo-lost-heartbeat")
        lab.wait_alone(lab.b)
        answer = lab.b.qmp.execute("query-colo-status")
        expect(answer["last-mode"] == "secondary" and answer["reason"] == "request", f"query-colo-status: {answer}")
        lab.b.qmp.wait_event("COLO_EXIT", 5)
        wait_flowing(load, moment)
        say(f"a second call: {refused(lab.b, 'x-colo-lost-heartbeat')}")
        lab.revive(lab.a)
        lab.protect(lab.b)
        lab.a.die()
        lab.b.wait_status(lambda s: s["state"] == "peer-lost", "standby lost, waiting for the operator", 10)
        lab.b.qmp.execute("x-colo-lost-heartbeat")
        lab.wait_alone(lab.b)
        wait_flowing(load, time.monotonic())
        say("on the primary after the loss of the standby: went on")
        finish(lab, load, say)


@scenario(120)
def arbiter_command(lab_factory, say):
    """The fence command is called with the facts, its exit status decides, and a failing one never grants."""
    with lab_factory() as lab:
        script = os.path.join(lab.directory, "fence")
        record = os.path.join(lab.directory, "fence.log")
        verdict = os.path.join(lab.directory, "fence.verdict")
        with open(script, "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\n"
                       f"echo \"$COLO_DOMAIN $COLO_ROLE $COLO_GENERATION $COLO_PEER\" >> {record}\nexit $(cat {verdict})\n")
        os.chmod(script, 0o755)
        with open(verdict, "w", encoding="utf-8") as file:
            file.write("1")
        lab.settings = {"arbiter": {"kind": "command", "directory": None, "command": script, "fence_delay_ms": 300}}
        lab.boot()
        lab.protect(lab.a)
        load = lab.load(*CALM)
        lab.settle(load, 1)
        load.mark()
        moment = lab.a.die()
        lab.b.wait_status(lambda s: s["state"] == "peer-lost", "peer lost", 10)
        time.sleep(2)
        expect(lab.b.status()["state"] == "peer-lost", "went on although the fence command failed")
        with open(verdict, "w", encoding="utf-8") as file:
            file.write("0")
        lab.wait_alone(lab.b, 15)
        wait_flowing(load, moment)
        with open(record, encoding="utf-8") as file:
            calls = file.read().splitlines()
        expect(len(calls) >= 2 and calls[0].split()[1] == "secondary", f"calls of the fence command: {calls}")
        say(f"{len(calls)} calls of the fence command, first '{calls[0]}'; granted only by exit status 0")
        finish(lab, load, say)


@scenario(90)
def arbiter_lock_unreachable(lab_factory, say):
    """The lock directory is away: unknown is not granted, output is held; when it is back the decision falls."""
    with lab_factory() as lab:
        lab.boot()
        lab.protect(lab.a)
        load = lab.load(*CALM)
        lab.settle(load, 1)
        away = lab.lock_directory + ".away"
        os.rename(lab.lock_directory, away)
        moment = lab.a.die()
        lab.b.wait_status(lambda s: s["state"] == "peer-lost", "peer lost", 10)
        time.sleep(2)
        status = lab.b.status()
        expect(status["state"] == "peer-lost", f"no arbiter, but state {status['state']}")
        say(f"lock directory away: '{status['reason']}'")
        os.rename(away, lab.lock_directory)
        lab.wait_alone(lab.b, 15)
        wait_flowing(load, moment)
        say("lock directory back: went on")
        finish(lab, load, say)


@scenario(150)
def accepted_data_loss_in_a_running_daemon(lab_factory, say):
    """`failover --accept-data-loss` without a restart: a standby boots anew, a stopped old primary goes on and is heard."""
    with lab_factory() as lab:
        lab.boot()
        lab.b.start("secondary")
        lab.a.die()
        lab.b.coloctl("failover", "--accept-data-loss")
        lab.wait_alone(lab.b, 60)
        guest.wait_answering(lab.network, timeout=120, alive=lab.b.running)
        say(f"standby that never was a copy: booted, generation {lab.b.status()['generation']}")
        lab.revive(lab.a)
        lab.protect(lab.b)
        load = lab.load(*CALM)
        lab.settle(load, 1)
        lab.a.coloctl("failover")
        lab.wait_alone(lab.a)
        finish(lab, load, say)
        expect(lab.b.status()["run-state"] != "running", "both sides run after a handover")
        lab.a.die()
        lab.b.coloctl("failover", "--accept-data-loss")
        lab.wait_alone(lab.b, 20)
        guest.wait_answering(lab.network, timeout=30, alive=lab.b.running)
        say(f"old primary with its stopped guest: goes on, generation {lab.b.status()['generation']}")
        lab.b.qmp.execute("stop")
        expect(lab.b.status()["run-state"] == "paused", "stop did not pause the guest")
        lab.b.qmp.execute("cont")


@scenario(60)
def returning_primary_does_not_boot(lab_factory, say):
    """The old primary's daemon is started again as primary, as a careless unit would: it must not run the guest."""
    with lab_factory() as lab:
        lab.boot()
        lab.protect(lab.a)
        load = lab.load(*CALM)
        lab.settle(load, 1)
        lose_primary(lab, lab.a, load)
        lab.revive(lab.a)
        try:
            lab.a.start("primary")
            time.sleep(3)
            status = lab.a.status()
            expect(status["run-state"] != "running", f"it runs: {status['state']}")
            say(f"old primary, started again: {status['state']} ('{status['reason']}')")
            lab.a.stop()
        except LabError as error:
            expect("ended with status" in str(error), str(error))
            say("old primary, started again: refuses to start")
        lab.protect(lab.b)
        finish(lab, load, say)


@scenario(90)
def first_copy_given_up(lab_factory, say):
    """The operator ends protection during the first copy, the secondary is told to listen elsewhere, and ends a complete
    session from its side. Every command is answered, and refusals have the text that clients know."""
    with lab_factory() as lab:
        lab.boot()
        lab.b.start("secondary")
        uri = f"tcp:{address('b')}:{REPLICATION_PORT + 20}"
        lab.b.qmp.execute("migrate-set-capabilities", {"capabilities": [{"capability": "x-colo", "state": True}]})
        text = refused(lab.b, "migrate-incoming", {"uri": uri})
        expect(text == "The incoming migration has already been started", f"second migrate-incoming: {text}")
        lab.a.qmp.execute("migrate-set-parameters", {"max-bandwidth": 1 << 20})
        lab.a.begin_protection()
        lab.a.wait_status(lambda s: s["state"] == "synchronizing", "first copy under way", 20)
        moment = time.monotonic()
        lab.a.coloctl("unprotect")
        took = time.monotonic() - moment
        expect(took < 4, f"coloctl unprotect took {took:.1f} s during the first copy")
        lab.b.wait_status(lambda s: s["state"] == "waiting" and "waits for a primary" in s["reason"], "waiting again", 30)
        lab.b.qmp.execute("migrate-incoming", {"uri": uri})
        lab.a.qmp.execute("migrate-set-parameters", {"max-bandwidth": 1 << 30})
        lab.a.coloctl("protect", "--to", uri)
        lab.wait_protected(lab.a)
        remote = lab.a.status()["remote"]
        expect(remote["role"] == "secondary" and remote.get("state") == "protected" and remote["healthy"], f"peer: {remote}")
        lab.b.coloctl("unprotect")
        status = lab.wait_alone(lab.a)
        expect("state" not in status.get("remote", {}), f"a state of a peer that is in no session: {status['remote']}")
        text = refused(lab.a, "xen-save-devices-state", {"filename": "/no/such/file"})
        expect(text == "Unable to open /no/such/file: No such file or directory", f"xen-save-devices-state: {text}")
        expect(lab.guest_answers(), "the guest does not answer after all this")
        say(f"first copy given up in {took:.2f} s; listened elsewhere; ended from the secondary; '{text}'")


def too_early(host, say):
    """A daemon that is on its way up says so, in the status and to whoever wants more."""
    before = host.status()
    protect = host.coloctl("protect", check=False)
    if host.status()["state"] != "waiting":
        return say("the guest was up before anybody could ask")
    expect(before["reason"] == "the guest is being booted", f"a daemon that starts gives as its reason {before['reason']!r}")
    expect(protect.returncode == 1 and "still starting: the guest is being booted; try again" in protect.stdout,
           f"coloctl protect of a daemon that starts: {protect.returncode}: {protect.stdout}")
    expect("waiting: the guest is being booted" in host.log(), f"the log does not tell of the start\n{host.log_tail()}")
    say(f"while it starts: {protect.stdout.strip()}")


@scenario(60)
def coloctl_speaks(lab_factory, say):
    """What scripts and people read: status of both ends in text and JSON, events, exit statuses."""
    with lab_factory() as lab:
        lab.a.start("primary")
        too_early(lab.a, say)
        guest.wait_answering(lab.network, 120, lab.a.running)
        lab.protect(lab.a)
        text = lab.a.coloctl("status").stdout
        expect("demo" in text and "protected" in text, f"coloctl status: {text}")
        peer = lab.b.status()["remote"]["address"]
        expect(peer == f"tcp:{address('a')}", f"the secondary's peer is where it is, not the port it called from: {peer}")
        quoted = [line for line in lab.a.log().splitlines() if "Assertion" in line and " debug " not in line]
        expect(not quoted, f"an operator reads what happened inside QEMU: {quoted}")
        data = json.loads(lab.a.coloctl("status", "-o", "json").stdout)
        expect(data, "coloctl status -o json is empty")
        answer = json.loads(lab.a.coloctl("qmp", "query-status").stdout)
        expect("running" in json.dumps(answer), f"coloctl qmp query-status: {answer}")
        bad = lab.a.coloctl("qmp", "no-such-command", check=False)
        expect(bad.returncode != 0, "coloctl qmp no-such-command: exit status 0")
        gone = lab.a.coloctl("--socket", "/nonexistent/socket", "status", check=False)
        expect(gone.returncode != 0, "coloctl status without a daemon: exit status 0")
        say(text.strip().splitlines()[-1])
        expect(lab.b.stop() == 0, "SIGTERM of the secondary: exit status not 0")
        lab.wait_alone(lab.a)
        expect(lab.a.stop() == 0, "SIGTERM of the primary: exit status not 0")
