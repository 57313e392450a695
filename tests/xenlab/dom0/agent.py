#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs commands in dom0 for the host of the lab. One TCP connection is one request.

Request: one line of JSON, {"token", "kind": "state" | "run" | "shell", "script", "timeout"}; the token lies in the share, so
that only who may read the host's run directory gets in. Answer: frames of one type byte, a 32-bit length (big endian) and
that many bytes: "o" and "e" output, "x" the end with the exit status or a reason in text. After a "shell" request the
terminal output comes in "o" frames, and what the host sends is typed. When the connection breaks, what it ran is killed."""
import json
import os
import pty
import selectors
import signal
import socketserver
import struct
import subprocess
import time

PORT = 5000
MAX_REQUEST = 1 << 20
MAX_FRAME = 1 << 16
# What is left in the pipes when a command has ended is read; a child in the background may keep them open for ever.
DRAIN_SECONDS = 0.05


def text_of(name):
    with open(name, encoding="utf-8") as file:
        return file.read().strip()


class Request(socketserver.StreamRequestHandler):
    rbufsize = 0   # what follows the request is for the shell

    def frame(self, kind, data):
        for at in range(0, max(len(data), 1), MAX_FRAME):
            part = data[at:at + MAX_FRAME]
            self.wfile.write(kind + struct.pack(">I", len(part)) + part)

    def handle(self):
        try:
            request = json.loads(self.rfile.readline(MAX_REQUEST))
            if request["token"] != text_of("/share/.token"):
                return
            {"state": self.state, "run": self.run, "shell": self.shell}[request["kind"]](request)
        except (OSError, ValueError, KeyError, TypeError) as error:
            try:
                self.frame(b"x", f"agent: {error!r}".encode())
            except OSError:
                pass

    def state(self, _):
        self.frame(b"x", text_of("/run/lab/state").encode())

    def run(self, request):
        child = subprocess.Popen(["bash", "-c", request["script"]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, cwd="/root", start_new_session=True)
        try:
            self.frame(b"x", self.pump(child, time.monotonic() + float(request.get("timeout", 60))).encode())
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            child.stdout.close()
            child.stderr.close()

    def pump(self, child, deadline):
        """Passes output on until the command ends; returns what becomes the last frame."""
        with selectors.DefaultSelector() as wait:
            wait.register(child.stdout, selectors.EVENT_READ, b"o")
            wait.register(child.stderr, selectors.EVENT_READ, b"e")
            wait.register(self.connection, selectors.EVENT_READ, None)
            ended = None
            while True:
                events = wait.select(0.02)
                for key, _ in events:
                    if key.data is None:
                        raise ConnectionError("the host hung up")
                    data = os.read(key.fd, MAX_FRAME)
                    if data:
                        self.frame(key.data, data)
                    else:
                        wait.unregister(key.fileobj)
                now = time.monotonic()
                if ended is None and child.poll() is not None:
                    ended = now
                if ended is not None and (now > ended + DRAIN_SECONDS and not events or len(wait.get_map()) == 1):
                    return str(child.returncode)
                if ended is not None and now > ended + 5:
                    return str(child.returncode)   # somebody in the background writes and writes
                if ended is None and now > deadline:
                    return "timeout"

    def shell(self, request):
        pid, terminal = pty.fork()
        if pid == 0:
            os.environ["TERM"] = str(request.get("term", "dumb"))
            os.chdir("/root")
            os.execvp("bash", ["bash", "-i"])
        try:
            self.pass_both_ways(terminal)
        finally:
            os.close(terminal)
            os.kill(pid, signal.SIGHUP)
            _, status = os.waitpid(pid, 0)
        self.frame(b"x", str(os.waitstatus_to_exitcode(status)).encode())

    def pass_both_ways(self, terminal):
        with selectors.DefaultSelector() as wait:
            wait.register(terminal, selectors.EVENT_READ)
            wait.register(self.connection, selectors.EVENT_READ)
            while True:
                for key, _ in wait.select():
                    if key.fd != terminal:
                        data = self.connection.recv(MAX_FRAME)
                        if not data:
                            raise ConnectionError("the host hung up")
                        os.write(terminal, data)
                        continue
                    try:
                        data = os.read(terminal, MAX_FRAME)
                    except OSError:   # how a terminal says that its last user is gone
                        return
                    if not data:
                        return
                    self.frame(b"o", data)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    with Server(("0.0.0.0", PORT), Request) as server:
        server.serve_forever()
