"""One place for containers' groups in each control group hierarchy, with the controllers made available there.

Version 2 allows no processes beside groups that have controllers ("no internal processes", cgroups(7)), and the
daemon sits somewhere itself.  `prepare_base` therefore looks for a place where every wanted controller can be
shared out: the daemon's own group, else the groups above it, else the own group again after everything in it has
moved one level down.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dockerd_py.errors import BadParameter, PydockerdError
from dockerd_py.units.hierarchy import Hierarchy, read_words

log = logging.getLogger(__name__)

BASE = "pydockerd"
OWN_LEAF = "pydockerd-daemon"  # where the processes of the daemon's own group move, if they must
WANTED = ("memory", "pids", "cpu", "cpuset", "io")
ATTEMPTS = 20  # each lost one is the end of another daemon
_NUMBERED = re.compile(r"/dev/(char|block)/(\d+):(\d+)")


T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """The directory below which containers' groups are made, in one hierarchy."""

    hierarchy: Hierarchy
    base: Path
    controllers: frozenset[str]  # those that a container's group has here

    def create(self, name: str) -> None:
        """Make the group ``name``, and its base where that is gone.  Raises OSError."""

        def create() -> None:
            _make(self.base)
            if self.hierarchy.version == 2:
                _share_out(self.base, self.controllers)
            _make(self.base / name)

        _beside_others(create)


def prepare_base(hierarchy: Hierarchy) -> Group | None:
    """Make the place for containers in ``hierarchy``; None (and a line in the log) where it is not writable."""
    try:
        if hierarchy.version == 1:
            base = hierarchy.own / BASE
            hierarchy.own.mkdir(parents=True, exist_ok=True)
            _beside_others(lambda: _make(base))
            return Group(hierarchy, base, hierarchy.controllers)
        return _beside_others(lambda: _prepare_unified(hierarchy))
    except OSError as error:
        names = ",".join(sorted(hierarchy.controllers)) or "unified"
        log.warning("the control group hierarchy %s at %s is not used: %s", names, hierarchy.mount, error)
        return None


def device_rules(devices: tuple[tuple[str, str], ...]) -> Iterator[str]:
    """Lines for devices.allow of version 1 from systemd's DeviceAllow pairs (systemd.resource-control(5)).

    Raises BadParameter for a pair of neither form; a device that this host does not have gives no rule.
    """
    for device, access in devices:
        if not access or set(access) - set("rwm"):
            raise BadParameter(f"invalid device access {access!r} for {device}: use letters of rwm")
        kind, _, group = device.partition("-")
        if match := _NUMBERED.fullmatch(device):
            yield f"{match[1][0]} {match[2]}:{match[3]} {access}"
        elif device.startswith("/dev/"):
            yield from _rule_of_node(device, access)
        elif kind in ("char", "block") and group:
            majors = [group] if group == "*" or group.isdigit() else _majors(kind, group)
            yield from (f"{kind[0]} {major}:* {access}" for major in majors)
        else:
            raise BadParameter(f"invalid device {device!r}: use /dev/..., char-GROUP or block-GROUP")


def _rule_of_node(device: str, access: str) -> Iterator[str]:
    try:
        status = os.stat(device)
    except FileNotFoundError:
        return
    if not (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)):
        raise BadParameter(f"{device} is no device")
    kind = "c" if stat.S_ISCHR(status.st_mode) else "b"
    yield f"{kind} {os.major(status.st_rdev)}:{os.minor(status.st_rdev)} {access}"


def _majors(kind: str, group: str) -> list[str]:
    """The major numbers that /proc/devices gives a driver."""
    heading = "Character devices:" if kind == "char" else "Block devices:"
    majors, inside = [], False
    for line in Path("/proc/devices").read_text().splitlines():
        if line.endswith(":"):
            inside = line == heading
        elif inside and line.split()[1:] == [group]:
            majors.append(line.split()[0])
    return majors


def _prepare_unified(hierarchy: Hierarchy) -> Group:
    own = hierarchy.own
    if own.name == OWN_LEAF:
        own = own.parent
    wanted = [c for c in WANTED if c in read_words(own / "cgroup.controllers")]
    if not wanted:  # hybrid: the controllers are elsewhere, this tree only tracks processes
        return _unified_group(hierarchy, own, wanted)
    above = [p for p in own.parents if p == hierarchy.mount or hierarchy.mount in p.parents]
    for parent in (own,) if _delegated(own) else (own, *above):
        if _can_share(parent) and not set(wanted) - _share_out(parent, wanted):
            return _unified_group(hierarchy, parent, wanted)
    _move_down(own)
    return _unified_group(hierarchy, own, wanted)


def _unified_group(hierarchy: Hierarchy, parent: Path, wanted: list[str]) -> Group:
    base = parent / BASE
    _make(base)
    got = _share_out(parent, wanted) & _share_out(base, wanted)
    for controller in wanted:
        if controller not in got:
            log.warning("the %s controller cannot be had in %s: its limits are refused", controller, base)
    return Group(hierarchy, base, frozenset(got))


def _delegated(directory: Path) -> bool:
    """Whether a service manager gave this subtree to us, and keeps what is above it for itself."""
    for name in ("trusted.delegate", "user.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(directory, name) == b"1":
                return True
    return False


def _can_share(directory: Path) -> bool:
    """Whether controllers can be shared out here: at the very root, and where no process sits."""
    at_root = not (directory / "cgroup.type").exists()
    return os.access(directory, os.W_OK) and (at_root or not read_words(directory / "cgroup.procs"))


def _share_out(directory: Path, wanted: list[str] | frozenset[str]) -> set[str]:
    """Enable controllers for the groups below; returns those of ``wanted`` that are enabled then."""
    control = directory / "cgroup.subtree_control"
    for controller in set(wanted) - read_words(control):
        with contextlib.suppress(OSError):  # told by the caller, who sees what is missing
            control.write_text(f"+{controller}")
    return set(wanted) & read_words(control)


def _move_down(own: Path) -> None:
    leaf = own / OWN_LEAF
    try:
        leaf.mkdir(exist_ok=True)
    except OSError as error:
        raise PydockerdError(f"cannot make the control group {leaf}: {error.strerror}") from error
    log.info("moving the processes of the control group %s to %s, so that controllers can be shared out", own, leaf)
    for _attempt in range(10):  # they may fork meanwhile
        pids = read_words(own / "cgroup.procs") - {"0"}
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(OSError):  # a process that ended, or a kernel thread
                (leaf / "cgroup.procs").write_text(pid)


def _beside_others(make: Callable[[], T]) -> T:
    """What ``make`` returns.  It is begun again when a daemon that shares our place, and ends, takes the empty base
    away meanwhile."""
    for attempt in range(1, ATTEMPTS):
        try:
            return make()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                raise
        time.sleep(0.001 * attempt)
    return make()


def _make(directory: Path) -> None:
    """Make one group, or complete one that somebody has just made.  Raises OSError."""
    with contextlib.suppress(FileExistsError):  # mkdir(exist_ok=True) looks again, and may not find it any more
        directory.mkdir(mode=0o755)
    for name in ("cpuset.cpus", "cpuset.mems"):  # version 1: empty in a new group, and then nothing may enter
        file = directory / name
        if file.exists() and not read_words(directory / "cgroup.controllers") and not file.read_text().strip():
            above = (directory.parent / name).read_text()
            if not above.strip():
                raise FileNotFoundError(errno.ENOENT, "the group above is only being made", str(directory))
            file.write_text(above)
