#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Commands of scripts/xenlab."""
import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lab import bench as benchmark  # noqa: E402
from lab import guests, hosts, image, loopback, machine, manual, operate, probe, protect, smoke, two_domains  # noqa: E402
from lab.common import LabError, path, say  # noqa: E402

TESTS = {"smoke": smoke.smoke, "two-domains": two_domains.two_domains, "probe": probe.probe, "refusals": probe.refusals,
         "loopback": loopback.loopback, "protect": protect.protect, "failures": protect.failures, "power": protect.power,
         "operator": operate.operate, "maintenance": operate.maintenance, "half-made": protect.half_made, "daemons": protect.daemons}
# Those that need two lab hosts.
OF_PAIRS = {"hosts-lock": hosts.lock, "hosts-command": hosts.command, "manual": manual.manual}


def build(options):
    image.build(options.again)
    if guests.is_baked() and not options.again:
        return 0
    if options.again and os.path.exists(guests.baked()):
        os.unlink(guests.baked())
    host = machine.boot("bake")
    try:
        guests.bake(host)
    finally:
        host.stop()
    return 0


def boot(options):
    build(argparse.Namespace(again=False))
    machine.boot(options.name)
    print(f"Commands in it:  scripts/xenlab run 'xl list'     a shell:  scripts/xenlab shell     end:  scripts/xenlab stop\n"
          f"Files: {machine.Machine(options.name).file('share')} is /share in dom0")
    return 0


def shell(options):
    return machine.Machine(options.name).shell()


def run(options):
    status, out, errors = machine.Machine(options.name).run(options.script, options.timeout, check=False)
    sys.stdout.write(out)
    sys.stderr.write(errors)
    return status


def stop(options):
    machine.Machine(options.name).stop()
    return 0


# Of one test whose emulated machine failed, see README.md.
ATTEMPTS = 3
PASSED, FAILED, AGAIN = range(3)


def run_one(name, what):
    """Boots what the test needs, runs it, stops that. AGAIN: it failed, and so did the emulated CPU below it."""
    place = hosts.Pair() if name in OF_PAIRS else machine.Machine("test")
    machine.Machine.copies_loaded = False
    machine.Machine.genuine_console = None
    booted = False
    try:
        seconds = place.boot()
        booted = True
        say(f"dom0 of {place.name} is ready after {seconds:.1f} s")
        what(place)
        return PASSED
    except LabError as error:
        print(error, file=sys.stderr)
        of_dom0, of_domains, of_genuine = place.signs_of_lost_state() if booted else ("", "", "")
        if of_genuine:
            say(f"{name}: the emulated CPU lost state of a domain into which nothing was ever loaded. Its signs:\n{of_genuine}")
            return AGAIN
        if of_domains and machine.Machine.copies_loaded:
            say(f"{name}: a domain lost state, of which a torn checkpoint may be the cause. Its signs:\n{of_domains}")
            return FAILED
        if of_dom0 or of_domains:
            say(f"{name}: the emulated CPU lost state. Its signs:\n{of_dom0}\n{of_domains}")
            return AGAIN
        return FAILED
    finally:
        place.stop()


def run_until_told(name, what):
    for attempt in range(1, ATTEMPTS + 1):
        outcome = run_one(name, what)
        if outcome == PASSED and attempt > 1:
            say(f"{name}: passed at attempt {attempt}")
        if outcome != AGAIN:
            return outcome == PASSED
    return False


def bench(options):
    """What was reached is in its output; the status says whether it could be measured."""
    build(argparse.Namespace(again=False))
    measured = run_until_told("bench", lambda host: benchmark.bench(host, options.prototype, options.rounds, options.epochs))
    if not measured:
        say(f"not measured; logs in {path('run', 'test')}")
    return 0 if measured else 1


def test(options):
    known = [*TESTS, *OF_PAIRS]
    unknown = [name for name in options.tests if name not in known]
    if unknown:
        raise LabError(f"there is no test {', '.join(unknown)}; there are: {', '.join(known)}")
    build(argparse.Namespace(again=False))
    passed, failed = 0, 0
    for name in options.tests or known:
        ok = run_until_told(name, {**TESTS, **OF_PAIRS}[name])
        passed += ok
        failed += not ok
        say(f"PASS {name}" if ok else f"FAIL {name}; logs in {path('run')}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser(prog="scripts/xenlab", description="A real Xen with dom0, inside QEMU. See tests/xenlab/README.md")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(function, text, named=True):
        sub = commands.add_parser(function.__name__, help=text, description=text)
        sub.set_defaults(function=function)
        if named:
            sub.add_argument("--name", default="one", help="of the lab host (default: one)")
        return sub

    command(build, "fetch packages, make the images, boot the guest once", False).add_argument(
        "--again", action="store_true", help="also when nothing has changed")
    command(boot, "start a lab host and wait until xl works in its dom0")
    command(shell, "a shell in dom0")
    sub = command(run, "run a bash script in dom0")
    sub.add_argument("script")
    sub.add_argument("--timeout", type=float, default=machine.COMMAND_SECONDS, help="in seconds")
    command(stop, "stop a lab host")
    command(test, "boot, test, stop", False).add_argument("tests", nargs="*", metavar="TEST", help=f"of {', '.join([*TESTS, *OF_PAIRS])}; default: all")
    sub = command(bench, "our checkpoints beside plain ones: boot, measure, stop", False)
    sub.add_argument("--prototype", metavar="FILE.c", help="a C program that takes turns with them, see README.md")
    sub.add_argument("--rounds", type=int, default=benchmark.ROUNDS, help=f"default {benchmark.ROUNDS}")
    sub.add_argument("--epochs", type=int, default=benchmark.EPOCHS, help=f"of each method in each round; default {benchmark.EPOCHS}")
    options = parser.parse_args()
    try:
        return options.function(options)
    except LabError as error:
        print(f"xenlab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
