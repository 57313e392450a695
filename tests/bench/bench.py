#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: pause of the primary, network, failover, control interface. Started by scripts/bench; writes JSON and prints a table."""
import argparse
import json
import os
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))
from colo_lab import Lab, LabError, Skip  # noqa: E402
from colo_lab.lab import check_unharmed  # noqa: E402
from qmp_bench import STORM_CLIENTS, bench_qmp  # noqa: E402
from scenario import gaps_after, guest_is_sound, wait_flowing  # noqa: E402

QUIET = {"log": {"level": "info"}}
BEGAN = time.monotonic()


def say(text):
    print(f"[{time.monotonic() - BEGAN:5.0f} s] {text}", flush=True)


def quantile(values, q):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else 0.0


def median(values):
    return statistics.median(values) if values else 0.0


# Pause

RAM_MIB = (256, 1024)
DIRTY_MB_S = (0, 10, 50, 200)
INTERVALS_MS = (500, 100)
WORKING_SET_MB = 96
MEASURE_S = {500: 10, 100: 6}


def collect_checkpoints(host, seconds, interval_ms):
    """Every finished checkpoint once, by polling the status faster than they come."""
    samples, until = {}, time.monotonic() + seconds
    while time.monotonic() < until:
        last = host.status()["checkpoints"].get("last")
        if last:
            samples[last["epoch"]] = last
        time.sleep(interval_ms / 1000 / 3)
    return list(samples.values())


def event_pauses_ms(events):
    """STOP to RESUME by the time stamps of the events."""
    pauses, stopped = [], None
    for event in events:
        moment = event["timestamp"]["seconds"] * 1000 + event["timestamp"]["microseconds"] / 1000
        if event["event"] == "STOP":
            stopped = moment
        elif event["event"] == "RESUME" and stopped is not None:
            pauses.append(moment - stopped)
            stopped = None
    return pauses


def measure_pause(lab, ram_mib, dirty_mb_s, interval_ms):
    lab.control(f"dirty {dirty_mb_s} {WORKING_SET_MB}")
    lab.a.qmp.execute("migrate-set-parameters", {"x-checkpoint-delay": interval_ms})
    time.sleep(2.5)
    lab.a.qmp.take_events()
    written = json.loads(lab.control("status"))["pages_written"]
    count, start = lab.a.status()["checkpoints"]["count"], time.monotonic()
    samples = collect_checkpoints(lab.a, MEASURE_S[interval_ms], interval_ms)
    elapsed = time.monotonic() - start
    taken = lab.a.status()["checkpoints"]["count"] - count
    events = event_pauses_ms(lab.a.qmp.take_events())
    reached = (json.loads(lab.control("status"))["pages_written"] - written) * 4096 / 1e6 / elapsed
    if lab.a.status()["state"] != "protected" or not samples:
        raise LabError(f"not protected during the measurement: {lab.a.status()['reason']}")
    pauses = [sample["pause-us"] / 1000 for sample in samples]
    names = [stage["name"] for stage in samples[-1]["stages"]]
    stages = {name: round(median([stage["us"] / 1000 for sample in samples for stage in sample["stages"]
                                  if stage["name"] == name]), 3) for name in names}
    row = {
        "ram_mib": ram_mib, "dirty_mb_s": dirty_mb_s, "interval_ms": interval_ms,
        "p50_ms": round(median(pauses), 3), "p90_ms": round(quantile(pauses, 0.9), 3),
        "p99_ms": round(quantile(pauses, 0.99), 3),
        "stopped_share": round(statistics.mean(pauses) * taken / (elapsed * 1000), 4),
        "pages": round(statistics.mean(sample["pages"] for sample in samples)),
        "bytes_sent": round(statistics.mean(sample["sent-bytes"] for sample in samples)),
        "stages": stages,
        "bytes_captured": round(statistics.mean(sample["raw-bytes"] for sample in samples)),
        "residue_pages": round(statistics.mean(sample["residue-pages"] for sample in samples)),
        "staged_p50_ms": round(median([sample["staged-us"] / 1000 for sample in samples]), 2),
        "applied_p50_ms": round(median([sample["applied-us"] / 1000 for sample in samples if sample["applied-us"]]), 2),
        "stop_to_resume_event_p50_ms": round(median(events), 3),
        "dirty_reached_mb_s": round(reached, 1), "checkpoints": taken, "samples": len(samples),
    }
    say(f"pause {ram_mib} MiB, {dirty_mb_s} MB/s (reached {row['dirty_reached_mb_s']}), every {interval_ms} ms: "
        f"p50 {row['p50_ms']} p90 {row['p90_ms']} p99 {row['p99_ms']} ms, stopped {row['stopped_share'] * 100:.1f} %")
    return row


def bench_pause(options):
    rows = []
    for ram_mib in RAM_MIB:
        with Lab(options.build, settings={**QUIET, "guest": {"memory_mib": ram_mib}}, label="m", keep=options.keep) as lab:
            lab.boot()
            lab.protect(lab.a, timeout=120)
            for dirty_mb_s in DIRTY_MB_S:
                for interval_ms in INTERVALS_MS:
                    rows.append(measure_pause(lab, ram_mib, dirty_mb_s, interval_ms))
            guest_is_sound(lab)
    return rows


# Network

NETWORK_S = 6
# The service whose answers always differ comes last: it sends the domain into buffered mode for a while.
NETWORK_FLOWS = (("rtt", "echo interval_ms=2"), ("connect", "connect interval_ms=5"), ("up", "upload"), ("down", "download"),
                 ("differing", "differing interval_ms=0"))
COUNTERS = ("released-matched", "released-staged", "mismatches", "late", "no-comparison")


def proxy_counters(host):
    status = host.status()
    return {"mode": status["mode"], "checkpoints": status["checkpoints"]["count"],
            **{name: status["network"][name] for name in COUNTERS}}


def measure_flow(lab, name, flow, host=None):
    """One thing on an otherwise idle guest. With a host, also how its proxy came to release the answers."""
    if host:
        host.wait_status(lambda s: s["state"] == "protected" and s["mode"] == "lock-step", "lock-step", 60)
    load = lab.load(flow)
    time.sleep(2)
    load.mark()
    counted = proxy_counters(host) if host else {}
    before, start = load.report(), time.monotonic()
    time.sleep(NETWORK_S)
    after, elapsed = load.report(), time.monotonic() - start
    check_unharmed(after)
    sums, result = after["sums"], {}
    if host:
        now = proxy_counters(host)
        result["how"] = {key: value if key == "mode" else value - counted[key] for key, value in now.items()}
        say(f"  {name}: {result['how']}")
    result["mb_s"] = round((sums["verified_bytes"] - before["sums"]["verified_bytes"]) / 1e6 / elapsed, 2)
    result["p50_ms"], result["p99_ms"] = round(sums["p50_ms"], 3), round(sums["p99_ms"], 3)
    result["per_s"] = round((sums["answers"] - before["sums"]["answers"]) / elapsed, 1)
    load.stop()
    lab.loads.remove(load)
    return result


def measure_network(lab, what, host=None):
    result = {name: measure_flow(lab, name, flow, host) for name, flow in NETWORK_FLOWS}
    say(f"network {what}: RTT p50 {result['rtt']['p50_ms']} p99 {result['rtt']['p99_ms']} ms, connect+echo "
        f"{result['connect']['p50_ms']} ms, up {result['up']['mb_s']} down {result['down']['mb_s']} MB/s, "
        f"differing {result['differing']['per_s']}/s")
    return result


def ratio(part, whole):
    return round(part / whole, 3) if whole else 0.0


def bench_network(options):
    """Everything on all cores. Once more for the round trip with a core for each host, as two hosts would have it: where
    they share two cores, the two emulated CPUs also wait for each other."""
    rtt = NETWORK_FLOWS[0]
    with Lab(options.build, settings=QUIET, label="n", keep=options.keep) as lab:
        plain_guest = lab.plain()
        plain = measure_network(lab, "plain (ordinary tap)")
        lab.own_cores()
        plain_own = measure_flow(lab, *rtt)
        plain_guest.stop()
        lab.boot()
        unprotected = measure_network(lab, "colod, unprotected")
        lab.protect(lab.a)
        protected = measure_network(lab, "colod, protected", lab.a)
        lab.own_cores()
        own = measure_flow(lab, *rtt, lab.a)
        status = lab.a.status()
        if status["state"] != "protected":
            raise LabError(f"lost protection during the measurement: {status['reason']}")

    def to_plain(flow, member):
        return ratio(protected[flow][member], plain[flow][member])
    return {
        "rtt_p50_ratio": to_plain("rtt", "p50_ms"),
        "rtt_p50_ratio_own_cores": ratio(own["p50_ms"], plain_own["p50_ms"]),
        "rtt_p99_ratio": to_plain("rtt", "p99_ms"),
        "connect_p50_ratio": to_plain("connect", "p50_ms"),
        "up_ratio": to_plain("up", "mb_s"),
        "down_ratio": to_plain("down", "mb_s"),
        "up_ratio_to_unprotected": ratio(protected["up"]["mb_s"], unprotected["up"]["mb_s"]),
        "down_ratio_to_unprotected": ratio(protected["down"]["mb_s"], unprotected["down"]["mb_s"]),
        "differing_answers_per_s": protected["differing"]["per_s"],
        "plain": plain, "unprotected": unprotected, "protected": protected,
        "own_cores": {"plain": plain_own, "protected": own},
    }


# Failover

FLOWS = ("echo count=4 interval_ms=5", "upload mb_per_s=2", "download mb_per_s=2", "udp interval_ms=20")


class FailoverBench:
    def __init__(self, lab):
        self.lab = lab
        self.primary = lab.boot()
        lab.protect(self.primary)
        self.load = lab.load(*FLOWS)
        lab.settle(self.load, 1)

    def _measured(self, moment, alone):
        self.lab.wait_alone(alone, 10)
        report = wait_flowing(self.load, moment)
        return gaps_after(report, moment)

    def primary_away(self, strike, undo):
        """The other side takes over; afterwards it is protected by what was struck, started afresh."""
        old, new = self.primary, self.lab.other(self.primary)
        self.load.mark()
        gaps = self._measured(strike(old), new)
        undo(old)
        self.primary = new
        self._again()
        return gaps

    def standby_away(self, strike, undo):
        standby = self.lab.other(self.primary)
        self.load.mark()
        gaps = self._measured(strike(standby), self.primary)
        undo(standby)
        self._again()
        return gaps

    def _again(self):
        self.lab.protect(self.primary)
        self.lab.settle(self.load, 0.7)

    def black_hole(self, host):
        moment = time.monotonic()
        self.lab.network.black_hole(host.name, ("wire", "repl", "beat0", "beat1"))
        return moment

    def back_from_black_hole(self, host):
        host.kill()
        self.lab.network.restore(host.name)


def bench_failover(options):
    with Lab(options.build, settings=QUIET, label="f", keep=options.keep) as lab:
        bench = FailoverBench(lab)
        cases = (
            ("primary_lost", bench.primary_away, lambda host: host.die(), lab.revive, 7),
            ("standby_lost", bench.standby_away, lambda host: host.die(), lab.revive, 5),
            ("standby_hung", bench.standby_away, lambda host: host.freeze(), lambda host: host.kill(), 5),
            ("link_blackholed", bench.primary_away, bench.black_hole, bench.back_from_black_hole, 5),
            ("host_frozen", bench.primary_away, lambda host: host.freeze(), lambda host: host.kill(), 5),
        )
        result, details = {}, {}
        for name, run, strike, undo, rounds in cases:
            gaps = [run(strike, undo) for _ in range(rounds)]
            result[f"{name}_gap_ms"] = round(median([worst for _, worst in gaps]), 1)
            details[name] = {"slowest_connection_ms": [round(worst, 1) for _, worst in gaps],
                             "first_connection_ms": [round(first, 1) for first, _ in gaps]}
            say(f"failover {name}: slowest connection median {result[f'{name}_gap_ms']} ms "
                f"(each: {details[name]['slowest_connection_ms']})")
        guest_is_sound(lab)
        summary = bench.load.stop()
        lab.loads.clear()
    unfinished = sum(1 for flow in summary["flows"] if flow["state"] != "finished")
    result.update({"connections_lost": unfinished, "wrong_bytes": summary["sums"]["wrong_bytes"],
                   "bytes_verified": summary["sums"]["verified_bytes"], "runs": details,
                   "operator_commands": {"protect": 1, "primary_lost": 0, "standby_lost": 0, "re_protect": 1}})
    return result


TARGET_PAUSE_MS = {0: 3.5, 10: 4.0, 50: 5.0, 200: 6.0}


def verdict(good):
    return "reached" if good else "MISSED"


def print_table(results):
    print()
    for row in results.get("pause", []):
        target = f"target {TARGET_PAUSE_MS[row['dirty_mb_s']]} ms" if row["interval_ms"] == 500 else ""
        if row["interval_ms"] == 100 and row["dirty_mb_s"] == 50:
            target = f"target 6 % stopped: {verdict(row['stopped_share'] <= 0.06)}"
        elif target:
            target += ": " + verdict(row["p50_ms"] <= TARGET_PAUSE_MS[row["dirty_mb_s"]])
        stages = " ".join(f"{name} {value}" for name, value in row["stages"].items())
        print(f"pause {row['ram_mib']:5d} MiB {row['dirty_mb_s']:4d} MB/s every {row['interval_ms']:4d} ms: p50 {row['p50_ms']:7.2f} "
              f"p90 {row['p90_ms']:7.2f} p99 {row['p99_ms']:7.2f} ms, stopped {row['stopped_share'] * 100:5.2f} %  [{stages}]  {target}")
    if "network" in results:
        net = results["network"]
        for name, target, good in (("rtt_p50_ratio", "<= 1.5", net["rtt_p50_ratio"] <= 1.5),
                                   ("rtt_p50_ratio_own_cores", "<= 1.5", net["rtt_p50_ratio_own_cores"] <= 1.5),
                                   ("up_ratio", ">= 0.3", net["up_ratio"] >= 0.3),
                                   ("down_ratio", ">= 0.3", net["down_ratio"] >= 0.3),
                                   ("down_ratio_to_unprotected", ">= 0.45", net["down_ratio_to_unprotected"] >= 0.45),
                                   ("differing_answers_per_s", ">= 100", net["differing_answers_per_s"] >= 100)):
            print(f"network {name}: {net[name]}  target {target}: {verdict(good)}")
    if "failover" in results:
        over = results["failover"]
        for name, target in (("primary_lost", 300), ("standby_lost", 300), ("standby_hung", 300), ("link_blackholed", 500),
                             ("host_frozen", 500)):
            print(f"failover {name}_gap_ms: {over[name + '_gap_ms']}  target <= {target}: "
                  f"{verdict(over[name + '_gap_ms'] <= target)}")
        print(f"failover connections_lost: {over['connections_lost']}, wrong_bytes: {over['wrong_bytes']}")
    if "qmp" in results:
        print_qmp(results["qmp"])


def print_qmp(qmp):
    for name, row in qmp["requests"].items():
        print(f"qmp {name}: {row['per_s']}/s, p50 {row['p50_us']} us, p99 {row['p99_us']} us")
    rate = qmp["pipelined"]["per_s"]
    print(f"qmp query-status pipelined, one connection: {rate}/s  target >= 20000/s: {verdict(rate >= 20000)}")
    storm = qmp["storm"]
    print(f"qmp pause beside a storm of {STORM_CLIENTS} clients: p50 {storm['storm_p50_ms']} ms, calm {storm['calm_p50_ms']} ms, "
          f"{storm['change'] * 100:+.1f} %  target < 10 %: {verdict(storm['change'] < 0.1)}")
    for name, speed in qmp["large_input_mb_s"]["ours"].items():
        target = "" if name == "requests" else f"  target for one request >= 100 MB/s: {verdict(speed >= 100)}"
        print(f"qmp large input, {name}: {speed} MB/s{target}")


PARTS = {"pause": bench_pause, "network": bench_network, "failover": bench_failover,
         "qmp": lambda options: bench_qmp(options, QUIET, say, collect_checkpoints)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", required=True)
    parser.add_argument("--json", help="write the results to this file")
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--keep", action="store_true", help="leave logs behind")
    options = parser.parse_args()
    results, status = {}, 0
    for name, part in PARTS.items():
        if options.only in (None, name):
            try:
                results[name] = part(options)
            except (LabError, Skip) as error:
                print(f"{name}: {error}", file=sys.stderr)
                status = 1
            if options.json:
                with open(options.json + ".part", "w", encoding="utf-8") as file:
                    json.dump(results, file, indent=2)
                    file.write("\n")
                os.replace(options.json + ".part", options.json)
    print_table(results)
    say("done")
    return status


if __name__ == "__main__":
    sys.exit(main())
