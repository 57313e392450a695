# SPDX-License-Identifier: Apache-2.0
"""A guest moves to another host and back while clients talk to it; and it stays where it is when that does not work."""
import time

from scenario import BUSY, CALM, expect, finish, guest_is_sound, refused, scenario, wait_flowing
from colo_lab import LabError
from colo_lab.config import REPLICATION_PORT
from colo_lab.net import address

CRAWL = 4_000_000   # bytes a second: slow enough to be met in mid-way
PATIENT = {"heartbeat": {"progress_timeout_ms": 10_000}}   # a busy machine is not what is tested here


def uri_of(host):
    return f"tcp:{address(host.name)}:{REPLICATION_PORT}"


def capability(host, **states):
    host.qmp.execute("migrate-set-capabilities", {"capabilities": [
        {"capability": name.replace("_", "-"), "state": state} for name, state in states.items()]})


def look(host):
    return host.qmp.execute("query-migrate")


def until(host, condition, what, timeout=60.0):
    deadline = time.monotonic() + timeout
    while True:
        info = look(host)
        if condition(info):
            return info
        if time.monotonic() > deadline or info.get("status") in ("failed", "cancelled"):
            raise LabError(f"host {host.name}: not {what} in {timeout} s: {info}\n{host.log_tail()}")
        time.sleep(0.02)


def story(host, events=None):
    """What the events say, without those of the network and of the state."""
    return [event["event"] + (" " + event["data"]["status"] if event["event"] == "MIGRATION" else "")
            for event in (host.qmp.take_events() if events is None else events) if event["event"] in ("MIGRATION", "STOP", "RESUME")]


def story_of_source(host, info):
    """The same, after a look at the passes: one by one, the last of them over a guest that stands still."""
    events = host.qmp.take_events()
    names = [event["event"] for event in events]
    passes = [event["data"]["pass"] for event in events if event["event"] == "MIGRATION_PASS"]
    expect(passes == list(range(1, info["ram"]["dirty-sync-count"] + 1)), f"passes {passes}, counted {info['ram']}")
    last = len(names) - 1 - names[::-1].index("MIGRATION_PASS")
    expect("STOP" in names[:last], f"the last pass is announced before the guest stops: {names}")
    return story(host, events)


def moved(lab, source, target, load, moment, say, how):
    info = until(source, lambda i: i["status"] in ("completed", "failed"), "over")
    expect(info["status"] == "completed", f"the migration failed: {info}\n{source.log_tail()}\n{target.log_tail()}")
    expect(source.status()["run-state"] == "postmigrate", f"run state of the source: {source.status()['run-state']}")
    status = lab.wait_alone(target, 10)
    incoming = until(target, lambda i: i.get("status") == "completed", "completed on the destination", 10)
    report = wait_flowing(load, moment)
    ram = info["ram"]
    expect(len(ram) == 17 and ram["remaining"] == 0 and ram["dirty-sync-count"] >= 2 and ram["duplicate"] > 0
           and ram["transferred"] == ram["precopy-bytes"] + ram["downtime-bytes"] + ram["postcopy-bytes"],
           f"statistics: {ram}")
    expect("downtime" in info and "expected-downtime" not in info and info["total-time"] > info["downtime"], f"times: {info}")
    expect("ram" not in incoming, f"a destination has no statistics: {incoming}")
    say(f"{how}: {info['total-time']} ms, down for {info['downtime']} ms, {ram['dirty-sync-count']} passes, "
        f"{ram['transferred'] / 1e6:.0f} MB, generation {status['generation']}; longest wait of a client, copying included, "
        f"{report['sums']['longest_gap_ms']:.0f} ms")
    return info


@scenario(240)
def migration(lab_factory, say):
    """There with migrate and migrate-incoming, back with coloctl and a wait before the switch-over; then protected again."""
    with lab_factory(settings=PATIENT) as lab:
        lab.boot()
        generation = lab.a.status()["generation"]
        lab.b.start("secondary", changes={"replication": {"listen": None}})
        lab.control("dirty 10 16")
        load = lab.load(*BUSY)
        lab.settle(load, 1)
        load.mark()
        for host in (lab.a, lab.b):
            capability(host, events=True)
            host.qmp.take_events()
        lab.b.qmp.execute("migrate-incoming", {"uri": uri_of(lab.b)})
        moment = time.monotonic()
        lab.a.qmp.execute("migrate", {"uri": uri_of(lab.b)})
        active = until(lab.a, lambda i: i["status"] != "setup" and i.get("ram", {}).get("transferred", 0) > 0, "active")
        expect(active["status"] == "active" and active["ram"]["total"] == 256 << 20 and "expected-downtime" in active,
               f"while it runs: {active}")
        info = moved(lab, lab.a, lab.b, load, moment, say, "there")
        expect(lab.b.status()["generation"] == generation + 1, "not the next generation")
        told = story_of_source(lab.a, info)
        expect(told == ["MIGRATION setup", "MIGRATION active", "STOP", "MIGRATION completed"], f"events of the source: {told}")
        told = story(lab.b)
        expect(told == ["MIGRATION setup", "MIGRATION active", "RESUME", "MIGRATION completed"],
               f"events of the destination: {told}")
        why = refused(lab.a, "cont")
        expect("migrated away" in why and "two copies of it must never run" in why, f"a guest that was given away: {why}")

        lab.a.stop()
        lab.a.start("secondary")
        capability(lab.b, pause_before_switchover=True)
        load.mark()
        lab.b.coloctl("migrate", uri_of(lab.a), "--wait", "0")
        until(lab.b, lambda i: i["status"] == "pre-switchover", "waiting before the switch-over")
        expect(lab.b.status()["run-state"] == "finish-migrate", f"run state: {lab.b.status()['run-state']}")
        moment = time.monotonic()
        lab.b.qmp.execute("migrate-continue", {"state": "pre-switchover"})
        moved(lab, lab.b, lab.a, load, moment, say, "back, with a wait")
        told = story(lab.b)
        expect(told == ["MIGRATION setup", "MIGRATION active", "STOP", "MIGRATION pre-switchover", "MIGRATION device",
                        "MIGRATION completed"], f"events of a migration with a wait: {told}")

        lab.b.stop()
        lab.protect(lab.a)
        lab.settle(load, 1)
        guest_is_sound(lab)
        finish(lab, load, say)


def stays(lab, load, moment, say, what):
    """The guest runs where it was, and nobody noticed more than a pause."""
    lab.wait_alone(lab.a, 15)
    report = wait_flowing(load, moment)
    expect(not lab.b.running() or lab.b.status()["run-state"] != "running", f"{what}: both run")
    say(f"{what}: goes on; longest wait of a client {report['sums']['longest_gap_ms']:.0f} ms")


@scenario(240)
def migration_that_fails(lab_factory, say):
    """Cancelled while it copies and before the switch-over; the destination dies in mid-way, when it has everything,
    and when it is given the guest."""
    with lab_factory(settings=PATIENT) as lab:
        lab.boot()
        lab.b.start("secondary")
        load = lab.load(*CALM)
        lab.settle(load, 1)

        def begin(bandwidth, state):
            lab.a.qmp.execute("migrate-set-parameters", {"max-bandwidth": bandwidth})
            load.mark()
            lab.a.qmp.execute("migrate", {"uri": uri_of(lab.b)})
            until(lab.a, lambda i: i["status"] == state, state)

        begin(CRAWL, "active")
        time.sleep(1)
        moment = time.monotonic()
        lab.a.qmp.execute("migrate_cancel")
        until(lab.a, lambda i: i["status"] == "cancelled", "cancelled", 10)
        stays(lab, load, moment, say, "cancelled while it copies")
        lab.b.wait_status(lambda s: s["state"] == "waiting", "waiting again", 30)

        capability(lab.a, pause_before_switchover=True)
        begin(0, "pre-switchover")
        moment = time.monotonic()
        lab.a.qmp.execute("migrate_cancel")
        until(lab.a, lambda i: i["status"] == "cancelled", "cancelled", 10)
        stays(lab, load, moment, say, "cancelled before the switch-over")
        capability(lab.a, pause_before_switchover=False)
        lab.b.wait_status(lambda s: s["state"] == "waiting", "waiting again", 30)

        begin(CRAWL, "active")
        time.sleep(1)
        moment = lab.b.die()
        info = until(lab.a, lambda i: i["status"] == "failed", "failed", 10)
        expect(info.get("error-desc"), f"no reason: {info}")
        stays(lab, load, moment, say, f"destination killed in mid-way ('{info['error-desc']}')")
        generation = lab.a.status()["generation"]

        lab.revive(lab.b)
        lab.b.start("secondary", fault="s-before-staged=kill")
        moment = time.monotonic()
        begin(0, "failed")
        stays(lab, load, moment, say, "destination killed when it has everything")
        expect(lab.a.status()["generation"] == generation + 1, "went on without a grant")
        lab.b.reap()

        lab.revive(lab.b)
        lab.b.start("secondary", fault="s-before-grant=kill")
        moment = time.monotonic()
        begin(0, "failed")
        expect("did not say that it runs" in look(lab.a)["error-desc"], f"why it failed: {look(lab.a)}")
        stays(lab, load, moment, say, "destination killed when it is given the guest")
        expect(lab.a.status()["generation"] == generation + 2, "taken back without a grant")
        lab.b.reap()
        lab.revive(lab.b)
        lab.protect(lab.a)
        finish(lab, load, say)
