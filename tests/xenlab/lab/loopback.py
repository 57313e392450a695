# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of one HVM domain into another, both running, with the code of xen/: tests/xenlab/xen_loopback.cpp."""
from lab import guests, probe, smoke
from lab.common import LabError, say

EPOCHS = 20
WHAT_HAPPENED = "xl list; tail -n 15 /var/log/xen/xl-*.log; xl dmesg | grep -vE 'restore|save:' | tail -n 15; tail -n 8 /tmp/right.serial"


def loopback(machine):
    program = probe.install(machine, "xen_loopback")
    left, right = guests.start(machine, "left"), guests.start(machine, "right")
    for name, domid in (("left", left), ("right", right)):
        smoke.check_runs(machine, name, domid)
    type(machine).copies_loaded = True
    status, out, errors = machine.run(f"{program} left right {EPOCHS} 300", timeout=600, check=False)
    print(out, end="")
    if status != 0:
        raise LabError(f"xen_loopback ended with status {status}:\n{errors}{out[-1500:]}\n{machine.run(WHAT_HAPPENED, check=False)[1]}\n"
                       f"{guests.model_log(machine, 'left')}\n{guests.model_log(machine, 'right')}")
    machine.run(f"xl destroy {left}")
    smoke.check_runs(machine, "right", right)
    say(f"the secondary goes on alone; its console:\n{guests.serial(machine, 'right')[-400:]}")
    machine.run(f"xl destroy {right}")
