"""What the engine asks of the thing that confines a container's processes: one interface, two implementations.

`systemd.SystemdUnits` makes transient scopes, `cgroupfs.CgroupfsUnits` plain control groups.  This module holds
the values and the interface alone and does no I/O.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

Kind = Literal["systemd", "cgroupfs"]

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


@dataclass(frozen=True)
class Limits:
    """Bounds of one container.  0: none."""

    memory: int = 0  # bytes
    memory_swap: int = 0  # bytes, memory and swap together; -1: as much swap as there is; 0: twice the memory
    cpu_shares: int = 0  # 2 to 262144; 1024 is an ordinary share
    cpu_quota_per_sec_usec: int = 0  # microseconds of processor time a second; 1,000,000 is one processor
    pids: int = 0  # processes and threads

    @property
    def swap(self) -> int | None:
        """Bytes of swap beside ``memory``; None: no bound."""
        if not self.memory or self.memory_swap < 0:
            return None
        return max(0, (self.memory_swap or 2 * self.memory) - self.memory)


@dataclass(frozen=True)
class ScopeSpec:
    """A container's scope as it is born."""

    name: str  # "container-<64 hex digits>.scope"
    description: str = ""
    slice: str = "machine.slice"
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

    async def oom_counter(self, name: str) -> Path | None:
        """The file whose line ``oom_kill N`` counts the scope's processes killed for want of memory (memory.events
        on version 2, memory.oom_control on version 1); None when there is no such scope.  It goes with it."""

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
