# SPDX-License-Identifier: Apache-2.0
"""Kernel modules: which files a module needs, in the order of loading, read from the modules themselves."""
import os
import re

from lab.common import LabError


class Modules:
    """The modules of one unpacked Debian kernel."""

    def __init__(self, unpacked):
        base = os.path.join(unpacked, "lib", "modules")
        if not os.path.isdir(base):
            base = os.path.join(unpacked, "usr", "lib", "modules")
        self.version = sorted(os.listdir(base))[-1]
        self.base = os.path.join(base, self.version)
        self.files = {}
        for directory, _, names in os.walk(self.base):
            for name in names:
                if name.endswith(".ko"):
                    self.files[self.plain(name[:-3])] = os.path.join(directory, name)
        with open(os.path.join(self.base, "modules.builtin"), encoding="ascii") as file:
            self.builtin = {self.plain(os.path.basename(line.strip())[:-3]) for line in file}

    @staticmethod
    def plain(name):
        return name.replace("-", "_")

    def needs(self, name):
        """Names of the modules that this one depends on, soft dependencies ("pre:") included where they exist."""
        with open(self.files[name], "rb") as file:
            content = file.read()
        found = re.search(rb"\0depends=([^\0]*)\0", content)
        names = [n for n in (found.group(1).decode() if found else "").split(",") if n]
        for soft in re.findall(rb"\0softdep=pre: ([^\0]*)\0", content):
            names += [n for n in soft.decode().split() if self.plain(n) in self.files]
        return [self.plain(n) for n in names]

    def closure(self, names):
        """Files of these modules and of all they need, each after what it needs."""
        order, done = [], set()

        def visit(name):
            name = self.plain(name)
            if name in done or name in self.builtin:
                return
            done.add(name)
            if name not in self.files:
                raise LabError(f"the kernel {self.version} has no module {name}; has Debian changed its kernel?")
            for other in self.needs(name):
                visit(other)
            order.append(self.files[name])

        for name in names:
            visit(name)
        return order
