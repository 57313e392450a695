# SPDX-License-Identifier: Apache-2.0
"""A QMP client: one Unix socket, answers by id, events kept in order, every wait with a deadline."""
import json
import socket
import time

from .errors import LabError


class QmpError(LabError):
    """The server answered with an error; `error_class` is its class."""

    def __init__(self, command, error):
        self.error_class = error.get("class", "")
        self.description = error.get("desc", "")
        super().__init__(f"{command}: {self.error_class}: {self.description}")


class QmpClosed(LabError):
    """The server went away."""


class Qmp:
    def __init__(self, path, timeout=10.0):
        self.path = path
        self.events = []
        self._buffer = b""
        self._number = 0
        self._socket = self._connect(path, time.monotonic() + timeout)
        self.greeting = self._read(time.monotonic() + timeout)
        if "QMP" not in self.greeting:
            raise LabError(f"{path}: no QMP greeting: {self.greeting}")
        self.execute("qmp_capabilities", timeout=timeout)

    @staticmethod
    def _connect(path, deadline):
        while True:
            candidate = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                candidate.settimeout(2.0)
                candidate.connect(path)
                return candidate
            except OSError as error:
                candidate.close()
                if time.monotonic() > deadline:
                    raise LabError(f"{path}: cannot connect: {error}") from error
                time.sleep(0.02)

    def _read(self, deadline):
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                raise LabError(f"{self.path}: no answer in time")
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(65536)
            except (TimeoutError, socket.timeout) as error:
                raise LabError(f"{self.path}: no answer in time") from error
            except OSError as error:
                raise QmpClosed(f"{self.path}: {error}") from error
            if not data:
                raise QmpClosed(f"{self.path}: closed by the server")
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return json.loads(line) if line.strip() else self._read(deadline)

    def execute(self, command, arguments=None, timeout=10.0):
        self._number += 1
        request = {"execute": command, "id": self._number}
        if arguments is not None:
            request["arguments"] = arguments
        deadline = time.monotonic() + timeout
        self._socket.settimeout(timeout)
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise QmpClosed(f"{self.path}: {error}") from error
        while True:
            answer = self._read(deadline)
            if "event" in answer:
                self.events.append(answer)
            elif answer.get("id") == self._number:
                if "error" in answer:
                    raise QmpError(command, answer["error"])
                return answer.get("return")

    def wait_event(self, name, timeout=10.0, match=None):
        """Takes the first event of that name (and that matches) out of the list; waits for it if need be."""
        deadline = time.monotonic() + timeout
        while True:
            for index, event in enumerate(self.events):
                if event["event"] == name and (match is None or match(event.get("data", {}))):
                    return self.events.pop(index)
            answer = self._read(deadline)
            if "event" in answer:
                self.events.append(answer)

    def take_events(self):
        """Every event that arrived so far, in order; the list is empty afterwards."""
        self.execute("query-status")
        taken, self.events = self.events, []
        return taken

    def close(self):
        self._socket.close()
