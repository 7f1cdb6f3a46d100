"""What the engine asks of the thing that confines a container's processes: one interface, two implementations.

`systemd.SystemdUnits` makes transient scopes, `cgroupfs.CgroupfsUnits` plain control groups.  This module holds
the values and the interface alone and does no I/O.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

Kind = Literal["systemd", "cgroupfs"]

DEFAULT_SLICE = "machine.slice"

SCOPE_NAME = re.compile(r"container-[0-9a-f]{64}\.scope")

# What a container may always do with devices, as systemd's DeviceAllow= spells it: see the standard files of
# /dev, the terminals, and make any node (which gives no access to what stands behind it).
DEFAULT_DEVICES: tuple[tuple[str, str], ...] = (
    ("/dev/char/1:3", "rwm"),  # null
    ("/dev/char/1:5", "rwm"),  # zero
    ("/dev/char/1:7", "rwm"),  # full
    ("/dev/char/1:8", "rwm"),  # random
    ("/dev/char/1:9", "rwm"),  # urandom
    ("/dev/char/5:0", "rwm"),  # tty
    ("/dev/char/5:1", "rwm"),  # console
    ("/dev/char/5:2", "rwm"),  # ptmx
    ("char-pts", "rwm"),
    ("char-*", "m"),
    ("block-*", "m"),
)


class Rate(NamedTuple):
    """What one block device may be used for."""

    path: str
    value: int  # bytes or operations a second; a weight from 10 to 1000


@dataclass(frozen=True)
class Limits:
    """Bounds of one container.  0 or "": none."""

    memory: int = 0  # bytes
    memory_swap: int = 0  # bytes, memory and swap together; -1: as much swap as there is; 0: twice the memory
    cpu_shares: int = 0  # 2 to 262144; 1024 is an ordinary share
    cpu_quota_per_sec_usec: int = 0  # microseconds of processor time a second; 1,000,000 is one processor
    pids: int = 0  # processes and threads
    cpu_period_usec: int = 0  # over which processor time is counted; 0: the kernel's own
    memory_reservation: int = 0  # bytes that are left to it when memory is short
    memory_swappiness: int | None = None  # 0 to 100; version 1 only
    cpuset_cpus: str = ""  # "0-2,5"
    cpuset_mems: str = ""
    blkio_weight: int = 0  # 10 to 1000
    blkio_weight_devices: tuple[Rate, ...] = ()
    blkio_read_bps: tuple[Rate, ...] = ()
    blkio_write_bps: tuple[Rate, ...] = ()
    blkio_read_iops: tuple[Rate, ...] = ()
    blkio_write_iops: tuple[Rate, ...] = ()
    oom_kill_disable: bool = False  # version 1 only: what wants too much memory waits instead of being killed

    @property
    def swap(self) -> int | None:
        """Bytes of swap beside ``memory``; None: no bound."""
        if not self.memory or self.memory_swap < 0:
            return None
        return max(0, (self.memory_swap or 2 * self.memory) - self.memory)


class BlockIo(NamedTuple):
    """One counter of one block device."""

    major: int
    minor: int
    operation: str  # "read", "write", "sync", "async", "discard", "total"
    value: int


@dataclass(frozen=True)
class Usage:
    """What a scope has used.  Times in nanoseconds, sizes in bytes; 0 where the kernel does not count it."""

    cpu_total: int = 0
    cpu_user: int = 0
    cpu_system: int = 0
    cpu_each: tuple[int, ...] = ()  # version 1 only
    throttled_periods: int = 0
    throttling_periods: int = 0  # all that were counted
    throttled_time: int = 0
    memory: int = 0
    memory_peak: int = 0
    memory_limit: int = 0  # 0: none
    memory_failures: int = 0
    memory_details: dict[str, int] = field(default_factory=dict)  # memory.stat
    pids: int = 0
    pids_limit: int = 0
    io_bytes: tuple[BlockIo, ...] = ()
    io_operations: tuple[BlockIo, ...] = ()


@dataclass(frozen=True)
class ScopeSpec:
    """A container's scope as it is born."""

    name: str  # "container-<64 hex digits>.scope"
    description: str = ""
    slice: str = DEFAULT_SLICE
    limits: Limits = field(default_factory=Limits)
    kill_signal: int = signal.SIGTERM
    stop_timeout_usec: int = 10_000_000
    devices: tuple[tuple[str, str], ...] = DEFAULT_DEVICES  # (): every device (a privileged container)


class Units(Protocol):
    """Control groups of containers.  Names are ``container-<64 hex digits>.scope`` throughout.

    Every method may raise TimedOut, or PydockerdError with what the kernel or systemd said.  After TimedOut the
    thing may have happened all the same: look (`names`, `control_group`) or `remove`.
    """

    kind: Kind
    cgroup_version: int  # 1 (also hybrid) or 2
    reason: str  # why this kind was chosen: a sentence for `info`

    async def expect_start(self) -> None:
        """Say that a start is near, and let it run beside other work: it takes the 5 to 20 ms that the kernel asks
        for the first move of a process after an idle while out of `start_scope`'s time.  Changes nothing."""

    async def start_scope(self, spec: ScopeSpec, pid: int) -> str:
        """Make the scope around ``pid``, a process that waits, and return the scope's control group.

        Returns once the process is inside and the memory, swap, shares and device limits are in force.  The
        limits that would hit the OCI runtime itself (pids, processor time) are for `apply_run_limits`.
        Raises Conflict when a scope of that name still holds processes.
        """

    async def apply_run_limits(self, name: str, limits: Limits) -> None:
        """Put the pids and processor time limits in force: after the runtime's create, before its start."""

    def groups_of(self, name: str, pid: int) -> list[str]:
        """The ``cgroup.procs`` files by which a process joins every control group of ``pid``, a process of the scope.

        (A container may have made groups of its own, and on version 2 its scope's own takes no process then.)
        Raises NotRunning where ``pid`` is gone, or in no group of the scope."""

    async def change_limits(self, name: str, limits: Limits, before: Limits) -> None:
        """Turn the limits ``before`` of a running scope into ``limits``.

        Raises NotSupported and PydockerdError; some may have changed then: call it the other way round."""

    async def usage(self, name: str) -> Usage | None:
        """What the scope has used up to now; None when there is no such scope."""

    async def control_group(self, name: str) -> str | None:
        """The scope's control group as /proc/<pid>/cgroup shows it; None when there is no such scope."""

    async def processes(self, name: str) -> list[int]:
        """Every process in the scope and below; empty when there is no such scope."""

    async def kill(self, name: str, signal: int) -> None:
        """Send ``signal`` to every process of the scope; nothing happens when there is none."""

    async def freeze(self, name: str) -> None:
        """Stop every process of the scope where it stands, and return once all of them have.

        Raises NotSupported where no control group hierarchy that can do it is there for the scope."""

    async def thaw(self, name: str) -> None:
        """Let them go on.  Nothing happens when they are not frozen, or there is no such scope."""

    async def names(self) -> set[str]:
        """The container scopes that exist now, whoever's: the caller knows which are its own."""

    def oom_counter(self, name: str, group: str) -> Path | None:
        """The file whose line ``oom_kill N`` counts the kills for want of memory in the scope ``name``, whose control
        group `start_scope` has told (memory.events on version 2, memory.oom_control on version 1); None where nobody
        counts.  It goes with the scope."""

    async def stop_was_asked(self, name: str, since: int) -> bool:
        """Whether somebody has asked for the end of this scope itself (``systemctl stop``) since ``since``,
        nanoseconds since the epoch; the scope may be gone."""

    async def going_down(self) -> bool:
        """Whether the host is shutting down."""

    async def remove(self, name: str) -> None:
        """Make an end of the scope, and of what is still in it.  No error when it is gone."""

    async def close(self) -> None:
        """Let go of connections.  Scopes stay."""


def weight_of_shares(shares: int) -> int:
    """cpu.weight of version 2 (1 to 10000, 100 is ordinary) for cpu.shares of version 1 (1024 is ordinary)."""
    return min(10_000, max(1, round(shares * 100 / 1024)))
