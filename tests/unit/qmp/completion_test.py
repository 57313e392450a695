#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Completion of coloctl, driven as bash drives it. usage: completion_test.py COLOCTL SCRIPT

No test of the commands: named-in-tests: this file does not count.
"""
import os
import re
import subprocess
import sys
import tempfile
import unittest

COLOCTL, SCRIPT = sys.argv[1:3]
del sys.argv[1:3]

DRIVER = """
load() { source "$1"; }  # bash-completion sources it inside a function, too
load "$1"
coloctl() { :; }
COMP_LINE=$2 COMP_POINT=${#2} COMP_WORDS=("$3") COMP_CWORD=0
_coloctl
printf '%s\\n' "${COMPREPLY[@]}"
"""


def complete(line):
    done = subprocess.run(["bash", "-c", DRIVER, "bash", SCRIPT, line, COLOCTL], capture_output=True, text=True, check=True)
    if done.stderr:
        raise AssertionError(done.stderr)
    return [word for word in done.stdout.splitlines() if word]


def help_of(*arguments):
    return subprocess.run([COLOCTL, *arguments, "--help"], capture_output=True, text=True, check=True).stdout


class CompletionTest(unittest.TestCase):
    def test_every_verb(self):
        verbs = complete("coloctl ")
        for verb in ("status", "watch", "protect", "failover", "unprotect", "migrate", "capabilities", "parameters", "jobs",
                     "qmp", "events"):
            self.assertIn(verb, verbs)
        for verb in verbs:
            self.assertIn("Usage", help_of(verb))
        self.assertEqual(complete("coloctl unp"), ["unprotect"])
        self.assertEqual(complete("coloctl -o json unp"), ["unprotect"])
        self.assertEqual(complete("coloctl nosuch"), [])

    def test_every_option(self):
        for verb in complete("coloctl "):
            offered = complete(f"coloctl {verb} web1 -")
            for option in re.findall(r"^ +(-[^ ]+)", help_of(verb), re.MULTILINE) + ["--socket", "-o", "--timeout"]:
                for name in option.split(","):
                    self.assertIn(name, offered, verb)
        self.assertEqual(complete("coloctl migrate web1 --cancel-"), ["--cancel-on-interrupt"])
        self.assertEqual(complete("coloctl failover web1 --acc"), ["--accept-data-loss"])

    def test_values_of_options(self):
        self.assertEqual(complete("coloctl -o "), ["text", "json"])
        self.assertEqual(complete("coloctl status --output j"), ["json"])
        self.assertEqual(complete("coloctl --timeout "), [])
        with tempfile.TemporaryDirectory() as directory:
            os.makedirs(os.path.join(directory, "abc"))
            self.assertEqual(complete(f"coloctl --run-directory {directory}/a"), [f"{directory}/abc"])
            self.assertEqual(complete(f"coloctl -s {directory}/a"), [f"{directory}/abc"])

    def test_domains(self):
        with tempfile.TemporaryDirectory() as directory:
            for domain in ("web1", "web2", "db1"):
                os.makedirs(os.path.join(directory, domain))
                if domain != "web2":
                    with open(os.path.join(directory, domain, "qmp.sock"), "w", encoding="utf-8"):
                        pass
            self.assertEqual(complete(f"coloctl --run-directory {directory} status "), ["db1", "web1"])
            self.assertEqual(complete(f"coloctl protect --run-directory {directory} w"), ["web1"])

    def test_commands_of_the_control_interface(self):
        commands = complete("coloctl qmp web1 ")
        self.assertGreater(len(commands), 50)
        self.assertEqual(complete("coloctl qmp web1 migrate-set-p"), ["migrate-set-parameters"])
        self.assertEqual(complete("coloctl -s /x qmp query-colo"), ["query-colo-status"])
        self.assertEqual(complete("coloctl qmp web1 stop "), [])

    def test_settings(self):
        self.assertEqual(len(complete("coloctl capabilities web1 ")), 19)
        self.assertEqual(complete("coloctl capabilities web1 multi"), ["multifd="])
        self.assertEqual(complete("coloctl capabilities web1 events=on x-c"), ["x-colo="])
        self.assertEqual(complete("coloctl capabilities web1 events="), ["on", "off"])
        self.assertEqual(len(complete("coloctl parameters web1 ")), 27)
        self.assertEqual(complete("coloctl parameters web1 multifd-compression=z"), ["zlib", "zstd"])
        self.assertEqual(complete("coloctl parameters web1 compress-wait-thread=o"), ["on", "off"])
        self.assertEqual(complete("coloctl parameters web1 max-bandwidth="), [])

    def test_jobs(self):
        self.assertEqual(complete("coloctl jobs web1 c"), ["cancel", "complete"])
        self.assertEqual(complete("coloctl jobs web1 cancel "), [])


if __name__ == "__main__":
    unittest.main()
