# SPDX-License-Identifier: Apache-2.0
"""Drives colo-load, the client program that verifies every byte, and keeps what it reports."""
import json
import os
import subprocess
import threading
import time

from .errors import LabError
from .net import GUEST_IP


class Load:
    """One colo-load process in the client's namespace. The same connections live until stop()."""

    def __init__(self, network, program, arguments=(), which="c", guest=GUEST_IP, log=None):
        if not os.access(program, os.X_OK):
            raise LabError(f"{program} is not built")
        self._log = open(log, "w", encoding="utf-8") if log else None
        self._process = subprocess.Popen(network.command(which, program, "--guest", guest, *arguments),
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                         text=True, bufsize=1)
        self._changed = threading.Condition()
        self.progress = {}
        self._replies = []
        self.summary = None
        self.losses = []
        self._noise = []
        self._ended = False
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self._process.stdout:
            if self._log:
                self._log.write(line)
                self._log.flush()
            try:
                record = json.loads(line)
            except ValueError:
                self._noise.append(line.strip())
                continue
            with self._changed:
                kind = record.get("type")
                if kind == "progress":
                    self.progress = record
                elif kind == "summary":
                    self.summary = record
                elif kind == "lost":
                    self.losses.append(record)
                elif kind == "reply":
                    self._replies.append(record)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def ask(self, command, timeout=10.0):
        """Sends one command; returns its reply record."""
        with self._changed:
            if self._ended:
                raise LabError(f"colo-load ended early: {' / '.join(self._noise[-3:])}")
            self._replies.clear()
            try:
                self._process.stdin.write(command + "\n")
                self._process.stdin.flush()
            except OSError as error:
                raise LabError(f"colo-load: {error}") from error
            deadline = time.monotonic() + timeout
            while not self._replies:
                left = deadline - time.monotonic()
                if left <= 0 or self._ended:
                    raise LabError(f"colo-load did not answer '{command}': {' / '.join(self._noise[-3:])}")
                self._changed.wait(left)
            reply = self._replies.pop(0)
        if "error" in reply:
            raise LabError(f"colo-load: {command}: {reply['error']}")
        return reply

    def add(self, specification):
        """`add("echo count=4 interval_ms=10")`; returns the ids of the new connections."""
        return self.ask("add " + specification)["ids"]

    def mark(self):
        """Gaps and latencies are counted anew from here; returns the client's monotonic time in seconds."""
        return self.ask("mark")["now_s"]

    def report(self):
        """State of every connection since the last mark, and the sums."""
        return self.ask("report")

    def wait(self, condition, what, timeout=20.0, interval=0.1):
        """Polls report() until condition(report)."""
        deadline = time.monotonic() + timeout
        while True:
            report = self.report()
            if condition(report):
                return report
            if time.monotonic() > deadline:
                raise LabError(f"load: {what}: not within {timeout:.0f} s; sums {report['sums']}")
            time.sleep(interval)

    def stop(self, timeout=30.0):
        """Ends every connection in order and returns the final summary."""
        if self.summary is None and not self._ended:
            try:
                self._process.stdin.write("stop\n")
                self._process.stdin.flush()
            except OSError:
                pass
        with self._changed:
            deadline = time.monotonic() + timeout
            while self.summary is None and not self._ended:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
        self.close()
        if self.summary is None:
            raise LabError(f"colo-load gave no summary: {' / '.join(self._noise[-3:])}")
        return self.summary

    def close(self):
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(3)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        if self._log:
            self._log.close()
            self._log = None
