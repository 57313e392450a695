# SPDX-License-Identifier: Apache-2.0
"""docs/xen.md, done word by word on two lab hosts. What the lab needs besides, or otherwise, stands here."""
import os
import re

from lab import guests
from lab.common import REPOSITORY, LabError, say, write_text
from lab.protect import Load, Side, took_over, wait_protected

CHECKPOINTS = 5
# A small machine that is slow; and the guest of the lab, which has no disk.
IN_DOMAIN = {"memory = 1024": "memory = 128", "cmdline = \"console=ttyS0 nopv root=...\"": f"cmdline = \"{guests.APPEND}\"",
             "serial = \"pty\"": "serial = \"file:/tmp/web.serial\"\ncpus = \"1-3\"\nusb = 0\nnographic = 1\nvnc = 0"}
IN_CONFIG = {
    "xl_config = \"/etc/xen/web.cfg\"": "xl_config = \"/etc/xen/web.cfg\"\nstart_timeout_ms = 300000\nxl_warm_up_ms = 250000",
    "[[heartbeat.path]]": "[heartbeat]\nloss_ms = 3000\nlease_ms = 2500\nprogress_timeout_ms = 20000\n[[heartbeat.path]]",
    "[[nic]]": "[proxy]\nhold_min_ms = 200\nhold_max_ms = 2000\n[[nic]]",
    "[replication]": "[replication]\npage_channels = 1\npause_limit_ms = 5000\ntransfer_deadline_ms = 30000\nstaged_deadline_ms = 30000\n"
                     "apply_deadline_ms = 30000\nstaging_limit_mib = 128\ndelta_cache_mib = 16\ncheckpoint_interval_ms = 1000"}
HOST = """
set -e
ip link set br0 down
ip link set br0 name xenbr0 up
ip addr add {own}/24 dev peer
mkdir -p /etc/xen/web /etc/colo /run/manual /shared/colo
ln -s /cache/vmlinuz /cache/initrd /etc/xen/web/
ln -s /root/colod /root/coloctl /usr/bin/
cp /share/web.cfg /etc/xen/
cp /share/web.toml /etc/colo/
"""


def blocks():
    with open(os.path.join(REPOSITORY, "docs", "xen.md"), encoding="utf-8") as file:
        found = re.findall(r"^```\w*\n(.*?)^```", file.read(), re.MULTILINE | re.DOTALL)
    if len(found) != 3:
        raise LabError(f"docs/xen.md has {len(found)} blocks; expected: the domain's configuration, the daemon's, the commands")
    return found


def adapted(text, changes):
    for old, new in changes.items():
        if old not in text:
            raise LabError(f"docs/xen.md does not say {old!r} any more; see lab/manual.py")
        text = text.replace(old, new, 1)
    return text


def other_way_round(config):
    swap = {"192.0.2.11": "192.0.2.12", "192.0.2.12": "192.0.2.11"}
    return re.sub("|".join(map(re.escape, swap)), lambda found: swap[found[0]], config)


class Documented(Side):
    """A daemon whose files are where the manual has them, started by a line of it."""

    def __init__(self, machine, line):   # pylint: disable=super-init-not-called
        self.machine, self.domain, self.files, self.program = machine, "web", "/run/manual", line
        machine.run(f"setsid {line} </dev/null >/run/manual/out 2>&1 & echo $! >/run/manual/pid")

    def ctl(self, arguments, check=True):
        return self.machine.run(f"coloctl {arguments.replace('qmp x-', 'qmp web x-', 1)}", check=check)


def manual(pair):
    domain, config, commands = blocks()
    secondary, primary, protect, status = [line.partition("#")[0].strip() for line in commands.splitlines()]
    for end, machine in enumerate(pair.machines):
        write_text(machine.file("share", "web.cfg"), adapted(domain, IN_DOMAIN))
        write_text(machine.file("share", "web.toml"), adapted(other_way_round(config) if end else config, IN_CONFIG))
        machine.run(HOST.format(own=f"192.0.2.{11 + end}"))
    b = Documented(pair.machines[1], secondary)
    b.wait(lambda s: s["state"] == "waiting" and "waits for a primary" in s["reason"], "secondary ready", 400)
    a = Documented(pair.machines[0], primary)
    a.wait(lambda s: s["state"] == "unprotected", "the primary serves", 400)
    guests.wait_for_text(a.machine, "web", guests.READY, guests.COLD_BOOT_SECONDS)
    load = Load(b.machine)
    load.wait_more()
    a.machine.run(protect, timeout=600)   # it waits until the copy is there
    wait_protected(a)
    a.wait_checkpoints(CHECKPOINTS, seconds=120)
    say(f"{status}:\n{a.machine.out(status)}\n{load.check()}")
    a.machine.stop()
    took_over(b.machine, b, load, 0)
