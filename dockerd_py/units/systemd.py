"""Containers in transient scopes: `base.Units` on systemd's bus, through `systemd_link`.

A scope is born delegated, collected as soon as it is empty, and keeps going when one of its processes is killed
for want of memory.  A read is repeated while systemd re-executes itself; a write whose answer was lost is looked
up before it is repeated.  No program is ever started for one container.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import signal as signals
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from dockerd_py.errors import Conflict, NotSupported, PydockerdError, TimedOut
from dockerd_py.units import freezer, hierarchy, stopjobs, usage
from dockerd_py.units.base import SCOPE_NAME, Kind, Limits, ScopeSpec, Usage
from dockerd_py.units.groups import BASE, Group, prepare_base
from dockerd_py.units.limits import (
    File,
    birth_properties,
    files_beside_properties,
    run_properties,
)
from dockerd_py.units.systemd_link import BusError, Properties, SystemdLink

log = logging.getLogger(__name__)

T = TypeVar("T")
Value = bool | int | str | Sequence[Any]

SWAP_FILE = "memory.memsw.limit_in_bytes"
JOB_WITHIN = 15.0  # seconds
BACK_WITHIN = 10.0  # seconds that systemd may take to re-execute itself
GONE_WITHIN = 5.0  # seconds that a scope without processes may take to be collected

# What an older systemd may not know on a scope, and a container can live without.
OPTIONAL = frozenset({"OOMPolicy", "CollectMode"})

SIGNATURES = {
    "After": "as", "AllowedCPUs": "ay", "AllowedMemoryNodes": "ay", "BindsTo": "as", "CPUQuotaPerSecUSec": "t",
    "CPUQuotaPeriodUSec": "t", "CPUShares": "t", "CPUWeight": "t", "CollectMode": "s", "DefaultDependencies": "b",
    "Delegate": "b", "Description": "s", "DeviceAllow": "a(ss)", "DevicePolicy": "s", "Environment": "as",
    "ExecStart": "a(sasb)", "FileDescriptorStoreMax": "u", "Group": "s", "IODeviceWeight": "a(st)",
    "IOReadBandwidthMax": "a(st)", "IOReadIOPSMax": "a(st)", "IOWeight": "t", "IOWriteBandwidthMax": "a(st)",
    "IOWriteIOPSMax": "a(st)", "IgnoreSIGPIPE": "b", "KillMode": "s", "KillSignal": "i", "LimitNOFILE": "t",
    "LimitNOFILESoft": "t", "LogRateLimitBurst": "u", "LogRateLimitIntervalUSec": "t", "MemoryLow": "t",
    "MemoryMax": "t", "MemorySwapMax": "t", "NotifyAccess": "s", "OOMPolicy": "s", "OOMScoreAdjust": "i",
    "PIDs": "au", "PartOf": "as", "Restart": "s", "RestartUSec": "t", "SendSIGHUP": "b", "SendSIGKILL": "b",
    "Slice": "s", "StandardError": "s", "StandardInput": "s", "StandardOutput": "s", "StartLimitBurst": "u",
    "StartLimitIntervalUSec": "t", "SyslogIdentifier": "s", "TasksMax": "t", "TimeoutStartUSec": "t",
    "TimeoutStopUSec": "t", "Type": "s", "UMask": "u", "UnsetEnvironment": "as", "User": "s", "Wants": "as",
    "WatchdogUSec": "t", "WorkingDirectory": "s",
}  # fmt: skip

_REFUSED = re.compile(r"\bproperty ([A-Za-z]+)")
_NOTHING_THERE = frozenset({"NoSuchUnit", "NoSuchProcess", "ESRCH", "UnknownObject"})


class SystemdUnits:
    """`base.Units` on transient scopes; and the transient service that a daemon started by hand needs."""

    kind: Kind = "systemd"

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        self._link = SystemdLink()
        self._refused: set[str] = set()
        self._hierarchies = hierarchy.current()
        self.cgroup_version = hierarchy.version_of(self._hierarchies)
        self._cpuset: Group | None = None

    async def connect(self) -> str:
        """Speak to systemd and return its version.  Raises PydockerdError when that is not PID 1."""
        bus = {"destination": "org.freedesktop.DBus", "path": "/org/freedesktop/DBus"}
        owner = await self._link.call(
            "GetConnectionUnixProcessID", "s", "org.freedesktop.systemd1", interface="org.freedesktop.DBus", **bus
        )
        if owner != 1:
            raise PydockerdError(f"the system bus belongs to another host: systemd is process {owner} there")
        manager = ("org.freedesktop.systemd1.Manager", "Version")
        return str(await self._link.call("Get", "ss", *manager, interface="org.freedesktop.DBus.Properties"))

    async def expect_start(self) -> None:
        await asyncio.to_thread(hierarchy.pay_for_first_move, self._hierarchies)

    async def start_scope(self, spec: ScopeSpec, pid: int) -> str:
        properties = self._birth(spec, pid)
        deadline = time.monotonic() + JOB_WITHIN
        while (result := await self._try_scope(spec.name, pid, properties, deadline)) is None:
            if time.monotonic() > deadline:
                raise TimedOut(f"systemd has not started {spec.name} in {JOB_WITHIN:g} s")
        if result != "done":
            raise PydockerdError(f"systemd could not start {spec.name}: its job ended as {result}")
        group = self._group_of(pid)
        if group is None or not group.endswith(f"/{spec.name}"):
            raise PydockerdError(f"{spec.name} ended as it started: process {pid} is not in it")
        files = files_beside_properties(spec.limits, self.cgroup_version)
        if any(file.controller == "cpuset" for file in files):
            await asyncio.to_thread(self._enter_cpuset, spec.name, pid)
        for file in files:  # writes of microseconds; a thread would take longer
            self._write(spec.name, group, file)
        return group

    async def apply_run_limits(self, name: str, limits: Limits) -> None:
        await self._set(name, run_properties(limits))

    async def change_limits(self, name: str, limits: Limits, before: Limits) -> None:
        group = await self.control_group(name)
        if group is None:
            raise PydockerdError(f"{name} is gone")
        files = files_beside_properties(limits, self.cgroup_version, before)
        if any(file.controller == "cpuset" for file in files):
            await asyncio.to_thread(self._enter_cpuset, name, *await self.processes(name))
        properties = birth_properties(limits, self.cgroup_version, before) | run_properties(limits, before)
        grows = limits.memory == 0 or (before.memory and limits.memory > before.memory)
        swap_first = grows and any(file.name == SWAP_FILE for file in files)
        if not swap_first:
            await self._set(name, properties)
        for file in files:
            await asyncio.to_thread(self._write, name, group, file)
        if swap_first:
            await self._set(name, properties)

    async def usage(self, name: str) -> Usage | None:
        group = await self.control_group(name)
        if group is None:
            return None
        places = [(each.version, each.controllers, each.locate(group)) for each in self._hierarchies]
        return await asyncio.to_thread(usage.read, places)

    async def _set(self, name: str, properties: dict[str, Any]) -> None:
        if properties:
            await self._repeat(lambda: self._link.set(name, typed(properties)))

    def groups_of(self, name: str, pid: int) -> list[str]:
        # the scope is delegated, so processes may be moved into it without systemd, which costs 6 ms
        return hierarchy.doors(self._hierarchies, name, pid)

    async def control_group(self, name: str) -> str | None:
        try:
            group = await self._repeat(lambda: self._link.get(name, "Scope", "ControlGroup", "s"))
        except BusError as error:
            if error.name in _NOTHING_THERE:
                return None
            raise
        return str(group) or None

    async def processes(self, name: str) -> list[int]:
        group = await self.control_group(name)
        if group is None:
            return []
        return await asyncio.to_thread(hierarchy.read_pids, self._tracking().locate(group))

    async def kill(self, name: str, signal: int) -> None:
        async def send() -> None:
            await self._link.call("KillUnit", "ssi", name, "all", signal)

        try:
            # Sending SIGKILL again does no harm; another signal is not sent twice.
            await self._repeat(send, uncertain=signal == signals.SIGKILL)
        except BusError as error:
            if error.name not in _NOTHING_THERE:
                raise

    async def freeze(self, name: str) -> None:
        if self.cgroup_version == 2:
            await self._repeat(lambda: self._link.call("FreezeUnit", "s", name))
        else:  # systemd freezes on version 2 alone
            await asyncio.to_thread(freezer.freeze, await self._unified(name))

    async def thaw(self, name: str) -> None:
        if self.cgroup_version != 2:
            await asyncio.to_thread(freezer.thaw, await self._unified(name))
            return
        try:
            await self._repeat(lambda: self._link.call("ThawUnit", "s", name))
        except BusError as error:
            if error.name not in _NOTHING_THERE:
                raise

    async def names(self) -> set[str]:
        units = await self._repeat(lambda: self._link.call("ListUnitsByPatterns", "asas", [], ["container-*.scope"]))
        return {unit[0] for unit in units if SCOPE_NAME.fullmatch(unit[0])}

    def oom_counter(self, name: str, group: str) -> Path | None:
        if self.cgroup_version == 2:
            return self._tracking().locate(group) / "memory.events"
        memory = self._controller("memory")
        return None if memory is None else memory.locate(group) / "memory.oom_control"

    async def stop_was_asked(self, name: str, since: int) -> bool:
        return await asyncio.to_thread(stopjobs.was_stopped, name, since)

    async def going_down(self) -> bool:
        manager = ("org.freedesktop.systemd1.Manager", "SystemState")
        state = await self._repeat(
            lambda: self._link.call("Get", "ss", *manager, interface="org.freedesktop.DBus.Properties")
        )
        return str(state) == "stopping"

    async def remove(self, name: str) -> None:
        await self._remove(name)
        self._leave_cpuset(name)

    async def _remove(self, name: str) -> None:
        deadline = time.monotonic() + GONE_WITHIN
        if not await self.processes(name) and await self._collected(name, time.monotonic() + 0.2):
            return
        try:
            await self._repeat(lambda: self._link.job("StopUnit", name, "replace", timeout=JOB_WITHIN))
        except BusError as error:
            if error.name not in _NOTHING_THERE:
                raise
        if not await self._collected(name, deadline):
            raise TimedOut(f"systemd has not let go of {name} in {GONE_WITHIN:g} s")

    async def close(self) -> None:
        await self._link.close()

    async def start_service(self, name: str, argv: Sequence[str], properties: Mapping[str, Value]) -> None:
        """Start a transient service and return once its start job is done (Type=notify: once it is ready).

        ``properties`` are names and values as StartTransientUnit takes them (org.freedesktop.systemd1(5)), times
        in microseconds; "infinity" is `INFINITY`.  Raises Conflict when the unit exists, TimedOut, PydockerdError.
        """
        command = [(argv[0], list(argv), False)]
        service = typed({**properties, "ExecStart": command})
        try:
            result = await self._transient(name, service, JOB_WITHIN)
        except BusError as error:
            if error.name == "UnitExists":
                raise Conflict(f"the unit {name} exists already") from error
            if not error.uncertain or (await self.unit_state(name))[0] != "loaded":
                raise
            result = await self._settled(name, time.monotonic() + JOB_WITHIN)
        if result != "done":
            raise PydockerdError(f"systemd could not start {name}: its job ended as {result}; see systemctl status")

    async def start_unit(self, name: str) -> None:
        """Start a unit that is installed, and return once its start job is done."""
        result = await self._repeat(lambda: self._link.job("StartUnit", name, "replace", timeout=JOB_WITHIN))
        if result != "done":
            raise PydockerdError(f"systemd could not start {name}: its job ended as {result}; see systemctl status")

    async def stop_unit(self, name: str) -> None:
        """Stop a unit, and return once its stop job is done."""
        result = await self._repeat(lambda: self._link.job("StopUnit", name, "replace", timeout=JOB_WITHIN))
        if result != "done":
            raise PydockerdError(f"systemd could not stop {name}: its job ended as {result}; see systemctl status")

    async def unit_state(self, name: str) -> tuple[str, str]:
        """(LoadState, ActiveState), as ("loaded", "active"); ("not-found", "inactive") for an unknown unit."""
        load = await self._repeat(lambda: self._link.get(name, "Unit", "LoadState", "s"))
        active = await self._repeat(lambda: self._link.get(name, "Unit", "ActiveState", "s"))
        return str(load), str(active)

    def _birth(self, spec: ScopeSpec, pid: int) -> Properties:
        properties: dict[str, Value] = {
            "PIDs": [pid],
            "Slice": spec.slice,
            "Description": spec.description or spec.name,
            "Delegate": True,
            "CollectMode": "inactive-or-failed",
            "OOMPolicy": "continue",
            "KillSignal": int(spec.kill_signal),
            "SendSIGKILL": True,
            "TimeoutStopUSec": spec.stop_timeout_usec,
        }
        properties |= birth_properties(spec.limits, self.cgroup_version)
        if spec.devices:
            properties["DevicePolicy"] = "strict"
            properties["DeviceAllow"] = list(spec.devices)
        return typed(properties)

    async def _try_scope(self, name: str, pid: int, properties: Properties, deadline: float) -> str | None:
        """One attempt: the job's result, or None when it is worth another one."""
        try:
            return await self._transient(name, properties, max(0.1, deadline - time.monotonic()))
        except BusError as error:
            if error.name == "UnitExists":
                if pid in await self.processes(name):  # an attempt whose answer was lost
                    return await self._settled(name, deadline)
                if not await self._vacated(name):
                    raise Conflict(f"{name} still holds processes of an earlier run") from error
            elif error.uncertain or error.not_sent:
                await asyncio.sleep(0.1)
                if pid in await self.processes(name):
                    return await self._settled(name, deadline)
            else:
                raise
        return None

    async def _transient(self, name: str, properties: Properties, within: float) -> str:
        """StartTransientUnit; a property that this systemd refuses and we can do without is left out from then on."""
        while True:
            asked = [entry for entry in properties if entry[0] not in self._refused]
            try:
                return await self._link.job("StartTransientUnit", name, "fail", asked, timeout=within)
            except BusError as error:
                match = _REFUSED.search(str(error))
                if match is None or match[1] not in OPTIONAL or match[1] not in {entry[0] for entry in asked}:
                    raise
                if match[1] not in self._refused:  # another start may have learnt it meanwhile
                    self._refused.add(match[1])
                    log.warning("this systemd refuses %s on a scope: going on without it", match[1])

    async def _settled(self, name: str, deadline: float) -> str:
        while time.monotonic() < deadline:
            _load, active = await self.unit_state(name)
            if active in ("active", "failed"):
                return "done" if active == "active" else active
            await asyncio.sleep(0.02)
        raise TimedOut(f"systemd has not started {name} in {JOB_WITHIN:g} s")

    async def _vacated(self, name: str) -> bool:
        """Whether a scope of an earlier run went away; False while it has processes."""
        if await self.processes(name):
            return False
        if not await self._collected(name, time.monotonic() + GONE_WITHIN):
            await self.remove(name)
        return True

    async def _collected(self, name: str, deadline: float) -> bool:
        """Wait until systemd has forgotten the unit.  A failed one is made to be forgotten."""
        pause = 0.002
        while True:
            load, active = await self.unit_state(name)
            if load == "not-found":
                return True
            if active in ("failed", "inactive"):
                try:
                    await self._repeat(lambda: self._link.call("ResetFailedUnit", "s", name))
                except BusError as error:
                    if error.name not in _NOTHING_THERE:
                        raise
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.1)

    async def _repeat(self, action: Callable[[], Awaitable[T]], *, uncertain: bool = True) -> T:
        """Do what may be done twice, until systemd is back from re-executing itself."""
        deadline = time.monotonic() + BACK_WITHIN
        while True:
            try:
                return await action()
            except BusError as error:
                again = error.not_sent or (uncertain and error.uncertain)
                if not again or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.1)

    async def _unified(self, name: str) -> list[Path]:
        """The scope's directory in the unified hierarchy of a hybrid host."""
        group = await self.control_group(name)
        if group is None:
            return []
        return [each.locate(group) for each in self._hierarchies if each.version == 2]

    def _write(self, name: str, group: str, file: File) -> None:
        """A limit that systemd has no property for; the scope's group is delegated to us."""
        where = self._controller(file.controller)
        if where is None:
            if self.cgroup_version == 1:
                raise NotSupported(f"no {file.what} is possible here: there is no {file.controller} controller")
            where = next(each for each in self._hierarchies if each.version == 2)
        directory = self._cpuset.base / name if self._cpuset and file.controller == "cpuset" else where.locate(group)
        path = directory / file.name
        try:
            path.write_text(file.value)
        except FileNotFoundError:
            if not file.optional:
                raise NotSupported(f"no {file.what} is possible here: the kernel has no {file.name}") from None
            if directory.is_dir() and file.value != "-1" and file.name not in self._refused:
                self._refused.add(file.name)
                log.warning("no %s: the kernel does not account for it", file.what)
        except OSError as error:
            raise PydockerdError(f"no {file.what} of {file.value!r} is possible: {path}: {error.strerror}") from error

    def _enter_cpuset(self, name: str, *pids: int) -> None:
        """systemd leaves the cpuset hierarchy of version 1 alone: the container gets a group of our own there."""
        where = self._controller("cpuset")
        if self._cpuset is None and where is not None:
            self._cpuset = prepare_base(where)
        if self._cpuset is None:
            raise NotSupported("no choice of processors is possible here: there is no cpuset controller")
        self._cpuset.create(name)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                (self._cpuset.base / name / "cgroup.procs").write_text(str(pid))

    def _leave_cpuset(self, name: str) -> None:
        where = self._controller("cpuset")
        if self.cgroup_version == 2 or where is None:
            return
        with contextlib.suppress(FileNotFoundError):
            (where.own / BASE / name).rmdir()

    def _group_of(self, pid: int) -> str | None:
        """What systemd made of the process, by the kernel's word: cheaper than a question to systemd."""
        try:
            text = Path(f"/proc/{pid}/cgroup").read_text("utf-8", "surrogateescape")
        except OSError:
            return None
        wanted = "" if (named := self._controller("name=systemd")) is None else ",".join(named.controllers)
        groups = (line.split(":", 2) for line in text.splitlines())
        return next((path for _number, controllers, path in groups if controllers == wanted), None)

    def _controller(self, name: str) -> hierarchy.Hierarchy | None:
        return next((h for h in self._hierarchies if name in h.controllers), None)

    def _tracking(self) -> hierarchy.Hierarchy:
        """Where systemd keeps processes: its own named hierarchy, else the unified one."""
        named = self._controller("name=systemd")
        return named or next(h for h in self._hierarchies if h.version == 2)


def typed(properties: Mapping[str, Value]) -> Properties:
    """With each property's D-Bus signature.  Raises PydockerdError for one that is not known here."""
    unknown = ", ".join(sorted(set(properties) - set(SIGNATURES)))
    if unknown:
        raise PydockerdError(f"no D-Bus signature is known for {unknown}: add it to SIGNATURES")
    return [(name, SIGNATURES[name], value) for name, value in properties.items()]
