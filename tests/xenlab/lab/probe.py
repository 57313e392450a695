# SPDX-License-Identifier: Apache-2.0
"""The binding of xen/ on a live HVM domain: tests/xenlab/xen_probe.cpp, run in dom0."""
import os

from lab import guests, smoke
from lab.common import REPOSITORY, LabError

PROGRAM = os.path.join(os.environ.get("COLO_BUILD", os.path.join(REPOSITORY, "build", "release")), "tests", "xenlab", "xen_probe")


def probe(machine):
    if not os.path.exists(PROGRAM):
        raise LabError(f"there is no {PROGRAM}. It is built when libxen-dev is installed: scripts/setup, then ninja xenlab_programs")
    domid = guests.start(machine, "probe")
    smoke.check_runs(machine, "probe", domid)
    machine.put(PROGRAM, "/root/xen_probe")
    status, out, errors = machine.run(f"/root/xen_probe {domid} 6 100", timeout=300, check=False)
    print(out, end="")
    if status != 0:
        raise LabError(f"xen_probe ended with status {status}:\n{errors}{out[-1500:]}\n{machine.out('xl dmesg | tail -n 15')}")
    # It left the domain as it was.
    smoke.check_runs(machine, "probe", domid)
    machine.run(f"xl destroy {domid}")
