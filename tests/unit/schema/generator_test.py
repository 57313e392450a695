#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The generator refuses mistakes in schema files with one clear line. usage: generator_test.py PATH_OF_GENERATE_PY"""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

GENERATE = sys.argv.pop(1)


def enum(name, *values):
    return {"kind": "enum", "name": name, "doc": "d", "values": list(values)}


def struct(name, *members, **more):
    return {"kind": "struct", "name": name, "doc": "d", "members": list(members), **more}


class GeneratorTest(unittest.TestCase):
    def run_generator(self, definitions):
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory, "test.json")
            text = definitions if isinstance(definitions, str) else json.dumps({"doc": "d", "definitions": definitions})
            path.write_text(text)
            done = subprocess.run([sys.executable, GENERATE, str(pathlib.Path(directory, "out")), str(path)],
                                  capture_output=True, text=True, check=False)
            files = {f.name: f.read_text() for f in pathlib.Path(directory, "out").glob("*")}
            return done.returncode, done.stderr.strip(), files

    def refused(self, definitions, reason):
        status, error, files = self.run_generator(definitions)
        self.assertEqual(status, 1, error)
        self.assertEqual(len(error.splitlines()), 1, error)
        self.assertIn(reason, error)
        self.assertEqual(files, {})

    def test_mistakes_are_refused(self):
        member = {"name": "m", "type": "int"}
        self.refused("{", "test.json: ")
        self.refused([{"kind": "record", "name": "A", "doc": "d"}], "A: unknown kind 'record'")
        self.refused([{"kind": "enum", "name": "A", "values": []}], "A: has no doc")
        self.refused([struct("A", member, members_=[])], "A: unknown key 'members_'")
        self.refused([struct("A", {**member, "opt": True})], "A.m: unknown key 'opt'")
        self.refused([struct("A", {"name": "m", "type": "B"})], "A: unknown type 'B'")
        self.refused([struct("A", {"name": "m", "type": "[B]"})], "A: unknown type '[B]'")
        self.refused([struct("A", member), struct("A", member)], "A: defined twice")
        self.refused([struct("A", member, member)], "A: a name is there twice")
        self.refused([enum("A", "x", "x")], "A: a name is there twice")
        self.refused([struct("A", {**member, "min": 0, "max": 1})], "A.m: a range needs its text")
        self.refused([struct("A", {**member, "features": ["odd"]})], "A: unknown feature 'odd'")
        self.refused([{"kind": "struct", "name": "A", "doc": "d", "like": "B"}], "A: no struct 'B' to be like")
        self.refused([{"kind": "command", "name": "c", "doc": "d", "returns": "R"}], "c: unknown type 'R'")
        self.refused([{"kind": "command", "name": "c", "doc": "d", "arguments": "R"}], "c: unknown type 'R'")

    def test_unions_are_checked(self):
        tag = {"name": "t", "type": "T"}
        union = {"kind": "union", "name": "U", "doc": "d", "tag": "t", "members": [tag], "branches": {"a": []}}
        self.assertEqual(self.run_generator([enum("T", "a"), union])[0], 0)
        self.refused([enum("T", "a", "b"), union], "U: branches must be exactly the values")
        self.refused([enum("T", "a"), {**union, "tag": "x"}], "U: the tag must be a mandatory enum")
        self.refused([enum("T", "a"), {**union, "members": [{**tag, "optional": True}]}], "U: the tag must be")

    def test_reserved_words_and_widths(self):
        status, error, files = self.run_generator([enum("E", "int", "x-y", "default"), struct("S", {"name": "class", "type": "uint8"})])
        self.assertEqual(status, 0, error)
        self.assertIn("int_,", files["types.h"])
        self.assertIn("x_y,", files["types.h"])
        self.assertIn("std::uint8_t class_ = 0;", files["types.h"])

    def test_usage(self):
        self.assertEqual(subprocess.run([sys.executable, GENERATE], capture_output=True, check=False).returncode, 2)


if __name__ == "__main__":
    unittest.main()
