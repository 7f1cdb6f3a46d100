"""What a scope has used, read from its control groups.  Blocks for as long as reading a few kernel files takes.

Sources: the kernel's admin-guide/cgroup-v1 (cpuacct, memory, pids, blkio-controller) and cgroup-v2.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from dockerd_py.units.base import BlockIo, Usage

TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
MICROSECOND = 1000
NO_LIMIT = 1 << 62  # version 1 spells "none" as the largest multiple of a page

Place = tuple[int, frozenset[str], Path]  # version, controllers, the scope's directory there


def read(places: Iterable[Place]) -> Usage:
    """The numbers of a scope that is spread over ``places``, one in each hierarchy."""
    found: dict[str, object] = {}
    for version, controllers, directory in places:
        if version == 2:
            found = {**_unified(directory), **found}
            continue
        for controller, reader in _VERSION_1.items():
            if controller in controllers:
                found.update(reader(directory))
    return Usage(**found)  # type: ignore[arg-type]


def _cpuacct(directory: Path) -> dict[str, object]:
    stat = _table(directory / "cpuacct.stat")
    return {
        "cpu_total": _number(directory / "cpuacct.usage"),
        "cpu_each": tuple(int(word) for word in _text(directory / "cpuacct.usage_percpu").split()),
        "cpu_user": stat.get("user", 0) * TICK,
        "cpu_system": stat.get("system", 0) * TICK,
    }


def _cpu(directory: Path) -> dict[str, object]:
    stat = _table(directory / "cpu.stat")
    return {
        "throttling_periods": stat.get("nr_periods", 0),
        "throttled_periods": stat.get("nr_throttled", 0),
        "throttled_time": stat.get("throttled_time", 0),
    }


def _memory(directory: Path) -> dict[str, object]:
    limit = _number(directory / "memory.limit_in_bytes")
    return {
        "memory": _number(directory / "memory.usage_in_bytes"),
        "memory_peak": _number(directory / "memory.max_usage_in_bytes"),
        "memory_limit": 0 if limit >= NO_LIMIT else limit,
        "memory_failures": _number(directory / "memory.failcnt"),
        "memory_details": _table(directory / "memory.stat"),
    }


def _pids(directory: Path) -> dict[str, object]:
    return {"pids": _number(directory / "pids.current"), "pids_limit": _number(directory / "pids.max")}


def _blkio(directory: Path) -> dict[str, object]:
    return {
        "io_bytes": _block_io(directory / "blkio.throttle.io_service_bytes_recursive"),
        "io_operations": _block_io(directory / "blkio.throttle.io_serviced_recursive"),
    }


_VERSION_1 = {"cpuacct": _cpuacct, "cpu": _cpu, "memory": _memory, "pids": _pids, "blkio": _blkio}


def _unified(directory: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    cpu = _table(directory / "cpu.stat")
    if (directory / "cpu.pressure").exists() or "nr_periods" in cpu:  # also a hybrid host's tree has a cpu.stat
        found.update(
            cpu_total=cpu.get("usage_usec", 0) * MICROSECOND,
            cpu_user=cpu.get("user_usec", 0) * MICROSECOND,
            cpu_system=cpu.get("system_usec", 0) * MICROSECOND,
            throttling_periods=cpu.get("nr_periods", 0),
            throttled_periods=cpu.get("nr_throttled", 0),
            throttled_time=cpu.get("throttled_usec", 0) * MICROSECOND,
        )
    if (directory / "memory.current").exists():
        found.update(
            memory=_number(directory / "memory.current"),
            memory_peak=_number(directory / "memory.peak"),
            memory_limit=_number(directory / "memory.max"),
            memory_failures=_table(directory / "memory.events").get("max", 0),
            memory_details=_table(directory / "memory.stat"),
        )
    if (directory / "pids.current").exists():
        found.update(pids=_number(directory / "pids.current"), pids_limit=_number(directory / "pids.max"))
    if (directory / "io.stat").exists():
        bytes_, operations = _io_stat(directory / "io.stat")
        found.update(io_bytes=bytes_, io_operations=operations)
    return found


def _block_io(file: Path) -> tuple[BlockIo, ...]:
    """Lines as ``8:0 Read 4096``; the last one is a sum without a device."""
    found = []
    for line in _text(file).splitlines():
        words = line.split()
        major, colon, minor = words[0].partition(":")
        if colon and len(words) == 3:
            found.append(BlockIo(int(major), int(minor), words[1].lower(), int(words[2])))
    return tuple(found)


def _io_stat(file: Path) -> tuple[tuple[BlockIo, ...], tuple[BlockIo, ...]]:
    """Lines as ``8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0``."""
    kinds = {"r": "read", "w": "write", "d": "discard"}
    bytes_: list[BlockIo] = []
    operations: list[BlockIo] = []
    for line in _text(file).splitlines():
        device, *pairs = line.split()
        major, _, minor = device.partition(":")
        for pair in pairs:
            name, _, value = pair.partition("=")
            if name[1:] in ("bytes", "ios") and name[0] in kinds:
                target = bytes_ if name[1:] == "bytes" else operations
                target.append(BlockIo(int(major), int(minor), kinds[name[0]], int(value)))
    return tuple(bytes_), tuple(operations)


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:  # the kernel does not count it, or the group is gone
        return ""


def _number(file: Path) -> int:
    word = _text(file).strip()
    return int(word) if word.lstrip("-").isdecimal() else 0


def _table(file: Path) -> dict[str, int]:
    pairs = (line.split() for line in _text(file).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}
