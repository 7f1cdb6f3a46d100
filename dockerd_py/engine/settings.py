"""A container's settings: joined with its image's, and checked."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import replace

from dockerd_py.engine import signals
from dockerd_py.engine.model import ContainerConfig, HostConfig
from dockerd_py.errors import BadParameter, NotSupported

KIB, MIB = 1024, 1024 * 1024
MIN_MEMORY = 6 * MIB
MIN_MEMORY_FIRST_YEAR = 512 * KIB

LOG_OPTIONS = {"tag", "labels", "env"}
LOG_DRIVERS = ("journald", "json-file", "none")
NETWORK_MODES = ("default", "bridge", "none", "host")
MIN_CPU_SHARES, MAX_CPU_SHARES = 2, 262144
MIN_CPU_PERIOD, MAX_CPU_PERIOD, DEFAULT_CPU_PERIOD = 1000, 1_000_000, 100_000
MIN_CPU_QUOTA = 1000


def merge(config: ContainerConfig, image: ContainerConfig) -> ContainerConfig:
    """The container's own settings over those of its image."""
    entrypoint = config.entrypoint
    cmd = config.cmd
    if entrypoint is None:
        entrypoint = image.entrypoint
        cmd = cmd or image.cmd
    elif not entrypoint:
        cmd = cmd or image.cmd  # taken away explicitly: the command alone counts
    return replace(
        config,
        cmd=cmd,
        entrypoint=entrypoint,
        env=merge_env(image.env, config.env),
        working_dir=config.working_dir or image.working_dir,
        user=config.user or image.user,
        labels={**image.labels, **config.labels},
        exposed_ports=tuple(dict.fromkeys((*config.exposed_ports, *image.exposed_ports))),
        volumes=tuple(dict.fromkeys((*config.volumes, *image.volumes))),
        stop_signal=config.stop_signal or image.stop_signal,
        on_build=(),
    )


def merge_env(base: Iterable[str], changes: Iterable[str]) -> tuple[str, ...]:
    """``base`` with ``changes`` laid over it by name; a change without "=" takes the variable away."""
    result = {entry.partition("=")[0]: entry for entry in base}
    for entry in changes:
        name, sign, _ = entry.partition("=")
        if sign:
            result[name] = entry
        else:
            result.pop(name, None)
    return tuple(result.values())


def command_of(config: ContainerConfig) -> tuple[str, ...]:
    """What is executed.  Raises BadParameter when there is nothing."""
    argv = (*(config.entrypoint or ()), *config.cmd)
    if not argv:
        raise BadParameter("No command specified: the image has none, so name one")
    return argv


def check(config: ContainerConfig, host: HostConfig, min_memory: int) -> list[str]:
    """Look over merged settings; returns warnings for the user.

    Raises BadParameter naming the setting, or NotSupported.
    """
    for text in (*config.env, *config.cmd, *(config.entrypoint or ()), config.working_dir, config.user):
        if "\0" in text:
            raise BadParameter(f"a NUL character is not allowed: {text!r}")
    for entry in config.env:
        if entry.startswith("="):
            raise BadParameter(f"invalid environment variable: {entry}")
    if config.working_dir and not posixpath.isabs(config.working_dir):
        raise BadParameter(f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path")
    if config.stop_signal:
        signals.parse(config.stop_signal)
    _check_hostname(config)
    _check_limits(host, min_memory)
    if host.shm_size < 0:
        raise BadParameter("SHM size can not be less than 0")
    _check_log(host)
    return _check_network(config, host)


def _check_hostname(config: ContainerConfig) -> None:
    for name in (config.hostname, config.domainname):
        if len(name) > 63 or any(not (c.isalnum() or c in "-._") for c in name) or name.startswith("-"):
            raise BadParameter(f"invalid hostname format: {name}")


def _check_limits(host: HostConfig, min_memory: int) -> None:
    if 0 < host.memory < min_memory or host.memory < 0:
        least = "512k" if min_memory == MIN_MEMORY_FIRST_YEAR else "6MB"
        raise BadParameter(f"Minimum memory limit allowed is {least}")
    if host.memory_swap > 0 and not host.memory:
        raise BadParameter("You should always set the Memory limit when using Memoryswap limit, see usage")
    if host.memory_swap > 0 and host.memory_swap < host.memory:
        raise BadParameter("Minimum memoryswap limit should be larger than memory limit, see usage")
    if host.memory_swap < -1:
        raise BadParameter(f"invalid memory swap limit: {host.memory_swap}")
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


def _check_log(host: HostConfig) -> None:
    if host.log_driver and host.log_driver not in LOG_DRIVERS:
        raise BadParameter(
            f"logger: no log driver named '{host.log_driver}' is registered: there are {', '.join(LOG_DRIVERS)}"
        )
    for option in host.log_options:
        raise NotSupported(f"log option {option!r} is not supported by this version")


def _check_network(config: ContainerConfig, host: HostConfig) -> list[str]:
    if host.network_mode not in NETWORK_MODES:
        raise NotSupported(
            f"network mode {host.network_mode!r} is not supported by this version: there are {', '.join(NETWORK_MODES)}"
        )
    if host.network_mode in ("none", "host") or config.network_disabled:
        return []
    return ["Bridge networking is not available in this version: the container has a loopback interface only."]


def cpu_quota_per_second(host: HostConfig) -> int:
    """Microseconds of processor time a second; 0: no limit."""
    if host.nano_cpus:
        return max(1000, host.nano_cpus // 1000)
    if host.cpu_quota > 0:
        return max(1000, host.cpu_quota * 1_000_000 // (host.cpu_period or DEFAULT_CPU_PERIOD))
    return 0
