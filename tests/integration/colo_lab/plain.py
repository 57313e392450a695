# SPDX-License-Identifier: Apache-2.0
"""The same guest without colod: QEMU started directly, its NIC on an ordinary tap with vnet headers. For comparison."""
import os
import subprocess

from . import guest
from .config import APPEND
from .errors import LabError
from .net import GUEST_MAC, run
from .processes import alive, die_with_parent, signal_all, wait_gone
from .qmp import Qmp


class PlainGuest:
    """One QEMU in the switch namespace, tap `plain0` on the client's bridge."""

    def __init__(self, network, directory, guest_files, memory_mib=256, append=""):
        self.network = network
        self.directory = directory
        self.guest_files = guest_files
        self.memory_mib = memory_mib
        self.append = append
        self.process = None

    def start(self):
        os.makedirs(self.directory, exist_ok=True)
        network = self.network
        run(*network.command("s", "ip", "tuntap", "add", "dev", "plain0", "mode", "tap", "vnet_hdr"))
        network.batch("s", ["link set dev plain0 master brwire up"])
        socket = os.path.join(self.directory, "plain-qmp.sock")
        argv = ["qemu-system-x86_64", "-name", "plain", "-nodefaults", "-no-user-config", "-display", "none", "-vga",
                "none", "-machine", "pc-i440fx-7.2,memory-backend=ram,hpet=off,usb=off,smm=off,vmport=off,i8042=off",
                "-accel", "tcg", "-cpu", "qemu64", "-m", f"{self.memory_mib}M", "-smp", "1",
                "-object", f"memory-backend-memfd,id=ram,size={self.memory_mib}M,share=on",
                "-kernel", os.path.join(self.guest_files, "vmlinuz"), "-initrd", os.path.join(self.guest_files, "initrd.gz"),
                "-append", f"{APPEND} {self.append}", "-serial", f"file:{self.directory}/plain-serial.log",
                "-qmp", f"unix:{socket},server=on,wait=off",
                "-netdev", "tap,id=net0,ifname=plain0,script=no,downscript=no,vhost=off",
                "-device", f"virtio-net-pci,netdev=net0,mac={GUEST_MAC},romfile="]
        with open(os.path.join(self.directory, "plain-qemu.log"), "wb") as log:
            self.process = subprocess.Popen(network.command("s", *argv), stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=subprocess.STDOUT, preexec_fn=die_with_parent)
        try:
            return guest.wait_answering(network, alive=lambda: self.process.poll() is None)
        except LabError as error:
            with open(os.path.join(self.directory, "plain-qemu.log"), encoding="utf-8", errors="replace") as log:
                raise LabError(f"{error}; QEMU said: {log.read()[-500:]}") from error

    def qmp(self):
        return Qmp(os.path.join(self.directory, "plain-qmp.sock"))

    def stop(self):
        if self.process and alive(self.process.pid):
            signal_all([self.process.pid], 9)
            wait_gone([self.process.pid], 5)
        if self.process:
            self.process.wait()
            self.process = None
            run("ip", "-n", self.network.namespace("s"), "link", "del", "plain0", check=False)
