#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The manual pages hold what the programs' help and the guides say. usage: manual_test.py MANUAL.PY COLOCTL COLOD GUIDE.PY XEN.MD"""
import re
import subprocess
import sys
import unittest

SCRIPT, COLOCTL, COLOD, GUIDE, XEN = sys.argv[1:6]
MACROS = {".TH", ".SH", ".SS", ".nf", ".fi", ".TP", ".I"}


def output(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout


def options_of(text):
    return re.findall(r"--[a-z][a-z-]+", text)


class Manual(unittest.TestCase):
    def pages(self):
        for program, section in ((COLOCTL, "1"), (COLOD, "8")):
            yield program, output(sys.executable, SCRIPT, program, section)

    def test_every_command_and_option_is_in_it(self):
        for program, page in self.pages():
            shown = page.replace("\\-", "-")
            top = output(program, "--help")
            commands = re.findall(r"^  ([a-z-]+)  ", top.partition("Subcommands:")[2], re.MULTILINE)
            self.assertEqual(bool(commands), program == COLOCTL)
            for command in [[]] + [[each] for each in commands]:
                text = output(program, *command, "--help")
                begin = shown.index(f"\n.SS {command[0]}\n") if command else 0
                end = shown.find("\n.SS ", begin + 1) if command else len(shown)
                for option in options_of(text.partition("Exit status")[0]):
                    self.assertIn(option, shown[begin:end if end > 0 else len(shown)], (program, command))

    def test_it_is_a_page(self):
        for program, page in self.pages():
            for part in (".SH NAME", ".SH SYNOPSIS", ".SH OPTIONS", ".SH EXIT STATUS", ".SH FILES"):
                self.assertEqual(page.count(f"\n{part}\n"), 1, (program, part))
            self.assertNotIn(program, page, "the path by which it was called")
            for line in page.splitlines():
                if line.startswith((".", "'")):
                    self.assertIn(line.split()[0], MACROS, line)


class Guides(unittest.TestCase):
    def test_a_guide_is_a_page(self):
        page = output(sys.executable, GUIDE, "lowdown", XEN, "colod-xen", "protecting an HVM domain of Xen")
        self.assertIn('\n.TH "COLOD-XEN" "7"', page)
        self.assertRegex(page, r"\n\.SH NAME\n\.LP\ncolod-xen - protecting an HVM domain of Xen\n")
        with open(XEN, encoding="utf-8") as file:
            text = file.read()
        for heading in re.findall(r"^## (.*)$", text, re.MULTILINE):
            self.assertIn(f"\n.SH {heading}\n", page)
        shown = page.replace(r"\(dq", '"')
        for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            for line in block.splitlines():
                self.assertIn(line, shown)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
