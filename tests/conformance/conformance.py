#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Plays scripts.json against our server and against qemu-system-x86_64 and compares every answer and every event.

An answer is compared whole ("exact"), by the names and JSON types in it ("shape"), or by its error class alone ("class").
Where we differ on purpose, differences.json says so, with the reason; an entry that explains nothing fails the run, and so does a
difference without an entry. Our server is the commands over a daemon without a guest, or, for the scripts that say so and
with --colod, a whole colod with a guest. Exit status 77: the reference is not installed, or colod has no guest here.
"""
import argparse
import fnmatch
import json
import os
import shutil
import sys
import tempfile
import time

import monitor
from generated import GENERATORS, Schema
from introspection import compare_schema

SETTLE_S = 0.2  # what is sent silently is meant to be read on its own
SAMPLE_BYTES = 128 << 10  # to see how fast the reference reads
HERE = os.path.dirname(os.path.abspath(__file__))


class Differences:
    def __init__(self, name):
        with open(name, encoding="utf-8") as file:
            self.entries = json.load(file)["differences"]
        for entry in self.entries:
            entry["used"] = False
            sides = ("only-theirs",) if "only-theirs" in entry else ("ours", "theirs")
            if not all(entry.get(part) for part in ("where", "reason", *sides)):
                sys.exit(f"{name}: an entry names where, reason, and what each side says: {entry}")

    def find(self, where, our_text, their_text):
        """The entry that explains a difference: both sides say what it says they do."""
        for entry in self.entries:
            if "only-theirs" in entry or not fnmatch.fnmatchcase(where, entry["where"]):
                continue
            if entry["ours"] in our_text and entry["theirs"] in their_text:
                entry["used"] = True
                return entry
        return None

    def without_extras(self, where, value):
        """The reference's answer without what a later version of it added."""
        for entry in self.entries:
            if "only-theirs" in entry and fnmatch.fnmatchcase(where, entry["where"]):
                value, found = strip(value, set(entry["only-theirs"]))
                entry["used"] |= found
        return value

    def unused(self, played):
        """Entries about what was played that explained nothing."""
        return [entry["where"] for entry in self.entries
                if not entry["used"] and any(fnmatch.fnmatchcase(where, entry["where"]) for where in played)]


def strip(value, names):
    """Without array elements that carry, and object members that have, one of the names."""
    found = False
    if isinstance(value, list):
        kept = [v for v in value if not (v in names if isinstance(v, str) else isinstance(v, dict) and
                                         any(isinstance(x, str) and x in names for x in v.values()))]
        found = len(kept) != len(value)
        parts = [strip(v, names) for v in kept]
        return [part for part, _ in parts], found or any(f for _, f in parts)
    if isinstance(value, dict):
        found = any(name in names for name in value)
        parts = {name: strip(v, names) for name, v in value.items() if name not in names}
        return {name: part for name, (part, _) in parts.items()}, found or any(f for _, f in parts.values())
    return value, False


def shape(value):
    if isinstance(value, dict):
        return {name: shape(v) for name, v in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


def classes(answer):
    return {name: value["class"] if name == "error" else value if name == "id" else "..." for name, value in answer.items()}


COMPARE = {"exact": lambda answer: answer, "shape": shape, "class": classes}


def steps_of(script, schema):
    if "generate" in script:
        return [{"compare": script.get("compare", "exact"), **step} for step in GENERATORS[script["generate"]](schema)]
    steps = []
    for number, step in enumerate(script["steps"], 1):
        step = {"send": step} if isinstance(step, str) else dict(step)
        step.setdefault("label", str(number))
        step.setdefault("compare", script.get("compare", "exact"))
        steps.append(step)
    return steps


def expand(step, folder):
    """Bytes of a step; "repeat" puts long input together from parts, @FOLDER@ is a folder of the server's own."""
    text = step.get("send", "").replace("@FOLDER@", folder)
    return text.encode("latin-1") + b"".join(part["text"].encode("latin-1") * part.get("times", 1)
                                             for part in step.get("repeat", []))


def play(server, script, steps, descriptors):
    """Answers and events of each step."""
    one = server.monitor()
    monitors = {"": one}
    if script.get("negotiate", True):
        arguments = script.get("enable")
        request = {"execute": "qmp_capabilities", **({"arguments": {"enable": arguments}} if arguments else {})}
        answer, _ = one.ask(json.dumps(request).encode())
        if answer != [{"return": {}}]:
            raise RuntimeError(f"{server.name} does not negotiate: {answer}")
    answers = []
    for step in steps:
        name = step.get("monitor", "")
        if name not in monitors:
            monitors[name] = server.standard_streams() if name == "stdio" else server.monitor(second=True)
        if step.get("close"):
            monitors.pop(name).close()
            answers.append(([], []))
            continue
        along = descriptors[:step.get("descriptors", 0)]
        if step.get("silent"):
            monitors[name].send(expand(step, server.folder), along)
            time.sleep(SETTLE_S)
            answers.append(([], []))
            continue
        answers.append(monitors[name].ask(expand(step, server.folder), along, step.get("until"), step.get("ends", False)))
    for each in monitors.values():
        each.close()
    return answers


def hide_numbers(answers):
    """Descriptor numbers and the like differ between two processes."""
    if isinstance(answers, list):
        return [hide_numbers(answer) for answer in answers]
    if isinstance(answers, tuple):
        return tuple(hide_numbers(part) for part in answers)
    if isinstance(answers, dict):
        return {name: "number" if name == "fd" else hide_numbers(value) for name, value in answers.items()}
    return answers


class Run:
    def __init__(self, options):
        self.options = options
        self.schema = Schema(options.schema)
        self.differences = Differences(os.path.join(HERE, "differences.json"))
        self.compared, self.explained, self.failures, self.played = 0, 0, [], []

    def check(self, where, ours, theirs, sent=""):
        self.compared += 1
        self.played.append(where)
        if ours == theirs:
            return
        our_text, their_text = json.dumps(ours, sort_keys=True), json.dumps(theirs, sort_keys=True)
        if self.differences.find(where, our_text, their_text):
            self.explained += 1
            return
        self.failures.append(f"{where}\n  sent   {sent[:200]!r}\n  ours   {our_text[:600]}\n  theirs {their_text[:600]}")

    def our_server(self, script):
        if self.options.colod:
            return monitor.daemon(self.options.server, self.options.guest, script.get("role", "primary"))
        return monitor.ours(self.options.server, script.get("state", "prelaunch"))

    def reference_arguments(self, script):
        arguments = script.get("arguments", ["-M", "none", "-S"])
        if not self.options.colod:
            return arguments
        # The guest of a primary runs when it is there.
        waits = script.get("role") == "secondary"
        return [each for each in arguments if waits or each != "-S"] + ["-name", monitor.NAME, "-uuid", monitor.UUID]

    def wanted(self, script):
        if self.options.only and not fnmatch.fnmatchcase(script["name"], self.options.only):
            return False
        servers = script.get("servers", ["handlers"])
        return ("colod" if self.options.colod else "handlers") in servers

    def alone(self, name, steps):
        """Our server by itself, where the reference would take too long: against what the script expects."""
        with self.our_server({"name": name}) as server:
            for step, (our, _) in zip(steps, play(server, {"name": name}, steps, [])):
                self.check(f"{name}/{step['label']}", our, step["expect"], step.get("send", ""))

    def patient_enough(self, name, steps):
        """Says how long the reference will take for these steps, and waits as long, if that is bearable."""
        size = sum(len(expand(step, "")) for step in steps)
        with monitor.reference(["-M", "none", "-S"]) as server:
            one = server.monitor()
            began = time.monotonic()
            one.ask(b'"' + b"x" * SAMPLE_BYTES + b'"')
            minutes = size / SAMPLE_BYTES * (time.monotonic() - began) / 60
        print(f"{name}: {size >> 20} MiB take the reference about {minutes:.0f} min here, a byte at a time", flush=True)
        if minutes > self.options.patience:
            print(f"{name}: not compared with the reference: --patience {self.options.patience} is less", flush=True)
            return False
        monitor.WAIT_S = max(monitor.WAIT_S, 3 * 60 * minutes)
        return True

    def script(self, script):
        steps = steps_of(script, self.schema)
        if script.get("slow"):
            self.alone(script["name"], steps)
            steps = [step for step in steps if not step.get("ours")]
            if not self.options.slow or not self.patient_enough(script["name"], steps):
                return
        with tempfile.TemporaryFile() as first, tempfile.TemporaryFile() as second:
            descriptors = [first.fileno(), second.fileno()]
            with self.our_server(script) as server:
                ours = play(server, script, steps, descriptors)
            with monitor.reference(self.reference_arguments(script)) as server:
                theirs = play(server, script, steps, descriptors)
        for step, (our, our_events), (their, their_events) in zip(steps, hide_numbers(ours), hide_numbers(theirs)):
            where = f"{script['name']}/{step['label']}"
            their = self.differences.without_extras(where, their)
            reduce = COMPARE[step["compare"]]
            self.check(where, [reduce(a) for a in our], [reduce(a) for a in their], step.get("send", ""))
            self.check(f"{where}/events", our_events, their_events, step.get("send", ""))

    def introspection(self):
        request = b'{"execute": "query-qmp-schema"}'
        answers = []
        for server in (monitor.ours(self.options.server, "prelaunch"), monitor.reference(["-M", "none", "-S"])):
            with server:
                one = server.monitor()
                one.ask(b'{"execute": "qmp_capabilities"}')
                answers.append(one.ask(request)[0][0]["return"])
        for where, our, their in compare_schema(*answers, self.schema.commands + self.schema.events):
            self.check(where, our, self.differences.without_extras(where, their))

    def everything(self):
        with open(os.path.join(HERE, "scripts.json"), encoding="utf-8") as file:
            scripts = json.load(file)["scripts"]
        for script in scripts:
            if self.wanted(script):
                began = time.monotonic()
                self.script(script)
                print(f"{script['name']}: {time.monotonic() - began:.1f} s", flush=True)
        if not self.options.colod and self.options.only in (None, "schema"):
            self.introspection()
        for failure in self.failures:
            print(failure)
        unused = self.differences.unused(self.played)
        for where in unused:
            print(f"differences.json: nothing differs at {where} (any more)")
        print(f"{self.compared} answers compared, {self.explained} deliberate differences, {len(self.failures)} unexplained")
        return 1 if self.failures or unused else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server", help="qmp_conformance_server, or colod with --colod")
    parser.add_argument("--colod", action="store_true", help="the server is a whole colod, which needs root and --guest")
    parser.add_argument("--guest", help="folder of the guest image that scripts/build-guest makes")
    parser.add_argument("--schema", required=True, help="folder of the schema files")
    parser.add_argument("--only", help="one script, or a pattern")
    parser.add_argument("--slow", action="store_true", help="compare the largest inputs, too, which take the reference minutes")
    parser.add_argument("--patience", type=float, default=30, metavar="MIN", help="with --slow: what would take longer is left out")
    options = parser.parse_args()
    if not shutil.which("qemu-system-x86_64"):
        print("skipped: qemu-system-x86_64, the reference, is not installed (scripts/setup installs it)")
        return 77
    if options.colod and (os.geteuid() != 0 or not os.path.exists(os.path.join(options.guest or "", "vmlinuz"))):
        print("skipped: colod needs root and a guest image (scripts/build-guest makes one)")
        return 77
    return Run(options).everything()


if __name__ == "__main__":
    sys.exit(main())
