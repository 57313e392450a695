#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs integration scenarios with real guests. See --help."""
import argparse
import os
import signal
import sys
import time
import traceback

import test_dirty_rate  # noqa: F401  (each import registers its scenarios)
import test_failover    # noqa: F401
import test_fallbacks   # noqa: F401
import test_interface   # noqa: F401
import test_lab        # noqa: F401
import test_migration   # noqa: F401
import test_operator    # noqa: F401
import test_peer        # noqa: F401
import test_phases      # noqa: F401
import test_power       # noqa: F401
from scenario import SCENARIOS
from colo_lab import Lab, LabError, Skip

SKIPPED = 77   # ctest's SKIP_RETURN_CODE


class OutOfTime(Exception):
    pass


def _alarm(_number, _frame):
    raise OutOfTime()


def run_one(name, options):
    function, limit, _tier = SCENARIOS[name]
    limit *= options.slow
    start = time.monotonic()

    def say(text):
        print(f"  {time.monotonic() - start:6.1f} s  {text}", flush=True)

    def factory(settings=None):
        return Lab(options.build, settings=settings, keep=options.keep, say=say)

    signal.signal(signal.SIGALRM, _alarm)
    signal.alarm(int(limit))
    print(f"{name} (at most {limit:.0f} s)", flush=True)
    outcome = "passed"
    try:
        function(factory, say)
    except Skip as reason:
        say(f"SKIPPED: {reason}")
        outcome = "skipped"
    except OutOfTime:
        say(f"FAILED: not done after {limit:.0f} s")
        outcome = "failed"
    except (LabError, OSError, KeyError, ValueError) as error:
        if isinstance(error, LabError):
            say(f"FAILED: {error}")
        else:
            traceback.print_exc()
            say(f"FAILED: {type(error).__name__}: {error}")
        outcome = "failed"
    finally:
        signal.alarm(0)
    print(f"{name}: {outcome} in {time.monotonic() - start:.1f} s", flush=True)
    return outcome


def main():
    parser = argparse.ArgumentParser(description="Integration scenarios with real guests (root: namespaces and taps).")
    parser.add_argument("--build", default=os.path.join(os.path.dirname(__file__), "..", "..", "build", "release"),
                        help="build directory with colod, coloctl and colo-load")
    parser.add_argument("--list", metavar="TIER", choices=("ci", "soak", "all"), help="scenarios of a tier, one a line: name, time limit in seconds, tier (ci: scripts/test; soak: only scripts/soak)")
    parser.add_argument("--slow", type=float, default=1.0, help="factor on the time limits, for sanitizer builds")
    parser.add_argument("--keep", action="store_true", help="leave logs behind")
    parser.add_argument("scenario", nargs="*")
    options = parser.parse_args()
    if options.list:
        for name, (_function, limit, tier) in SCENARIOS.items():
            if options.list in (tier, "all"):
                print(name, int(limit), "s", tier)
        return 0
    unknown = [name for name in options.scenario if name not in SCENARIOS]
    if unknown or not options.scenario:
        parser.error(f"unknown scenario: {' '.join(unknown)}" if unknown else "name a scenario; --list ci shows them")
    outcomes = [run_one(name, options) for name in options.scenario]
    if "failed" in outcomes:
        return 1
    return SKIPPED if set(outcomes) == {"skipped"} else 0


if __name__ == "__main__":
    sys.exit(main())
