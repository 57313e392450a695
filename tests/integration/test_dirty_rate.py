# SPDX-License-Identifier: Apache-2.0
"""calc-dirty-rate and query-dirty-rate against a guest that counts itself what it writes. What the modes find is compared
with the dirty log and with the guest's own count of the same time, never with a wish: a busy machine dirties less."""
import json
import re
import time

from scenario import expect, finish, guest_is_sound, scenario

WORKING_SET_MB, RATE_MB_S, SECONDS = 64, 40, 3
TOLERANCE = 0.15


def written(lab):
    """(pages that the guest has written so far, the moment it said so)"""
    return json.loads(lab.control("status"))["pages_written"], time.monotonic()


def measure(lab, host, mode):
    """Runs one measurement. Returns found pages over those that the guest must have dirtied in that time."""
    arguments = {"calc-time": SECONDS, "mode": mode}
    if mode == "page-sampling":
        arguments["sample-pages"] = 16384
    before, begun = written(lab)
    host.qmp.execute("calc-dirty-rate", arguments)
    info = host.qmp.execute("query-dirty-rate")
    expect(info["status"] == "measuring" and "dirty-rate" not in info, f"not measuring from the answer on: {info}")
    deadline = time.monotonic() + 60
    while info["status"] == "measuring" and time.monotonic() < deadline:
        time.sleep(0.05)
        info = host.qmp.execute("query-dirty-rate")
    after, ended = written(lab)
    expect(info["status"] == "measured", f"no result: {info}\n{host.log_tail()}")
    expect(info["sample-pages"] == arguments.get("sample-pages", 0), f"sample-pages: {info}")
    found = re.findall(rf"dirty rate by {mode}: (\d+) MiB/s \((\d+) pages in (\d+) ms\)", host.log())
    expect(found, f"the daemon did not log the rate by {mode}")
    rate, pages, took_ms = (int(number) for number in found[-1])
    expect(rate == info["dirty-rate"], f"the log says {rate}, query-dirty-rate {info}")
    # Random pages of the working set: those that are hit twice count once.
    writes = (after - before) * (took_ms / 1000) / (ended - begun)
    whole = WORKING_SET_MB * 256
    dirtied = whole * (1 - (1 - 1 / whole) ** writes)
    return {"rate": rate, "pages": pages, "ms": took_ms, "dirtied": round(dirtied), "ratio": pages / dirtied}


def compare(lab, host, say, where):
    found = {mode: measure(lab, host, mode) for mode in ("page-sampling", "dirty-bitmap")}
    for mode, result in found.items():
        say(f"{where}, {mode}: {result['rate']} MiB/s, {result['pages']} pages in {result['ms']} ms; the guest dirtied "
            f"{result['dirtied']}: {(result['ratio'] - 1) * 100:+.1f} %")
    against_log = found["page-sampling"]["ratio"] / found["dirty-bitmap"]["ratio"] - 1
    say(f"{where}: page-sampling against the dirty log {against_log * 100:+.1f} %")
    for mode, result in found.items():
        expect(abs(result["ratio"] - 1) <= TOLERANCE, f"{where}: {mode} is wrong by {(result['ratio'] - 1) * 100:+.1f} %")
    expect(abs(against_log) <= TOLERANCE, f"{where}: page-sampling and the dirty log differ by {against_log * 100:+.1f} %")


@scenario(150)
def dirty_rate(lab_factory, say):
    with lab_factory() as lab:
        lab.boot()
        expect(lab.a.qmp.execute("query-dirty-rate") == {"status": "unstarted", "start-time": 0, "calc-time": 0,
                                                         "sample-pages": 0, "mode": "page-sampling"}, "not unstarted")
        lab.control(f"dirty {RATE_MB_S} {WORKING_SET_MB}")
        while json.loads(lab.control("status"))["working_set_mb"] != WORKING_SET_MB:
            time.sleep(0.2)
        compare(lab, lab.a, say, "unprotected")
        lab.protect(lab.a)
        load = lab.load("echo count=4 interval_ms=10")
        count = lab.a.status()["checkpoints"]["count"]
        compare(lab, lab.a, say, "protected")
        expect(lab.a.status()["checkpoints"]["count"] > count, "no checkpoints beside the measurement")
        refused = lab.b.coloctl("dirty-rate", check=False)
        expect(refused.returncode == 1 and "secondary" in refused.stdout, f"measured on the secondary: {refused.stdout}")
        answer = json.loads(lab.a.coloctl("-o", "json", "dirty-rate", "--seconds", "1").stdout)
        expect(answer["dirty-rate"]["status"] == "measured", f"coloctl: {answer}")
        lab.wait_protected(lab.a)
        # No bit was lost beside the measurements: the copy that goes on is sound.
        lab.a.die()
        lab.wait_alone(lab.b)
        lab.settle(load, 1)
        finish(lab, load, say)
        lab.control("dirty 0 0")
        time.sleep(1)
        guest_is_sound(lab)


@scenario(100)
def dirty_rate_compare_log(lab_factory, say):
    """The dirty log that takes every read for a capture: a measurement that reads pages must not count as one."""
    with lab_factory({"guest": {"dirty_log": "compare"}}) as lab:
        lab.boot()
        lab.protect(lab.a)
        load = lab.load("echo count=4 interval_ms=10")
        lab.control(f"dirty {RATE_MB_S} {WORKING_SET_MB}")
        for _ in range(3):
            lab.a.coloctl("dirty-rate", "--seconds", "1", "--sample-pages", "16384")
        lab.a.coloctl("dirty-rate", "--seconds", "1", "--mode", "dirty-bitmap")
        lab.wait_protected(lab.a)
        lab.a.die()
        lab.wait_alone(lab.b)
        lab.settle(load, 1)
        finish(lab, load, say)
        lab.control("dirty 0 0")
        time.sleep(1)
        guest_is_sound(lab)
        say("the copy is sound after four measurements beside checkpoints")
