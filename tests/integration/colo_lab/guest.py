# SPDX-License-Identifier: Apache-2.0
"""Talks to the guest's control service (tcp/2000) from the client's namespace."""
import socket
import time

from .errors import LabError
from .net import GUEST_IP
from .processes import socket_in

CONTROL_PORT = 2000
ECHO_PORT = 7


def control(network, line, timeout=10.0, answer=True):
    """Sends one control line; returns the answer's text. With answer=False the guest may be gone before it answers."""
    with socket_in(network.namespace("c")) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect((GUEST_IP, CONTROL_PORT))
            connection.sendall(line.encode() + b"\n")
            data = b""
            while b"\n" not in data:
                piece = connection.recv(4096)
                if not piece:
                    break
                data += piece
        except OSError as error:
            if not answer:
                return ""
            raise LabError(f"guest control '{line}': {error}") from error
    text = data.decode(errors="replace").strip()
    if answer and not text:
        raise LabError(f"guest control '{line}': no answer")
    return text


def wait_answering(network, timeout=60.0, alive=lambda: True):
    """Until the guest's echo service answers; returns the seconds it took."""
    start = time.monotonic()
    problem = "never tried"
    while time.monotonic() - start < timeout:
        if not alive():
            raise LabError("what runs the guest gave up while it booted")
        with socket_in(network.namespace("c")) as connection:
            connection.settimeout(1.0)
            try:
                connection.connect((GUEST_IP, ECHO_PORT))
                connection.sendall(b"hello\n")
                if connection.recv(100).endswith(b"hello\n"):
                    return time.monotonic() - start
            except (OSError, socket.timeout) as error:
                problem = str(error)
        time.sleep(0.1)
    raise LabError(f"the guest does not answer on port {ECHO_PORT} after {timeout:.0f} s: {problem}")
