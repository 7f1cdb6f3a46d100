"""Containers' control groups where no systemd runs: plain directories on version 1, version 2 and hybrid.

A container has one directory ``<base>/container-<id>.scope`` in every hierarchy that is mounted; ``<base>`` is
``<the daemon's own group>/pydockerd``, or on version 2, where a group with processes of its own cannot share out
controllers, what `groups.prepare_base` finds.  A controller that cannot be had is named once in the log, and a
limit that needs it is refused.  Nothing is remembered: the directories are the state.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal as signals
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from dockerd_py.errors import Conflict, NotSupported, PydockerdError
from dockerd_py.units import freezer, hierarchy, usage
from dockerd_py.units.base import SCOPE_NAME, Kind, Limits, ScopeSpec, Usage
from dockerd_py.units.groups import Group, device_rules, prepare_base
from dockerd_py.units.limits import File, birth_files, run_files

log = logging.getLogger(__name__)

REMOVE_WITHIN = 2.0  # seconds


class CgroupfsUnits:
    """`base.Units` on control group file systems.  Its work is short system calls, done in a thread."""

    kind: Kind = "cgroupfs"

    def __init__(self, reason: str = "") -> None:
        """Find the hierarchies and prepare the bases.  Raises PydockerdError where no control group file system
        is mounted or none is writable."""
        self.reason = reason
        found = hierarchy.current()
        self.cgroup_version = hierarchy.version_of(found)
        self._groups = [group for h in found if (group := prepare_base(h)) is not None]
        self._tracked = _tracking(self._groups)
        self._told: set[str] = set()

    @property
    def controllers(self) -> frozenset[str]:
        """The controllers that limits can use."""
        return frozenset(c for group in self._groups for c in group.controllers)

    async def expect_start(self) -> None:
        await asyncio.to_thread(hierarchy.pay_for_first_move, (group.hierarchy for group in self._groups))

    async def start_scope(self, spec: ScopeSpec, pid: int) -> str:
        return await asyncio.to_thread(self._start, spec, pid)

    async def apply_run_limits(self, name: str, limits: Limits) -> None:
        await asyncio.to_thread(self._apply_run_limits, name, limits)

    def groups_of(self, name: str, pid: int) -> list[str]:
        return hierarchy.doors([group.hierarchy for group in self._groups], name, pid)

    async def change_limits(self, name: str, limits: Limits, before: Limits) -> None:
        await asyncio.to_thread(self._change, name, limits, before)

    async def usage(self, name: str) -> Usage | None:
        if not (self._tracked.base / name).is_dir():
            return None
        places = [(group.hierarchy.version, group.controllers, group.base / name) for group in self._groups]
        return await asyncio.to_thread(usage.read, places)

    async def control_group(self, name: str) -> str | None:
        directory = self._tracked.base / name
        return self._tracked.hierarchy.spell(directory) if directory.is_dir() else None

    async def processes(self, name: str) -> list[int]:
        return await asyncio.to_thread(self._processes, name)

    async def kill(self, name: str, signal: int) -> None:
        await asyncio.to_thread(self._kill, name, signal)

    async def freeze(self, name: str) -> None:
        with _sentence(f"cannot pause the processes of {name}"):
            await asyncio.to_thread(freezer.freeze, self._directories(name))

    async def thaw(self, name: str) -> None:
        await asyncio.to_thread(freezer.thaw, self._directories(name))

    async def names(self) -> set[str]:
        return await asyncio.to_thread(self._names)

    def oom_counter(self, name: str, group: str) -> Path | None:
        having = self._having("memory")
        if having is None:
            return None
        return having.base / name / ("memory.oom_control" if having.hierarchy.version == 1 else "memory.events")

    async def stop_was_asked(self, name: str, since: int) -> bool:
        return False  # nobody but us knows of our groups

    async def going_down(self) -> bool:
        return False  # nobody says so

    async def remove(self, name: str) -> None:
        await asyncio.to_thread(self._remove, name)

    async def close(self) -> None:
        """Take the empty bases away."""
        for group in self._groups:
            with contextlib.suppress(OSError):
                group.base.rmdir()

    def _directories(self, name: str) -> list[Path]:
        return [group.base / name for group in self._groups]

    def _start(self, spec: ScopeSpec, pid: int) -> str:
        if self._processes(spec.name):
            raise Conflict(f"{spec.name} still holds processes of an earlier run")
        self._remove(spec.name)
        try:
            for group in self._groups:
                with _sentence(f"cannot make the control group of {spec.name}"):
                    group.create(spec.name)
            for file, value in self._birth(spec):
                _write(file, value)
            for group in self._groups:
                _write(group.base / spec.name / "cgroup.procs", str(pid))
        except BaseException:
            self._abandon(spec.name, pid)
            raise
        return self._tracked.hierarchy.spell(self._tracked.base / spec.name)

    def _abandon(self, name: str, pid: int) -> None:
        for group in self._groups:
            if pid in hierarchy.read_pids(group.base / name):
                with contextlib.suppress(OSError):
                    (group.hierarchy.own / "cgroup.procs").write_text(str(pid))
        with contextlib.suppress(PydockerdError):
            self._remove(name)

    def _birth(self, spec: ScopeSpec) -> Iterator[tuple[Path, str]]:
        yield from self._writes(spec.name, birth_files(spec.limits, self._version("memory")))
        if spec.devices:
            group = self._having("devices")
            if group is None:
                self._once("device access is not limited: there is no devices controller of version 1 here")
            else:
                yield group.base / spec.name / "devices.deny", "a"
                for rule in device_rules(spec.devices):
                    yield group.base / spec.name / "devices.allow", rule

    def _apply_run_limits(self, name: str, limits: Limits) -> None:
        for file, value in self._writes(name, run_files(limits, self._version("cpu"))):
            _write(file, value)

    def _change(self, name: str, limits: Limits, before: Limits) -> None:
        for files in (birth_files, run_files):
            for file, value in self._writes(name, files(limits, self.cgroup_version, before)):
                _write(file, value)

    def _writes(self, name: str, files: Iterable[File]) -> Iterator[tuple[Path, str]]:
        for file in files:
            group = self._having(file.controller)
            if group is None:
                raise NotSupported(f"no {file.what} is possible here: there is no {file.controller} controller")
            path = group.base / name / file.name
            if path.exists():
                yield path, file.value
            elif not file.optional:
                raise NotSupported(f"no {file.what} is possible here: the kernel has no {file.name}")
            elif file.value not in ("-1", "max"):
                self._once(f"no {file.what}: the kernel does not account for it")

    def _version(self, controller: str) -> int:
        group = self._having(controller)
        return self.cgroup_version if group is None else group.hierarchy.version

    def _processes(self, name: str) -> list[int]:
        pids = {pid for group in self._groups for pid in hierarchy.read_pids(group.base / name)}
        return sorted(pids)

    def _kill(self, name: str, signal: int) -> None:
        whole = self._tracked.base / name / "cgroup.kill"
        if signal == signals.SIGKILL and whole.exists():
            with contextlib.suppress(OSError):
                whole.write_text("1")
        sent: set[int] = set()
        while new := set(self._processes(name)) - sent:  # what it forked meanwhile too
            for pid in new:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal)
            sent |= new

    def _names(self) -> set[str]:
        names: set[str] = set()
        for group in self._groups:
            with contextlib.suppress(OSError):
                names.update(entry for entry in os.listdir(group.base) if SCOPE_NAME.fullmatch(entry))
        return names

    def _remove(self, name: str) -> None:
        deadline = time.monotonic() + REMOVE_WITHIN
        pause = 0.001
        while True:
            left = [d for group in self._groups if (d := group.base / name).is_dir() and not _remove_tree(d)]
            if not left:
                return
            if time.monotonic() > deadline:
                pids = ", ".join(map(str, self._processes(name))) or "none that can be seen"
                raise PydockerdError(f"cannot remove the control group {left[0]}: it is in use (processes: {pids})")
            self._kill(name, signals.SIGKILL)
            time.sleep(pause)
            pause = min(pause * 2, 0.05)

    def _having(self, controller: str) -> Group | None:
        return next((group for group in self._groups if controller in group.controllers), None)

    def _once(self, sentence: str) -> None:
        if sentence not in self._told:
            self._told.add(sentence)
            log.warning("%s", sentence)


def _tracking(groups: list[Group]) -> Group:
    """The hierarchy whose path stands for the container: unified alone, else systemd's named one or memory's."""
    if not groups:
        raise PydockerdError("no writable control group hierarchy is mounted: mount one at /sys/fs/cgroup")
    if not any(group.controllers for group in groups if group.hierarchy.version == 1):
        return next((group for group in groups if group.hierarchy.version == 2), groups[0])
    return next((group for group in groups if "memory" in group.controllers), groups[0])


def _remove_tree(directory: Path) -> bool:
    """rmdir a group and those below it; False when something still holds one."""
    for place, _directories, _files in os.walk(directory, topdown=False):
        try:
            os.rmdir(place)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
                return False
            raise PydockerdError(f"cannot remove the control group {place}: {error.strerror}") from error
    return True


def _write(file: Path, value: str) -> None:
    with _sentence(f"cannot write {value!r} to {file}"):
        fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)


@contextlib.contextmanager
def _sentence(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PydockerdError(f"{what}: {error.strerror}") from error
