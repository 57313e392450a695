# SPDX-License-Identifier: Apache-2.0
"""Is this a Xen that can do what replication needs? Boots it, asks it, runs an HVM domain with the stock device model."""
import json
import time

from lab import guests
from lab.common import LabError, say

# One QMP session on libxl's socket of the domain. libxl wants it, too, so the session is short.
QUERY_VERSION = r'''
import json, socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(20)
s.connect("/var/run/xen/qmp-libxl-" + sys.argv[1])
f = s.makefile("rw")
json.loads(f.readline())
def command(name):
    f.write(json.dumps({"execute": name}) + "\n")
    f.flush()
    while True:
        answer = json.loads(f.readline())
        if "event" not in answer:
            return answer["return"]
command("qmp_capabilities")
print(json.dumps({"version": command("query-version"), "status": command("query-status"),
                  "commands": sorted(c["name"] for c in command("query-commands"))}))
'''
WANTED_COMMANDS = {"stop", "cont", "xen-save-devices-state", "xen-load-devices-state", "xen-set-global-dirty-log", "snapshot-load",
                   "blockdev-add", "add-fd"}


def check_xen(machine):
    info = dict(line.split(":", 1) for line in machine.out("xl info").splitlines() if ":" in line)
    info = {key.strip(): value.strip() for key, value in info.items()}
    version = f"{info['xen_major']}.{info['xen_minor']}{info['xen_extra']}"
    for word in ("hvm", "hap"):
        if word not in info["virt_caps"].split():
            raise LabError(f"this Xen reports no {word} (virt_caps: {info['virt_caps']}); the emulated CPU lacks SVM or NPT")
    if "hvm-3.0-x86_64" not in info["xen_caps"]:
        raise LabError(f"this Xen runs no 64-bit HVM domains (xen_caps: {info['xen_caps']})")
    say(f"Xen {version}, dom0 kernel {machine.out('uname -r')}, virt_caps {info['virt_caps']}, {info['free_memory']} MiB free")


def check_device_model(machine, domid):
    machine.run(f"cat > /tmp/query.py <<'END'\n{QUERY_VERSION}\nEND")
    answer = json.loads(machine.out(f"python3 /tmp/query.py {domid}"))
    missing = WANTED_COMMANDS - set(answer["commands"])
    if missing:
        raise LabError(f"the device model lacks {', '.join(sorted(missing))}")
    if answer["status"]["status"] != "running":
        raise LabError(f"the device model says {answer['status']}")
    version = answer["version"]
    qemu = version["qemu"]
    say(f"device model QEMU {qemu['major']}.{qemu['minor']}.{qemu['micro']}{version['package']} runs; has all commands that are needed")


def cpu_seconds(machine, domid):
    status, out, errors = machine.run(f"xl list {domid}", check=False)
    if status != 0:
        raise LabError(f"domain {domid} is gone:\n{errors}{machine.out('xl list; tail -n 15 /var/log/xen/xl-*.log; xl dmesg | grep -v restore | tail -n 15')}")
    return float(out.split()[-1])


def check_runs(machine, name, domid):
    """vCPU time grows only if the guest does something; with its dirtier it always does."""
    before, deadline = cpu_seconds(machine, domid), time.monotonic() + 60
    while cpu_seconds(machine, domid) < before + 0.3:
        if time.monotonic() > deadline:
            raise LabError(f"domain {name} stands still.\n{machine.out('xl list')}\n{guests.model_log(machine, name)}\n"
                           f"{machine.out('xl dmesg | tail -n 15')}")
        time.sleep(0.5)


def smoke(machine):
    check_xen(machine)
    began = time.monotonic()
    domid = guests.start(machine, "smoke")
    say(f"HVM domain {domid} restored in {time.monotonic() - began:.1f} s")
    check_runs(machine, "smoke", domid)
    check_device_model(machine, domid)
    print(machine.out("xl list"))
    machine.run(f"xl destroy {domid}")
    rest = machine.out("xenstore-ls /local/domain | grep -c smoke || true")
    if rest != "0":
        raise LabError(f"after xl destroy the domain is still in xenstore ({rest} lines)")
