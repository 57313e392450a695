# SPDX-License-Identifier: Apache-2.0
"""The network of a lab: one switch namespace with a bridge per purpose, and a port on it for every host and the client.

    client eth0 ──┐            ┌── host a: wire0 (no address; colod opens it)
                  ├─ brwire ───┤
                               └── host b: wire0
    host a repl0 ─── brrepl ─── host b repl0     10.98.0.1/.2
    host a beat0 ─── brbeat0 ── host b beat0     10.98.1.1/.2
    host a beat1 ─── brbeat1 ── host b beat1     10.98.2.1/.2

A link is cut in two ways. *Down*: the switch port loses its carrier, as when a host dies. *Black hole*: the port leaves
its bridge, so both ends keep their carrier and frames vanish. One direction of an IP link is cut with a false neighbour.
"""
import os
import subprocess

from .errors import LabError

CLIENT_IP = "10.77.0.1"
GUEST_IP = "10.77.0.2"
GUEST_MAC = "52:54:00:12:34:56"
NUMBERS = {"a": 1, "b": 2}
SUBNETS = {"repl": "10.98.0", "beat0": "10.98.1", "beat1": "10.98.2"}
PURPOSES = ("wire", "repl", "beat0", "beat1")


def run(*argv, check=True, stdin=None, timeout=30):
    done = subprocess.run(argv, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=timeout, check=False)
    if check and done.returncode != 0:
        raise LabError(f"{' '.join(argv)}: exit status {done.returncode}: {done.stdout.strip()}")
    return done.stdout


def address(host, purpose="repl"):
    return f"{SUBNETS[purpose]}.{NUMBERS[host]}"


def device_of(purpose):
    return {"wire": "wire0", "repl": "repl0"}.get(purpose, purpose)


class Network:
    """Makes and removes the namespaces `<prefix>-{s,a,b,c}`."""

    def __init__(self, prefix):
        self.prefix = prefix
        self.made = []

    def namespace(self, which):
        return f"{self.prefix}-{which}"

    def command(self, which, *argv):
        """argv that runs inside a namespace; `ip` execs, so the process keeps its pid."""
        return ["ip", "netns", "exec", self.namespace(which), *argv]

    def batch(self, which, lines):
        run("ip", "-n", self.namespace(which), "-batch", "-", stdin="\n".join(lines) + "\n")

    def up(self):
        for which in ("s", "a", "b", "c"):
            run("ip", "netns", "add", self.namespace(which))
            self.made.append(which)
            self._quiet(which)
            self.batch(which, ["link set lo up"])
        self.batch("s", [f"link add name br{p} type bridge forward_delay 0 ageing_time 30000" for p in PURPOSES]
                   + [f"link set dev br{p} up" for p in PURPOSES])
        for host in NUMBERS:
            for purpose in PURPOSES:
                self._link(host, purpose, device_of(purpose))
        self._link("c", "wire", "eth0")
        for host in NUMBERS:
            self.batch(host, ["link set dev wire0 up arp off"])
            for purpose in SUBNETS:
                device = device_of(purpose)
                self.batch(host, [f"address add {address(host, purpose)}/24 dev {device}", f"link set dev {device} up"])
        self.batch("c", [f"address add {CLIENT_IP}/24 dev eth0", "link set dev eth0 up"])

    def _quiet(self, which):
        """No IPv6 autoconfiguration: nothing is on the wire that a test did not put there."""
        keys = ["net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"]
        if os.path.isdir("/proc/sys/net/ipv6"):
            run(*self.command(which, "sysctl", "-q", "-w", *keys), check=False)

    def _link(self, host, purpose, device):
        port = f"{host}-{purpose}"
        run("ip", "-n", self.namespace("s"), "link", "add", port, "type", "veth", "peer", "name", device, "netns",
            self.namespace(host))
        self.batch("s", [f"link set dev {port} master br{purpose} up"])

    def ports(self, host, purposes=PURPOSES):
        return [f"{host}-{p}" for p in purposes]

    def drop(self, host, purposes=PURPOSES):
        """Every link of the host loses its carrier."""
        self.batch("s", [f"link set dev {port} down" for port in self.ports(host, purposes)])

    def black_hole(self, host, purposes):
        self.batch("s", [f"link set dev {port} nomaster" for port in self.ports(host, purposes)])

    def restore(self, host, purposes=PURPOSES):
        lines = []
        for purpose in purposes:
            lines.append(f"link set dev {host}-{purpose} master br{purpose} up")
        self.batch("s", lines)

    def deafen(self, sender, receiver, purposes):
        """IP packets from sender to receiver vanish; the other direction works."""
        for purpose in purposes:
            self.batch(sender, [f"neigh replace {address(receiver, purpose)} lladdr 02:00:00:00:00:99 nud permanent "
                                f"dev {device_of(purpose)}"])

    def undeafen(self, sender, receiver, purposes):
        for purpose in purposes:
            self.batch(sender, [f"neigh del {address(receiver, purpose)} dev {device_of(purpose)}"])

    def offloads(self, which, device, on):
        run(*self.command(which, "ethtool", "-K", device, "tso", "on" if on else "off", "gso", "on" if on else "off",
                          "tx", "on" if on else "off"), check=False)

    def down(self):
        for which in self.made:
            run("ip", "netns", "del", self.namespace(which), check=False)
        self.made = []
