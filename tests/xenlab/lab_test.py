#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The parts of the lab that need no Xen: the agent and the way to it, kernel modules, kernel images, configurations."""
import importlib.util
import lzma
import os
import socket
import struct
import sys
import tempfile
import threading
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from lab import bench, bzimage, guests, image, machine, packages  # noqa: E402
from lab.cable import Cable  # noqa: E402
from lab.common import LabError  # noqa: E402
from lab.modules import Modules  # noqa: E402


def load_agent():
    spec = importlib.util.spec_from_file_location("agent", os.path.join(HERE, "dom0", "agent.py"))
    agent = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(agent)
    return agent


class OwnMachine(machine.Machine):
    """Its dom0 is this machine."""

    def pid(self):
        return os.getpid()


@unittest.skipUnless(os.access("/root", os.X_OK), "the agent works in /root, which is closed to us")
class Agent(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        os.environ["COLO_XENLAB"] = directory.name
        self.addCleanup(os.environ.pop, "COLO_XENLAB")
        agent = load_agent()
        self.state = "ready"
        self.token = "secret"
        agent.text_of = lambda name: self.token if name.endswith(".token") else self.state
        server = agent.Server(("127.0.0.1", 0), agent.Request)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.machine = OwnMachine("one")
        os.makedirs(self.machine.file("share"))
        self.write("port", str(server.server_address[1]))
        self.write("share/.token", "secret")

    def write(self, name, text):
        with open(self.machine.file(name), "w", encoding="ascii") as file:
            file.write(text)

    def test_output_errors_and_status(self):
        self.assertEqual(self.machine.run("echo out; echo err >&2; exit 7", check=False), (7, "out\n", "err\n"))
        self.assertEqual(self.machine.out("printf '  a b '"), "a b")
        with self.assertRaisesRegex(LabError, "status 7.*exit 7"):
            self.machine.run("exit 7")

    def test_much_output(self):
        status, out, _ = self.machine.run("head -c 3000000 /dev/zero | tr '\\0' x", check=False)
        self.assertEqual((status, len(out)), (0, 3000000))

    def test_nothing_to_read(self):
        self.assertEqual(self.machine.out("cat"), "")

    def test_timeout_kills_the_children_too(self):
        began = time.monotonic()
        status, _, errors = self.machine.run("sleep 60 | sleep 60", timeout=0.5, check=False)
        self.assertEqual(status, 255)
        self.assertIn("not finished after 0.5 s", errors)
        self.assertLess(time.monotonic() - began, 20)

    def test_a_child_in_the_background_does_not_hold_the_connection(self):
        began = time.monotonic()
        self.assertEqual(self.machine.out("sleep 30 & echo done"), "done")
        self.assertLess(time.monotonic() - began, 20)

    def test_state(self):
        self.assertEqual(self.machine.state(), "ready")
        self.state = "failed: no reason"
        self.assertEqual(self.machine.state(), "failed: no reason")

    def test_wrong_token(self):
        self.token = "other"
        status, out, errors = self.machine.run("echo in", check=False)
        self.assertEqual((status, out), (255, ""))
        self.assertIn("broke", errors)

    def test_script_with_line_ends_and_quotes(self):
        self.assertEqual(self.machine.out("cat <<'END'\n'a'\n\"b\"\nEND"), "'a'\n\"b\"")

    def test_nobody_there(self):
        self.write("port", "1")
        self.assertEqual(self.machine.state(), "")
        self.assertEqual(self.machine.run("true", check=False)[0], 255)


class KernelModules(unittest.TestCase):
    def make(self, modules, builtin=()):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        base = os.path.join(directory.name, "lib", "modules", "6.1")
        os.makedirs(os.path.join(base, "kernel"))
        for name, info in modules.items():
            with open(os.path.join(base, "kernel", name + ".ko"), "wb") as file:
                file.write(b"\x7fELF\0" + info + b"\0")
        with open(os.path.join(base, "modules.builtin"), "w", encoding="ascii") as file:
            file.writelines(f"kernel/{name}.ko\n" for name in builtin)
        return Modules(directory.name)

    def test_order_of_loading(self):
        modules = self.make({"a-b": b"depends=c,d\0softdep=pre: e gone", "c": b"depends=d", "d": b"depends=", "e": b"depends=inside"}, ["inside"])
        names = [os.path.basename(name) for name in modules.closure(["a_b", "inside", "d"])]
        self.assertEqual(names, ["d.ko", "c.ko", "e.ko", "a-b.ko"])

    def test_missing(self):
        with self.assertRaisesRegex(LabError, "no module nothing"):
            self.make({}).closure(["nothing"])


class KernelImage(unittest.TestCase):
    def extract(self, payload, magic=b"HdrS"):
        setup = bytearray(1024)
        setup[0x1F1] = 1
        setup[0x202:0x206] = magic
        struct.pack_into("<II", setup, 0x248, 16, len(payload))
        with tempfile.TemporaryDirectory() as directory:
            source, target = os.path.join(directory, "a"), os.path.join(directory, "b")
            with open(source, "wb") as file:
                file.write(bytes(setup) + bytes(16) + payload + b"behind")
            bzimage.extract(source, target)
            with open(target, "rb") as file:
                return file.read()

    def test_xz(self):
        kernel = b"\x7fELF" + bytes(1000)
        self.assertEqual(self.extract(lzma.compress(kernel) + struct.pack("<I", len(kernel))), kernel)

    def test_others(self):
        for payload, magic, why in ((b"????????", b"HdrS", "unknown way"), (lzma.compress(b"text"), b"HdrS", "no.*ELF|not contain"),
                                    (b"", b"none", "not a bzImage")):
            with self.assertRaisesRegex(LabError, why):
                self.extract(payload, magic)


class TwoHosts(unittest.TestCase):
    def plug(self, cable, end):
        host, _, port = cable.options(end).removeprefix("connect=").partition(":")
        plug = socket.create_connection((host, int(port)), timeout=30)
        self.addCleanup(plug.close)
        # Only a frame that came through shows that the other side of the plug is at work.
        return plug

    def frame(self, text):
        return struct.pack(">I", len(text)) + text

    def until_heard(self, sender, receiver):
        receiver.settimeout(0.05)
        for _ in range(600):
            sender.sendall(self.frame(b"hello"))
            try:
                data = receiver.recv(9)
            except TimeoutError:
                continue
            self.assertEqual(data, self.frame(b"hello"))
            receiver.settimeout(30)
            return
        self.fail("nothing came")

    def drain(self, plug, mark):
        """Reads up to the frame `mark`; returns what came before."""
        with plug.makefile("rb") as stream:
            seen = []
            while True:
                size = struct.unpack(">I", stream.read(4))[0]
                seen.append(stream.read(size))
                if seen[-1] == mark:
                    return seen[:-1]

    def test_a_cable_is_cut_and_mended(self):
        cable = Cable()
        self.addCleanup(cable.close)
        one, other = self.plug(cable, 0), self.plug(cable, 1)
        self.until_heard(one, other)
        self.until_heard(other, one)
        one.sendall(self.frame(b"before"))
        self.drain(other, b"before")
        cable.cut()
        one.sendall(self.frame(b"into the cut"))
        while cable.dropped == 0:   # the test itself has a limit
            time.sleep(0.01)
        cable.mend()
        one.sendall(self.frame(b"after"))
        self.assertNotIn(b"into the cut", self.drain(other, b"after"))

    def test_a_host_that_starts_again_is_plugged_in_again(self):
        cable = Cable()
        self.addCleanup(cable.close)
        one, other = self.plug(cable, 0), self.plug(cable, 1)
        self.until_heard(one, other)
        other.close()
        self.until_heard(one, self.plug(cable, 1))

    def test_nonsense_unplugs(self):
        cable = Cable()
        self.addCleanup(cable.close)
        one = self.plug(cable, 0)
        one.sendall(b"\xff\xff\xff\xff")
        self.assertEqual(one.recv(1), b"")


class Configuration(unittest.TestCase):
    def test_settings_are_replaced_added_and_taken_out(self):
        text = guests.config("a", vcpus=2, usb=None, vif=["type=ioemu"])
        for line in ('name = "a"', "vcpus = 2", 'vif = [ "type=ioemu" ]', 'serial = "file:/tmp/a.serial"', "xen_platform_pci = 0"):
            self.assertIn(line + "\n", text)
        self.assertNotIn("usb", text)

    def test_digest_covers_what_the_images_are_made_of(self):
        self.assertRegex(image.digest(), "^[0-9a-f]{32}$")
        self.assertIn("python3", packages.DOM0)   # the agent's


class Bench(unittest.TestCase):
    PROTOTYPE = ("epoch 0: stop 0.31 ms | CLEAN 1.90 (dirty=1 dst=1) | copy 32764 frames 5200.00 ms (absent 0, missing in DST 0, populated 0) "
                 "| hvm ctx 4112 bytes get+set 11.00 | qemu 5956 bytes 400.00 | stopped total 5613.21 ms\n"
                 "epoch 1: stop 0.50 ms | CLEAN 1.50 (dirty=500 dst=200) | copy 600 frames 30.00 ms (absent 0, missing in DST 0, populated 0) "
                 "| hvm ctx 4112 bytes get+set 11.00 | qemu 5956 bytes 357.00 | stopped total 400.00 ms\n"
                 "compare: 32768 frames compared, 0 differ (special pages excluded)\n")

    @staticmethod
    def epoch(method, stopped_ms, map_ms):
        return {"method": method, "stopped_ms": stopped_ms, "stages": {"save": stopped_ms / 2}, "frames": 500, "stopped_frames": 50,
                "copy_ms": 10.0, "mapped": 500, "map_ms": map_ms, "calls": 20, "stopped_calls": 10}

    def test_nearest_rank(self):
        values = [float(i) for i in range(10, 0, -1)]
        self.assertEqual([bench.percentile(values, p) for p in (50, 90, 100)], [5.0, 9.0, 10.0])
        self.assertEqual(bench.percentile([7.0], 90), 7.0)

    def test_prototype_without_first_epoch_and_sleep(self):
        epoch, compared = bench.parse("log-dirty on: 1.0 ms\n" + self.PROTOTYPE)
        self.assertEqual((epoch["method"], epoch["stopped_ms"], epoch["frames"], epoch["stages"]["devices"]), ("prototype", 100.0, 600, 57.0))
        self.assertEqual(compared, {"compared_after": "prototype", "frames": 32768, "differing": 0})

    def test_targets_are_ratios(self):
        found = [self.epoch("plain", 200.0, 40.0), self.epoch("ours", 90.0, 20.0)] + bench.parse(self.PROTOTYPE)
        result = bench.results(found)
        reached = {name: (target["ratio"], target["reached"]) for name, target in result["targets"].items()}
        self.assertEqual(reached, {"stopped": (0.45, True), "stopped_p90": (0.45, True), "mapping": (0.5, False), "stopped_prototype": (0.9, False)})
        self.assertEqual(result["methods"]["plain"]["mapping_ms_per_1000_frames"], 80.0)
        self.assertEqual(result["methods"]["ours"]["frames_per_ms"], 50.0)
        text = bench.table(result)
        self.assertRegex(text, "(?m)^reached +0.450 ")
        self.assertRegex(text, "(?m)^MISSED +0.500 ")

    def test_a_method_that_was_not_measured(self):
        with self.assertRaisesRegex(LabError, "nothing was measured"):
            bench.results([self.epoch("plain", 200.0, 40.0)])


if __name__ == "__main__":
    unittest.main()
