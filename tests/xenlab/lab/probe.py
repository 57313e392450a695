# SPDX-License-Identifier: Apache-2.0
"""The binding of xen/ on a live HVM domain: tests/xenlab/xen_probe.cpp, run in dom0."""
import os

from lab import guests, smoke
from lab.common import REPOSITORY, LabError

BUILD = os.environ.get("COLO_BUILD", os.path.join(REPOSITORY, "build", "release"))


def install(machine, name):
    """Copies a program of the build into dom0; returns its path there."""
    program = os.path.join(BUILD, "tests", "xenlab", name)
    if not os.path.exists(program):
        raise LabError(f"there is no {program}. It is built when libxen-dev is installed: scripts/setup, then ninja xenlab_programs")
    machine.put(program, "/root/" + name)
    return "/root/" + name


def probe(machine):
    install(machine, "xen_probe")
    domid = guests.start(machine, "probe")
    smoke.check_runs(machine, "probe", domid)
    status, out, errors = machine.run("/root/xen_probe probe 6 100", timeout=300, check=False)
    print(out, end="")
    if status != 0:
        raise LabError(f"xen_probe ended with status {status}:\n{errors}{out[-1500:]}\n{machine.out('xl dmesg | tail -n 15')}")
    # It left the domain as it was.
    smoke.check_runs(machine, "probe", domid)
    machine.run(f"xl destroy {domid}")


# Domains that cannot be protected: what xl is told, and the checks that must say no.
REFUSED = {
    "pv": ({"type": "pv", "cmdline": None, "serial": None, "xen_platform_pci": None, "usb": None, "vga": None, "vnc": None,
            "nographic": None, "tsc_mode": None, "device_model_args_hvm": None}, {"type", "device-model"}),
    "pvh": ({"type": "pvh", "serial": None, "xen_platform_pci": None, "usb": None, "vga": None, "vnc": None, "nographic": None,
             "device_model_args_hvm": None},
            {"type", "device-model"}),
    "pod": ({"maxmem": 256}, {"memory"}),
}


def refusals(machine):
    """Each reason is found, and nothing but the reasons."""
    install(machine, "xen_probe")
    for name, (changes, wanted) in REFUSED.items():
        file = guests.write_config(machine, name, **changes)
        machine.run(f"xl create -p -q {file}", timeout=300)
        status, out, errors = machine.run(f"/root/xen_probe --precheck {name}", check=False)
        print(f"{name}:\n{out}", end="")
        said = {line.split()[1] for line in out.splitlines() if line.split()[2:3] == ["NO"]}
        if status != 1 or said != wanted:
            raise LabError(f"domain {name}: status {status}, refused for {sorted(said)} instead of {sorted(wanted)}\n{errors}")
        machine.run(f"xl destroy {name}")
