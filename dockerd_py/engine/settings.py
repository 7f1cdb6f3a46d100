"""A container's settings: joined with its image's, and checked."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import replace

from dockerd_py.engine import health_model, ports, resources, signals
from dockerd_py.engine.model import ContainerConfig, HostConfig
from dockerd_py.errors import BadParameter

MAX_NAME_BYTES = 63
"""Of a host's name: what the kernel takes (uname(2)), less one."""


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
        healthcheck=health_model.merge(config.healthcheck, image.healthcheck),
        shell=config.shell or image.shell,
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
    test = config.healthcheck.test if config.healthcheck else ()
    words = (*config.env, *config.cmd, *(config.entrypoint or ()), *config.shell, *test)
    for text in (*words, config.working_dir, config.user):
        if "\0" in text:
            raise BadParameter(f"a NUL character is not allowed: {text!r}")
    for entry in config.env:
        if entry.startswith("="):
            raise BadParameter(f"invalid environment variable: {entry}")
    if config.working_dir and not posixpath.isabs(config.working_dir):
        raise BadParameter(f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path")
    if config.stop_signal:
        signals.parse(config.stop_signal)
    health_model.check(config.healthcheck)
    _check_hostname(config)
    resources.check(host, min_memory)
    if host.shm_size < 0:
        raise BadParameter("SHM size can not be less than 0")
    return ports.check(host)


def _check_hostname(config: ContainerConfig) -> None:
    for name in (config.hostname, config.domainname):
        odd = any(not (c.isalnum() or c in "-._") for c in name) or name.startswith("-")
        if odd or len(name.encode()) > MAX_NAME_BYTES:
            raise BadParameter(f"invalid hostname format: {name}")
