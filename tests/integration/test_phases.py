# SPDX-License-Identifier: Apache-2.0
"""A fault at every point of a checkpoint. Each daemon is started with the fault that it will meet in its role."""
import time

from scenario import CALM, expect, finish, gaps_after, guest_is_sound, scenario, wait_flowing

# The points that core/failpoint.h names; tests/unit/tidy checks that none is forgotten here.
PRIMARY_POINTS = ("p-precapture", "p-before-stop", "p-after-stop", "p-after-save", "p-after-seal", "p-before-cont",
                  "p-after-cont", "p-mid-transfer", "p-before-end", "p-after-end", "p-before-release", "p-after-release")
SECONDARY_POINTS = ("s-mid-stage", "s-before-staged", "s-after-staged", "s-after-stop", "s-mid-apply", "s-before-load",
                    "s-after-load", "s-before-cont", "s-after-applied")
TAKEOVER_POINTS = ("s-before-grant", "s-before-live", "s-after-live")


def primaries_fail(lab_factory, say, points, action):
    """Host k fails at point k while it is the primary; the next one takes over, is given a fresh secondary, fails."""
    with lab_factory() as lab:
        primary = lab.boot(fault=f"{points[0]}#6={action}")
        load = lab.load(*CALM)
        lab.settle(load, 1)
        for number, point in enumerate(points):
            fault = f"{points[number + 1]}#6={action}" if number + 1 < len(points) else None
            load.mark()
            secondary = lab.other(primary)
            secondary.start("secondary", fault=fault)
            primary.begin_protection()
            if action == "kill":
                primary.wait_end(30)
                lab.network.drop(primary.name)
            status = lab.wait_alone(secondary, 40)
            report = wait_flowing(load, time.monotonic())
            gap = max(flow["gap_ms"] for flow in report["flows"] if flow["kind"] == "echo")
            say(f"{point}={action}: host {primary.name} lost, {secondary.name} serves, generation {status['generation']}, "
                f"longest gap {gap:.0f} ms")
            if primary.running():
                expect(primary.status()["run-state"] != "running", f"{point}={action}: the old primary runs on")
                primary.kill()
            lab.revive(primary)
            primary = secondary
        guest_is_sound(lab)
        finish(lab, load, say)


def secondaries_fail(lab_factory, say, points, action):
    """Fresh secondaries fail one after the other; the primary serves on and is protected again."""
    with lab_factory() as lab:
        primary = lab.boot()
        load = lab.load(*CALM)
        lab.settle(load, 1)
        secondary = lab.other(primary)
        for point in points:
            load.mark()
            secondary.start("secondary", fault=f"{point}#3={action}")
            primary.begin_protection()
            if action == "kill":
                secondary.wait_end(30)
            status = lab.wait_alone(primary, 40)
            report = wait_flowing(load, time.monotonic())
            gap = max(flow["gap_ms"] for flow in report["flows"] if flow["kind"] == "echo")
            say(f"{point}={action}: {primary.name} serves alone ('{status['reason']}'), longest gap {gap:.0f} ms")
            if secondary.running():
                secondary.kill()
        lab.protect(primary)
        finish(lab, load, say)


@scenario(240)
def phase_primary_killed(lab_factory, say):
    primaries_fail(lab_factory, say, PRIMARY_POINTS, "kill")


@scenario(240)
def phase_secondary_killed(lab_factory, say):
    secondaries_fail(lab_factory, say, SECONDARY_POINTS, "kill")


@scenario(240, tier="soak")
def phase_primary_stopped(lab_factory, say):
    primaries_fail(lab_factory, say, PRIMARY_POINTS, "stop")


@scenario(240, tier="soak")
def phase_secondary_stopped(lab_factory, say):
    secondaries_fail(lab_factory, say, SECONDARY_POINTS, "stop")


@scenario(180, tier="soak")
def phase_secondary_hangs(lab_factory, say):
    secondaries_fail(lab_factory, say, SECONDARY_POINTS, "hang")


def step_fails(lab, load, point, host, say):
    """The injected error is in the log, traffic flows on, and exactly one side runs as primary."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and f"injected fault at {point}" not in host.log():
        time.sleep(0.1)
    expect(f"injected fault at {point}" in host.log(), f"{point} was never passed, or its failure is not in the log")
    report = wait_flowing(load, time.monotonic())
    # Once both closed the session either may get the grant; that it is one is what counts.
    deadline = time.monotonic() + 10
    while True:
        states = {name: lab.hosts[name].status() for name in ("a", "b")}
        serving = [name for name, state in states.items()
                   if state["role"] == "primary" and state["run-state"] in ("running", "colo")]
        if len(serving) == 1 or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    expect(len(serving) == 1, f"{point}=error: {states}")
    state = states[serving[0]]
    say(f"{point}=error: {serving[0]} is {state['state']} ('{state['reason']}'), longest gap "
        f"{max(flow['gap_ms'] for flow in report['flows'] if flow['kind'] == 'echo'):.0f} ms")


@scenario(240)
def phase_step_fails(lab_factory, say):
    """The step itself fails: the epoch is aborted or the session ends, and nothing is lost."""
    for point in ("p-precapture", "p-before-stop", "p-after-stop", "p-after-save", "p-mid-transfer"):
        with lab_factory() as lab:
            primary = lab.boot(fault=f"{point}#4=error")
            load = lab.load(*CALM)
            lab.b.start("secondary")
            primary.begin_protection()
            step_fails(lab, load, point, primary, say)
            finish(lab, load, say)
    with lab_factory() as lab:
        primary = lab.boot()
        load = lab.load(*CALM)
        for point in ("s-mid-stage", "s-before-load", "s-mid-apply"):
            if lab.b.running():
                lab.b.stop()
                lab.wait_alone(primary)
            lab.b.start("secondary", fault=f"{point}#3=error")
            primary.begin_protection()
            step_fails(lab, load, point, lab.b, say)
            if lab.b.status()["role"] == "primary":
                break   # the secondary took over; its successors are another story
        finish(lab, load, say)


@scenario(150)
def phase_takeover(lab_factory, say):
    """The secondary fails while it takes over: before the grant and before it is live nothing may run twice."""
    for point in TAKEOVER_POINTS:
        with lab_factory() as lab:
            lab.boot()
            lab.protect(lab.a, fault=f"{point}=delay:300")
            load = lab.load(*CALM)
            lab.settle(load, 1)
            load.mark()
            moment = lab.a.die()
            lab.wait_alone(lab.b, 15)
            report = wait_flowing(load, moment)
            say(f"{point}=delay:300: next answer after {gaps_after(report, moment)[0]:.0f} ms")
            finish(lab, load, say)


@scenario(90)
def phase_takeover_killed(lab_factory, say):
    """Primary lost, and the secondary dies between its grant and going live: the copies in memory are gone. Whoever was
    not granted must not run when it is started again; the one that holds the grant may boot the guest anew."""
    with lab_factory() as lab:
        lab.boot()
        lab.protect(lab.a, fault="s-before-live=kill")
        lab.a.die()
        lab.b.wait_end(20)
        lab.revive(lab.a)
        lab.a.start("primary")
        time.sleep(3)
        status = lab.a.status()
        expect(status["run-state"] != "running" and status["state"] == "outdated", f"host a runs without a grant: {status}")
        say(f"a, started again: {status['state']} ('{status['reason']}')")
        lab.b.start("primary")
        status = lab.b.wait_status(lambda s: s["run-state"] == "running" or s["state"] == "outdated", "decided", 20)
        say(f"b, which held the grant, started again: {status['state']} ('{status['reason']}')")
        running = [host.name for host in (lab.a, lab.b) if host.status()["run-state"] == "running"]
        expect(running in ([], ["b"]), f"hosts that run the guest: {running}")
