"""What a container uses, sampled: the numbers of its scope, and of its network interfaces."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator
from pathlib import Path

from dockerd_py.engine import host
from dockerd_py.engine.model import InterfaceUsage, Stats
from dockerd_py.engine.record import Record
from dockerd_py.units.base import Units

PERIOD = 1.0  # seconds between two samples of a stream
_NANOSECONDS_A_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


async def sample(record: Record, units: Units) -> Stats:
    """One sample; all is zero where the container does not run."""
    usage = await units.usage(record.scope) if record.state.running else None
    if usage is None:
        return Stats()
    system, interfaces = await asyncio.to_thread(lambda: (_system_time(), _interfaces(record.state.pid)))
    return Stats(
        time=time.time_ns(),
        usage=usage,
        system_time=system,
        processors=os.cpu_count() or 1,
        memory_limit=usage.memory_limit or host.memory(),
        interfaces=interfaces,
    )


async def stream(record: Record, units: Units) -> AsyncGenerator[tuple[Stats, Stats], None]:
    """Pairs of the sample before (zero at first) and the present one, a second apart, until the removal."""
    before = Stats()
    while not record.gone:
        now = await sample(record, units)
        yield before, now
        before = now
        await asyncio.sleep(PERIOD)


def _system_time() -> int:
    """Nanoseconds that all processors have spent, idle time included (proc(5), the first line of /proc/stat)."""
    with open("/proc/stat", encoding="ascii") as file:
        fields = file.readline().split()[1:9]  # up to "steal"; a guest's time is in "user" already
    return sum(map(int, fields)) * _NANOSECONDS_A_TICK


def _interfaces(pid: int) -> dict[str, InterfaceUsage]:
    """The network interfaces in a process's namespace, but for the loopback (proc(5), /proc/pid/net/dev)."""
    try:
        lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    except OSError:
        return {}
    found = {}
    for line in lines:
        name, _, numbers = line.partition(":")
        if name.strip() != "lo":
            n = [int(word) for word in numbers.split()]
            found[name.strip()] = InterfaceUsage(*n[0:4], *n[8:12])
    return found


