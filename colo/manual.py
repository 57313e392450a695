#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints the manual page of a program from what its own --help says, so that the two cannot differ.

usage: manual.py PROGRAM SECTION
"""
import os
import re
import subprocess
import sys

FILES = {
    "coloctl": [("/run/colo/DOMAIN/qmp.sock", "where the daemon of a domain listens, unless its configuration says otherwise")],
    "colod": [("/etc/colo/DOMAIN.toml", "the usual place of a configuration; every setting is explained in docs/config.md"),
              ("/run/colo/DOMAIN/qmp.sock", "control socket, unless configured otherwise; its commands are in docs/qmp.md")],
}
SEE_ALSO = {"coloctl": "colod(8)", "colod": "coloctl(1), colod-xen(7), qemu-system-x86_64(1)"}
STATUS = {"colod": "0: ended on request. 1: failed. 2: wrong usage, or a configuration that cannot be."}


def help_of(program, *command):
    """Its lines, without the path by which it was called here."""
    done = subprocess.run([program, *command, "--help"], stdout=subprocess.PIPE, check=True, text=True)
    return done.stdout.replace(program, os.path.basename(program)).rstrip().splitlines()


def part(lines, name):
    """The lines of a part that begins with `name:`, without it."""
    if name + ":" not in lines:
        return []
    begin = lines.index(name + ":") + 1
    end = next((i for i in range(begin, len(lines)) if not lines[i].strip()), len(lines))
    return lines[begin:end]


def commands_of(lines):
    return [match.group(1) for match in (re.match(r"  (\S+)\s{2,}", line) for line in part(lines, "Subcommands")) if match]


def escaped(text):
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text.startswith((".", "'")) else text


def as_it_is(lines):
    return [".nf", *map(escaped, lines), ".fi"]


def body_of(lines):
    """A command's help without the title, and the words about all commands at its end."""
    tail = next((i for i, line in enumerate(lines) if line.startswith("Exit status")), len(lines))
    return [line for line in lines[1:tail] if line.strip()]


def page(program, section):
    name, top = os.path.basename(program), help_of(program)
    usage = next(line for line in top if line.startswith("Usage: "))
    out = [f'.TH {name.upper()} {section} "" "COLO" "COLO"', ".SH NAME", escaped(f"{name} - {top[0].rstrip('.')}"),
           ".SH SYNOPSIS", *as_it_is([usage.removeprefix("Usage: ")]), ".SH OPTIONS", *as_it_is(part(top, "Options"))]
    commands = commands_of(top)
    if commands:
        out.append(".SH COMMANDS")
    for command in commands:
        text = help_of(program, command)
        out += [f".SS {escaped(command)}", escaped(text[0]), *as_it_is(body_of(text))]
    words = next((top[i:] for i, line in enumerate(top) if line.startswith("Exit status")), None)
    out += [".SH EXIT STATUS", *(as_it_is(words) if words else [escaped(STATUS[name])]), ".SH FILES"]
    for path, meaning in FILES[name]:
        out += [".TP", f".I {escaped(path)}", escaped(meaning)]
    out += [".SH SEE ALSO", escaped(SEE_ALSO[name])]
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.stdout.write(page(*sys.argv[1:]))
