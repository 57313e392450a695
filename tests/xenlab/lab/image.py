# SPDX-License-Identifier: Apache-2.0
"""What QEMU boots: hypervisor, dom0 kernel, dom0's initrd and root, and the guest's kernel and initrd."""
import glob
import gzip
import hashlib
import os
import shutil

from lab import bzimage, packages
from lab.common import REPOSITORY, SOURCE, locked, path, read_text, run, say, write_text
from lab.modules import Modules

BOOT_MODULES = ["virtio_pci", "virtio_blk", "ext4", "crc32c_generic"]
DOM0_MODULES = ["virtio_net", "9p", "9pnet_virtio", "xenfs", "xen-privcmd", "xen-evtchn", "xen-gntdev", "xen-gntalloc",
                "xen-netback", "xen-blkback", "bridge", "tun", "veth", "dummy", "af_packet", "act_mirred", "sch_ingress"]
GUEST_MODULES = ["virtio_pci", "virtio_net", "virtio_blk", "8139cp", "8139too", "e1000", "button", "evdev"]
ROOT_MIB = 1024


def files():
    """What a boot needs. guest/ is what dom0 sees as /cache."""
    return [path(name) for name in ("xen", "vmlinux", "dom0-initrd", "root.img", "guest/vmlinuz", "guest/initrd")]


def digest():
    """Of everything of ours that the images are made of. New packages alone do not make them stale."""
    parts = sorted(glob.glob(os.path.join(SOURCE, "dom0", "*")) + glob.glob(os.path.join(REPOSITORY, "tests", "guest", "*.[ch]")))
    parts += [os.path.join(SOURCE, "lab", name) for name in ("image.py", "packages.py", "modules.py", "bzimage.py")]
    total = hashlib.sha256()
    for name in parts:
        with open(name, "rb") as file:
            total.update(os.path.basename(name).encode() + b"\0" + file.read())
    return total.hexdigest()[:32]


def build(again=False):
    """Does nothing when nothing has changed."""
    with locked():
        stamp = path("stamp")
        if not again and read_text(stamp) == digest() and all(os.path.exists(name) for name in files()):
            return
        if os.path.exists(stamp):
            os.unlink(stamp)
        dom0, hypervisor, kernel = packages.fetch()
        say(f"unpacking {len(dom0)} packages")
        unpacked, root = fresh("unpacked"), fresh("root")
        packages.unpack([hypervisor, kernel], unpacked)
        prepare_root(root)
        packages.unpack(dom0, root)
        modules = Modules(unpacked)
        kernel_files(unpacked)
        finish_root(root, modules)
        dom0_initrd(root, modules)
        guest_initrd(modules)
        root_image(root)
        for name in (unpacked, root):
            shutil.rmtree(name)
        write_text(stamp, digest())
        say(f"built in {path()}")


def fresh(name):
    directory = path(name)
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    return directory


def kernel_files(unpacked):
    say("hypervisor and kernel")
    with gzip.open(glob.glob(os.path.join(unpacked, "boot", "xen-4.17-amd64*.gz"))[0]) as packed, open(path("xen"), "wb") as out:
        shutil.copyfileobj(packed, out)   # a 32-bit multiboot ELF: QEMU takes it as -kernel
    bzimage_file = glob.glob(os.path.join(unpacked, "boot", "vmlinuz-*"))[0]
    os.makedirs(path("guest"), exist_ok=True)
    shutil.copyfile(bzimage_file, path("guest", "vmlinuz"))
    bzimage.extract(bzimage_file, path("vmlinux"))


def prepare_root(root):
    """A tree with merged /usr, before any package comes."""
    for name in ("bin", "sbin", "lib", "lib64"):
        os.makedirs(os.path.join(root, "usr", name))
        os.symlink("usr/" + name, os.path.join(root, name))


def finish_root(root, modules):
    """What the maintainer scripts would have done, as far as this dom0 needs it, and what is ours."""
    def link(target, name):
        if not os.path.lexists(os.path.join(root, name)):
            os.symlink(target, os.path.join(root, name))

    link("dash", "usr/bin/sh")
    link("mawk", "usr/bin/awk")
    for name in ("dev", "proc", "sys", "run", "tmp", "root", "share", "lab", "cache", "etc", "var/log/xen/console", "var/lib/xen"):
        os.makedirs(os.path.join(root, name), exist_ok=True)
    for name, target in (("var/run", "/run"), ("var/lock", "/run/lock")):
        where = os.path.join(root, name)
        if os.path.isdir(where) and not os.path.islink(where):
            shutil.rmtree(where)
        link(target, name)
    write_text(os.path.join(root, "etc/passwd"), "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/nonexistent:/bin/false\n")
    write_text(os.path.join(root, "etc/group"), "root:x:0:\nnogroup:x:65534:\n")
    write_text(os.path.join(root, "etc/hosts"), "127.0.0.1 localhost\n")
    write_text(os.path.join(root, "etc/hostname"), "xenlab\n")
    for name in ("init", "agent.py"):
        shutil.copyfile(os.path.join(SOURCE, "dom0", name), os.path.join(root, "lab", name))
        os.chmod(os.path.join(root, "lab", name), 0o755)
    for useless in ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/iso-codes"):
        shutil.rmtree(os.path.join(root, useless), ignore_errors=True)
    target = os.path.join(root, "lib", "modules", modules.version)
    for name in modules.closure(DOM0_MODULES):
        copy = os.path.join(target, os.path.relpath(name, modules.base))
        os.makedirs(os.path.dirname(copy), exist_ok=True)
        shutil.copyfile(name, copy)
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        shutil.copyfile(os.path.join(modules.base, name), os.path.join(target, name))
    in_root(root, "usr/bin/kmod", "depmod", ["-b", root, modules.version])


def in_root(root, program, name, arguments, **more):
    """Runs a program of dom0's tree here, with that tree's libraries; no chroot, so no root needed."""
    libraries = os.path.join(root, "usr/lib/x86_64-linux-gnu")
    return run([os.path.join(root, "usr/lib64/ld-linux-x86-64.so.2"), "--library-path", libraries, "--argv0", name,
                os.path.join(root, program), *arguments], name, **more)


def pack(tree, target):
    run(["sh", "-c", 'cd "$1" && find . -print0 | sort -z | cpio --null -o -H newc --quiet --reproducible -R 0:0 > "$2.new" && mv "$2.new" "$2"',
         "pack", tree, target], f"pack {os.path.basename(target)}")
    shutil.rmtree(tree)


def copy_modules(modules, names, directory):
    os.makedirs(directory, exist_ok=True)
    order = modules.closure(names)
    for name in order:
        shutil.copy(name, directory)
    write_text(os.path.join(directory, "order"), "".join(os.path.basename(name) + "\n" for name in order))


def dom0_initrd(root, modules):
    """One static program, busybox, finds the root disk."""
    say("initrd of dom0")
    tree = fresh("initrd")
    for name in ("bin", "proc", "sys", "dev", "root"):
        os.makedirs(os.path.join(tree, name))
    shutil.copy(os.path.join(root, "usr/bin/busybox"), os.path.join(tree, "bin/busybox"))
    copy_modules(modules, BOOT_MODULES, os.path.join(tree, "modules"))
    shutil.copyfile(os.path.join(SOURCE, "dom0", "initrd-init"), os.path.join(tree, "init"))
    os.chmod(os.path.join(tree, "init"), 0o755)
    pack(tree, path("dom0-initrd"))


def guest_initrd(modules):
    """The guest is the one of tests/guest, with modules of the kernel that dom0 runs, too: it is half of the cloud kernel
    in size, and an HVM guest of Xen gets its kernel through an I/O port, byte by byte."""
    say("initrd of the guest")
    tree = fresh("guest-tree")
    for name in ("dev", "modules"):
        os.makedirs(os.path.join(tree, name))
    sources = sorted(glob.glob(os.path.join(REPOSITORY, "tests", "guest", "*.c")))
    run([os.environ.get("CC", "gcc"), "-std=gnu17", "-O2", "-static", "-pthread", "-s", "-o", os.path.join(tree, "init"), *sources],
        "compile the guest's init")
    copy_modules(modules, GUEST_MODULES, os.path.join(tree, "modules"))
    pack(tree, path("guest-initrd.cpio"))
    with open(path("guest-initrd.cpio"), "rb") as plain, open(path("guest", "initrd"), "wb") as out:
        with gzip.GzipFile(filename="", mode="wb", fileobj=out, mtime=0) as packed:
            shutil.copyfileobj(plain, packed)
    os.unlink(path("guest-initrd.cpio"))


def root_image(root):
    say("root disk of dom0")
    image = path("root.img.new")
    if os.path.exists(image):
        os.unlink(image)
    with open(image, "wb") as file:
        file.truncate(ROOT_MIB << 20)
    in_root(root, "usr/sbin/mke2fs", "mkfs.ext4",
            ["-q", "-F", "-m0", "-t", "ext4", "-O", "^metadata_csum,^64bit", "-E", "root_owner=0:0", "-d", root, image])
    os.replace(image, path("root.img"))
