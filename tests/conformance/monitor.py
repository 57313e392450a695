# SPDX-License-Identifier: Apache-2.0
"""A monitor that is spoken to in bytes, and the two servers that it may belong to."""
import array
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time

WAIT_S = 60


class Monitor:
    """One connection. ask() sends bytes and returns everything that was answered, events aside."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(WAIT_S)
        self.socket.connect(path)
        self.pending = b""
        self.count = 0
        self.greeting = self.read()

    def read(self):
        while b"\r\n" not in self.pending:
            data = self.socket.recv(1 << 20)
            if not data:
                raise EOFError("the server closed the connection")
            self.pending += data
        line, self.pending = self.pending.split(b"\r\n", 1)
        line.decode("ascii")  # nothing else may leave a server
        return json.loads(line.replace(b'"id": inf', b'"id": "inf"'))

    def send(self, data, descriptors=()):
        if descriptors:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
            data = data[self.socket.sendmsg([data], rights):]
        self.socket.sendall(data)

    def ask(self, data, descriptors=()):
        """All answers: a command that nobody knows, sent afterwards, shows where they end."""
        self.count += 1
        mark = f"mark-{self.count}"
        self.send(data, descriptors)
        self.send(json.dumps({"execute": mark, "id": mark}).encode())
        answers = []
        while True:
            message = self.read()
            if message.get("id") == mark:
                return answers
            if "event" not in message:
                answers.append(message)

    def close(self):
        self.socket.close()


class Server:
    """A process that serves monitor sockets; `command` makes its arguments from the paths of two of them."""

    def __init__(self, name, command):
        self.name = name
        self.folder = tempfile.mkdtemp(prefix="colo-conformance-")
        self.paths = [os.path.join(self.folder, f"{which}.sock") for which in ("first", "second")]
        self.process = subprocess.Popen(command(*self.paths), stdin=subprocess.DEVNULL)

    def monitor(self, second=False):
        until = time.monotonic() + WAIT_S
        while True:
            try:
                return Monitor(self.paths[second])
            except OSError:
                if time.monotonic() > until or self.process.poll() is not None:
                    raise
                time.sleep(0.02)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def reference(arguments):
    """Serves one client on each socket."""
    return Server("reference", lambda first, second: ["qemu-system-x86_64", *arguments, "-nodefaults", "-display", "none",
                                                      "-qmp", f"unix:{first},server=on,wait=off",
                                                      "-qmp", f"unix:{second},server=on,wait=off"])


def ours(binary, state):
    server = Server("ours", lambda first, _: [binary, first, state])
    server.paths[1] = server.paths[0]
    return server
