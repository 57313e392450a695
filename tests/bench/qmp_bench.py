# SPDX-License-Identifier: Apache-2.0
"""The control interface: requests while checkpoints run, and how fast large input is taken in, beside the reference."""
import multiprocessing
import os
import selectors
import shutil
import socket
import statistics
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
PIPELINED = 64  # requests on their way
STORM_CLIENTS = 16
STORM_ROUNDS, STORM_S = 3, 6  # alternating with calm: what else the machine does changes with time


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
        """How many answers, events not counted, have arrived."""
        self.buffer += self.socket.recv(1 << 18)
        lines = self.buffer.split(b"\r\n")
        self.buffer = lines.pop()
        return sum(b'"return": ' in line for line in lines)


def latencies(path, command, count, seconds=MEASURE_S):
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
    while time.monotonic() < began + seconds:
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


def pipelined(path, command):
    """Requests a second of one client that does not wait for an answer before it asks again."""
    client = Client(path)
    request = b'{"execute": "%s"}' % command.encode()
    began, taken = time.monotonic(), 0
    client.socket.sendall(request * PIPELINED)
    while (elapsed := time.monotonic() - began) < MEASURE_S:
        came = client.take()
        taken += came
        client.socket.sendall(request * came)
    client.socket.close()
    return {"per_s": round(taken / elapsed)}


def pause_in_a_storm(host, collect):
    """The primary's pause without and beside clients that ask as fast as they are answered, from a process of their own."""
    pauses = {"calm": [], "storm": []}
    for _ in range(STORM_ROUNDS):
        for name, samples in pauses.items():
            storm = None
            if name == "storm":
                storm = multiprocessing.get_context("fork").Process(
                    target=latencies, args=(host.socket, "query-status", STORM_CLIENTS, STORM_S + 1))
                storm.start()
                time.sleep(0.5)
            samples += [sample["pause-us"] / 1000 for sample in collect(host, STORM_S, INTERVAL_MS)]
            if storm:
                storm.join(CONNECT_S)
                if storm.exitcode != 0:
                    storm.kill()
                    raise LabError(f"the clients of the storm ended with {storm.exitcode}")
    if not all(pauses.values()):
        raise LabError("no checkpoint was seen beside the requests")
    p50 = {name: statistics.median(samples) for name, samples in pauses.items()}
    return {"calm_p50_ms": round(p50["calm"], 3), "storm_p50_ms": round(p50["storm"], 3),
            "change": round(p50["storm"] / p50["calm"] - 1, 3),
            "samples": {name: len(samples) for name, samples in pauses.items()}}


def large_inputs(size):
    """About so many bytes as one string, as many small values, and as many requests. Every answer is a short error."""
    def array(item, command=b"nothing", name=b"a", last=None):
        return (b'{"execute":"%s","id":0,"arguments":{"%s":[' % (command, name) +
                (item + b",") * (size // 4 // len(item + b",")) + (last or item) + b']}}')

    request = b'{"execute":"nothing","arguments":{"one":[1,2,{"two":"three"}],"four":null}}'
    capability = b'{"capability":"%s","state":true}'
    return {"string": b'{"execute":"nothing","id":0,"arguments":{"a":"' + b"x" * size + b'"}}',
            "numbers": array(b"123456"), "strings": array(b'"abcdef"'), "objects": array(capability % b"events"),
            "decoded": array(capability % b"events", b"migrate-set-capabilities", b"capabilities", capability % b"none"),
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
                    answer = client.socket.recv(1 << 18)
                    if not answer:
                        raise ConnectionError(f"the server closed a control connection at {name}")
                    seen += answer.count(b"\r\n")
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
        except ConnectionError as error:  # it has died of such input
            return {"failed": str(error)}
        finally:
            process.kill()
            process.wait()


def bench_qmp(options, settings, say, collect):
    """Requests beside the checkpoints of a protected domain; large input beside an unprotected one, as the reference's."""
    result = {"interval_ms": INTERVAL_MS, "requests": {}, "large_input_mb_s": {}}
    with Lab(options.build, settings=settings, label="q", keep=options.keep) as lab:
        primary = lab.boot()
        try:
            result["large_input_mb_s"]["ours"] = parse_rates(primary.socket, LARGE_BYTES, 3)
        except ConnectionError as error:
            raise LabError(f"large input: {error}") from error
        lab.protect(primary, timeout=120)
        primary.qmp.execute("migrate-set-parameters", {"x-checkpoint-delay": INTERVAL_MS})
        time.sleep(1)
        count, began = primary.status()["checkpoints"]["count"], time.monotonic()
        for command in COMMANDS:
            for clients in CLIENTS:
                row = latencies(primary.socket, command, clients)
                result["requests"][f"{command} x{clients}"] = row
                say(f"qmp {command}, {clients} clients: {row['per_s']}/s, p50 {row['p50_us']} us, p99 {row['p99_us']} us")
        result["pipelined"] = pipelined(primary.socket, "query-status")
        say(f"qmp query-status, {PIPELINED} pipelined: {result['pipelined']['per_s']}/s")
        status = primary.status()
        result["checkpoints_per_s"] = round((status["checkpoints"]["count"] - count) / (time.monotonic() - began), 1)
        if status["state"] != "protected":
            raise LabError(f"not protected during the measurement: {status['reason']}")
        result["storm"] = pause_in_a_storm(primary, collect)
        say(f"qmp storm of {STORM_CLIENTS} clients: {result['storm']}")
        guest_is_sound(lab)
    result["large_input_mb_s"]["reference"] = reference_rates()
    say(f"qmp large input MB/s: {result['large_input_mb_s']}; {result['checkpoints_per_s']} checkpoints/s meanwhile")
    return result
