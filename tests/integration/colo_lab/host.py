# SPDX-License-Identifier: Apache-2.0
"""One host of the lab: its colod, its QEMU, its directories. A host can die, freeze and come back."""
import os
import signal
import subprocess
import time

from . import config
from .errors import LabError
from .processes import alive, command_of, descendants, die_with_parent, signal_all, wait_gone
from .qmp import Qmp


class Host:
    def __init__(self, lab, name, peer):
        self.lab = lab
        self.name = name
        self.peer = peer
        base = os.path.join(lab.directory, name)
        self.run_directory = os.path.join(base, "run")
        self.state_directory = os.path.join(base, "state")
        for path in (self.run_directory, self.state_directory):
            os.makedirs(path, exist_ok=True)
        self.process = None
        self.starts = 0
        self._qmp = None
        self._frozen = []

    # Configuration and files

    @property
    def socket(self):
        return os.path.join(self.run_directory, "qmp.sock")

    @property
    def log_file(self):
        return os.path.join(self.run_directory, "colod.log")

    @property
    def config_file(self):
        return os.path.join(self.run_directory, "domain.toml")

    def write_config(self, changes=None):
        paths = {"run": self.run_directory, "state": self.state_directory, "lock": self.lab.lock_directory,
                 "guest": self.lab.guest_files}
        sections = config.merge(config.defaults(self.name, self.peer, paths), self.lab.settings)
        sections = config.merge(sections, changes)
        with open(self.config_file, "w", encoding="utf-8") as file:
            file.write(config.to_toml(sections))

    def log(self):
        """Everything the daemon logged, earlier starts included, plus what it wrote to standard error."""
        text = ""
        for path in (self.log_file, self.log_file + ".stderr"):
            try:
                with open(path, encoding="utf-8", errors="replace") as file:
                    text += file.read()
            except OSError:
                pass
        return text

    def log_tail(self, lines=12):
        return "\n".join(f"    {self.name}: {line}" for line in self.log().splitlines()[-lines:])

    # Life of the daemon

    def start(self, role, fault=None, changes=None, extra=()):
        """role: "primary" boots the guest, "secondary" waits. Returns once the control socket answers."""
        if self.process is not None and self.process.poll() is None:
            raise LabError(f"host {self.name}: colod already runs")
        self.reap()
        self.write_config(changes)
        environment = dict(os.environ)
        environment.pop("COLOD_FAULT", None)
        argv = [self.lab.colod, "--config", self.config_file, "--role", role, *extra]
        if fault:
            argv.append("--enable-fault-injection")
            environment["COLOD_FAULT"] = fault
        self.starts += 1
        with open(self.log_file + ".stderr", "ab") as log:
            self.process = subprocess.Popen(self.lab.network.command(self.name, *argv), stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=subprocess.STDOUT, env=environment,
                                            preexec_fn=die_with_parent)
        self._connect()
        if role == "secondary":
            self.wait_status(lambda s: s["state"] == "waiting" and "waits for a primary" in s["reason"], "ready to be a secondary", 30)

    def _connect(self, timeout=30.0):
        deadline = time.monotonic() + timeout
        while True:
            if self.process.poll() is not None:
                raise LabError(f"host {self.name}: colod ended with status {self.process.returncode}\n{self.log_tail()}")
            try:
                self._qmp = Qmp(self.socket, timeout=1.0)
                return
            except LabError as error:
                if time.monotonic() > deadline:
                    raise LabError(f"host {self.name}: no control socket: {error}\n{self.log_tail()}") from error

    @property
    def pid(self):
        return self.process.pid if self.process is not None and self.process.poll() is None else 0

    def running(self):
        return self.pid != 0

    def qemu_pids(self):
        return [pid for pid in descendants(self.pid) if "qemu-system" in command_of(pid)] if self.pid else []

    def qemu_pid(self):
        """The device model that runs the guest."""
        pids = self.qemu_pids()
        if not pids:
            raise LabError(f"host {self.name}: no device model runs\n{self.log_tail()}")
        return pids[-1]

    def everything(self):
        return [self.pid] + descendants(self.pid) if self.pid else []

    def reap(self):
        if self._qmp is not None:
            self._qmp.close()
            self._qmp = None
        if self.process is not None:
            self.process.wait(timeout=30)
            self.process = None
        self._frozen = []

    def kill(self):
        """kill -9 of the daemon and everything below it, at one moment. Returns that moment."""
        pids = self.everything()
        moment = time.monotonic()
        signal_all(pids, signal.SIGKILL)
        if not wait_gone(pids, 10):
            raise LabError(f"host {self.name}: {pids} survive kill -9")
        self.reap()
        return moment

    def die(self):
        """The host is gone: links without carrier, daemon and device model killed. Returns the moment it began."""
        pids = self.everything()
        moment = time.monotonic()
        self.lab.network.drop(self.name)
        signal_all(pids, signal.SIGKILL)
        if not wait_gone(pids, 10):
            raise LabError(f"host {self.name}: {pids} survive kill -9")
        self.reap()
        return moment

    def freeze(self):
        self._frozen = self.everything()
        moment = time.monotonic()
        signal_all(self._frozen, signal.SIGSTOP)
        return moment

    def thaw(self):
        signal_all(self._frozen, signal.SIGCONT)
        self._frozen = []

    def wait_end(self, timeout=20.0):
        """Until the daemon ended by itself; its exit status (negative: the signal)."""
        if self.process is None:
            raise LabError(f"host {self.name}: colod was not started")
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise LabError(f"host {self.name}: colod still runs after {timeout:.0f} s\n{self.log_tail()}") from error
        self.reap()
        return status

    def stop(self, timeout=15.0):
        """Orderly end; kill -9 if that does not work (and an error, because it must)."""
        if not self.running():
            return self.reap()
        pids = self.everything()
        if self._frozen:
            self.thaw()
        os.kill(self.pid, signal.SIGTERM)
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise LabError(f"host {self.name}: SIGTERM did not end colod within {timeout:.0f} s\n{self.log_tail()}") from error
        left = [pid for pid in pids if alive(pid)]
        signal_all(left, signal.SIGKILL)
        self.reap()
        if left:
            raise LabError(f"host {self.name}: colod ended and left {left} behind")
        return status

    def clean_up(self):
        """Never fails: for the end of the lab."""
        pids = self.everything()
        signal_all(pids, signal.SIGCONT)
        signal_all(pids, signal.SIGKILL)
        wait_gone(pids, 5)
        try:
            self.reap()
        except (OSError, subprocess.SubprocessError):
            pass

    # Control

    @property
    def qmp(self):
        if self._qmp is None:
            self._connect(5.0)
        return self._qmp

    def status(self, timeout=5.0):
        return self.qmp.execute("x-query-colo", timeout=timeout)

    def wait_status(self, condition, what, timeout=20.0):
        deadline = time.monotonic() + timeout
        while True:
            status = self.status()
            if condition(status):
                return status
            if time.monotonic() > deadline:
                raise LabError(f"host {self.name}: {what}: not within {timeout:.0f} s; state {status['state']}, role "
                               f"{status['role']}, reason '{status['reason']}'\n{self.log_tail()}")
            time.sleep(0.02)

    def begin_protection(self):
        """Returns at once: for sessions that are not meant to come about, or not to last."""
        self.qmp.execute("x-colo-protect")

    def coloctl(self, *arguments, check=True, timeout=60):
        argv = [self.lab.coloctl, "--socket", self.socket, *arguments]
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout,
                              stdin=subprocess.DEVNULL, check=False)
        if check and done.returncode != 0:
            raise LabError(f"coloctl {' '.join(arguments)}: exit status {done.returncode}: {done.stdout.strip()}")
        return done
