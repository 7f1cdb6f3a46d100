"""What a container may use of the host: checked, joined with a change of it, and as limits of its scope."""

from __future__ import annotations

import os
from dataclasses import fields, replace

from dockerd_py.engine.model import DeviceRate, HostConfig
from dockerd_py.errors import BadParameter
from dockerd_py.units.base import Limits, Rate
from dockerd_py.units.limits import device_number, numbers_of

KIB, MIB = 1024, 1024 * 1024
MIN_MEMORY = 6 * MIB
MIN_MEMORY_FIRST_YEAR = 512 * KIB
MIN_CPU_PERIOD, MAX_CPU_PERIOD, DEFAULT_CPU_PERIOD = 1000, 1_000_000, 100_000
MIN_CPU_QUOTA = 1000

CHANGEABLE = frozenset((
    "memory", "memory_swap", "memory_reservation", "cpu_shares", "nano_cpus", "cpu_quota", "cpu_period", "cpuset_cpus",
    "cpuset_mems", "pids_limit", "blkio_weight", "blkio_weight_devices", "blkio_read_bps", "blkio_write_bps",
    "blkio_read_iops", "blkio_write_iops", "restart",
))  # fmt: skip
"""What `update` changes of a container, running or not."""


def check(host: HostConfig, min_memory: int) -> None:
    """Raises BadParameter, naming the limit, with Docker's words where it has some."""
    _check_memory_and_cpu(host, min_memory)
    _check_cpusets(host)
    _check_block_io(host)


def changed(host: HostConfig, change: HostConfig) -> HostConfig:
    """``host`` with what ``change`` says about `CHANGEABLE` settings; those that it leaves out stay.

    Raises BadParameter for two settings of which one is in force and the other asked for.
    """
    default = HostConfig()
    given = {
        field.name: getattr(change, field.name)
        for field in fields(HostConfig)
        if field.name in CHANGEABLE and getattr(change, field.name) != getattr(default, field.name)
    }
    if "nano_cpus" in given and (host.cpu_quota or host.cpu_period):
        raise BadParameter("Conflicting options: NanoCPUs cannot be set as CPU Period or Quota has already been set")
    if host.nano_cpus and given.keys() & {"cpu_quota", "cpu_period"}:
        raise BadParameter("Conflicting options: CPU Period or Quota cannot be set as NanoCPUs has already been set")
    if "memory" in given and "memory_swap" not in given and 0 < host.memory_swap < given["memory"]:
        raise BadParameter(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )
    return replace(host, **given)


def limits_of(host: HostConfig) -> Limits:
    """As the container's scope gets them."""
    return Limits(
        memory=host.memory,
        memory_swap=host.memory_swap,
        memory_reservation=host.memory_reservation,
        memory_swappiness=host.memory_swappiness,
        cpu_shares=host.cpu_shares,
        cpu_quota_per_sec_usec=cpu_quota_per_second(host),
        cpu_period_usec=host.cpu_period,
        cpuset_cpus=host.cpuset_cpus,
        cpuset_mems=host.cpuset_mems,
        pids=max(0, host.pids_limit),
        blkio_weight=host.blkio_weight,
        blkio_weight_devices=_rates(host.blkio_weight_devices),
        blkio_read_bps=_rates(host.blkio_read_bps),
        blkio_write_bps=_rates(host.blkio_write_bps),
        blkio_read_iops=_rates(host.blkio_read_iops),
        blkio_write_iops=_rates(host.blkio_write_iops),
        oom_kill_disable=host.tuning.oom_kill_disable,
    )


def cpu_quota_per_second(host: HostConfig) -> int:
    """Microseconds of processor time a second; 0: no limit."""
    if host.nano_cpus:
        return max(1000, host.nano_cpus // 1000)
    if host.cpu_quota > 0:
        return max(1000, host.cpu_quota * 1_000_000 // (host.cpu_period or DEFAULT_CPU_PERIOD))
    return 0


def _check_memory_and_cpu(host: HostConfig, min_memory: int) -> None:
    if 0 < host.memory < min_memory or host.memory < 0:
        least = "512k" if min_memory == MIN_MEMORY_FIRST_YEAR else "6MB"
        raise BadParameter(f"Minimum memory limit allowed is {least}")
    if host.memory_swap > 0 and not host.memory:
        raise BadParameter("You should always set the Memory limit when using Memoryswap limit, see usage")
    if host.memory_swap > 0 and host.memory_swap < host.memory:
        raise BadParameter("Minimum memoryswap limit should be larger than memory limit, see usage")
    if host.memory_swap < -1:
        raise BadParameter(f"invalid memory swap limit: {host.memory_swap}")
    if host.memory_reservation < 0 or 0 < host.memory_reservation < min_memory:
        raise BadParameter(f"Minimum memory reservation allowed is {'512k' if min_memory < MIN_MEMORY else '6MB'}")
    if host.memory and host.memory < host.memory_reservation:
        raise BadParameter(
            "Minimum memory limit can not be less than memory reservation limit, see usage"
        )
    if host.memory_swappiness is not None and not 0 <= host.memory_swappiness <= 100:
        raise BadParameter(f"Invalid value: {host.memory_swappiness}, valid memory swappiness range is 0-100")
    if host.cpu_shares < 0:
        raise BadParameter(f"invalid CPU shares ({host.cpu_shares}): the value must be a positive integer")
    if host.nano_cpus < 0:
        raise BadParameter(f"invalid CPU limit ({host.nano_cpus / 1e9}): the value must be positive")
    if host.nano_cpus and (host.cpu_quota or host.cpu_period):
        raise BadParameter("Conflicting options: Nano CPUs and CPU Period or Quota cannot both be set")
    if host.cpu_period and not MIN_CPU_PERIOD <= host.cpu_period <= MAX_CPU_PERIOD:
        raise BadParameter("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if host.cpu_quota > 0 and host.cpu_quota < MIN_CPU_QUOTA:
        raise BadParameter("CPU cfs quota can not be less than 1ms (i.e. 1000)")


def _check_cpusets(host: HostConfig) -> None:
    for wanted, file, what in (
        (host.cpuset_cpus, "/sys/devices/system/cpu/online", "CPUs"),
        (host.cpuset_mems, "/sys/devices/system/node/online", "memory nodes"),
    ):
        if wanted:
            try:
                with open(file, encoding="ascii") as online:
                    available = online.read().strip()
            except FileNotFoundError:
                available = "0"
            if set(numbers_of(wanted)) - set(numbers_of(available)):
                raise BadParameter(
                    f"Requested {what} are not available - requested {wanted}, available: {available}"
                )


def _check_block_io(host: HostConfig) -> None:
    if host.blkio_weight and not 10 <= host.blkio_weight <= 1000:
        raise BadParameter("Range of blkio weight is from 10 to 1000")
    for one in host.blkio_weight_devices:
        if not 10 <= one.rate <= 1000:
            raise BadParameter(f"Range of blkio weight is from 10 to 1000, not {one.rate} for {one.path}")
    for rates in (host.blkio_read_bps, host.blkio_write_bps, host.blkio_read_iops, host.blkio_write_iops):
        for one in rates:
            if one.rate < 0:
                raise BadParameter(f"invalid rate {one.rate} for the device {one.path}: it must not be negative")
    for rates in (
        host.blkio_weight_devices, host.blkio_read_bps, host.blkio_write_bps, host.blkio_read_iops,
        host.blkio_write_iops,
    ):  # fmt: skip
        for one in rates:
            device_number(os.path.normpath(one.path))


def _rates(rates: tuple[DeviceRate, ...]) -> tuple[Rate, ...]:
    return tuple(Rate(os.path.normpath(one.path), one.rate) for one in rates)
