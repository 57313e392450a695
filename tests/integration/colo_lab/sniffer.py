# SPDX-License-Identifier: Apache-2.0
"""Watches one switch port for frames that a host sends in the guest's name."""
import socket
import threading
import time

from .net import GUEST_MAC
from .processes import socket_in

_ETH_P_ALL = 3
_OUTGOING = 4


class Sniffer:
    """Counts frames that enter the switch at `port` with the guest's MAC as source, and remembers when."""

    def __init__(self, network, port):
        self._socket = socket_in(network.namespace("s"), socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self._socket.bind((port, _ETH_P_ALL))
        self._socket.settimeout(0.2)
        self._mac = bytes(int(part, 16) for part in GUEST_MAC.split(":"))
        self._lock = threading.Lock()
        self._times = []
        self._frames = []
        self._ended = False
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self):
        while not self._ended:
            try:
                frame, origin = self._socket.recvfrom(65536 + 64)
            except (TimeoutError, socket.timeout):
                continue
            except OSError:
                if self._ended:
                    return
                time.sleep(0.01)   # ENETDOWN while the port has no carrier
                continue
            if origin[2] != _OUTGOING and frame[6:12] == self._mac:
                with self._lock:
                    self._times.append(time.monotonic())
                    self._frames = self._frames[-7:] + [frame[:64].hex()]

    def count(self, since=0.0):
        with self._lock:
            return sum(1 for moment in self._times if moment >= since)

    def last_frames(self):
        with self._lock:
            return list(self._frames)

    def close(self):
        self._ended = True
        self._thread.join(2)
        self._socket.close()
