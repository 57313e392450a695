# SPDX-License-Identifier: Apache-2.0
"""The fallbacks, forced: dirty tracking, frame port, device-state load, modes, compression."""

from scenario import CALM, expect, finish, guest_is_sound, lose_primary, scenario
from colo_lab import LabError, Skip


def run_with(lab_factory, say, settings, what, loads=CALM, dirty="dirty 20 32", in_force=None):
    """in_force(lab): raises unless what the settings force is really at work."""
    with lab_factory(settings=settings) as lab:
        lab.boot()
        lab.control(dirty)
        lab.protect(lab.a, timeout=90)
        load = lab.load(*loads)
        lab.settle(load, 1.5)
        if in_force is not None:
            in_force(lab)
        say(f"{what}: {lose_primary(lab, lab.a, load)}")
        guest_is_sound(lab)
        finish(lab, load, say)


def chose(text):
    """Both daemons said in their logs that this is what their device model runs with."""
    def check(lab):
        for host in (lab.a, lab.b):
            lines = [line for line in host.log().splitlines() if "device model started" in line]
            expect(lines and all(f" {text} " in line.replace(",", " ") for line in lines),
                   f"host {host.name} does not run with {text}: {lines}")
    return check


def netdev(kind):
    """Both device models really have their network ports of this kind."""
    def check(lab):
        for host in (lab.a, lab.b):
            with open(f"/proc/{host.qemu_pid()}/cmdline", encoding="utf-8") as file:
                words = file.read().split("\0")
            ports = [after for word, after in zip(words, words[1:]) if word == "-netdev"]
            expect(ports and all(port.startswith(f"{kind},") for port in ports), f"host {host.name} has ports {ports}")
    return check


@scenario(100)
def fallback_dirty_log_compare(lab_factory, say):
    run_with(lab_factory, say, {"guest": {"dirty_log": "compare"}}, "full compare", in_force=chose("dirty_log compare"))


@scenario(100)
def fallback_dirty_log_soft_dirty(lab_factory, say):
    """Where the kernel lacks soft-dirty it silently reports nothing: then the daemon must refuse it, not believe it."""
    if kernel_has_soft_dirty():
        run_with(lab_factory, say, {"guest": {"dirty_log": "soft-dirty"}}, "soft-dirty", in_force=chose("dirty_log soft-dirty"))
        return
    with lab_factory(settings={"guest": {"dirty_log": "soft-dirty"}}) as lab:
        try:
            lab.boot()
            lab.protect(lab.a, timeout=20)
        except (LabError, OSError):   # the daemon may be gone while it is asked
            text = lab.a.log()
            expect("soft-dirty" in text, f"refused without naming soft-dirty:\n{lab.a.log_tail()}")
            say("this kernel has no soft-dirty bits, and forcing them is refused; tracking with them: skipped")
            raise Skip("the kernel was built without CONFIG_MEM_SOFT_DIRTY; the refusal was checked") from None
        raise LabError("soft-dirty was accepted on a kernel that does not have it")


def kernel_has_soft_dirty():
    import ctypes
    import mmap
    import struct
    page = mmap.mmap(-1, mmap.PAGESIZE)
    page[0] = 1
    where = ctypes.addressof(ctypes.c_char.from_buffer(page))
    with open("/proc/self/clear_refs", "w", encoding="utf-8") as file:
        file.write("4")
    page[1] = 1
    with open("/proc/self/pagemap", "rb") as file:
        file.seek(where // mmap.PAGESIZE * 8)
        return bool(struct.unpack("<Q", file.read(8))[0] >> 55 & 1)


@scenario(100)
def fallback_frame_port_stream(lab_factory, say):
    run_with(lab_factory, say, {"nic": {"frame_port": "stream"}}, "frame port stream",
             loads=(*CALM, "upload mb_per_s=1", "download mb_per_s=1"), in_force=netdev("stream"))


@scenario(60)
def fallback_device_load_xen(lab_factory, say):
    """xen-load-devices-state aborts a stock QEMU: forcing it must be refused before a guest is touched."""
    with lab_factory(settings={"guest": {"device_load": "xen-load"}}) as lab:
        try:
            lab.boot()
            lab.b.start("secondary")
            lab.a.coloctl("protect")
            lab.wait_protected(lab.a, 10)
        except (LabError, OSError):   # the daemon may be gone while it is asked
            text = lab.a.log() + lab.b.log()
            expect("xen-load" in text or "device_load" in text, f"refused without naming it:\n{lab.b.log_tail()}")
            expect(not lab.b.running() or lab.b.status()["run-state"] != "running", "the standby runs a guest")
            reason = next(line for line in text.splitlines() if "xen-load" in line)
            say(f"forcing xen-load is refused: {reason[:160]}")
            return
        # A device model that survives it is fine too: then it must really work.
        load = lab.load(*CALM)
        say(f"this QEMU survives xen-load: {lose_primary(lab, lab.a, load)}")
        finish(lab, load, say)


def only_mode(mode):
    """The mode is in force and was from the first checkpoint on; in lock-step output is compared, buffered never."""
    def check(lab):
        status = lab.a.status()
        expect(status["mode"] == mode, f"mode is {status['mode']} ({status['mode-reason']}), configured is {mode}")
        triggers = {entry["trigger"] for entry in status["checkpoints"]["by-trigger"]}
        compared = status["network"]["compared-bytes"]
        if mode == "buffered":
            expect("buffered-output" in triggers, f"output that waits never asked for a checkpoint: {sorted(triggers)}")
            expect(not compared, f"{compared} bytes of two copies were compared; only one may have run")
        else:
            expect(compared, "nothing was compared, so nothing can have gone out because both copies agreed")
    return check


@scenario(100)
def forced_buffered_mode(lab_factory, say):
    run_with(lab_factory, say, {"replication": {"mode": "buffered"}}, "buffered mode",
             loads=(*CALM, "differing interval_ms=5", "upload mb_per_s=1"), in_force=only_mode("buffered"))


@scenario(100)
def forced_lock_step_mode(lab_factory, say):
    run_with(lab_factory, say, {"replication": {"mode": "lock-step"}}, "lock-step mode",
             loads=(*CALM, "differing interval_ms=100"), in_force=only_mode("lock-step"))


@scenario(100)
def compression_zstd(lab_factory, say):
    run_with(lab_factory, say, {"replication": {"compression": "zstd", "compression_level": 3, "page_channels": 4}}, "zstd, 4 channels")


@scenario(100, tier="soak")
def compression_zlib(lab_factory, say):
    run_with(lab_factory, say, {"replication": {"compression": "zlib", "page_channels": 1}}, "zlib, 1 channel")


@scenario(40)
def tap_wire(lab_factory, say):
    """The operator's bridge instead of a packet socket: the wire is a tap that colod joins to a bridge."""
    with lab_factory(settings={"nic": {"wire": "tap:colowire@brhost"}}) as lab:
        for host in ("a", "b"):
            lab.network.batch(host, ["link add name brhost type bridge forward_delay 0", "link set dev brhost up",
                                     "link set dev wire0 master brhost"])
        lab.boot()
        lab.protect(lab.a)
        load = lab.load(*CALM, "upload mb_per_s=2")
        lab.settle(load, 1)
        say(f"wire is a tap on a bridge: {lose_primary(lab, lab.a, load)}")
        finish(lab, load, say)
