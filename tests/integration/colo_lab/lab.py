# SPDX-License-Identifier: Apache-2.0
"""A lab: network, two hosts, directories, and the steps that scenarios are made of."""
import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from . import guest
from .errors import LabError, Skip
from .host import Host
from .load import Load
from .net import Network, run
from .plain import PlainGuest
from .processes import move_to_cores, socket_in

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))


def _end(number, _frame):
    raise SystemExit(128 + number)


class Lab:
    """with Lab(build) as lab: ...   Names carry the pid, so that several labs run beside each other."""

    def __init__(self, build, settings=None, keep=False, label="t", say=None):
        self.build = os.path.abspath(build)
        self.settings = settings or {}
        self.keep = keep
        self.say = say or (lambda text: None)
        self.network = Network(f"colo{label}{os.getpid() % 1000000:x}")
        self.guest_files = os.environ.get("COLO_GUEST_FILES", os.path.join(ROOT, "build", "guest"))
        self.directory = None
        self.hosts = {}
        self.loads = []
        self.plains = []
        self._owner = os.getpid()

    # Programs

    @property
    def colod(self):
        return os.path.join(self.build, "colo", "colod")

    @property
    def coloctl(self):
        return os.path.join(self.build, "colo", "ctl", "coloctl")

    @property
    def colo_load(self):
        # The client of a sanitizer build would be slowed down with it; it can come from elsewhere.
        return os.environ.get("COLO_LOAD", os.path.join(self.build, "tests", "bench", "load", "colo-load"))

    @property
    def lock_directory(self):
        return os.path.join(self.directory, "lock")

    @property
    def a(self):
        return self.hosts["a"]

    @property
    def b(self):
        return self.hosts["b"]

    # Life

    def __enter__(self):
        if os.geteuid() != 0:
            raise Skip("network namespaces and taps need root")
        if shutil.which("qemu-system-x86_64") is None:
            raise Skip("qemu-system-x86_64 is not installed")
        self.directory = tempfile.mkdtemp(prefix="colo-lab-")
        os.chmod(self.directory, 0o755)
        os.makedirs(self.lock_directory)
        atexit.register(self.close)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _end)
        subprocess.run([os.path.join(ROOT, "scripts", "build-guest"), self.guest_files], check=True,
                       stdout=subprocess.DEVNULL)
        self.network.up()
        self.hosts = {"a": Host(self, "a", "b"), "b": Host(self, "b", "a")}
        return self

    def __exit__(self, kind, value, trace):
        if kind is not None and not issubclass(kind, (Skip, SystemExit)):
            self.save_evidence()
            self.show_logs()
            self.keep = True
        self.close()

    def save_evidence(self):
        """What a failure is explained with, while it is still there: the client's sockets, both daemons' status."""
        parts = {"client-sockets": lambda: run(*self.network.command("c", "ss", "-tuniome"), check=False)}
        for host in self.hosts.values():
            if host.running():
                parts[f"status-{host.name}"] = lambda host=host: json.dumps(host.status(timeout=2), indent=1)
                parts[f"counters-{host.name}"] = lambda host=host: run(
                    *self.network.command(host.name, "ip", "-s", "link"), check=False)
        for number, load in enumerate(self.loads):
            parts[f"load{number}"] = lambda load=load: json.dumps(load.report(), indent=1)
        for name, produce in parts.items():
            try:
                text = produce()
            except (LabError, OSError, subprocess.SubprocessError) as error:
                text = f"not available: {error}"
            with open(os.path.join(self.directory, f"evidence-{name}.txt"), "w", encoding="utf-8") as file:
                file.write(text + "\n")

    def show_logs(self, lines=25):
        """The end of each log, without the line per checkpoint."""
        for host in self.hosts.values():
            if host.starts:
                kept = [line for line in host.log().splitlines() if " debug " not in line][-lines:]
                print(f"--- end of the log of host {host.name}\n" + "\n".join(f"    {line}" for line in kept), file=sys.stderr)

    def close(self):
        if self.directory is None or os.getpid() != self._owner:
            return
        atexit.unregister(self.close)
        for load in self.loads:
            load.close()
        for host in self.hosts.values():
            host.clean_up()
        for plain in self.plains:
            plain.stop()
        self.network.down()
        if self.keep:
            print(f"files of this lab: {self.directory}", file=sys.stderr)
        else:
            shutil.rmtree(self.directory, ignore_errors=True)
        self.directory = None

    # Steps

    def other(self, host):
        return self.hosts[host.peer]

    def boot(self, host=None, **start):
        """Starts the primary and waits for the guest's services. Returns the host."""
        host = host or self.a
        host.start("primary", **start)
        guest.wait_answering(self.network, timeout=120, alive=lambda: host.running() and host.status()["state"] != "stopped")
        return host

    def plain(self, memory_mib=256, append=""):
        plain = PlainGuest(self.network, os.path.join(self.directory, "plain"), self.guest_files, memory_mib, append)
        self.plains.append(plain)
        plain.start()
        return plain

    def own_cores(self):
        """Each host's processes, and the guest without colod, have a core to themselves, as far as there are two."""
        available = sorted(os.sched_getaffinity(0))
        if len(available) < 2:
            raise Skip("a core for each host needs two cores")
        for host, core in ((self.a, available[0]), (self.b, available[1])):
            move_to_cores(host.everything(), {core})
        move_to_cores([plain.process.pid for plain in self.plains if plain.process], {available[0]})

    def protect(self, primary, timeout=60.0, checkpoints=2, **start):
        """Starts a secondary beside `primary` (if none runs), one operator's command, and waits for checkpoints."""
        secondary = self.other(primary)
        if not secondary.running():
            secondary.start("secondary", **start)
        primary.coloctl("protect")
        self.wait_protected(primary, timeout, checkpoints)
        return secondary

    def wait_protected(self, primary, timeout=60.0, checkpoints=2):
        """Protected, a number of checkpoints done and the secondary really eligible."""
        secondary = self.other(primary)
        status = primary.wait_status(lambda s: s["state"] == "protected" and s["checkpoints"]["count"] >= checkpoints,
                                     f"protected with {checkpoints} checkpoints", timeout)
        secondary.wait_status(lambda s: s["eligible"], "eligible", 10)
        return status

    def wait_alone(self, host, timeout=10.0):
        """The host is the primary, serves and says that it is unprotected."""
        return host.wait_status(lambda s: s["role"] == "primary" and s["state"] == "unprotected" and s["run-state"] == "running",
                                "serving alone", timeout)

    def revive(self, host):
        """The dead host's links come back, as after a reboot; its state directory is what it left."""
        self.network.restore(host.name)

    def load(self, *adds, progress_ms=500):
        log = os.path.join(self.directory, f"load{len(self.loads)}.log")
        load = Load(self.network, self.colo_load, ["--progress-ms", str(progress_ms)], log=log)
        self.loads.append(load)
        for add in adds:
            load.add(add)
        return load

    def control(self, line, **options):
        return guest.control(self.network, line, **options)

    def guest_answers(self, timeout=2.0):
        """One fresh connection to the echo service."""
        with socket_in(self.network.namespace("c")) as connection:
            connection.settimeout(timeout)
            try:
                connection.connect((guest.GUEST_IP, guest.ECHO_PORT))
                connection.sendall(b"x\n")
                return connection.recv(64) == b"0 x\n"
            except OSError:
                return False

    def settle(self, load, seconds, what="traffic flows"):
        """Lets the load run and checks that answers came in and nothing was lost."""
        before = load.report()["sums"]["answers"]
        time.sleep(seconds)
        report = load.report()
        if report["sums"]["answers"] <= before:
            raise LabError(f"{what}: no answer in {seconds} s")
        check_unharmed(report)
        return report


def check_unharmed(report):
    """No connection lost, no wrong byte."""
    problems = [f"{flow['kind']} {flow['id']}: {flow.get('problem', '?')}" for flow in report["flows"]
                if flow["state"] == "lost" or flow["wrong_bytes"]]
    if problems:
        raise LabError("harm to the client: " + "; ".join(problems))
