"""The part of a HostConfig that says what separates a container from its host: values alone, Docker's spelling.

They hold what was asked for, as inspect shows it back.  What it comes to on this host is decided at the start: by
`engine.confine`, and below it by `runtime`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

CONTAINER = "container:"
HOST = "host"


@dataclass(frozen=True)
class Device:
    """One ``--device``: a node, or a directory whose nodes are meant."""

    path_on_host: str
    path_in_container: str
    permissions: str = "rwm"


@dataclass(frozen=True)
class Ulimit:
    """One ``--ulimit``; -1 is "no limit"."""

    name: str  # "nofile"
    soft: int
    hard: int


@dataclass(frozen=True)
class Namespaces:
    """Whose namespaces a container has.  "" is Docker's default, its own, throughout."""

    pid: str = ""  # "", "private", "host" or "container:<id>"
    ipc: str = ""  # "", "none", "private", "shareable", "host" or "container:<id>"
    uts: str = ""  # "" or "host"
    cgroup: str = ""  # "", "private" or "host"
    user: str = ""  # "" or "host", which are the same as long as no user is remapped


@dataclass(frozen=True)
class Security:
    """What a container may do."""

    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()  # "no-new-privileges", "seccomp=...", "apparmor=...", ...
    devices: tuple[Device, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()  # "c 10:* rwm"
    read_only_root: bool = False
    masked_paths: tuple[str, ...] | None = None  # None: Docker's; (): none
    readonly_paths: tuple[str, ...] | None = None
    group_add: tuple[str, ...] = ()  # names and numbers of the container's own group file


@dataclass(frozen=True)
class Tuning:
    """What a container's processes are born with."""

    init: bool | None = None  # a small init before the command
    sysctls: dict[str, str] = field(default_factory=dict)
    ulimits: tuple[Ulimit, ...] = ()
    oom_score_adj: int = 0  # -1000 to 1000
    oom_kill_disable: bool = False


@dataclass(frozen=True)
class Resolver:
    """What goes into a container's /etc/hosts and /etc/resolv.conf."""

    extra_hosts: tuple[str, ...] = ()  # "name:address"
    dns: tuple[str, ...] = ()  # addresses
    search: tuple[str, ...] = ()  # "." alone: none
    options: tuple[str, ...] = ()


def joined_container(mode: str) -> str:
    """The container that a mode names: "x" of "container:x", "" of any other."""
    return mode[len(CONTAINER) :] if mode.startswith(CONTAINER) else ""
