# SPDX-License-Identifier: Apache-2.0
"""Do programs of dom0 still run and compute what they should while two HVM domains run? CPU state that the emulated
processor loses between a domain and dom0 shows here as programs that crash or that give another answer."""
from lab import guests, smoke
from lab.common import LabError, say

ROUNDS = 40
PROGRAMS = {
    "true": "/bin/true",
    "awk": "awk 'BEGIN { for (i = 0; i < 2000; i++) s += sqrt(i); printf \"%.6f\", s }'",
    "sha256sum": "sha256sum /tmp/data",
    "python": "python3 -c 'import json, hashlib; print(sum(i * 0.5 for i in range(1000)), json.dumps([1.5]))'",
    "xl": "xl list | wc -l",
}
# Runs each program ROUNDS times; prints what did not end with status 0 and the wanted output. A program that stands still
# has failed, too, and after a few failures nothing new is to be learnt.
SCRIPT = r'''
bad=0
check() {
  got=$(timeout -s KILL 60 bash -o pipefail -c "$2" 2>&1); status=$?
  [ $status != 0 ] || [ "$got" != "$3" ] || return
  bad=$((bad + 1))
  echo "round $round, $1: status $status: $(tail -n 3 <<<"$got")"
  [ $bad -lt 5 ] || exit 1
}
'''


def quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"


def script(wanted):
    checks = "\n".join(f"  check {name} {quoted(PROGRAMS[name])} {quoted(wanted[name])}" for name in PROGRAMS)
    return f"{SCRIPT}for round in {{1..{ROUNDS}}}; do\n{checks}\ndone\necho \"bad $bad\"\n[ $bad = 0 ]\n"


def two_domains(machine):
    machine.run("head -c 200000 /dev/zero | tr '\\0' x >/tmp/data")
    wanted = {name: machine.out(command) for name, command in PROGRAMS.items()}
    domains = [guests.start(machine, name) for name in ("left", "right")]
    wanted["xl"] = str(int(wanted["xl"]) + len(domains))
    status, out, errors = machine.run(script(wanted), timeout=900, check=False)
    if status != 0:
        raise LabError(f"with two domains, of {ROUNDS * len(PROGRAMS)} runs of programs in dom0 some failed (status {status}):\n"
                       f"{out[-3000:]}{errors[-1000:]}")
    for name, domid in zip(("left", "right"), domains):
        smoke.check_runs(machine, name, domid)
    say(f"{ROUNDS * len(PROGRAMS)} runs of programs in dom0 were right while two domains ran")
    machine.run("; ".join(f"xl destroy {domid}" for domid in domains))
