# SPDX-License-Identifier: Apache-2.0
"""A monitor that is spoken to in bytes, and the two servers that it may belong to."""
import array
import ctypes
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time

WAIT_S = 60
LAST_WORDS_BYTES = 16 << 10  # a sanitizer's report fits
# When a guest resets itself on its way up is its own affair.
OWN_AFFAIRS = [{"event": "RESET", "data": {"guest": True, "reason": "guest-reset"}}]
NAME, UUID = "web1", "01234567-89ab-cdef-0123-456789abcdef"


def without_time(event):
    """The event; that it says when is checked here, because two servers never say the same."""
    time_of = event.pop("timestamp")
    if sorted(time_of) != ["microseconds", "seconds"] or not all(isinstance(part, int) for part in time_of.values()):
        raise ValueError(f"{event} came at {time_of}")
    return event


class Monitor:
    """One connection. ask() sends bytes and returns everything that was answered, and the events on the way."""

    def __init__(self, path):
        self.pending = b""
        self.count = 0
        self.open(path)
        self.greeting = self.read()

    def open(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(WAIT_S)
        self.socket.connect(path)

    def receive(self):
        return self.socket.recv(1 << 20)

    def read(self):
        while b"\r\n" not in self.pending:
            data = self.receive()
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

    def ask(self, data, descriptors=(), until=None, ends=False):
        """All answers and events: a command that nobody knows, sent afterwards, shows where the answers end.

        An effect that comes after the answer is waited for with `until`, the event that shows it. With `ends`, the server
        shall close the connection."""
        self.count += 1
        mark = f"mark-{self.count}"
        self.send(data, descriptors)
        if not ends:
            self.send(json.dumps({"execute": mark, "id": mark}).encode())
        answers, events, marked = [], [], False
        latest = time.monotonic() + WAIT_S
        while not marked or (until is not None and until not in events):
            if time.monotonic() > latest:  # a guest may send events for ever
                raise TimeoutError(f"{until} does not come after {data[:200]!r}, but {answers} and {events[-5:]}")
            try:
                message = self.read()
            except (EOFError, ConnectionResetError):
                if not ends:
                    raise
                return answers, events
            if message.get("id") == mark:
                marked = True
            elif "event" in message:
                event = without_time(message)
                if not event["event"].startswith("X_") and event not in OWN_AFFAIRS:  # X_: of our extensions
                    events.append(event)
            else:
                answers.append(message)
        return answers, events

    def close(self):
        self.socket.close()


class StandardStreams(Monitor):
    """The same on the standard input and output of the server; descriptors cannot be sent there."""

    def open(self, process):
        self.process = process

    def receive(self):
        if not select.select([self.process.stdout], [], [], WAIT_S)[0]:
            raise TimeoutError("nothing comes on standard output")
        return os.read(self.process.stdout.fileno(), 1 << 20)

    def send(self, data, descriptors=()):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def close(self):
        self.process.stdin.close()


def end_with_us():
    """In a new child: a run that is killed leaves no server behind."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


class Server:
    """A process that serves monitor sockets; `command` makes its arguments from the paths of two of them.

    A server that is told to stop goes away by itself; one that is not is killed."""

    def __init__(self, name, command, orderly=False):
        self.name = name
        self.orderly = orderly
        self.folder = tempfile.mkdtemp(prefix="colo-conformance-")
        self.paths = [os.path.join(self.folder, f"{which}.sock") for which in ("first", "second")]
        self.errors = os.path.join(self.folder, "errors")
        with open(self.errors, "ab") as errors:
            self.process = subprocess.Popen(command(*self.paths), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=errors, preexec_fn=end_with_us)

    def monitor(self, second=False):
        until = time.monotonic() + WAIT_S
        while True:
            try:
                return Monitor(self.paths[second])
            except OSError:
                if time.monotonic() > until or self.process.poll() is not None:
                    raise
                time.sleep(0.02)

    def wait_for(self, status):
        """Until the guest is there, or what waits for one."""
        one = self.monitor()
        one.ask(b'{"execute": "qmp_capabilities"}')
        until = time.monotonic() + WAIT_S
        while True:
            found = one.ask(b'{"execute": "query-status"}')[0][0]["return"]["status"]
            if found == status:
                return one.close()
            if time.monotonic() > until:
                raise TimeoutError(f"{self.name} is {found}, not {status}")
            time.sleep(0.05)

    def standard_streams(self):
        return StandardStreams(self.process)

    def last_words(self):
        """How it ended, if it did, and the end of what it wrote on standard error."""
        with open(self.errors, "rb") as errors:
            text = errors.read()[-LAST_WORDS_BYTES:].decode("utf-8", "replace")
        ended = "it runs" if self.process.poll() is None else f"exit status {self.process.returncode}"
        return f"{self.name}: {ended}; its last words:\n{text}"

    def __enter__(self):
        return self

    def __exit__(self, failure=None, *_):
        if failure is not None:
            print(self.last_words(), flush=True)
        if self.orderly:
            self.process.terminate()  # colod takes its device model along
            try:
                self.process.wait(WAIT_S)
            except subprocess.TimeoutExpired:
                pass
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        if not self.process.stdin.closed:
            self.process.stdin.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def reference(arguments):
    """Serves one client on each socket."""
    return Server("reference", lambda first, second: ["qemu-system-x86_64", *arguments, "-nodefaults", "-display", "none",
                                                      "-qmp", "stdio", "-qmp", f"unix:{first},server=on,wait=off",
                                                      "-qmp", f"unix:{second},server=on,wait=off"])


CONFIGURATION = """
[domain]
name = "{name}"
uuid = "{uuid}"
[guest]
type = "qemu"
memory_mib = 256
kernel = "{guest}/vmlinuz"
initrd = "{guest}/initrd.gz"
append = "console=ttyS0 quiet panic=0 mitigations=off tsc=reliable no_timer_check random.trust_cpu=on"
accelerator = "tcg"
[replication]
checkpoint_interval_ms = 20000
delta_cache_mib = 64
[[heartbeat.path]]
local = "127.0.0.1:{port}"
peer = "127.0.0.2:{port}"
[arbiter]
kind = "manual"
[qmp]
socket = "{socket}"
[state]
directory = "{folder}/state"
[log]
file = "{folder}/colod.log"
"""


def free_port():
    """Below those that the kernel gives to whoever asks for any: colod binds it later, and other tests run beside this one."""
    for _ in range(100):
        port = random.randrange(20000, 30000)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            try:
                one.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise RuntimeError("no UDP port is free between 20000 and 30000")


def daemon(binary, guest, role):
    """A whole colod with a guest that nobody protects, or one that waits for a primary."""
    def command(first, _):
        folder = os.path.dirname(first)
        with open(os.path.join(folder, "colod.toml"), "w", encoding="utf-8") as file:
            file.write(CONFIGURATION.format(name=NAME, uuid=UUID, guest=os.path.abspath(guest), port=free_port(), socket=first, folder=folder))
        return [binary, "--config", file.name, "--role", role, "--qmp-stdio"]
    server = Server("daemon", command, orderly=True)
    server.paths[1] = server.paths[0]
    try:
        server.wait_for("inmigrate" if role == "secondary" else "running")
    except BaseException as failure:
        server.__exit__(type(failure))
        raise
    return server


def ours(binary, state):
    server = Server("ours", lambda first, _: [binary, first, state])
    server.paths[1] = server.paths[0]
    return server
