#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The checks of tidy.py must see what they are for: each is shown a small tree with and without a breach."""
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

    def test_style(self):
        marker = "TO" + "DO"
        self.assertEqual(len(self.breaches("style", {"core/x.cpp": "int x;\n"})), 1)
        self.assertEqual(len(self.breaches("style", {"core/x.cpp": SPDX + f"// {marker}: later\n"})), 1)
        self.assertEqual(len(self.breaches("style", {"core/x.cpp": SPDX + "int x;\n" * 600})), 1)
        self.assertEqual(len(self.breaches("style", {"core/x.cpp": SPDX + "int x; \n"})), 1)
        self.assertEqual(len(self.breaches("style", {"core/x.h": SPDX + "int x;\n"})), 1)
        self.assertEqual(self.breaches("style", {"core/x.h": SPDX + "#pragma once\n", "scripts/a": "#!/bin/sh\n# " + SPDX[3:]}), [])

    def named(self, test_text, integration_text):
        return {"schema/a.json": '{"definitions": [{"kind": "command", "name": "do-it"}]}',
                "core/failpoint.h": 'kPoints[] = {"p-one", "s-two"};', "tests/unit/a.cpp": test_text,
                "tests/integration/t.py": integration_text}

    def test_named_in_tests(self):
        self.assertEqual(self.breaches("named-in-tests", self.named('"do-it"', '"p-one" "s-two"')), [])
        self.assertEqual(len(self.breaches("named-in-tests", self.named('"do-it-not"', '"p-one" "s-two"'))), 1)
        self.assertEqual(len(self.breaches("named-in-tests", self.named('"do-it"', '"p-one"'))), 1)

    def test_shell(self):
        self.assertTrue(self.breaches("shell", {"scripts/a": "#!/bin/bash\nrm $1/*\n"}))
        self.assertEqual(self.breaches("shell", {"scripts/a": "#!/bin/bash\necho ok\n"}), [])


if __name__ == "__main__":
    unittest.main()
