# SPDX-License-Identifier: Apache-2.0
"""Our checkpoints beside plain ones, on the same two domains in turn: tests/xenlab/xen_bench.cpp. With `prototype`, a program
that somebody else has written takes turns, too. What is wanted are ratios of one run: times of an emulated CPU say little."""
import json
import os
import re
import tempfile

from lab import guests, probe, smoke
from lab.common import LabError, run, say

ROUNDS, EPOCHS, EPOCH_MS = 3, 10, 500
STOPPED_AT_MOST, MAPPING_AT_MOST = 1 / 2, 1 / 3
# It sleeps that long while the secondary loads, which is not counted.
PROTOTYPE_SLEEP_MS = 300
PROTOTYPE_LINE = re.compile(
    r"^epoch (?P<epoch>\d+): stop (?P<pause>[\d.]+) ms \| CLEAN (?P<scan>[\d.]+) .*\| copy (?P<frames>\d+) frames (?P<copy>[\d.]+) ms .*"
    r"\| hvm ctx \d+ bytes get\+set (?P<context>[\d.]+) \| qemu \d+ bytes (?P<devices>[\d.]+) \| stopped total (?P<stopped>[\d.]+) ms")


def percentile(values, percent):
    """Nearest rank: one that was measured."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def parse(text):
    """The objects of xen_bench, and epochs and comparison of the prototype in the same form."""
    found = []
    for line in text.splitlines():
        match = PROTOTYPE_LINE.match(line)
        if line.startswith("{"):
            found.append(json.loads(line))
        elif match and match["epoch"] != "0":   # the first one has all of memory
            part = {name: float(match[name]) for name in ("pause", "scan", "copy", "context", "devices")}
            part["devices"] -= PROTOTYPE_SLEEP_MS
            found.append({"method": "prototype", "stopped_ms": float(match["stopped"]) - PROTOTYPE_SLEEP_MS, "stages": part,
                          "frames": int(match["frames"]), "stopped_frames": int(match["frames"]), "copy_ms": part["copy"]})
        elif match := re.match(r"compare: (\d+) frames compared, (\d+) differ", line):
            found.append({"compared_after": "prototype", "frames": int(match[1]), "differing": int(match[2])})
    return found


def summary(epochs):
    """Of the epochs of one method."""
    def of(name, percent):
        return round(percentile([epoch[name] for epoch in epochs], percent), 2)

    out = {"epochs": len(epochs), "stopped_ms": {"p50": of("stopped_ms", 50), "p90": of("stopped_ms", 90)},
           "stages_ms": {stage: {f"p{p}": round(percentile([epoch["stages"][stage] for epoch in epochs], p), 2) for p in (50, 90)}
                         for stage in epochs[0]["stages"]},
           "frames": of("frames", 50), "frames_stopped": of("stopped_frames", 50),
           "frames_per_ms": round(sum(epoch["frames"] for epoch in epochs) / max(sum(epoch["copy_ms"] for epoch in epochs), 0.001), 1)}
    if "calls" in epochs[0]:
        out["hypercalls"] = of("calls", 50)
        out["hypercalls_stopped"] = of("stopped_calls", 50)
        out["mapping_ms_per_1000_frames"] = round(1000 * sum(epoch["map_ms"] for epoch in epochs) / max(sum(epoch["mapped"] for epoch in epochs), 1), 3)
    return out


def results(found):
    methods = {}
    for one in found:
        if "method" in one:
            methods.setdefault(one["method"], []).append(one)
    if not {"plain", "ours"} <= methods.keys():
        raise LabError("nothing was measured of one of the two methods")
    out = {"methods": {name: summary(epochs) for name, epochs in methods.items()}}
    of = out["methods"]
    ratios = {"stopped": (of["ours"]["stopped_ms"]["p50"] / of["plain"]["stopped_ms"]["p50"], STOPPED_AT_MOST),
              "stopped_p90": (of["ours"]["stopped_ms"]["p90"] / of["plain"]["stopped_ms"]["p90"], STOPPED_AT_MOST),
              "mapping": (of["ours"]["mapping_ms_per_1000_frames"] / of["plain"]["mapping_ms_per_1000_frames"], MAPPING_AT_MOST)}
    if "prototype" in of:
        ratios["stopped_prototype"] = (of["ours"]["stopped_ms"]["p50"] / of["prototype"]["stopped_ms"]["p50"], STOPPED_AT_MOST)
    out["targets"] = {name: {"ratio": round(ratio, 3), "at_most": round(bound, 3), "reached": ratio <= bound} for name, (ratio, bound) in ratios.items()}
    out["compared"] = [one for one in found if "compared_after" in one]
    return out


TARGET_TEXTS = {
    "stopped": "the primary's stopped time, p50, to that of plain checkpoints",
    "stopped_p90": "the same, p90",
    "mapping": "what getting at 1000 frames costs, to mapping and unmapping them",
    "stopped_prototype": "the primary's stopped time, p50, to that of the prototype",
}


def table(result):
    lines = [f"{'':10} {'stopped ms':>16} {'frames':>8} {'of them':>8} {'frames':>8} {'hypercalls':>16} {'mapping ms':>11}",
             f"{'method':10} {'p50':>7} {'p90':>8} {'/epoch':>8} {'stopped':>8} {'per ms':>8} {'/epoch':>7} {'stopped':>8} {'/1000 frames':>12}"]
    for name, of in result["methods"].items():
        lines.append(f"{name:10} {of['stopped_ms']['p50']:7.1f} {of['stopped_ms']['p90']:8.1f} {of['frames']:8} {of['frames_stopped']:8} "
                     f"{of['frames_per_ms']:8.1f} {of.get('hypercalls', '-'):>7} {of.get('hypercalls_stopped', '-'):>8} "
                     f"{of.get('mapping_ms_per_1000_frames', '-'):>12}")
    for name, of in result["methods"].items():
        stages = ", ".join(f"{stage} {ms['p50']:.1f}/{ms['p90']:.1f}" for stage, ms in of["stages_ms"].items())
        lines.append(f"stages of {name}, ms p50/p90: {stages}")
    for name, target in result["targets"].items():
        lines.append(f"{'reached' if target['reached'] else 'MISSED ':8} {target['ratio']:6.3f} (at most {target['at_most']:.3f}): {TARGET_TEXTS[name]}")
    for one in result["compared"]:
        lines.append(f"after the last epoch of {one['compared_after']}: {one['differing']} of {one['frames']} frames differ")
    return "\n".join(lines)


def install_prototype(machine, source):
    """A C program as described in README.md, and its loader file beside it."""
    if not os.path.isfile(source):
        raise LabError(f"there is no C program {source}")
    with tempfile.TemporaryDirectory() as directory:
        program = os.path.join(directory, "prototype")
        run(["gcc", "-O2", "-o", program, source, "-lxenctrl", "-lxenguest", "-lxenforeignmemory", "-lxenstore", "-lxentoollog"], "compiling the prototype")
        machine.put(program, "/root/prototype")
    machine.put(os.path.join(os.path.dirname(os.path.abspath(source)), "qcow2vm.py"), "/root/qcow2vm.py")
    machine.run("cd /root && python3 -c 'from qcow2vm import VmStateFile; VmStateFile(\"/tmp/vmst.qcow2\")'")


def run_prototype(machine, epochs, epoch_ms):
    """It wants a paused secondary, and leaves the primary paused."""
    left, right = guests.domid(machine, "left"), guests.domid(machine, "right")
    machine.run("xl pause right")
    status, out, errors = machine.run(f"/root/prototype {left} {right} pause {epochs + 1} {epoch_ms} both", timeout=300, check=False)
    if status != 0:
        raise LabError(f"the prototype ended with status {status}:\n{out[-1500:]}{errors}")
    # Its next run adds this node again.
    machine.run("xl unpause left; xl qemu-monitor-command right 'drive_del vmst'")
    return out


def alive(machine):
    for name in ("left", "right"):
        smoke.check_runs(machine, name, guests.domid(machine, name))


def bench(machine, prototype=None, rounds=ROUNDS, epochs=EPOCHS):
    """Returns the results; raises when something could not be measured or frames differed."""
    program = probe.install(machine, "xen_bench")
    if prototype:
        install_prototype(machine, prototype)
    for name in ("left", "right"):
        guests.start(machine, name)
    found = []
    for number in range(1, rounds + 1):
        alive(machine)
        say(f"round {number} of {rounds}")
        status, out, errors = machine.run(f"{program} left right {epochs} {EPOCH_MS}", timeout=600, check=False)
        found += parse(out)
        if status != 0:
            raise LabError(f"xen_bench ended with status {status}:\n{errors}{out[-1500:]}")
        if prototype:
            found += parse(run_prototype(machine, epochs, EPOCH_MS))
    alive(machine)
    result = results(found)
    print(table(result))
    print(json.dumps(result))
    if differing := sum(one["differing"] for one in result["compared"]):
        raise LabError(f"{differing} frames differ")
    return result
