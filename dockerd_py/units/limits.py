"""Limits as the kernel's files and as systemd's properties: pure translations, for both versions of control groups.

Sources: the kernel's admin-guide/cgroup-v1 and cgroup-v2; systemd.resource-control(5).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from dockerd_py.errors import BadParameter, NotSupported
from dockerd_py.units.base import Limits, Rate, weight_of_shares

PERIOD = 100_000  # microseconds; the kernel's own default
LONG_PERIOD = 1_000_000  # for quotas so small that the kernel would refuse them on the ordinary period
LEAST_QUOTA = 1_000
UNLIMITED = -1  # of version 1; "max" of version 2
INFINITY = 2**64 - 1  # systemd's


class File(NamedTuple):
    """One write into a control group."""

    controller: str
    name: str
    value: str
    what: str  # for errors: "memory limit"
    optional: bool = False  # passed over where the kernel does not account for it


def birth_files(limits: Limits, version: int, before: Limits | None = None) -> Iterator[File]:
    """What is written before the OCI runtime begins; with ``before``, what turns those limits into these."""
    old = before or Limits()
    if (limits.memory, limits.swap) != (old.memory, old.swap):
        yield from _memory(limits, old, version)
    if limits.memory_reservation != old.memory_reservation:
        yield File("memory", *_soft(limits, version), "memory reservation")
    if limits.memory_swappiness is not None and limits.memory_swappiness != old.memory_swappiness:
        if version == 2:
            raise NotSupported("memory swappiness cannot be set on control groups of version 2")
        yield File("memory", "memory.swappiness", str(limits.memory_swappiness), "memory swappiness")
    if version == 1 and limits.oom_kill_disable != old.oom_kill_disable:
        yield File("memory", "memory.oom_control", "1", "switching off of the OOM killer")
    if limits.cpu_shares != old.cpu_shares:
        shares = limits.cpu_shares or 1024
        if version == 1:
            yield File("cpu", "cpu.shares", str(shares), "processor shares")
        else:
            yield File("cpu", "cpu.weight", str(weight_of_shares(shares)), "processor shares")
    if limits.cpuset_cpus and limits.cpuset_cpus != old.cpuset_cpus:
        yield File("cpuset", "cpuset.cpus", limits.cpuset_cpus, "choice of processors")
    if limits.cpuset_mems and limits.cpuset_mems != old.cpuset_mems:
        yield File("cpuset", "cpuset.mems", limits.cpuset_mems, "choice of memory nodes")
    yield from _block_io(limits, old, version)


def run_files(limits: Limits, version: int, before: Limits | None = None) -> Iterator[File]:
    """What would hit the OCI runtime itself: written between its create and its start."""
    old = before or Limits()
    if limits.pids != old.pids:
        yield File("pids", "pids.max", str(limits.pids or "max"), "limit of processes")
    if limits.cpu_quota_per_sec_usec != old.cpu_quota_per_sec_usec or limits.cpu_period_usec != old.cpu_period_usec:
        quota, period = quota_and_period(limits.cpu_quota_per_sec_usec, limits.cpu_period_usec)
        if version == 2:
            yield File("cpu", "cpu.max", f"{quota or 'max'} {period}", "processor time limit")
        else:
            yield File("cpu", "cpu.cfs_quota_us", str(UNLIMITED), "processor time limit")  # any period fits then
            yield File("cpu", "cpu.cfs_period_us", str(period), "processor time limit")
            yield File("cpu", "cpu.cfs_quota_us", str(quota or UNLIMITED), "processor time limit")


def birth_properties(limits: Limits, version: int, before: Limits | None = None) -> dict[str, Any]:
    """The same for systemd: what its properties can say."""
    old = before or Limits()
    found: dict[str, Any] = {}
    if (limits.memory, limits.swap) != (old.memory, old.swap):
        found["MemoryMax"] = limits.memory or INFINITY
        if version == 2:
            found["MemorySwapMax"] = INFINITY if limits.swap is None else limits.swap
    if version == 2 and limits.memory_reservation != old.memory_reservation:
        found["MemoryLow"] = limits.memory_reservation
    if limits.cpu_shares != old.cpu_shares:
        shares = limits.cpu_shares or 1024
        found["CPUShares" if version == 1 else "CPUWeight"] = shares if version == 1 else weight_of_shares(shares)
    if version == 2:
        for name, new, was in (
            ("AllowedCPUs", limits.cpuset_cpus, old.cpuset_cpus),
            ("AllowedMemoryNodes", limits.cpuset_mems, old.cpuset_mems),
        ):
            if new and new != was:
                found[name] = mask_of(new)
        if limits.blkio_weight and limits.blkio_weight != old.blkio_weight:
            found["IOWeight"] = io_weight(limits.blkio_weight)
        for name, rates, were in (
            ("IODeviceWeight", [Rate(r.path, io_weight(r.value)) for r in limits.blkio_weight_devices],
             [Rate(r.path, io_weight(r.value)) for r in old.blkio_weight_devices]),
            ("IOReadBandwidthMax", limits.blkio_read_bps, old.blkio_read_bps),
            ("IOWriteBandwidthMax", limits.blkio_write_bps, old.blkio_write_bps),
            ("IOReadIOPSMax", limits.blkio_read_iops, old.blkio_read_iops),
            ("IOWriteIOPSMax", limits.blkio_write_iops, old.blkio_write_iops),
        ):  # fmt: skip
            if list(rates) != list(were):
                found[name] = [(rate.path, rate.value) for rate in rates]
    return found


def run_properties(limits: Limits, before: Limits | None = None) -> dict[str, Any]:
    old = before or Limits()
    found: dict[str, Any] = {}
    if limits.pids != old.pids:
        found["TasksMax"] = limits.pids or INFINITY
    if limits.cpu_quota_per_sec_usec != old.cpu_quota_per_sec_usec or limits.cpu_period_usec != old.cpu_period_usec:
        found["CPUQuotaPerSecUSec"] = limits.cpu_quota_per_sec_usec or INFINITY
        found["CPUQuotaPeriodUSec"] = limits.cpu_period_usec or INFINITY
    return found


def files_beside_properties(limits: Limits, version: int, before: Limits | None = None) -> list[File]:
    """What systemd has no property for, and does not touch in a delegated group: version 1 alone has such."""
    if version == 2:
        return [file for file in birth_files(limits, version, before) if file.name == "memory.swappiness"]
    by_systemd = ("memory.limit_in_bytes", "cpu.shares")
    return [file for file in birth_files(limits, version, before) if file.name not in by_systemd]


def quota_and_period(per_second: int, period: int = 0) -> tuple[int, int]:
    """(quota, period) in microseconds that give ``per_second`` microseconds of processor time a second; 0: no limit.

    The kernel refuses quotas below 1 ms and periods above 1 s: less than 1 ms a second becomes 1 ms.
    """
    chosen = period or PERIOD
    if not per_second:
        return 0, chosen
    quota = per_second * chosen // 1_000_000
    if quota >= LEAST_QUOTA:
        return quota, chosen
    return max(per_second, LEAST_QUOTA), LONG_PERIOD


def numbers_of(text: str) -> list[int]:
    """The numbers in a list of the kernel's ("0-2,5").  Raises BadParameter."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)) or len(part) > 16:
            raise BadParameter(f"invalid list of numbers {text!r}: write it like 0-2,5")
        low, high = int(first), int(last or first)
        if low > high or high > 1 << 16:
            raise BadParameter(f"invalid list of numbers {text!r}: {part!r} is no range")
        found.update(range(low, high + 1))
    return sorted(found)


def mask_of(text: str) -> list[int]:
    """A list of the kernel's as systemd's byte array: bit n of byte n // 8 for number n."""
    numbers = numbers_of(text)
    mask = bytearray(numbers[-1] // 8 + 1)
    for number in numbers:
        mask[number // 8] |= 1 << number % 8
    return list(mask)


def io_weight(weight: int) -> int:
    """io.weight of version 2 (1 to 10000) for blkio.weight of version 1 (10 to 1000): the same range, stretched."""
    return 1 + (weight - 10) * 9999 // 990


def device_number(path: str) -> str:
    """``major:minor`` of a block device.  Raises BadParameter."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise BadParameter(f"the device {path} cannot be limited: {error.strerror}") from error
    if not stat.S_ISBLK(status.st_mode):
        raise BadParameter(f"{path} is no block device")
    return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"


def _memory(limits: Limits, old: Limits, version: int) -> Iterator[File]:
    if version == 2:
        yield File("memory", "memory.max", str(limits.memory or "max"), "memory limit")
        swap = "max" if limits.swap is None else str(limits.swap)
        yield File("memory", "memory.swap.max", swap, "swap limit", optional=True)
        return
    memory = File("memory", "memory.limit_in_bytes", str(limits.memory or UNLIMITED), "memory limit")
    total = UNLIMITED if limits.swap is None else limits.memory + limits.swap
    both = File("memory", "memory.memsw.limit_in_bytes", str(total), "swap limit", optional=True)
    # memory may never be above both together
    had = None if old.swap is None else old.memory + old.swap
    grows = had is not None and (limits.swap is None or total > had)
    yield from (both, memory) if grows else (memory, both)


def _soft(limits: Limits, version: int) -> tuple[str, str]:
    if version == 1:
        return "memory.soft_limit_in_bytes", str(limits.memory_reservation or UNLIMITED)
    return "memory.low", str(limits.memory_reservation)


def _block_io(limits: Limits, old: Limits, version: int) -> Iterator[File]:
    what = "block I/O weight"
    if limits.blkio_weight and limits.blkio_weight != old.blkio_weight:
        if version == 1:
            yield File("blkio", "blkio.weight", str(limits.blkio_weight), what)
        else:
            yield File("io", "io.weight", f"default {io_weight(limits.blkio_weight)}", what)
    for rate in _changed(limits.blkio_weight_devices, old.blkio_weight_devices):
        device = device_number(rate.path)
        if version == 1:
            yield File("blkio", "blkio.weight_device", f"{device} {rate.value}", what)
        else:
            yield File("io", "io.weight", f"{device} {io_weight(rate.value) if rate.value else 'default'}", what)
    for rates, were, v1, v2 in (
        (limits.blkio_read_bps, old.blkio_read_bps, "read_bps", "rbps"),
        (limits.blkio_write_bps, old.blkio_write_bps, "write_bps", "wbps"),
        (limits.blkio_read_iops, old.blkio_read_iops, "read_iops", "riops"),
        (limits.blkio_write_iops, old.blkio_write_iops, "write_iops", "wiops"),
    ):
        for rate in _changed(rates, were):
            device = device_number(rate.path)
            if version == 1:
                yield File("blkio", f"blkio.throttle.{v1}_device", f"{device} {rate.value}", "block I/O limit")
            else:
                yield File("io", "io.max", f"{device} {v2}={rate.value or 'max'}", "block I/O limit")


def _changed(rates: Sequence[Rate], were: Sequence[Rate]) -> Iterator[Rate]:
    """Those that are new or different, and with 0 those that are gone."""
    now = {rate.path: rate.value for rate in rates}
    yield from (rate for rate in rates if rate not in were)
    yield from (Rate(rate.path, 0) for rate in were if rate.path not in now)
