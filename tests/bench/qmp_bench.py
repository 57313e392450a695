# SPDX-License-Identifier: Apache-2.0
"""The control interface: requests while checkpoints run, and how fast large input is taken in, beside the reference."""
import os
import selectors
import shutil
import socket
import subprocess
import tempfile
import time

from colo_lab import Lab, LabError
from scenario import guest_is_sound

COMMANDS = ("query-status", "query-migrate")
CLIENTS = (1, 16)
MEASURE_S = 4
INTERVAL_MS = 100
LARGE_BYTES = 24 << 20
REFERENCE_BYTES = 1 << 20  # it reads byte by byte
CONNECT_S = 30


class Client:
    """As little as possible in it: the server is measured, not the client."""

    def __init__(self, path):
        until = time.monotonic() + CONNECT_S
        while True:
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.socket.settimeout(CONNECT_S)
            try:
                self.socket.connect(path)
                break
            except OSError:
                self.socket.close()
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)
        self.buffer = b""
        self.line()
        self.request = b'{"execute": "qmp_capabilities"}'
        self.ask()

    def line(self):
        while b"\r\n" not in self.buffer:
            data = self.socket.recv(1 << 18)
            if not data:
                raise LabError("the server closed a control connection")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def ask(self):
        self.socket.sendall(self.request)
        line = self.line()
        while line.startswith(b'{"event"') or b'"event": ' in line:
            line = self.line()
        return line

    def take(self):
        """True once the answer, and not only events, has arrived."""
        self.buffer += self.socket.recv(1 << 18)
        lines = self.buffer.split(b"\r\n")
        self.buffer = lines.pop()
        return any(b'"return": ' in line for line in lines)


def latencies(path, command, count):
    """Each client asks again as soon as it was answered."""
    clients = [Client(path) for _ in range(count)]
    selector = selectors.DefaultSelector()
    asked, taken = {}, []
    for client in clients:
        client.request = b'{"execute": "%s"}' % command.encode()
        selector.register(client.socket, selectors.EVENT_READ, client)
    began = time.monotonic()
    for client in clients:
        asked[client] = time.monotonic()
        client.socket.sendall(client.request)
    while time.monotonic() < began + MEASURE_S:
        for key, _ in selector.select(1):
            client = key.data
            if client.take():
                now = time.monotonic()
                taken.append(now - asked[client])
                asked[client] = now
                client.socket.sendall(client.request)
    elapsed = time.monotonic() - began
    for client in clients:
        client.socket.close()
    taken.sort()
    return {"per_s": round(len(taken) / elapsed), "p50_us": round(taken[len(taken) // 2] * 1e6),
            "p99_us": round(taken[int(0.99 * len(taken))] * 1e6)}


def large_inputs(size):
    """About so many bytes as one string, as many numbers, and as many requests. Every answer is a short error."""
    number, request = b"123456,", b'{"execute":"nothing","arguments":{"one":[1,2,{"two":"three"}],"four":null}}'
    return {"string": b'{"execute":"nothing","id":0,"arguments":{"a":"' + b"x" * size + b'"}}',
            "numbers": b'{"execute":"nothing","id":0,"arguments":{"a":[' + number * (size // 4 // len(number)) + b'1]}}',
            "requests": request * (size // 16 // len(request))}


def parse_rates(path, size, rounds):
    rates = {}
    for name, data in large_inputs(size).items():
        answers = data.count(b'"execute"')
        best = 0.0
        for _ in range(rounds):
            client = Client(path)
            began, sent, seen = time.monotonic(), 0, 0
            client.socket.setblocking(False)
            while seen < answers:
                if sent < len(data):
                    try:
                        sent += client.socket.send(data[sent:sent + (1 << 20)])
                    except BlockingIOError:
                        pass
                try:
                    seen += client.socket.recv(1 << 18).count(b"\r\n")
                except BlockingIOError:
                    time.sleep(0.0005)
            best = max(best, len(data) / 1e6 / (time.monotonic() - began))
            client.socket.close()
        rates[name] = round(best, 2)
    return rates


def reference_rates():
    if not shutil.which("qemu-system-x86_64"):
        return {}
    with tempfile.TemporaryDirectory(prefix="colo-bench-") as folder:
        path = os.path.join(folder, "qmp.sock")
        process = subprocess.Popen(["qemu-system-x86_64", "-M", "none", "-S", "-nodefaults", "-display", "none",
                                    "-qmp", f"unix:{path},server=on,wait=off"], stdin=subprocess.DEVNULL)
        try:
            return parse_rates(path, REFERENCE_BYTES, 1)
        finally:
            process.kill()
            process.wait()


def bench_qmp(options, settings, say):
    """Requests beside the checkpoints of a protected domain; large input beside an unprotected one, as the reference's."""
    result = {"interval_ms": INTERVAL_MS, "requests": {}, "large_input_mb_s": {}}
    with Lab(options.build, settings=settings, label="q", keep=options.keep) as lab:
        primary = lab.boot()
        result["large_input_mb_s"]["ours"] = parse_rates(primary.socket, LARGE_BYTES, 3)
        lab.protect(primary, timeout=120)
        primary.qmp.execute("migrate-set-parameters", {"x-checkpoint-delay": INTERVAL_MS})
        time.sleep(1)
        count, began = primary.status()["checkpoints"]["count"], time.monotonic()
        for command in COMMANDS:
            for clients in CLIENTS:
                row = latencies(primary.socket, command, clients)
                result["requests"][f"{command} x{clients}"] = row
                say(f"qmp {command}, {clients} clients: {row['per_s']}/s, p50 {row['p50_us']} us, p99 {row['p99_us']} us")
        status = primary.status()
        result["checkpoints_per_s"] = round((status["checkpoints"]["count"] - count) / (time.monotonic() - began), 1)
        if status["state"] != "protected":
            raise LabError(f"not protected during the measurement: {status['reason']}")
        guest_is_sound(lab)
    result["large_input_mb_s"]["reference"] = reference_rates()
    say(f"qmp large input MB/s: {result['large_input_mb_s']}; {result['checkpoints_per_s']} checkpoints/s meanwhile")
    return result
