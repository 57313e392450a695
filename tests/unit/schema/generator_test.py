#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The generator refuses mistakes in schema files with one clear line, and leaves out what is off. About commands it says
nothing: named-in-tests: this file does not count.

usage: generator_test.py PATH_OF_GENERATE_PY
"""
import contextlib
import io
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

GENERATE = sys.argv.pop(1)
SCHEMA = pathlib.Path(GENERATE).resolve().parent
sys.path.insert(0, str(SCHEMA))
sys.dont_write_bytecode = True
import generate as generator_main  # noqa: E402

FILES = ("base", "fds", "migration", "colo", "dirty_rate", "jobs", "block", "extensions")
CONDITIONS = ("REPLICATION", "ZSTD")


def enum(name, *values, **more):
    return {"kind": "enum", "name": name, "doc": "d", "values": list(values), **more}


def struct(name, *members, **more):
    return {"kind": "struct", "name": name, "doc": "d", "members": list(members), **more}


def command(name, **more):
    return {"kind": "command", "name": name, "doc": "d", **more}


def generate(directory, paths, *options):
    """Exit status, standard error, files."""
    error = io.StringIO()
    with contextlib.redirect_stderr(error):
        status = generator_main.main([*options, str(pathlib.Path(directory, "out")), *map(str, paths)])
    return status, error.getvalue(), {f.name: f.read_text(encoding="utf-8") for f in pathlib.Path(directory, "out").glob("*")}


class GeneratorTest(unittest.TestCase):
    def run_generator(self, definitions, *options, **document):
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory, "test.json")
            if not isinstance(definitions, str):
                definitions = json.dumps({"doc": "d", "definitions": definitions, **document})
            path.write_text(definitions)
            status, error, files = generate(directory, [path], *options)
            return status, error.strip().replace(directory + "/", ""), files

    def refused(self, definitions, error, *options, **document):
        status, said, files = self.run_generator(definitions, *options, **document)
        self.assertEqual(said, error if error.startswith("--") else "test.json: " + error)
        self.assertEqual((status, files), (1, {}))

    def accepted(self, definitions, *options, **document):
        status, said, files = self.run_generator(definitions, *options, **document)
        self.assertEqual((status, said), (0, ""))
        return files

    def test_files_that_are_no_schema(self):
        status, said, _ = self.run_generator("{")
        self.assertEqual((status, said.splitlines()), (1, [said]))
        self.assertIn("test.json: ", said)
        self.assertIn("line 1", said)
        self.refused("[]", "must be an object with a list 'definitions'")
        self.refused('{"doc": "d"}', "must be an object with a list 'definitions'")
        self.refused('{"definitions": []}', "has no doc")
        self.refused([], "unknown key 'extra'", extra=1)
        self.refused([], "a condition has a name and a doc", conditions=["A"])
        self.refused(["x"], "a definition must be an object")
        self.refused([{"kind": "enum"}], "a definition without a name")

    def test_mistakes_in_definitions(self):
        member = {"name": "m", "type": "int"}
        self.refused([{"kind": "record", "name": "A", "doc": "d"}], "A: unknown kind 'record'")
        self.refused([{"kind": "enum", "name": "A", "values": ["x"]}], "A: has no doc")
        self.refused([enum("A")], "A: has no values")
        self.refused([enum("A", 1)], "A: a value must be a string, or an object with a name")
        self.refused([enum("A", {"name": "x", "document": "d"})], "A.x: unknown key 'document'")
        self.refused([enum("A", "x", "x")], "A.x: a name is there twice")
        self.refused([struct("A", member, members_=[])], "A: unknown key 'members_'")
        self.refused([struct("A", member), struct("A", member)], "A: defined twice")
        self.refused([struct("A", member, features=["odd"])], "A: unknown feature 'odd'")
        self.refused([struct("A", member, since="yesterday")], "A: since 'yesterday' is no version")
        self.refused([struct("A", member, since=1.0)], "A: 'since' must be of type str")
        self.refused([{"kind": "struct", "name": "A", "doc": "d", "like": "B"}], "A: no struct 'B' to be like")
        self.refused([command("c", returns="R")], "c: unknown type 'R'")
        self.refused([command("c", arguments="R")], "c: unknown type 'R'")
        self.refused([enum("E", "x"), command("c", arguments="E")], "c: arguments must be a struct, not 'E'")
        self.refused([command("c", errors=["bad"])], "c: an error has a text, a when, and perhaps a class")
        alternate = {"kind": "alternate", "name": "A", "doc": "d"}
        self.refused([{**alternate, "of": ["str", "number"]}], "A: an alternate cannot tell 'number' from others")
        self.refused([{**alternate, "of": ["str"]}], "A: an alternate needs two or more different types")

    def test_mistakes_in_members(self):
        member = {"name": "m", "type": "uint8"}
        self.refused([struct("A", {"type": "int"})], "A: a member without a name")
        self.refused([struct("A", {"name": "m"})], "A.m: has no type")
        self.refused([struct("A", {**member, "opt": True})], "A.m: unknown key 'opt'")
        self.refused([struct("A", {**member, "optional": "yes"})], "A.m: 'optional' must be of type bool")
        self.refused([struct("A", {"name": "m", "type": "B"})], "A.m: unknown type 'B'")
        self.refused([struct("A", {"name": "m", "type": "[B]"})], "A.m: unknown type '[B]'")
        self.refused([struct("A", {"name": "m", "type": "[[int]]"})], "A.m: unknown type '[[int]]'")
        self.refused([struct("A", member, member)], "A.m: a name is there twice")
        self.refused([struct("A", {**member, "features": ["odd"]})], "A.m: unknown feature 'odd'")
        self.refused([enum("A", {"name": "x", "features": ["odd"]})], "A.x: unknown feature 'odd'")
        self.refused([struct("A", {**member, "since": "7"})], "A.m: since '7' is no version")
        self.refused([command("c", arguments={"m": "int"})], "c: members must be a list")

    def test_mistakes_in_ranges_and_defaults(self):
        member = {"name": "m", "type": "uint8", "optional": True}
        ranged = {**member, "min": 1, "max": 9, "expects": "1 to 9"}
        self.accepted([struct("A", {**ranged, "default": 9})])
        self.refused([struct("A", {**member, "min": 0, "max": 1})], "A.m: a range needs its text in 'expects'")
        self.refused([struct("A", {**member, "min": 0})], "A.m: a range needs both 'min' and 'max'")
        self.refused([struct("A", {**ranged, "max": True})], "A.m: 'max' must be of type int")
        self.refused([struct("A", {**ranged, "max": 256})], "A.m: the range 1 to 256 is empty or wider than uint8")
        self.refused([struct("A", {**ranged, "max": 0})], "A.m: the range 1 to 0 is empty or wider than uint8")
        self.refused([struct("A", {**ranged, "type": "int"})], "A.m: a range of type 'int', which is no unsigned integer")
        self.refused([struct("A", {**member, "power-of-two": True})], "A.m: a power of two needs a range")
        self.refused([struct("A", {**ranged, "default": 0})], "A.m: the default 0 is outside the range")
        self.refused([struct("A", {**member, "default": "1"})], "A.m: the default '1' is no uint8")
        self.refused([struct("A", {**member, "default": 256})], "A.m: the default 256 is no uint8")
        self.refused([struct("A", {**member, "default": True})], "A.m: the default True is no uint8")
        self.refused([struct("A", {**member, "default": 1, "optional": False})], "A.m: a default of a member that is mandatory")
        self.refused([enum("E", "x"), struct("A", {**member, "type": "E", "default": "y"})], "A.m: the default 'y' is no E")

    def test_unions_are_checked(self):
        tag = {"name": "t", "type": "T"}
        union = {"kind": "union", "name": "U", "doc": "d", "tag": "t", "members": [tag], "branches": {"a": []}}
        twice = {**union, "branches": {"a": [{"name": "t", "type": "int"}]}}
        wrong = "U: the tag must be a mandatory enum among the members"
        self.accepted([enum("T", "a"), union])
        self.refused([enum("T", "a", "b"), union], "U: branches must be exactly the values of the tag, in their order")
        self.refused([enum("T", "a"), {**union, "tag": "x"}], wrong)
        self.refused([enum("T", "a"), {**union, "members": [{**tag, "optional": True}]}], wrong)
        self.refused([enum("T", "a"), {**union, "members": [{"name": "t", "type": "str"}]}], wrong)
        self.refused([enum("T", "a"), twice], "U.t: a name is there twice")
        self.refused([enum("T", "a"), {**union, "branches": {"a": [{"name": "m", "type": "X"}]}}], "U.m: unknown type 'X'")
        self.refused([enum("T", "a"), {**union, "branches": []}], "U: branches must be an object")

    def test_recursion(self):
        again = {"name": "again", "type": "A"}
        self.accepted([struct("A", {**again, "optional": True})])
        self.accepted([struct("A", {**again, "type": "[A]"})])
        self.refused([struct("A", again)], "A.again: contains itself without end")
        through = {"name": "a", "type": "A", "optional": True}
        self.refused([struct("A", {"name": "b", "type": "B", "optional": True}), struct("B", through)],
                     "A: contains itself through 'B', which cannot be expressed")

    def test_mistakes_in_conditions(self):
        member = {"name": "m", "type": "int"}
        declared = {"conditions": [{"name": "C", "doc": "d"}, {"name": "D", "doc": "d"}]}
        hidden = struct("H", member, **{"if": "C"})
        user = {"name": "h", "type": "H"}
        self.refused([struct("A", member, **{"if": "C"})], "A: unknown condition 'C'")
        self.refused([struct("A", {**member, "if": "C"})], "A.m: unknown condition 'C'")
        self.refused([enum("A", {"name": "x", "if": "C"})], "A.x: unknown condition 'C'")
        self.refused([hidden, struct("A", user)], "A.h: uses 'H', which exists only with C", **declared)
        self.refused([hidden, struct("A", {**user, "if": "D"})], "A.h: uses 'H', which exists only with C", **declared)
        self.refused([hidden, command("c", returns="[H]")], "c: uses 'H', which exists only with C", **declared)
        self.accepted([hidden, struct("A", {**user, "if": "C"}), command("c", returns="H", **{"if": "C"})], **declared)
        colour = enum("E", "x", {"name": "y", "if": "C"})
        self.refused([colour, struct("A", {"name": "m", "type": "E", "optional": True, "default": "y"})],
                     "A.m: the default 'y' is no E", **declared)
        self.refused([hidden], "--off: unknown condition 'X', there is C, D", "--off", "X", **declared)

    def test_reserved_words_and_widths(self):
        files = self.accepted([enum("E", "int", "x-y", "default"), struct("S", {"name": "class", "type": "uint8"})])
        self.assertIn("int_,", files["types.h"])
        self.assertIn("x_y,", files["types.h"])
        self.assertIn("std::uint8_t class_ = 0;", files["types.h"])

    def test_usage(self):
        self.assertEqual(subprocess.run([sys.executable, GENERATE], capture_output=True, check=False).returncode, 2)
        self.assertEqual(subprocess.run([sys.executable, GENERATE, "--help"], capture_output=True, check=False).returncode, 0)
        with tempfile.TemporaryDirectory() as directory:
            done = subprocess.run([sys.executable, GENERATE, directory, "/no/such.json"], capture_output=True, text=True, check=False)
            self.assertEqual((done.returncode, done.stderr.count("\n")), (1, 1))
            self.assertIn("/no/such.json: ", done.stderr)


class ProductSchemaTest(unittest.TestCase):
    """The schema of the product, with everything on and with everything off."""

    def files(self, *options):
        with tempfile.TemporaryDirectory() as directory:
            status, error, files = generate(directory, [SCHEMA / f"{name}.json" for name in FILES], *options)
            self.assertEqual((status, error), (0, ""))
            return files

    def test_all_files_are_known(self):
        self.assertEqual(sorted(path.stem for path in SCHEMA.glob("*.json")), sorted(FILES))

    def test_reference_is_current(self):
        stored = (SCHEMA.parent / "docs" / "qmp.md").read_text(encoding="utf-8")
        self.assertTrue(stored == self.files()["qmp.md"], "docs/qmp.md is stale: run scripts/update-reference")

    def test_reference_names_everything(self):
        files = self.files()
        for row in json.loads(files["argument_cases.json"]):
            self.assertIn(f"### {row['command']}\n", files["qmp.md"])
        targets = set(re.findall(r"\]\(#([^)]+)\)", files["qmp.md"]))
        headings = {re.sub("[ ]", "-", title.lower()) for title in re.findall(r"^###? (.*)$", files["qmp.md"], re.MULTILINE)}
        self.assertEqual(targets - headings, set())
        for line in files["qmp.md"].splitlines():
            self.assertEqual(line, line.rstrip())

    def test_manual_page_is_clean(self):
        if shutil.which("man") is None:
            self.skipTest("there is no man")
        with tempfile.TemporaryDirectory() as directory:
            page = pathlib.Path(directory, "colod-qmp.7")
            page.write_text(self.files()["colod-qmp.7"], encoding="utf-8")
            done = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", str(page)], capture_output=True, text=True, check=False)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertIn("migrate-set-capabilities", done.stdout.replace("\u2010", "-"))

    def test_what_is_off_is_nowhere(self):
        on = self.files()
        off = self.files(*[f"--off={condition}" for condition in CONDITIONS])
        gone = ("xen-set-replication", "query-xen-replication-status", "xen-colo-do-checkpoint", "zstd")
        for name in ("tables.cpp", "argument_cases.json", "qmp.md", "colod-qmp.7", "qmp-words"):
            for word in gone:
                if name not in ("qmp.md", "colod-qmp.7", "qmp-words") or word != "zstd":
                    self.assertIn(word, on[name].replace("\\-", "-"), name)
        for word in gone[:3]:
            for name in ("tables.cpp", "qmp.md", "colod-qmp.7", "qmp-words"):
                self.assertNotIn(word, off[name].replace("\\-", "-"), name)
            self.assertNotIn(f'"command": "{word}"', off["argument_cases.json"])
        self.assertNotIn('\\"zstd\\"', off["tables.cpp"])
        refused = [row for row in json.loads(off["argument_cases.json"]) if row["arguments"] == '{"multifd-compression": "zstd"}']
        self.assertEqual([row["desc"] for row in refused], ["Parameter 'multifd-compression' does not accept value 'zstd'"])
        # The C++ types are the same, so that handlers compile.
        def types(files):
            return [line for line in files["types.h"].splitlines() if "kServed" not in line and "visitor." not in line]
        self.assertEqual(types(on), types(off))


if __name__ == "__main__":
    unittest.main()
