# SPDX-License-Identifier: Apache-2.0
"""A relay in front of a host's replication port: breaks connections while both daemons live."""
import socket
import struct
import threading
import time

from scenario import expect
from colo_lab.config import REPLICATION_PORT
from colo_lab.net import address
from colo_lab.processes import socket_in


class Relay:
    """Carries the TCP connections of a session to a host, until cut() breaks all of them in the middle of a frame.
    swallow: the number of one connection that is accepted and never gets there."""

    def __init__(self, lab, host, port, swallow=None):
        self.uri = f"tcp:{address(host)}:{port}"
        self._namespace = lab.network.namespace(host)
        self._target = (address(host), REPLICATION_PORT)
        self._listener = socket_in(self._namespace)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((address(host), port))
        self._listener.listen(16)
        self._pairs = []
        self._armed = False
        self._first = None
        self._swallow = swallow
        self._accepted = 0
        self.swallowed = []
        self.broken = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self._accepted += 1
            if self._accepted - 1 == self._swallow:
                self.swallowed.append(near)
                continue
            far = socket_in(self._namespace)
            far.connect(self._target)
            for one in (near, far):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pairs.append((near, far))
            threading.Thread(target=self._carry, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._carry, args=(far, near, False), daemon=True).start()

    def _carry(self, source, sink, forth):
        try:
            while data := source.recv(65536):
                # Long runs of bytes to the secondary are chunks of pages; half of one is half a frame.
                if self._armed and forth and len(data) > 8192:
                    self._armed = False
                    sink.sendall(data[:len(data) // 2 + 1])
                    self._break()
                    return
                sink.sendall(data)
        except OSError:
            pass

    def _break(self):
        near, far = zip(*self._pairs)
        order = (near, far) if self._first == "near" else (far, near)
        for side in order:
            for one in side:
                try:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    one.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # the daemon that heard first has closed this one already
                one.close()
            time.sleep(0.03)
        self.broken.set()

    def cut(self, first):
        """Waits for the next chunk and breaks everything in its middle; the side named hears of it first."""
        self._first = first
        self._armed = True
        expect(self.broken.wait(15), "no chunk went through the relay")

    def close(self):
        self._listener.close()
