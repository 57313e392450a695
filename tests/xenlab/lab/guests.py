# SPDX-License-Identifier: Apache-2.0
"""HVM domains of the lab: the guest of tests/guest with the stock device model, without PV drivers."""
import os
import time

from lab import image
from lab.common import LabError, path, read_text, run, say, write_text

# nopv: the kernel does not notice Xen, so that everything about it is in memory, CPUs and device model.
APPEND = ("console=ttyS0 nopv quiet mitigations=off nokaslr panic=-1 reboot=t tsc=reliable no_timer_check random.trust_cpu=on "
          "colo.dirty=4 colo.wset=16")
# Every guest has the interface that colod gives to its own: a saved state fits only into the same devices. Here nobody is at the
# other end of its cable.
MAC = "52:54:00:77:00:02"
NIC = ["-netdev", "hubport,id=net0,hubid=0", "-device",
       f"virtio-net-pci,id=nic-net0,netdev=net0,mac={MAC},romfile=,guest_announce=off,disable-modern=on,disable-legacy=off,addr=0x8"]
READY = "COLO-GUEST-READY"
COLD_BOOT_SECONDS = 900


def config(name, **changes):
    """Text of an xl configuration. `changes` replace or add settings, as Python values."""
    settings = {
        "name": name, "type": "hvm", "memory": 128, "vcpus": 1, "kernel": "/cache/vmlinuz", "ramdisk": "/cache/initrd",
        "cmdline": APPEND, "serial": f"file:/tmp/{name}.serial", "xen_platform_pci": 0, "usb": 0,
        # A cold secondary's device model has not mapped its video RAM, so there is none.
        "vga": "none", "vnc": 0, "nographic": 1,
        # Emulated, each RDTSC leaves the guest, which the emulated CPU reports in a way that Xen cannot follow.
        "tsc_mode": "native", "cpus": "1-3", "device_model_args_hvm": NIC}
    settings.update(changes)

    def value(v):
        if isinstance(v, (list, tuple)):
            return "[ " + ", ".join(value(part) for part in v) + " ]"
        return str(v) if isinstance(v, int) else '"' + str(v) + '"'

    return "".join(f"{key} = {value(v)}\n" for key, v in settings.items() if v is not None)


def write_config(machine, name, **changes):
    """Returns the path of the file in dom0."""
    write_text(machine.file("share", name + ".cfg"), config(name, **changes))
    return f"/share/{name}.cfg"


def domid(machine, name):
    return int(machine.out(f"xl domid '{name}'"))


def another(machine, name, old, seconds):
    """Waits until a domain with this name is there that is not `old`; False: there was none in that time."""
    deadline = time.monotonic() + seconds
    while machine.run(f"xl domid {name}", check=False)[1].strip() in ("", str(old)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


def serial(machine, name):
    return machine.run(f"tail -c 20000 /tmp/{name}.serial 2>/dev/null", check=False)[1]


def wait_for_text(machine, name, text, seconds):
    deadline = time.monotonic() + seconds
    while text not in serial(machine, name):
        status, out, _ = machine.run(f"xl list '{name}' 2>&1; xl dmesg | tail -n 5", check=False)
        if "invalid domain" in out or status != 0:
            raise LabError(f"domain {name} is gone:\n{out}\nits console:\n{serial(machine, name)[-1500:]}\n{model_log(machine, name)}")
        if time.monotonic() > deadline:
            raise LabError(f"domain {name} did not print {text} within {seconds} s. Its console:\n{serial(machine, name)[-1500:]}\n{out}")
        time.sleep(1)


def model_log(machine, name):
    return machine.run(f"tail -n 15 /var/log/xen/xl-{name}.log /var/log/xen/qemu-dm-{name}.log 2>&1", check=False)[1]


def cold_boot(machine, name, **changes):
    """From nothing: minutes, because kernel and initrd come through an I/O port."""
    file = write_config(machine, name, **changes)
    machine.run(f"xl create -q {file}", timeout=300)
    wait_for_text(machine, name, READY, COLD_BOOT_SECONDS)


def baked():
    return path("guest", "booted.save")


def recipe():
    return image.digest() + "\n" + config("baked")


def is_baked():
    return os.path.exists(baked()) and read_text(path("guest", "booted.stamp")) == recipe()


def bake(machine):
    """Boots the guest once and keeps its image, from which further domains start within seconds."""
    if is_baked():
        return
    say("booting the guest once, to start later ones from its image (1 to 4 minutes)")
    cold_boot(machine, "baked")
    machine.run("xl save baked /var/tmp/booted.save", timeout=300)
    machine.get("/var/tmp/booted.save", baked() + ".new")
    machine.run("rm -f /var/tmp/booted.save")
    os.replace(baked() + ".new", baked())
    write_text(path("guest", "booted.cfg"), config("baked"))
    write_text(path("guest", "booted.stamp"), recipe())
    size = os.stat(baked()).st_size >> 20
    say(f"kept as {baked()} ({size} MiB; {run(['du', '-sh', baked()], 'du').split()[0]} on disk)")


def start(machine, name, paused=False, **changes):
    """A domain that goes on where the baked one was saved; returns its id."""
    if not is_baked():
        raise LabError("there is no image of a booted guest. Make it: scripts/xenlab build")
    file = write_config(machine, name, **changes)
    status, out, errors = machine.run(f"xl restore {'-p' if paused else ''} {file} /cache/booted.save", timeout=300, check=False)
    if status != 0:
        raise LabError(f"xl restore of {name} failed:\n{out[-1500:]}{errors[-1500:]}\n{model_log(machine, name)}")
    return domid(machine, name)
