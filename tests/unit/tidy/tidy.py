#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Rules of the house that a machine can check: tidy.py ROOT CHECK. Prints every breach with file and line."""
import json
import os
import re
import subprocess
import sys

# Folder -> folders it may include besides itself. Arrows point downwards only.
MAY_INCLUDE = {
    "core": set(),
    "schema": {"core"},
    "qmp": {"schema", "core"},
    "replication": {"core"},
    "proxy": {"replication", "core"},
    "qemu": {"replication", "qmp", "core"},
    "xen": {"qemu", "replication", "qmp", "core"},
    "colo": {"xen", "qemu", "proxy", "replication", "qmp", "schema", "core"},
}
SOURCE = (".h", ".cpp", ".c", ".py", ".sh")
MAX_LINES = 600
# Spelled apart, so that this file does not find itself.
MARKERS = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X")) + r")\b")
INCLUDE = re.compile(r'^\s*#\s*include\s*["<]([a-z_]+)/([^">]+)[">]')


def tracked(root):
    """Files that belong to the project, relative to root."""
    try:
        out = subprocess.run(["git", "-C", root, "ls-files", "-co", "--exclude-standard"], stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL, check=True, text=True).stdout.splitlines()
        files = [name for name in out if os.path.isfile(os.path.join(root, name))]
        if files:
            return files
    except (OSError, subprocess.CalledProcessError):
        pass
    found = []
    for directory, folders, names in os.walk(root):
        folders[:] = [f for f in folders if f not in ("build", "__pycache__") and not f.startswith(".git")]
        found += [os.path.relpath(os.path.join(directory, name), root) for name in names]
    return found


def lines_of(root, name):
    with open(os.path.join(root, name), encoding="utf-8", errors="replace") as file:
        return file.read().splitlines()


def is_script(root, name):
    if os.path.splitext(name)[1]:
        return False
    with open(os.path.join(root, name), "rb") as file:
        return file.read(2) == b"#!"


def is_source(root, name):
    return (name.endswith(SOURCE + (".md",)) or os.path.basename(name) == "CMakeLists.txt" or name.endswith(".cmake")
            or is_script(root, name))


def check_includes(root):
    """Includes point downwards; every include of a file of ours is written from the root and exists."""
    problems, seen = [], 0
    for name in tracked(root):
        folder = name.split("/")[0]
        if folder not in MAY_INCLUDE or not name.endswith((".h", ".cpp")):
            continue
        for number, line in enumerate(lines_of(root, name), 1):
            if re.match(r'^\s*#\s*include\s*"[^/"]*"', line):
                problems.append(f"{name}:{number}: an include that is not written from the root")
            match = INCLUDE.match(line)
            if not match or match.group(1) not in MAY_INCLUDE and match.group(1) != "tests":
                continue
            seen += 1
            target = match.group(1)
            if target == "tests":
                problems.append(f"{name}:{number}: the product includes a test file")
            elif target != folder and target not in MAY_INCLUDE[folder]:
                problems.append(f"{name}:{number}: {folder}/ may not include {target}/{match.group(2)}")
    return problems, f"{seen} includes between folders"


def check_style(root):
    """SPDX line first, no leftover markers, files of a size that can be read in one go."""
    problems, seen = [], 0
    for name in tracked(root):
        if not is_source(root, name):
            continue
        seen += 1
        lines = lines_of(root, name)
        head = lines[1:2] if lines and lines[0].startswith("#!") else lines[:1]
        if not head or "SPDX-License-Identifier: Apache-2.0" not in head[0]:
            problems.append(f"{name}:1: the SPDX line is missing")
        generated = name.endswith(".md") and any(line.startswith("<!-- Generated from ") for line in lines[1:2])
        if len(lines) > MAX_LINES and not generated:
            problems.append(f"{name}:{len(lines)}: longer than {MAX_LINES} lines")
        for number, line in enumerate(lines, 1):
            if MARKERS.search(line):
                problems.append(f"{name}:{number}: leftover marker: {line.strip()[:80]}")
            if line.rstrip() != line:
                problems.append(f"{name}:{number}: white space at the end of the line")
        if name.endswith(".h") and "#pragma once" not in lines:
            problems.append(f"{name}:1: no #pragma once")
    return problems, f"{seen} source files"


def text_of(root, prefix):
    return "\n".join("\n".join(lines_of(root, name)) for name in tracked(root)
                     if name.startswith(prefix) and name.endswith((".cpp", ".py", ".h", ".c")) and "/tidy/" not in name)


# A comment, or a string: C++ raw strings, Python's long ones, ordinary ones.
CPP_PIECES = re.compile(r'//[^\n]*|/\*.*?\*/|R"(\w*)\((?P<raw>.*?)\)\1"|"(?P<text>(?:\\.|[^"\\\n])*)"', re.DOTALL)
PYTHON_PIECES = re.compile(r'#[^\n]*|"""(?P<raw>.*?)"""|"(?P<text>(?:\\.|[^"\\\n])*)"|\'(?P<single>(?:\\.|[^\'\\\n])*)\'', re.DOTALL)


def strings_of(name, text):
    """The contents of all string literals; what is said in comments does not count as a test."""
    pieces = PYTHON_PIECES if name.endswith(".py") else CPP_PIECES
    for match in pieces.finditer(text):
        for content in match.groupdict().values():
            if content:
                yield content.replace('\\"', '"')


# In a test file that names things without testing what they do: it tests a client, or only how they are written.
NAMES_NOTHING = "named-in-tests: this file does not count"


class Named:
    """What the tests name: words of string literals, and the generated C++ types in their code."""

    def __init__(self, root):
        self.words = set()  # anywhere in a literal
        self.quoted = set()  # the whole of a literal, or in quotes inside it, as in JSON
        self.code = []
        for name in tracked(root):
            if name.startswith("tests/") and name.endswith((".cpp", ".py", ".h")) and "/tidy/" not in name:
                text = "\n".join(lines_of(root, name))
                if NAMES_NOTHING in text:
                    continue
                self.code.append(re.sub(r"//[^\n]*", "", text))
                for content in strings_of(name, text):
                    self.words.update(re.findall(r"[\w-]+", content))
                    self.quoted.add(content)
                    self.quoted.update(re.findall(r'["\\\']([\w-]+)["\\\']', content))
        self.code = "\n".join(self.code)

    def has(self, word, cpp_name):
        plain = re.fullmatch("[a-z]+", word)  # "stop" may be a word of a sentence
        return word in (self.quoted if plain else self.words) or re.search(r"\b" + re.escape(cpp_name) + r"\b", self.code) is not None


def camel(name):
    """The generator's C++ name of a command or event."""
    words = name.replace("-", "_").split("_")
    return "".join(word[:1].upper() + (word[1:].lower() if word.isupper() else word[1:]) for word in words)


def schema_items(root):
    """(file, kind, name, C++ name) of every command, event, parameter and capability."""
    definitions = []
    for name in tracked(root):
        if name.startswith("schema/") and name.endswith(".json"):
            data = json.loads("\n".join(lines_of(root, name)))
            definitions += [(name, definition) for definition in data.get("definitions", [])]
    for file, definition in definitions:
        name = definition["name"]
        if definition["kind"] in ("command", "event"):
            yield file, definition["kind"], name, f"{definition['kind']}s::{camel(name)}"
        elif name == "MigrateSetParameters":
            for member in definition["members"]:
                yield file, "parameter", member["name"], "MigrationParameter::" + member["name"].replace("-", "_")
        elif name == "MigrationCapability":
            for value in definition["values"]:
                text = value if isinstance(value, str) else value["name"]
                yield file, "capability", text, "MigrationCapability::" + text.replace("-", "_")


def check_named_in_tests(root):
    """Every command, event, parameter and capability of the schema has a test that names it (the generated cases cover
    arguments, not what a command does); every fault point has an integration test that arms it."""
    named = Named(root)
    items = list(schema_items(root))
    problems = [f"{file}: no test names the {kind} {name}" for file, kind, name, cpp in items if not named.has(name, cpp)]
    for kind in ("command", "event", "parameter", "capability"):
        if not any(item[1] == kind for item in items):
            problems.append(f"schema: no {kind} found; has the schema moved?")
    header = "\n".join(lines_of(root, "core/failpoint.h"))
    points = re.findall(r'"([ps]-[a-z-]+)"', header.split("kPoints[]")[1].split("};")[0])
    integration = text_of(root, "tests/integration/")
    problems += [f"core/failpoint.h: no integration test arms {point}" for point in points
                 if f'"{point}' not in integration]
    if not points:
        problems.append("core/failpoint.h: no fault points found; has the list moved?")
    return problems, f"{len(items)} commands, events, parameters and capabilities, {len(points)} fault points"


def check_shell(root):
    """Shell scripts are clean for shellcheck."""
    scripts = [name for name in tracked(root) if name.endswith(".sh") or is_script(root, name) and
               re.search(r"\b(ba|da)?sh\b", lines_of(root, name)[0])]
    try:
        done = subprocess.run(["shellcheck", "-x", *scripts], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, check=False)
    except FileNotFoundError:
        return ["shellcheck is not installed (scripts/setup installs it)"], ""
    return ([] if done.returncode == 0 else done.stdout.splitlines()), f"{len(scripts)} shell scripts"


def check_help(root):
    """Whoever asks a script for help gets it, and nothing is done."""
    # Its own text decides whether the guest is built again, and its one argument is a folder.
    scripts = [name for name in tracked(root) if name.startswith("scripts/") and is_script(root, name) and name != "scripts/build-guest"]
    problems = []
    for name in scripts:
        try:
            done = subprocess.run([os.path.join(root, name), "--help"], cwd=root, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, check=False, timeout=30)
        except subprocess.TimeoutExpired:
            problems.append(f"{name}: --help does something that takes its time")
            continue
        if done.returncode != 0 or "usage:" not in done.stdout:
            problems.append(f"{name}: --help ends with {done.returncode} and no usage: {done.stdout[:80]!r}")
    return problems, f"{len(scripts)} scripts"


def check_breakages(root):
    """What core/breakage.h switches is compiled twice, everything else once: the breakable_sources of a folder are the
    files that include it. A header must not, or files that are compiled once would depend on the switch."""
    problems, seen = [], 0
    for folder in MAY_INCLUDE:
        users, listed = set(), set()
        for name in tracked(root):
            if os.path.dirname(name) == folder and name.endswith((".h", ".cpp")):
                if any(re.match(r'\s*#\s*include\s*"core/breakage\.h"', line) for line in lines_of(root, name)):
                    users.add(os.path.basename(name))
            elif name.startswith(folder + "/") and name.endswith((".h", ".cpp")):
                if "core/breakage.h" in "\n".join(lines_of(root, name)):
                    problems.append(f"{name}: includes core/breakage.h, which only files of {folder}/ itself may")
            elif name == f"{folder}/CMakeLists.txt":
                match = re.search(r"set\(breakable_sources ([^)]*)\)", "\n".join(lines_of(root, name)))
                listed = set(match.group(1).split()) if match else set()
        seen += len(users)
        problems += [f"{folder}/{name}: a header that includes core/breakage.h" for name in users if name.endswith(".h")]
        problems += [f"{folder}/CMakeLists.txt: {name} includes core/breakage.h, or is in breakable_sources, but not both"
                     for name in users ^ listed if not name.endswith(".h")]
    return problems, f"{seen} files with switchable rules"


CHECKS = {"breakages": check_breakages, "includes": check_includes, "style": check_style,
          "named-in-tests": check_named_in_tests, "shell": check_shell, "help": check_help}


def main():
    if len(sys.argv) != 3 or sys.argv[2] not in CHECKS:
        print(f"usage: tidy.py ROOT {'|'.join(CHECKS)}", file=sys.stderr)
        return 2
    problems, summary = CHECKS[sys.argv[2]](sys.argv[1])
    for problem in problems:
        print(problem)
    print(f"{summary}; {len(problems)} breaches")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
