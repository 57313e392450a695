#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The demo: a guest loses its host twice, and its clients do not notice. Started by scripts/demo."""
import argparse
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from colo_lab import Lab, LabError, Skip  # noqa: E402
from colo_lab.lab import check_unharmed  # noqa: E402
from scenario import gaps_after, guest_is_sound, wait_flowing  # noqa: E402

LOAD = ("echo count=6 interval_ms=10", "upload mb_per_s=4", "download mb_per_s=4", "udp interval_ms=20")


# The first table that everybody reads has two kinds of waiting in it.
LEGEND = """
  The longest gap is the longest time without progress on any of the connections, bulk and UDP too, at any time of the demo;
  a bulk connection that lost packets at the kill goes on when its TCP tries again. The failover rows count from the kill to
  the next answer on the request/response connections: the quickest and the slowest of them."""


class Show:
    def __init__(self):
        self.start = time.monotonic()

    def step(self, text):
        print(f"\n[{time.monotonic() - self.start:5.1f} s] {text}", flush=True)

    @staticmethod
    def detail(text):
        print(f"          {text}", flush=True)


class Account:
    """What the final table says."""

    def __init__(self):
        self.checkpoints = 0
        self.p50_ms = []
        self.p99_ms = []
        self.failovers = []
        self.longest_gap_ms = 0

    def gaps(self, sums):
        """The client forgets its longest gap when the next thing to be measured begins."""
        self.longest_gap_ms = max(self.longest_gap_ms, sums["longest_gap_ms"])

    def add(self, status):
        stats = status["checkpoints"]
        self.checkpoints += stats["count"]
        self.p50_ms.append(stats["pause-p50-us"] / 1000)
        self.p99_ms.append(stats["pause-p99-us"] / 1000)


def watch_checkpoints(host, load, seconds, show):
    """Prints checkpoints as they happen, some of the many in buffered mode, and what the clients have by then."""
    until, seen, shown = time.monotonic() + seconds, 0, 0
    pause = seconds / 16   # in buffered mode there are dozens a second
    while time.monotonic() < until:
        status = host.status()
        last = status["checkpoints"].get("last")
        if last and last["epoch"] != seen:
            seen = last["epoch"]
            sums = load.report()["sums"]
            stages = " ".join(f"{stage['name']} {stage['us'] / 1000:.1f}" for stage in last["stages"])
            show.detail(f"epoch {last['epoch']:4d}  {last['trigger']:16s} pause {last['pause-us'] / 1000:5.1f} ms ({stages})  "
                        f"{last['pages']:5d} pages  {last['sent-bytes'] / 1024:6.0f} KiB  | clients: {sums['answers']} answers, "
                        f"{sums['verified_bytes'] / 1e6:.1f} MB verified")
            shown += 1
            time.sleep(pause)
        time.sleep(0.02)
    if shown == 0:
        raise LabError("no checkpoint was taken")
    return host.status()


def protect_and_watch(lab, primary, load, account, show):
    start = time.monotonic()
    lab.protect(primary)
    show.detail(f"protected after {time.monotonic() - start:.1f} s (one command: coloctl protect)")
    status = watch_checkpoints(primary, load, 6, show)
    check_unharmed(load.report())
    account.add(status)
    for line in primary.coloctl("status").stdout.rstrip().splitlines():
        show.detail(line)


def lose(lab, primary, load, account, show):
    survivor = lab.other(primary)
    account.gaps(load.report()["sums"])
    load.mark()
    moment = primary.die()
    status = lab.wait_alone(survivor, 10)
    report = wait_flowing(load, moment)
    first, worst = gaps_after(report, moment)
    account.failovers.append((first, worst))
    show.detail(f"host {survivor.name} serves since; next answer on an open connection {first:.0f} ms after the kill, "
                f"on the slowest {worst:.0f} ms; 0 commands typed")
    show.detail(f"it says: {status['state']}: {status['reason']}")


def table(summary, account, show):
    sums = summary["sums"]
    account.gaps(sums)
    kept = sums["flows"] - sums["lost"]
    rows = [
        ("connections kept", f"{kept} of {sums['flows']}"),
        ("answers, every one compared", f"{sums['answers']}"),
        ("bytes verified", f"{sums['verified_bytes']}"),
        ("wrong bytes", f"{sums['wrong_bytes']}"),
        ("longest gap seen by a client", f"{account.longest_gap_ms:.0f} ms"),
        ("checkpoints", f"{account.checkpoints}"),
        ("pause p50 / p99", f"{max(account.p50_ms):.1f} / {max(account.p99_ms):.1f} ms"),
        ("failover: kill to next answer", " and ".join(f"{first:.0f} ms" for first, _ in account.failovers)),
        ("failover: slowest connection", " and ".join(f"{worst:.0f} ms" for _, worst in account.failovers)),
    ]
    show.step("Account")
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"  {name:<{width}}  {value}")
    print(LEGEND)
    unfinished = [flow for flow in summary["flows"] if flow["state"] != "finished"]
    return not unfinished and sums["lost"] == 0 and sums["wrong_bytes"] == 0


def demo(options):
    show, account = Show(), Account()
    with Lab(options.build, keep=options.keep, label="d") as lab:
        show.step("Two hosts and a client (network namespaces); a Linux guest boots under colod on host a")
        lab.boot()
        load = lab.load(*LOAD)
        show.detail(f"the guest serves; the client keeps {load.report()['sums']['flows']} flows: request/response with "
                    "counters, bulk upload and download with checksums, UDP")
        show.step("Host b gets a colod as secondary, and the running guest is protected; checkpoints as they happen:")
        protect_and_watch(lab, lab.a, load, account, show)
        show.step("Host a dies: kill -9 of daemon and QEMU, all links of its namespace dropped")
        lose(lab, lab.a, load, account, show)
        show.step("Host a is back, empty; the survivor is protected again with a fresh secondary:")
        lab.revive(lab.a)
        protect_and_watch(lab, lab.b, load, account, show)
        show.step("Host b dies the same way")
        lose(lab, lab.b, load, account, show)
        guest_is_sound(lab)
        time.sleep(1)
        summary = load.stop()
        good = table(summary, account, show)
        show.step("Nothing was lost." if good else "SOMETHING WAS LOST.")
        for flow in summary["flows"]:
            if flow["state"] != "finished" or flow["wrong_bytes"]:
                show.detail(f"{flow['kind']} {flow['id']}: {flow['state']}: {flow.get('problem', '')}")
        return 0 if good else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", required=True)
    parser.add_argument("--keep", action="store_true", help="leave logs behind")
    try:
        return demo(parser.parse_args())
    except (LabError, Skip) as error:
        print(f"The demo did not get through: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
