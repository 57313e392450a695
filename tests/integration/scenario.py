# SPDX-License-Identifier: Apache-2.0
"""Registry of the scenarios, and the steps that several of them share."""
import time

from colo_lab import LabError
from colo_lab.lab import check_unharmed
from colo_lab.qmp import QmpError

SCENARIOS = {}


def scenario(limit_s, tier="ci"):
    """Registers a function `name(lab_factory, say)`. limit_s: wall time; tier "soak": not part of ./scripts/test."""
    def register(function):
        SCENARIOS[function.__name__] = (function, limit_s, tier)
        return function
    return register


def refused(host, command, arguments=None):
    """The reason why `host` does not execute the command."""
    try:
        host.qmp.execute(command, arguments)
    except QmpError as error:
        return error.description
    raise LabError(f"host {host.name}: {command} was accepted")


def expect(condition, what):
    if not condition:
        raise LabError(what)


BUSY = ("echo count=4 interval_ms=5", "upload mb_per_s=3", "download mb_per_s=3", "udp interval_ms=20",
        "connect interval_ms=50")
CALM = ("echo count=4 interval_ms=10", "udp interval_ms=50")


def gaps_after(report, moment):
    """(first, worst) gap in ms of the echo flows around `moment`: from it to their next answer. A report in which no flow
    had one measured nothing, which must not pass for a gap of 0 ms."""
    ends = [flow["gap_ended_s"] for flow in report["flows"] if flow["kind"] == "echo" and not flow["gap_open"]]
    after = [(end - moment) * 1000 for end in ends if end > moment]
    if not after:
        raise LabError(f"no echo flow tells how long it waited for its next answer: {report['flows']}")
    return min(after), max(after)


def wait_flowing(load, moment, timeout=15.0):
    """Until every flow that was under way has moved on after `moment`, and the longest wait of an echo flow is over, so that
    it can be told; returns the report."""
    start = {flow["id"]: flow for flow in load.report()["flows"]}
    deadline = time.monotonic() + timeout
    while True:
        time.sleep(0.1)
        report = load.report()
        check_unharmed(report)
        behind = [flow for flow in report["flows"] if flow["id"] in start and flow["state"] in ("open", "connecting")
                  and flow["answers"] + flow["moved_bytes"] <= start[flow["id"]]["answers"] + start[flow["id"]]["moved_bytes"]]
        waiting = [flow for flow in report["flows"] if flow["kind"] == "echo" and flow["gap_open"]]
        told = not waiting or len(waiting) < sum(flow["kind"] == "echo" for flow in report["flows"])
        if not behind and told and time.monotonic() > moment + 0.3:
            return report
        if time.monotonic() > deadline:
            raise LabError("these flows stand still: " +
                           ", ".join(f"{flow['kind']} {flow['id']}" for flow in behind or waiting))


def lose_primary(lab, primary, load, how="die", timeout=10.0):
    """The primary's host goes away; the other one must go on with every connection. Returns what was measured."""
    survivor = lab.other(primary)
    load.mark()
    moment = primary.die() if how == "die" else primary.kill()
    status = lab.wait_alone(survivor, timeout)
    report = wait_flowing(load, moment)
    first, worst = gaps_after(report, moment)
    return {"first_ms": round(first), "worst_ms": round(worst),
            "live_ms": round(status["last-failover"]["duration-us"] / 1000, 1) if "last-failover" in status else None,
            "generation": status["generation"]}


def finish(lab, load, say):
    """Ends the load; the final account must be clean."""
    summary = load.stop()
    check_unharmed(summary)
    unfinished = [flow for flow in summary["flows"] if flow["state"] != "finished"]
    expect(not unfinished, f"connections that did not end in order: {unfinished}")
    sums = summary["sums"]
    say(f"{sums['flows']} flows ({sums['connections']} connections), {sums['answers']} answers, "
        f"{sums['verified_bytes'] / 1e6:.1f} MB verified, {sums['wrong_bytes']} wrong bytes, {sums['lost']} lost, "
        f"longest gap {sums['longest_gap_ms']:.0f} ms; datagrams: {sums['missing']} unanswered, {sums['repeated']} answered twice")
    return summary


def guest_is_sound(lab):
    """The guest's own checks: no torn or stale page, no stale code."""
    import json
    status = json.loads(lab.control("status"))
    bad = {key: value for key, value in status.items() if key.endswith("_bad") and value}
    expect(not bad, f"the guest found damage: {bad}")
    return status
