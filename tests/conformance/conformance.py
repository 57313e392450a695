#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Plays scripts.json against our server and against qemu-system-x86_64 and compares every answer.

An answer is compared whole ("exact"), by the names and JSON types in it ("shape"), or by its error class alone ("class").
Where we differ on purpose, differences.json says so, with the reason; an entry that explains nothing fails the run (unless it
is marked temporary), and so does a difference without an entry. Exit status 77: the reference is not installed.
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

PENDING = "This command is not served yet"  # colo/handlers/pending_commands.cpp
SETTLE_S = 0.2  # what is sent silently is meant to be read on its own
HERE = os.path.dirname(os.path.abspath(__file__))


class Differences:
    def __init__(self, name):
        with open(name, encoding="utf-8") as file:
            self.entries = json.load(file)["differences"]
        for entry in self.entries:
            entry["used"] = entry.get("temporary", False)
            if not entry.get("reason") or not entry.get("where"):
                sys.exit(f"{name}: an entry without where or reason: {entry}")

    def find(self, where, our_text, their_text):
        """The entry that explains a difference. One that states texts only explains those."""
        for entry in self.entries:
            if "only-theirs" in entry or not fnmatch.fnmatchcase(where, entry["where"]):
                continue
            if entry.get("ours", our_text) in our_text and entry.get("theirs", their_text) in their_text:
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

    def unused(self):
        return [entry["where"] for entry in self.entries if not entry["used"]]


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


def expand(step):
    """Bytes of a step; "repeat" puts long input together from parts."""
    text = step.get("send", "")
    for part in step.get("repeat", []):
        text += part["text"] * part.get("times", 1)
    return text.encode("latin-1")


def play(server, script, steps, descriptors):
    """Answers of each step."""
    one = server.monitor()
    monitors = {"": one}
    if script.get("negotiate", True):
        arguments = script.get("enable")
        request = {"execute": "qmp_capabilities", **({"arguments": {"enable": arguments}} if arguments else {})}
        answer = one.ask(json.dumps(request).encode())
        if answer != [{"return": {}}]:
            raise RuntimeError(f"{server.name} does not negotiate: {answer}")
    answers = []
    for step in steps:
        name = step.get("monitor", "")
        if name not in monitors:
            monitors[name] = server.monitor(second=True)
        if step.get("close"):
            monitors.pop(name).close()
            answers.append([])
            continue
        along = descriptors[:step.get("descriptors", 0)]
        if step.get("silent"):
            monitors[name].send(expand(step), along)
            time.sleep(SETTLE_S)
            answers.append([])
            continue
        answers.append(monitors[name].ask(expand(step), along))
    for each in monitors.values():
        each.close()
    return answers


def hide_numbers(answers):
    """Descriptor numbers and the like differ between two processes."""
    if isinstance(answers, list):
        return [hide_numbers(answer) for answer in answers]
    if isinstance(answers, dict):
        return {name: "number" if name == "fd" else hide_numbers(value) for name, value in answers.items()}
    return answers


class Run:
    def __init__(self, options):
        self.options = options
        self.schema = Schema(options.schema)
        self.differences = Differences(os.path.join(HERE, "differences.json"))
        self.compared, self.explained, self.pending, self.failures = 0, 0, 0, []

    def check(self, where, ours, theirs, sent=""):
        self.compared += 1
        if ours == theirs:
            return
        our_text, their_text = json.dumps(ours, sort_keys=True), json.dumps(theirs, sort_keys=True)
        if PENDING in our_text:
            self.pending += 1
            return
        if self.differences.find(where, our_text, their_text):
            self.explained += 1
            return
        self.failures.append(f"{where}\n  sent   {sent[:200]!r}\n  ours   {our_text[:600]}\n  theirs {their_text[:600]}")

    def script(self, script):
        steps = steps_of(script, self.schema)
        with tempfile.TemporaryFile() as first, tempfile.TemporaryFile() as second:
            descriptors = [first.fileno(), second.fileno()]
            with monitor.ours(self.options.server, script.get("state", "prelaunch")) as server:
                ours = play(server, script, steps, descriptors)
            with monitor.reference(script.get("arguments", ["-M", "none", "-S"])) as server:
                theirs = play(server, script, steps, descriptors)
        for step, our, their in zip(steps, hide_numbers(ours), hide_numbers(theirs)):
            where = f"{script['name']}/{step['label']}"
            their = self.differences.without_extras(where, their)
            reduce = COMPARE[step["compare"]]
            self.check(where, [reduce(a) for a in our], [reduce(a) for a in their], step.get("send", ""))

    def introspection(self):
        request = b'{"execute": "query-qmp-schema"}'
        answers = []
        for server in (monitor.ours(self.options.server, "prelaunch"), monitor.reference(["-M", "none", "-S"])):
            with server:
                one = server.monitor()
                one.ask(b'{"execute": "qmp_capabilities"}')
                answers.append(one.ask(request)[0]["return"])
        for where, our, their in compare_schema(*answers, self.schema.commands + self.schema.events):
            self.check(where, our, self.differences.without_extras(where, their))

    def everything(self):
        with open(os.path.join(HERE, "scripts.json"), encoding="utf-8") as file:
            scripts = json.load(file)["scripts"]
        for script in scripts:
            if script.get("slow") and not self.options.slow:
                continue
            if not self.options.only or fnmatch.fnmatchcase(script["name"], self.options.only):
                self.script(script)
        if not self.options.only or self.options.only == "schema":
            self.introspection()
        for failure in self.failures:
            print(failure)
        unused = [] if self.options.only else self.differences.unused()
        for where in unused:
            print(f"differences.json: nothing differs at {where} (any more)")
        print(f"{self.compared} answers compared, {self.explained} deliberate differences, {self.pending} not served yet, {len(self.failures)} unexplained")
        return 1 if self.failures or unused else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server", help="qmp_conformance_server")
    parser.add_argument("--schema", required=True, help="folder of the schema files")
    parser.add_argument("--only", help="one script, or a pattern")
    parser.add_argument("--slow", action="store_true", help="also what takes minutes: the largest inputs")
    options = parser.parse_args()
    if not shutil.which("qemu-system-x86_64"):
        print("skipped: qemu-system-x86_64, the reference, is not installed (scripts/setup installs it)")
        return 77
    return Run(options).everything()


if __name__ == "__main__":
    sys.exit(main())
