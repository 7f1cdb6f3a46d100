"""Facts about the host, for `info`."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

from dockerd_py.config import Config
from dockerd_py.units import hierarchy


def instance_digits(config: Config) -> str:
    """What two daemons of a host tell their bridges and their rules apart by; "" for the host's own."""
    return "" if config.is_default_instance else digits_of(config.root)


def digits_of(root: Path) -> str:
    """Those of a daemon that is not the host's own."""
    return hashlib.sha256(os.fsencode(root)).hexdigest()[:6]


def instance_id(root: Path) -> str:
    """Stable for a root on a machine, and telling nothing about either (machine-id(5) asks for that)."""
    try:
        machine = Path("/etc/machine-id").read_text().strip()
    except OSError:
        machine = platform.node()
    return hashlib.sha256(f"pydockerd {machine} {root}".encode()).hexdigest()[:32]


def controllers() -> set[str]:
    """The controllers that this machine has, of either version of control groups."""
    found: set[str] = set()
    for one in hierarchy.current():
        found |= one.controllers or hierarchy.read_words(one.mount / "cgroup.controllers")
    return found


def os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def is_set(parameter: str) -> bool:
    """Whether a kernel parameter of the daemon's namespaces, by its path below /proc/sys, is there and 1."""
    try:
        return (Path("/proc/sys") / parameter).read_text().strip() == "1"
    except OSError:
        return False


def booted_at() -> int:
    """When the kernel began, in nanoseconds since the epoch (proc(5), /proc/stat ``btime``: to the second)."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return int(line.split()[1]) * 1_000_000_000
    raise OSError("/proc/stat has no btime")


def memory() -> int:
    """Bytes of main memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def filesystem_of(path: Path) -> str:
    """The type of the file system that ``path`` is on (proc(5), mountinfo)."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    found = "unknown"
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split()[2] == wanted:
            found = rest.split()[0]
    return found
