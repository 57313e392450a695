# SPDX-License-Identifier: Apache-2.0
"""Debian packages, fetched with apt and unpacked; nothing is installed on this machine and no maintainer script runs, so
no root is needed. apt gets a package database of its own that says "nothing is installed": what it then wants to
fetch for a list of names is all that is needed to run them."""
import glob
import os
import subprocess

from lab.common import LabError, path, run, say

# What a dom0 consists of. The libraries at the end are what our own programs are linked with.
DOM0 = """
  base-files bash coreutils dash diffutils findutils grep gzip hostname kmod mawk mount procps sed tar util-linux e2fsprogs
  iproute2 bridge-utils iputils-ping python3 strace busybox-static
  xen-utils-4.17 xen-utils-common xenstore-utils qemu-system-xen seabios
  libstdc++6 libspdlog1.10 libxxhash0 libzstd1 zlib1g
""".split()
HYPERVISOR = "xen-hypervisor-4.17-amd64"
NETWORK = "Is there a network and a Debian mirror? The lab wants Debian 12 (bookworm)."


def _apt(*arguments):
    state = path("apt")
    for directory in ("lists/partial", "archives/partial"):
        os.makedirs(os.path.join(state, directory), exist_ok=True)
    open(os.path.join(state, "status"), "a", encoding="ascii").close()
    return ["apt-get", "-q", "-y", "-o", f"Dir::State={state}", "-o", f"Dir::State::status={state}/status",
            "-o", f"Dir::Cache={state}", "-o", f"Dir::Cache::archives={state}/archives", "-o", "Debug::NoLocking=true",
            "-o", "APT::Sandbox::User=", "-o", "APT::Install-Recommends=false", *arguments]


def _kernel_package():
    done = subprocess.run(["apt-cache", *_apt()[3:], "depends", "linux-image-amd64"], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True, check=False)
    names = [line.split()[-1] for line in done.stdout.splitlines() if "Depends: linux-image-" in line]
    return names[0] if names else None


def _fetch_dom0():
    """All packages that dom0 needs; returns their files."""
    listed = run(_apt("--print-uris", "install", *DOM0), "apt-get: find what dom0 needs", NETWORK, timeout=300)
    files = [line.split()[1] for line in listed.splitlines() if line.startswith("'")]
    run(_apt("--download-only", "install", *DOM0), "apt-get: fetch the packages of dom0", NETWORK, timeout=1800)
    archives = path("apt", "archives")
    # What is in the cache already, --print-uris does not name; old versions are what apt cleans away.
    run(_apt("autoclean"), "apt-get autoclean", timeout=300)
    have = sorted(glob.glob(os.path.join(archives, "*.deb")))
    if len(have) < len(files) or not have:
        raise LabError(f"apt fetched {len(have)} of {len(files)} packages into {archives}. Delete {path('apt')} and try again.")
    return have


def fetch():
    """Brings all packages into the cache; returns (files for dom0, file of the hypervisor, file of the kernel)."""
    known = _kernel_package() is not None
    if not known:
        _update()
    if _kernel_package() is None:
        raise LabError(f"linux-image-amd64 is unknown to apt here. {NETWORK}")
    say("fetching the packages of dom0, hypervisor and kernel (90 MB the first time; what is in the cache is kept)")
    try:
        return _fetch_dom0(), _download(HYPERVISOR), _download(_kernel_package())
    except LabError:
        if not known:
            raise
        _update()   # the lists in the cache are older than what the mirror still has
        return _fetch_dom0(), _download(HYPERVISOR), _download(_kernel_package())


def _update():
    say("fetching Debian's package lists (into the lab's own cache)")
    run(_apt("update"), "apt-get update", NETWORK, timeout=600)


def _download(package):
    """One package without what it depends on."""
    directory = path("apt", "single")
    os.makedirs(directory, exist_ok=True)
    pattern = os.path.join(directory, package + "_*.deb")
    if not glob.glob(pattern):
        run(_apt("download", package), f"apt-get download {package}", NETWORK, cwd=directory, timeout=1200)
    found = glob.glob(pattern)
    if not found:
        raise LabError(f"apt-get download {package} left no file in {directory}. {NETWORK}")
    return max(found, key=os.path.getmtime)


def unpack(files, directory):
    """In a tree with merged /usr; a package that still ships /bin or /lib follows the links."""
    os.makedirs(directory, exist_ok=True)
    for name in files:
        deb = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", name], stdout=subprocess.PIPE)
        tar = subprocess.run(["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", directory], stdin=deb.stdout,
                             stderr=subprocess.PIPE, check=False)
        deb.stdout.close()
        if deb.wait() != 0 or tar.returncode != 0:
            raise LabError(f"unpacking {name} failed: {tar.stderr.decode(errors='replace').strip()[:400]} "
                           f"If the file is damaged, delete it; is the disk full?")
