#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""colo-load must see what it is for: it talks to an honest server and to servers that lie, drop or stall.

usage: load_sees.py COLO-LOAD     Runs in a network namespace of its own (unshare -rn), because the ports are fixed.
"""
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import unittest
import zlib

PROGRAM = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else ""
MASK = (1 << 64) - 1


def stream(seed, length):
    out, state = bytearray(), seed
    while len(out) < length:
        state = (state + 0x9e3779b97f4a7c15) & MASK
        x = ((state ^ (state >> 30)) * 0xbf58476d1ce4e5b9) & MASK
        x = ((x ^ (x >> 27)) * 0x94d049bb133111eb) & MASK
        out += struct.pack("<Q", x ^ (x >> 31))
    return bytes(out[:length])


class Server:
    """The guest's services on 127.0.0.1; `lie(kind, number, answer)` may change an answer, or return None to close."""

    def __init__(self, lie=None):
        self.lie = lie or (lambda kind, number, answer: answer)
        self.sockets = []
        self.threads = []
        for port, serve in ((7, self.echo), (9, self.sink), (13, self.differing), (19, self.source)):
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            listener.listen(16)
            self.sockets.append(listener)
            self.run(self.accept, listener, serve)
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 7))
        self.sockets.append(self.udp)
        self.run(self.datagrams)

    def run(self, target, *arguments):
        self.threads.append(threading.Thread(target=target, args=arguments, daemon=True))
        self.threads[-1].start()

    def accept(self, listener, serve):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.sockets.append(connection)
            self.run(self.guarded, serve, connection)

    @staticmethod
    def guarded(serve, connection):
        try:
            serve(connection)
        except OSError:
            pass
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        connection.close()

    def lines(self, connection, kind, make):
        for number, line in enumerate(connection.makefile("rb")):
            answer = self.lie(kind, number, make(number, line.rstrip(b"\n")))
            if answer is None:
                return
            connection.sendall(answer)

    def echo(self, connection):
        self.lines(connection, "echo", lambda n, line: b"%d %s\n" % (n, line))

    def differing(self, connection):
        self.lines(connection, "differing", lambda n, line: b"%d %s\n" % (n, os.urandom(32).hex().encode()))

    def source(self, connection):
        def make(_number, line):
            seed, length = (int(word) for word in line.split())
            return stream(seed, length)
        self.lines(connection, "download", make)

    def sink(self, connection):
        file = connection.makefile("rb")
        number = 0
        while len(head := file.read(8)) == 8:
            length = struct.unpack(">Q", head)[0]
            data = file.read(length)
            answer = self.lie("upload", number, b"%08x %d\n" % (zlib.crc32(data), length))
            number += 1
            if answer is None or len(data) != length:
                return
            connection.sendall(answer)

    def datagrams(self):
        count = 0
        while True:
            try:
                data, peer = self.udp.recvfrom(4096)
            except OSError:
                return
            if peer is None:   # shut down
                return
            self.peer = peer
            answer = self.lie("udp", count, b"%d %s" % (count, data))
            count += 1
            if answer is not None:
                self.udp.sendto(answer, peer)

    def close(self):
        for each in self.sockets:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            each.close()
        for thread in self.threads:   # a port is free only when nobody sleeps in a call on its socket any more
            thread.join(timeout=10)


class LoadSees(unittest.TestCase):
    def drive(self, kind, lie=None, seconds=1.0):
        """Runs one flow for a moment; returns (exit status, its final record)."""
        self.server = server = Server(lie)
        try:
            done = subprocess.run([PROGRAM, "--guest", "127.0.0.1", "--add", kind, "--seconds", str(seconds), "--progress-ms", "0"],
                                  stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=60, text=True, check=False)
        finally:
            server.close()
        summary = json.loads(done.stdout.splitlines()[-1])
        self.assertEqual(summary["type"], "summary")
        return done.returncode, summary["flows"][0], done.stdout

    def test_honest_server(self):
        for kind in ("echo interval_ms=1", "differing interval_ms=1", "connect interval_ms=1", "udp interval_ms=2",
                     "upload block_kb=64", "download block_kb=8 mb_per_s=0.2"):
            with self.subTest(kind):
                status, flow, _ = self.drive(kind)
                self.assertEqual((status, flow["state"], flow["wrong_bytes"]), (0, "finished", 0), flow)
                self.assertGreater(flow["answers"], 0)
                self.assertGreater(flow["verified_bytes"], 0)

    def flip(self, wanted, at=3, position=-3):
        def lie(kind, number, answer):
            if kind != wanted or number != at:
                return answer
            changed = bytearray(answer)
            changed[position] ^= 1
            return bytes(changed)
        return lie

    def test_one_flipped_bit(self):
        for kind, name in (("echo interval_ms=1", "echo"), ("upload block_kb=16", "upload"), ("udp interval_ms=2", "udp"),
                           ("download block_kb=8", "download")):
            with self.subTest(kind):
                status, flow, out = self.drive(kind, self.flip(name))
                self.assertEqual((status, flow["state"]), (1, "lost"), flow)
                self.assertGreater(flow["wrong_bytes"], 0)
                self.assertIn('"type": "lost"', out)

    def test_a_repeated_number(self):
        def lie(kind, number, answer):
            return b"1 " + answer.split(b" ", 1)[1] if number == 2 else answer
        for kind in ("echo interval_ms=1", "differing interval_ms=1", "udp interval_ms=2"):
            with self.subTest(kind):
                status, flow, _ = self.drive(kind, lie)
                self.assertEqual((status, flow["state"]), (1, "lost"), flow)

    def test_a_datagram_answered_twice(self):
        def lie(kind, number, answer):
            server_udp = self.server.udp
            if number == 3:
                server_udp.sendto(answer, self.server.peer)
            return answer
        status, flow, _ = self.drive("udp interval_ms=5", lie)
        self.assertEqual((status, flow["state"], flow["repeated"]), (0, "finished", 1), flow)

    def test_a_repeated_random_answer(self):
        def lie(kind, number, answer):
            return b"%d %s\n" % (number, b"ab" * 32)
        status, flow, _ = self.drive("differing interval_ms=1", lie)
        self.assertEqual((status, flow["state"], flow["answers"]), (1, "lost", 1), flow)

    def test_closed_by_the_server_is_not_reconnected(self):
        for kind, name in (("echo interval_ms=1", "echo"), ("upload block_kb=16", "upload"), ("download block_kb=8", "download")):
            with self.subTest(kind):
                status, flow, _ = self.drive(kind, lambda k, number, answer, name=name: None if number == 4 else answer)
                self.assertEqual((status, flow["state"], flow["wrong_bytes"]), (1, "lost", 0), flow)
                self.assertLessEqual(flow["answers"], 4)

    def test_more_than_was_asked_for(self):
        status, flow, _ = self.drive("echo interval_ms=50", lambda kind, number, answer: answer + b"9 more\n")
        self.assertEqual((status, flow["state"]), (1, "lost"), flow)

    def test_a_stall_is_a_gap_and_survived(self):
        def lie(kind, number, answer):
            if number == 5:
                time.sleep(0.8)
            return answer
        status, flow, _ = self.drive("echo interval_ms=1", lie, seconds=2)
        self.assertEqual((status, flow["state"]), (0, "finished"), flow)
        self.assertGreaterEqual(flow["gap_ms"], 790)

    def test_lost_datagrams_are_counted(self):
        status, flow, _ = self.drive("udp interval_ms=10", lambda kind, number, answer: None if number == 3 else answer, seconds=3)
        self.assertEqual((status, flow["state"], flow["missing"]), (0, "finished", 1), flow)

    def test_nobody_there(self):
        done = subprocess.run([PROGRAM, "--guest", "127.0.0.1", "--add", "echo", "--seconds", "1"], stdout=subprocess.PIPE,
                              stdin=subprocess.DEVNULL, timeout=60, text=True, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn('"lost": 1', done.stdout)

    def test_wrong_use(self):
        for arguments in ([], ["--guest"], ["--guest", "127.0.0.1", "--add", "nothing"],
                          ["--guest", "127.0.0.1", "--add", "echo interval_ms=x"]):
            done = subprocess.run([PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  stdin=subprocess.DEVNULL, timeout=20, check=False)
            self.assertEqual(done.returncode, 2, arguments)


if __name__ == "__main__":
    if os.environ.get("COLO_LOAD_SEES") != "inside":
        os.environ["COLO_LOAD_SEES"] = "inside"
        os.execvp("unshare", ["unshare", "-rn", "--", sys.executable, *sys.argv])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    unittest.main(argv=sys.argv[:1])
