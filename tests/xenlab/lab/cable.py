# SPDX-License-Identifier: Apache-2.0
"""A network cable between two lab hosts that can be cut: nothing arrives any more, and neither end is told."""
import contextlib
import socket
import struct
import threading

MAX_ETHERNET = 4096 + 65536   # of QEMU's


class Cable:
    """`options(0)` and `options(1)` are those of a socket netdev. A host that starts again plugs itself in again."""

    def __init__(self):
        self.whole = True
        self.dropped = 0
        self.listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        self.plugged = [None, None]
        for end in range(2):
            threading.Thread(target=self.serve, args=(end,), daemon=True).start()

    def options(self, end):
        return f"connect=127.0.0.1:{self.listeners[end].getsockname()[1]}"

    def cut(self):
        self.whole = False

    def mend(self):
        self.whole = True

    def close(self):
        for one in self.listeners + [plug for plug in self.plugged if plug]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def serve(self, end):
        with contextlib.suppress(OSError):   # closed
            while True:
                plug, _ = self.listeners[end].accept()
                self.plugged[end] = plug
                with contextlib.suppress(OSError), plug, plug.makefile("rb") as stream:   # the host went off
                    self.carry(stream, end)

    def carry(self, stream, end):
        while True:
            head = stream.read(4)
            size = struct.unpack(">I", head)[0] if len(head) == 4 else 0
            if not 0 < size <= MAX_ETHERNET:
                return
            frame = stream.read(size)
            other = self.plugged[1 - end]
            if not self.whole:
                self.dropped += 1
            elif other and len(frame) == size:
                with contextlib.suppress(OSError):   # nobody is plugged in at the other end now
                    other.sendall(head + frame)
