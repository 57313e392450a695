# SPDX-License-Identifier: Apache-2.0
"""The TOML configuration of one host of the lab."""
from .net import GUEST_MAC, address, device_of

DOMAIN = "demo"
UUID = "6b1f8a52-3c1e-4f0e-9d57-0a5d3b9c7e11"
REPLICATION_PORT = 9000
BEAT_PORT = 9100
APPEND = ("console=ttyS0 quiet reboot=t panic=-1 mitigations=off tsc=reliable no_timer_check random.trust_cpu=on "
          "colo.ip=10.77.0.2")


def defaults(host, peer, paths):
    """Sections of a host's configuration; `paths` has run, lock, state, guest directories."""
    return {
        "domain": {"name": DOMAIN, "uuid": UUID},
        "guest": {"type": "qemu", "memory_mib": 256, "kernel": f"{paths['guest']}/vmlinuz",
                  "initrd": f"{paths['guest']}/initrd.gz", "append": APPEND, "accelerator": "tcg"},
        "nic": [{"id": "net0", "mac": GUEST_MAC, "wire": f"packet:{device_of('wire')}"}],
        "peer": {"address": f"tcp:{address(peer)}:{REPLICATION_PORT}"},
        "replication": {"listen": f"tcp:{address(host)}:{REPLICATION_PORT}"},
        "proxy": {},
        "heartbeat": {"path": [{"local": f"{address(host, p)}:{BEAT_PORT}", "peer": f"{address(peer, p)}:{BEAT_PORT}"}
                               for p in ("beat0", "beat1")]},
        "arbiter": {"kind": "lock", "directory": paths["lock"]},
        "qmp": {"socket": f"{paths['run']}/qmp.sock"},
        "state": {"directory": paths["state"]},
        "log": {"level": "debug", "file": f"{paths['run']}/colod.log"},
    }


def merge(base, changes):
    """changes: {"section": {"key": value}}; value None removes the key; a list replaces the array of sections."""
    merged = {name: (dict(part) if isinstance(part, dict) else [dict(one) for one in part]) for name, part in base.items()}
    for name, part in (changes or {}).items():
        if isinstance(part, list):
            merged[name] = part
            continue
        if name == "nic":
            for nic in merged["nic"]:
                nic.update(part)
            continue
        section = merged.setdefault(name, {})
        for key, value in part.items():
            if value is None:
                section.pop(key, None)
            else:
                section[key] = value
    return merged


def _value(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def to_toml(sections):
    lines = []
    for name, part in sections.items():
        if isinstance(part, list):
            for one in part:
                lines += [f"[[{name}]]"] + [f"{key} = {_value(value)}" for key, value in one.items()] + [""]
            continue
        arrays = {key: value for key, value in part.items() if isinstance(value, list)}
        lines += [f"[{name}]"] + [f"{key} = {_value(v)}" for key, v in part.items() if key not in arrays] + [""]
        for key, entries in arrays.items():
            for one in entries:
                lines += [f"[[{name}.{key}]]"] + [f"{k} = {_value(v)}" for k, v in one.items()] + [""]
    return "\n".join(lines)
