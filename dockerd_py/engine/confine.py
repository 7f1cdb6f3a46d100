"""What separates a container from its host: its settings checked at create, and worked out for each start.

What is asked for is in `isolation`; here it meets the host: its capabilities, control groups, AppArmor, devices and
the other containers.  What the host cannot do is refused by name, at create where that can be known already.
"""

from __future__ import annotations

import asyncio
import posixpath
from dataclasses import dataclass

from dockerd_py.engine import securityopt
from dockerd_py.engine.isolation import Device, Namespaces, Resolver, Security, joined_container
from dockerd_py.engine.model import ContainerConfig, HostConfig
from dockerd_py.errors import BadParameter, NotSupported
from dockerd_py.runtime import capabilities, devices, files, init, rlimits, seccomp, sysctls
from dockerd_py.runtime.apparmor import AppArmor
from dockerd_py.runtime.devices import Node, Rule
from dockerd_py.runtime.spec import HOST, MASKED_PATHS, READONLY_PATHS
from dockerd_py.units.base import DEFAULT_DEVICES, DEFAULT_SLICE

MIN_OOM_SCORE, MAX_OOM_SCORE = -1000, 1000


@dataclass(frozen=True)
class Facts:
    """What the host's control groups can do."""

    systemd: bool  # whether scopes can be had, in any slice
    cgroup_version: int


@dataclass(frozen=True)
class Confinement:
    """What a container's settings come to for one start."""

    options: securityopt.SecurityOptions
    capabilities: tuple[str, ...]
    apparmor: str
    nodes: tuple[Node, ...]
    rules: tuple[Rule, ...]  # for the scope; (): every device
    masked_paths: tuple[str, ...]
    readonly_paths: tuple[str, ...]
    init: str  # the program of the host, or ""


def check(config: ContainerConfig, host: HostConfig, facts: Facts) -> list[str]:
    """Look over merged settings; returns warnings.  Raises BadParameter naming the setting, or NotSupported."""
    mine = capabilities.available()
    _check_namespaces(config, host.namespaces)
    _check_security(host.security, mine)
    sysctls.check(host.tuning.sysctls, own_namespaces(host))
    for limit in host.tuning.ulimits:
        rlimits.check(limit.name, limit.soft, limit.hard)
        rlimits.check_allowed(limit.name, limit.hard, mine)
    _check_oom_score(host.tuning.oom_score_adj, mine)
    check_resolver(host.resolver)
    _check_parent(host.cgroup_parent, facts)
    for key in host.annotations:
        if not key or key.startswith("run.oci.seccomp"):
            raise BadParameter(f"invalid annotation {key!r}: the engine sets what it says")
    return _oom_warnings(host, facts)


def own_namespaces(host: HostConfig) -> set[str]:
    """The kinds of namespaces with parameters of their own that nobody shares with the container."""
    modes = {
        sysctls.IPC: host.namespaces.ipc,
        sysctls.UTS: host.namespaces.uts,
        sysctls.NETWORK: host.network_mode,
    }
    return {kind for kind, mode in modes.items() if mode != HOST and not joined_container(mode)}


async def work_out(host: HostConfig, apparmor: AppArmor) -> Confinement:
    """For a start now: settings were checked at create, and the host may have changed since.

    Raises BadParameter, RuntimeFailed with what is missing.
    """
    security = host.security
    options = securityopt.parse(security.security_opt)
    profile = await apparmor.profile_for(options.apparmor, privileged=security.privileged)
    if security.devices or security.privileged:
        nodes, rules = await asyncio.to_thread(_devices, security)
    else:
        nodes, rules = (), _rules(security)
    bare = options.bare_system_paths or security.privileged
    own_pids = host.namespaces.pid in ("", "private")
    return Confinement(
        options=options,
        capabilities=effective_capabilities(security),
        apparmor=profile,
        nodes=nodes,
        rules=rules,
        masked_paths=() if bare else masked_paths(security),
        readonly_paths=() if bare else readonly_paths(security),
        init=init.find(reaper=not own_pids) if host.tuning.init else "",
    )


def effective_capabilities(security: Security) -> tuple[str, ...]:
    return capabilities.effective(
        security.cap_add, security.cap_drop, privileged=security.privileged, mine=capabilities.available()
    )


def masked_paths(security: Security) -> tuple[str, ...]:
    return MASKED_PATHS if security.masked_paths is None else security.masked_paths


def readonly_paths(security: Security) -> tuple[str, ...]:
    return READONLY_PATHS if security.readonly_paths is None else security.readonly_paths


def security_options() -> tuple[str, ...]:
    """What confines containers by default here, in the words of Docker's ``info``."""
    there_is = {
        "name=apparmor": AppArmor().available,
        "name=seccomp,profile=builtin": seccomp.DEFAULT_PATH.exists(),
        "name=cgroupns": True,
    }
    return tuple(name for name, yes in there_is.items() if yes)


def _devices(security: Security) -> tuple[tuple[Node, ...], tuple[Rule, ...]]:
    found = [(device, devices.nodes(device.path_on_host, device.path_in_container)) for device in security.devices]
    given = [node for _, nodes in found for node in nodes]
    if security.privileged:
        return devices.unique([*devices.every_node(), *given]), ()
    rules = [node.rule(device.permissions) for device, nodes in found for node in nodes]
    return devices.unique(given), (*_rules(security), *rules)


def _rules(security: Security) -> tuple[Rule, ...]:
    if security.privileged:
        return ()
    return (*DEFAULT_DEVICES, *(rule for text in security.device_cgroup_rules for rule in devices.parse_rule(text)))


def _check_namespaces(config: ContainerConfig, given: Namespaces) -> None:
    known = (
        ("PID", given.pid, ("", "private", "host"), True),
        ("IPC", given.ipc, ("", "none", "private", "shareable", "host"), True),
        ("UTS", given.uts, ("", "host"), False),
        ("cgroup namespace", given.cgroup, ("", "private", "host"), False),
    )
    for name, mode, modes, joins in known:
        if mode not in modes and not (joins and joined_container(mode)):
            there_are = ", ".join(filter(None, (*modes, "container:NAME" if joins else "")))
            raise BadParameter(f"invalid {name} mode: {mode}: there are {there_are}")
    if given.user not in ("", HOST):
        raise NotSupported(
            f'the user namespace mode "{given.user}" is not supported: users are not remapped by this version, '
            "a container has the host's (mode host)"
        )
    if given.uts == HOST and (config.hostname or config.domainname):
        raise BadParameter("conflicting options: hostname and the UTS mode: the host's name is its own")


def _check_security(security: Security, mine: tuple[str, ...]) -> None:
    capabilities.effective(security.cap_add, security.cap_drop, privileged=False, mine=mine)
    options = securityopt.parse(security.security_opt)
    if options.apparmor not in ("", securityopt.UNCONFINED) and not AppArmor().available:
        raise BadParameter(
            f"the AppArmor profile {options.apparmor} cannot be used: this host's kernel has no AppArmor"
        )
    for device in security.devices:
        _check_device(device)
    for rule in security.device_cgroup_rules:
        devices.parse_rule(rule)
    for path in (*(security.masked_paths or ()), *(security.readonly_paths or ())):
        if not posixpath.isabs(path):
            raise BadParameter(f"invalid masked or read-only path: '{path}': it must be absolute")
    for group in security.group_add:
        if not group or any(c in ":\n" for c in group):
            raise BadParameter(f"unable to find group {group}: it is no name of a group")


def _check_device(device: Device) -> None:
    if not posixpath.isabs(device.path_on_host) or not posixpath.isabs(device.path_in_container):
        raise BadParameter(
            f"invalid device '{device.path_on_host}:{device.path_in_container}': both paths must be absolute"
        )
    devices.check_permissions(device.permissions)


def _check_oom_score(score: int, mine: tuple[str, ...]) -> None:
    if not MIN_OOM_SCORE <= score <= MAX_OOM_SCORE:
        raise BadParameter(
            f"Invalid value {score}, range for oom score adj is [{MIN_OOM_SCORE}, {MAX_OOM_SCORE}]"
        )
    if score < 0 and "CAP_SYS_RESOURCE" not in mine:
        raise BadParameter(
            f"the oom score adj {score} cannot be set: this machine forbids values below 0, as the daemon lacks the "
            "capability CAP_SYS_RESOURCE"
        )


def check_resolver(resolver: Resolver) -> None:
    """Raises BadParameter; NotSupported for the host's gateway."""
    for text in resolver.extra_hosts:
        files.split_host(text)
    for server in resolver.dns:
        files.check_address(server)
    for name, words in (("dns search domain", resolver.search), ("dns option", resolver.options)):
        for word in words:
            if not word or any(c.isspace() for c in word):
                raise BadParameter(f"invalid {name}: '{word}'")


def _check_parent(parent: str, facts: Facts) -> None:
    if not parent:
        return
    if not facts.systemd:
        raise NotSupported(
            f"the cgroup parent '{parent}' is not supported: it is a slice of systemd's, which does not run here"
        )
    slice_name(parent)


def slice_name(parent: str) -> str:
    """The slice of a container's scope.  Raises BadParameter for what is none (systemd.slice(5))."""
    if not parent:
        return DEFAULT_SLICE
    stem = parent.removesuffix(".slice")
    allowed = all(c.isascii() and (c.isalnum() or c in ":_.\\@-") for c in stem)
    if stem == parent or not stem or not allowed or len(parent) > 255 or (stem != "-" and not all(stem.split("-"))):
        raise BadParameter(
            f'cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice", not "{parent}"'
        )
    return parent


def _oom_warnings(host: HostConfig, facts: Facts) -> list[str]:
    if not host.tuning.oom_kill_disable:
        return []
    if facts.cgroup_version == 2:
        return ["OomKillDisable is discarded: control groups of version 2 have no such setting."]
    if not host.memory:
        return [_UNBOUNDED]
    return []


_UNBOUNDED = (
    "OOM killer is disabled for the container, but no memory limit is set, "
    "this can result in the system running out of resources."
)
