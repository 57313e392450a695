# SPDX-License-Identifier: Apache-2.0
"""Where things are, how programs are run, and the one kind of error that a person gets to read."""
import contextlib
import fcntl
import os
import subprocess
import sys
import time

REPOSITORY = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
SOURCE = os.path.join(REPOSITORY, "tests", "xenlab")


class LabError(Exception):
    """What did not work, and what to do about it."""


def home():
    """Everything that the lab makes lies here, and may be deleted at any time while no lab runs."""
    return os.path.abspath(os.environ.get("COLO_XENLAB", os.path.join(REPOSITORY, "build", "xenlab")))


def path(*parts):
    return os.path.join(home(), *parts)


STARTED = time.monotonic()


def say(text):
    print(f"xenlab {time.monotonic() - STARTED:6.1f} s: {text}", file=sys.stderr, flush=True)


def run(argv, what, advice="", **arguments):
    """Runs a program to its end; its output becomes part of the error when it fails."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                              **arguments)
    except FileNotFoundError:
        raise LabError(f"{what}: there is no program {argv[0]}. {advice or 'scripts/setup installs what the project needs.'}") from None
    except subprocess.TimeoutExpired as late:
        raise LabError(f"{what}: not finished after {late.timeout:.0f} s. {advice}") from None
    text = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        tail = "\n".join(text.splitlines()[-15:])
        raise LabError(f"{what} failed (status {done.returncode}). {advice}\n{tail}")
    return text


@contextlib.contextmanager
def locked():
    """One process builds at a time; the others wait and then find everything made."""
    os.makedirs(home(), exist_ok=True)
    with open(path(".lock"), "w", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("another xenlab is building here; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def read_text(name, fallback=""):
    try:
        with open(name, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return fallback


def write_text(name, text, mode=0o644):
    """Renamed into place: a reader sees the old or the new one."""
    with open(name + ".new", "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(name + ".new", mode)
    os.replace(name + ".new", name)
