# SPDX-License-Identifier: Apache-2.0
"""One lab host: a QEMU process that runs Xen, and the way into its dom0."""
import json
import os
import secrets
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
import tty

from lab.common import LabError, path, read_text, say, write_text

MEMORY_MIB = 2048
DOM0_MIB = 640
BOOT_SECONDS = 300
COMMAND_SECONDS = 120
MAX_FRAME = 1 << 16

# What the emulated CPU must not have. QEMU 7.2 emulates these parts of an AMD processor, or Xen's use of them, wrongly.
CPU_WITHOUT = {
    "monitor": "Xen idles with MWAIT extensions; TCG raises a general protection fault",
    "smap": "TCG does an IRET at CPL 3 with supervisor accesses: dom0 dies at once", "smep": "goes with smap",
    "rdtscp": "reported as an intercept of RDTSC: Xen's emulator refuses the instruction, the guest loops",
    "avx": "its enabled state is lost across VMRUN: guests die of invalid opcodes", "avx2": "", "f16c": "", "fma": "",
    # TCG has none of these anyway and would say so at each start.
    "rdseed": "", "sha-ni": "", "xsavec": "", "3dnowprefetch": "", "misalignsse": "", "osvw": "", "topoext": "",
    "nrip-save": "", "fxsr-opt": "",
}
CRASHED = ("Panic on CPU", "Kernel panic", "Domain 0 crashed", "xenlab: FAILED")


def qemu_command(machine, port, cables):
    cpu = "EPYC," + ",".join("-" + name for name in CPU_WITHOUT)
    # eager-fpu, behind the "no" that turns it off: TCG's XSAVE and XRSTOR do not fault while CR0.TS is set, so that Xen does not
    # see a lazy user of the FPU, and registers of one domain end up in another (programs of dom0 die of wild pointers).
    # More processors than there are vCPUs, dom0 on one of its own (guests.py: the domains on the others): a vCPU that has to
    # make room for another one loses more than that.
    xen = (f"console=com1 com1=115200,8n1 dom0_mem={DOM0_MIB}M,max:{DOM0_MIB}M dom0_max_vcpus=1 dom0_vcpus_pin spec-ctrl=no,eager-fpu xpti=no "
           "pv-l1tf=no "
           "loglvl=info guest_loglvl=info")
    argv = ["qemu-system-x86_64", "-name", f"xenlab-{machine.name}", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", cpu,
            "-m", str(MEMORY_MIB), "-smp", "4", "-nodefaults", "-display", "none", "-vga", "none", "-no-reboot",
            "-serial", f"file:{machine.file('console.log')}",
            "-kernel", path("xen"), "-append", xen,
            "-initrd", f"{path('vmlinux')} console=hvc0 mitigations=off panic=-1 loglevel=4,{path('dom0-initrd')}",
            # Every boot begins with the same disk; what dom0 writes is gone afterwards.
            "-drive", f"file={path('root.img')},if=virtio,format=raw,snapshot=on",
            "-virtfs", f"local,path={machine.file('share')},mount_tag=share,security_model=none",
            "-virtfs", f"local,path={path('guest')},mount_tag=cache,security_model=none,readonly=on",
            "-netdev", f"user,id=mgmt,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:5000",
            "-device", "virtio-net-pci,netdev=mgmt,mac=52:54:00:c0:00:01,romfile="]
    for number, (cable, options) in enumerate(cables.items(), start=1):
        argv += ["-netdev", f"socket,id={cable},{options}",
                 "-device", f"virtio-net-pci,netdev={cable},mac=52:54:00:c0:{number:02x}:0{machine.number},romfile="]
    for tag, directory in machine.shares.items():
        argv += ["-virtfs", f"local,path={directory},mount_tag={tag},security_model=none"]
    return argv


class Machine:
    """Boot it, run scripts in its dom0, stop it. Its files lie in run/NAME; `share` is /share in dom0."""
    copies_loaded = False   # of all: the test that runs has put memory and CPUs into a domain
    genuine_console = None  # of all: file with what domains said into which nothing was ever loaded; None: not known, or none

    def __init__(self, name="one", number=1, shares=None):
        self.name = name
        self.number = number          # of the machines that are connected to each other
        self.shares = shares or {}    # more directories of this machine, by mount tag

    def file(self, *parts):
        return path("run", self.name, *parts)

    # ---- the process -------------------------------------------------------------------------------------------------

    def pid(self):
        """Of its QEMU; 0 if it does not run. A number that went to another program does not count."""
        pid = int(read_text(self.file("pid"), "0").strip() or 0)
        return pid if pid and f"xenlab-{self.name}" in read_text(f"/proc/{pid}/cmdline") else 0

    def boot(self, cables=None):
        """Returns when `xl list` works in dom0. `cables`: options of socket netdevs; the first one is `peer` in dom0."""
        if self.pid():
            raise LabError(f"lab host {self.name} runs already (process {self.pid()}); use it, or: scripts/xenlab stop")
        if shutil.which("qemu-system-x86_64") is None:
            raise LabError("there is no qemu-system-x86_64. scripts/setup installs it (package qemu-system-x86).")
        shutil.rmtree(self.file(), ignore_errors=True)
        os.makedirs(self.file("share"), mode=0o700)
        os.makedirs(path("guest"), exist_ok=True)
        os.chmod(self.file(), 0o700)
        write_text(self.file("share", ".token"), secrets.token_hex(16), 0o600)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        write_text(self.file("port"), str(port))
        began = time.monotonic()
        with open(self.file("qemu.log"), "wb") as log:
            process = subprocess.Popen(qemu_command(self, port, cables or {}), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       start_new_session=True)
        write_text(self.file("pid"), str(process.pid))
        try:
            self.wait_ready(process, began + BOOT_SECONDS)
        except BaseException:
            # By its handle: right after its start a process has no command line yet by which stop() would know it.
            process.kill()
            process.wait()
            os.unlink(self.file("pid"))
            raise
        return time.monotonic() - began

    def wait_ready(self, process, deadline):
        while True:
            if process.poll() is not None:
                raise LabError(f"QEMU ended with status {process.returncode}:\n{self.tail('qemu.log')}\n"
                               f"Is there enough memory (it wants {MEMORY_MIB} MiB)?")
            console = read_text(self.file("console.log"))
            if any(sign in console for sign in CRASHED):
                raise LabError(f"Xen or dom0 crashed; the end of {self.file('console.log')}:\n{self.tail('console.log')}")
            state = self.state()
            if state == "ready":
                return
            if state.startswith("failed"):
                raise LabError(f"dom0 came up but {state}; more in {self.file('console.log')}")
            if time.monotonic() > deadline:
                raise LabError(f"dom0 was not ready after {BOOT_SECONDS} s (it takes 10 to 30 s); the end of "
                               f"{self.file('console.log')}:\n{self.tail('console.log')}\nIs the machine very busy?")
            time.sleep(0.2)

    def tail(self, name, lines=20):
        return "\n".join(read_text(self.file(name)).splitlines()[-lines:])

    def stop(self):
        pid = self.pid()
        if pid:
            os.kill(pid, signal.SIGTERM)
            for _ in range(100):
                try:
                    os.waitpid(pid, os.WNOHANG)   # if it is our child
                except ChildProcessError:
                    pass
                if not self.pid():
                    break
                time.sleep(0.1)
            else:
                os.kill(pid, signal.SIGKILL)
                while self.pid():
                    try:
                        os.waitpid(pid, os.WNOHANG)
                    except ChildProcessError:
                        pass
                    time.sleep(0.1)
        if os.path.exists(self.file("pid")):
            os.unlink(self.file("pid"))

    def must_run(self):
        if not self.pid():
            raise LabError(f"lab host {self.name} does not run. Start it: scripts/xenlab boot")

    # ---- into dom0 ---------------------------------------------------------------------------------------------------

    def connect(self, request, seconds):
        port = read_text(self.file("port"), "0")
        connection = socket.create_connection(("127.0.0.1", int(port)), timeout=seconds)
        request = {"token": read_text(self.file("share", ".token")), **request}
        connection.sendall(json.dumps(request).encode() + b"\n")
        return connection

    def state(self):
        try:
            with self.connect({"kind": "state"}, 5) as connection:
                return next((data.decode() for kind, data in frames(connection) if kind == b"x"), "")
        except OSError:
            return ""   # nobody listens yet

    def run(self, script, timeout=COMMAND_SECONDS, check=True):
        """Runs a bash script in dom0 as root, with no standard input; returns (status, output, error output)."""
        self.must_run()
        out = {b"o": [], b"e": []}
        status = "the connection to dom0 broke"
        try:
            with self.connect({"kind": "run", "script": script, "timeout": timeout}, timeout + 30) as connection:
                for kind, data in frames(connection):
                    if kind == b"x":
                        status = data.decode(errors="replace")
                        break
                    out.setdefault(kind, []).append(data)
        except OSError as error:
            status = f"no answer from dom0: {error}"
        text, errors = (b"".join(out[kind]).decode(errors="replace") for kind in (b"o", b"e"))
        number = int(status) if status.lstrip("-").isdigit() else 255
        if number == 255 and status != "255":
            errors += f"\nxenlab: {f'not finished after {timeout} s, killed' if status == 'timeout' else status}\n"
        if check and number != 0:
            raise LabError(f"in dom0 of {self.name}, status {number}: {script}\n{text[-2000:]}{errors[-2000:]}")
        return number, text, errors

    def out(self, script, timeout=COMMAND_SECONDS):
        return self.run(script, timeout)[1].strip()

    def signs_of_lost_state(self):
        """Lines that only a broken processor writes, of dom0, of the domains' kernels, and of those alone that only ever ran; "" if
        there are none."""
        oops = "grep -hE 'BUG: |Oops: |general protection'"
        return tuple(self.run(script + "; true", check=False)[1].strip()[-1500:]
                     # Not of what is tested: a fault of that is its own.
                     for script in ("dmesg | grep -E 'general protection|traps: ' | grep -vE 'colo|xen_'",
                                    f"xl dmesg | grep -E 'Triple fault|triple fault'; {oops} -s /tmp/*.serial /run/*/console/*",
                                    f"{oops} {self.genuine_console}" if self.genuine_console else "true"))

    def put(self, source, target):
        """Copies a file of the host into dom0."""
        staged = self.file("share", ".put")
        shutil.copy(source, staged)
        self.run(f"cp /share/.put '{target}'")
        os.unlink(staged)

    def get(self, source, target):
        """Copies a file of dom0 to the host. By way of dom0's disk: some files cannot be read into the share directly."""
        self.run(f"cp '{source}' /share/.get", timeout=600)
        shutil.move(self.file("share", ".get"), target)

    def shell(self):
        """An interactive shell on this terminal."""
        self.must_run()
        with self.connect({"kind": "shell", "term": os.environ.get("TERM", "dumb")}, 30) as connection:
            connection.settimeout(None)
            before = termios.tcgetattr(0) if os.isatty(0) else None
            try:
                if before:
                    tty.setraw(0)
                return talk(connection)
            finally:
                if before:
                    termios.tcsetattr(0, termios.TCSADRAIN, before)


def exactly(connection, size):
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            return b""
        data += part
    return data


def frames(connection):
    while True:
        head = exactly(connection, 5)
        if not head:
            return
        size = struct.unpack(">I", head[1:])[0]
        if size > MAX_FRAME:
            raise LabError("the agent of dom0 sent garbage; is this run directory of an older lab? scripts/xenlab stop, then boot")
        yield head[:1], exactly(connection, size) if size else b""


def talk(connection):
    open_input = True
    while True:
        ready, _, _ = select.select([connection] + ([0] if open_input else []), [], [])
        if 0 in ready:
            typed = os.read(0, MAX_FRAME)
            open_input = bool(typed)
            connection.sendall(typed or b"\x04")   # the end of a file that was piped in ends the shell
        if connection in ready:
            kind, data = next(frames(connection), (b"x", b"255"))
            if kind == b"x":
                return int(data) if data.lstrip(b"-").isdigit() else 255
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()


def boot(name="one"):
    machine = Machine(name)
    seconds = machine.boot()
    say(f"dom0 of {name} is ready, {seconds:.1f} s after the start of QEMU")
    return machine
