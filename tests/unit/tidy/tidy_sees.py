#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The checks of tidy.py must see what they are for: each is shown a small tree with and without a breach."""
import json
import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tidy  # noqa: E402

SPDX = "// SPDX-License-Identifier: Apache-2.0\n"


class TidySees(unittest.TestCase):
    def tree(self, files):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        for name, text in files.items():
            path = os.path.join(directory.name, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        return directory.name

    def breaches(self, check, files):
        return tidy.CHECKS[check](self.tree(files))[0]

    def test_include_upwards(self):
        bad = {"core/x.cpp": SPDX + '#include "proxy/frame.h"\n'}
        self.assertEqual(len(self.breaches("includes", bad)), 1)

    def test_include_sideways(self):
        for folder, target in (("replication", "qmp"), ("proxy", "qmp"), ("qmp", "replication"), ("qemu", "colo"), ("qemu", "proxy")):
            bad = {f"{folder}/x.h": SPDX + f'#include "{target}/y.h"\n'}
            self.assertEqual(len(self.breaches("includes", bad)), 1, (folder, target))

    def test_include_downwards_and_system(self):
        good = {"colo/x.cpp": SPDX + '#include "xen/y.h"\n#include "core/z.h"\n#include <vector>\n#include <sys/stat.h>\n'}
        self.assertEqual(self.breaches("includes", good), [])

    def test_include_not_from_the_root(self):
        self.assertEqual(len(self.breaches("includes", {"colo/x.cpp": SPDX + '#include "y.h"\n'})), 1)

    def test_product_includes_test(self):
        self.assertEqual(len(self.breaches("includes", {"colo/x.cpp": SPDX + '#include "tests/sim/y.h"\n'})), 1)

    def test_breakages(self):
        use, lists = SPDX + '#include "core/breakage.h"\n', "# " + SPDX[3:] + "set(breakable_sources x.cpp)\n"
        self.assertEqual(self.breaches("breakages", {"proxy/x.cpp": use, "proxy/CMakeLists.txt": lists}), [])
        self.assertEqual(len(self.breaches("breakages", {"proxy/x.cpp": use, "proxy/y.cpp": use, "proxy/CMakeLists.txt": lists})), 1)
        self.assertEqual(len(self.breaches("breakages", {"proxy/x.cpp": SPDX, "proxy/CMakeLists.txt": lists})), 1)
        self.assertEqual(len(self.breaches("breakages", {"proxy/x.cpp": use})), 1)
        self.assertEqual(len(self.breaches("breakages", {"proxy/y.h": use})), 1)
        self.assertEqual(len(self.breaches("breakages", {"colo/handlers/y.cpp": use})), 1)

    def test_style(self):
        marker = "TO" + "DO"
        self.assertEqual(len(self.breaches("style", {"core/x.cpp": "int x;\n"})), 1)
        self.assertEqual(len(self.breaches("style", {"core/x.cpp": SPDX + f"// {marker}: later\n"})), 1)
        self.assertEqual(len(self.breaches("style", {"core/x.cpp": SPDX + "int x;\n" * 600})), 1)
        self.assertEqual(len(self.breaches("style", {"core/x.cpp": SPDX + "int x; \n"})), 1)
        spdx_md, long = "<!-- SPDX-License-Identifier: Apache-2.0 -->\n", "text\n" * 600
        self.assertEqual(len(self.breaches("style", {"docs/x.md": spdx_md + long})), 1)
        self.assertEqual(self.breaches("style", {"docs/x.md": spdx_md + "<!-- Generated from y -->\n" + long}), [])
        self.assertEqual(len(self.breaches("style", {"core/x.cpp": SPDX + "<!-- Generated from y -->\n" + long})), 1)
        self.assertEqual(len(self.breaches("style", {"core/x.h": SPDX + "int x;\n"})), 1)
        self.assertEqual(self.breaches("style", {"core/x.h": SPDX + "#pragma once\n", "scripts/a": "#!/bin/sh\n# " + SPDX[3:]}), [])

    def named(self, test_text, integration_text='"p-one" "s-two"', name="tests/unit/a.cpp"):
        schema = {"definitions": [{"kind": "command", "name": "do-it"}, {"kind": "event", "name": "IT_IS_DONE"},
                                  {"kind": "struct", "name": "MigrateSetParameters", "members": [{"name": "so-fast"}]},
                                  {"kind": "enum", "name": "MigrationCapability", "values": ["far", {"name": "x-wide"}]},
                                  {"kind": "enum", "name": "Other", "values": ["not-asked-for"]}]}
        return self.breaches("named-in-tests", {
            "schema/a.json": json.dumps(schema), "core/failpoint.h": 'kPoints[] = {"p-one", "s-two"};',
            name: test_text, "tests/integration/t.py": integration_text})

    ALL = '"do-it" "IT_IS_DONE end" "{so-fast}" R"({"far": 1})" "[\\"x-wide\\"]"'

    def test_named_in_tests(self):
        self.assertEqual(self.named(self.ALL), [])
        self.assertEqual(self.named(self.ALL, '"p-one"'), ["core/failpoint.h: no integration test arms s-two"])
        for word in ("do-it", "IT_IS_DONE", "so-fast", "far", "x-wide"):
            self.assertEqual(len(self.named(self.ALL.replace(word, "other"))), 1, word)
            # Part of another name, in a comment, or as code: not named.
            self.assertEqual(len(self.named(self.ALL.replace(word, word + "-not"))), 1, word)
            self.assertEqual(len(self.named(self.ALL.replace(word, "z") + f"\n// \"{word}\"")), 1, word)
            self.assertEqual(len(self.named(self.ALL.replace(word, "z") + f"\n{word}();")), 1, word)

    def test_a_word_of_a_sentence_is_no_name(self):
        for literal, seen in (('"far"', True), ('R"({"far": true})"', True), ('"x \\"far\\" y"', True), ('"it is far away"', False)):
            breaches = self.named(self.ALL.replace('R"({"far": 1})"', literal))
            self.assertEqual(len(breaches), 0 if seen else 1, literal)

    def test_named_by_generated_type(self):
        for word, code in (("do-it", "commands::DoIt::kName"), ("IT_IS_DONE", "emit(events::ItIsDone{})"),
                           ("far", "MigrationCapability::far"), ("x-wide", "MigrationCapability::x_wide")):
            self.assertEqual(self.named(self.ALL.replace(word, "z") + code), [], word)
            self.assertEqual(len(self.named(self.ALL.replace(word, "z") + "// " + code)), 1, word)

    def test_a_file_may_say_that_it_does_not_count(self):
        self.assertEqual(len(self.named(f"// {tidy.NAMES_NOTHING}: a client.\n" + self.ALL)), 5)

    def test_named_in_python(self):
        python = """a = "do-it IT_IS_DONE"\nb = 'so-fast'\nc = \"\"\"'far'\nx-wide\"\"\"\n"""
        self.assertEqual(self.named(python, name="tests/unit/a.py"), [])
        self.assertEqual(len(self.named(python.replace("'so-fast'", "1  # 'so-fast'"), name="tests/unit/a.py")), 1)

    def test_named_needs_a_schema(self):
        empty = {"schema/a.json": '{"definitions": []}', "core/failpoint.h": 'kPoints[] = {"p-one"};', "tests/integration/t.py": '"p-one"'}
        self.assertEqual(len(self.breaches("named-in-tests", empty)), 4)

    def test_help(self):
        for text, breaches in (("echo 'usage: a'", 0), ("exit 0", 1), ("echo 'usage: a'; exit 2", 1)):
            root = self.tree({"scripts/a": f"#!/bin/bash\n{text}\n"})
            os.chmod(os.path.join(root, "scripts/a"), 0o755)
            self.assertEqual(len(tidy.check_help(root)[0]), breaches, text)

    def test_shell(self):
        self.assertTrue(self.breaches("shell", {"scripts/a": "#!/bin/bash\nrm $1/*\n"}))
        self.assertEqual(self.breaches("shell", {"scripts/a": "#!/bin/bash\necho ok\n"}), [])


if __name__ == "__main__":
    unittest.main()
