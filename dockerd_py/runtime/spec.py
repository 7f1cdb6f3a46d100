"""A container's settings → the OCI configuration (config.json), equal to what Docker gives the same container.

Pure functions: everything that depends on the host (mounted root filesystem, resolved user, seccomp profile, made
files) comes in as a value.  Control groups are not part of it, neither limits nor a path: the runtime is started
inside the container's scope and leaves them alone.
"""

from __future__ import annotations

import base64
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dockerd_py.runtime import init
from dockerd_py.runtime.devices import Node, Rule, oci_rules
from dockerd_py.runtime.rlimits import Rlimit
from dockerd_py.runtime.seccomp import Profile

OCI_VERSION = "1.0.2"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHM_SIZE = 64 << 20

MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

PRIVATE = "private"
HOST = "host"
NONE = "none"

NAMESPACES = ("pid", "ipc", "uts", "mount", "cgroup", "network")

SECCOMP_PROGRAM = "run.oci.seccomp_bpf_data"
"""crun's annotation: the filter, compiled; see crun(1)."""


@dataclass(frozen=True)
class Bind:
    """A file or directory of the host in the container.  ``target`` is absolute; the runtime makes it."""

    source: str
    target: str
    read_only: bool = False
    recursive: bool = True  # with what is mounted below the source
    propagation: str = "rprivate"


@dataclass(frozen=True)
class Tmpfs:
    """An empty file system in memory.  ``options``: mount(8)'s, of the file system and for the mount."""

    target: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class SpecInput:
    """All that makes one container's configuration.  ``environment`` is complete: see `default_environment`."""

    id: str  # 64 hex digits
    root: str  # the mounted root filesystem
    args: tuple[str, ...]
    environment: tuple[str, ...]
    cwd: str = "/"  # made by the runtime where it is missing
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    terminal: bool = False
    console_size: tuple[int, int] | None = None  # rows, columns
    hostname: str = ""  # "": the first 12 digits of the id
    domainname: str = ""
    network: str = PRIVATE
    host_namespaces: frozenset[str] = frozenset()  # of `NAMESPACES`: the host's instead of its own
    joined_namespaces: Mapping[str, str] = field(default_factory=dict)  # of `NAMESPACES` → a file to setns(2) to
    network_path: str = ""  # the same for a network namespace that was made for it alone; "": the runtime makes it
    shm: str = PRIVATE  # what /dev/shm is: its own, `NONE`, or a directory of the host that is mounted there
    binds: tuple[Bind, ...] = ()
    tmpfs: tuple[Tmpfs, ...] = ()
    shm_size: int = SHM_SIZE
    root_propagation: str = ""  # "shared" or "rslave" where a bind needs it
    hostname_path: str = ""  # "": the image's own file stays
    hosts_path: str = ""
    resolv_conf_path: str = ""
    capabilities: tuple[str, ...] = ()
    seccomp: Profile = field(default_factory=lambda: Profile(None))
    masked_paths: tuple[str, ...] = MASKED_PATHS
    readonly_paths: tuple[str, ...] = READONLY_PATHS
    umask: int = 0o022
    oom_score_adj: int = 0
    rlimits: tuple[Rlimit, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    sysctls: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[Node, ...] = ()  # beside the standard ones
    no_new_privileges: bool = False
    apparmor: str = ""  # the profile's name
    read_only_root: bool = False
    writable_sys: bool = False
    writable_cgroups: bool = False
    init: str = ""  # of the host: what goes before the command
    cgroups_path: str = ""  # only for a runtime that would make a group of its own otherwise, and then
    device_rules: tuple[Rule, ...] = ()  # the group's, which that runtime would reset


def build_spec(settings: SpecInput) -> dict[str, Any]:
    """The configuration, ready for json.dump."""
    spec = {
        "ociVersion": OCI_VERSION,
        "hostname": settings.hostname or settings.id[:12],
        "root": {"path": settings.root, "readonly": settings.read_only_root},
        "process": _process(settings),
        "mounts": _mounts(settings),
        "annotations": _annotations(settings),
        "linux": _linux(settings),
    }
    if "uts" in settings.host_namespaces:
        del spec["hostname"]  # it has been set, by the host
    return spec


def default_environment(given: Sequence[str], *, hostname: str, terminal: bool, home: str) -> tuple[str, ...]:
    """The whole environment of a container's process, in Docker's order.

    PATH, HOSTNAME and, with a terminal, TERM come first; ``given`` ("K=V", the image's before the user's)
    replaces in place or is added, and a bare "K" takes a variable away; HOME is added last, unless given.
    """
    defaults = [f"PATH={DEFAULT_PATH}", f"HOSTNAME={hostname}", *(["TERM=xterm"] if terminal else [])]
    merged: dict[str, str] = {}
    for entry in [*defaults, *given]:
        key, equals, _ = entry.partition("=")
        if equals:
            merged[key] = entry
        else:
            merged.pop(key, None)
    merged.setdefault("HOME", f"HOME={home}")
    return tuple(merged.values())


def _process(settings: SpecInput) -> dict[str, Any]:
    process: dict[str, Any] = {
        "terminal": settings.terminal,
        "user": {
            "uid": settings.uid,
            "gid": settings.gid,
            "umask": settings.umask,
            "additionalGids": list(settings.groups),
        },
        "args": list(_command(settings)),
        "env": list(settings.environment),
        "cwd": settings.cwd or "/",
        "capabilities": {name: list(settings.capabilities) for name in ("bounding", "effective", "permitted")},
        "noNewPrivileges": settings.no_new_privileges,
        "oomScoreAdj": settings.oom_score_adj,
        "rlimits": [{"type": one.type, "soft": one.soft, "hard": one.hard} for one in settings.rlimits],
    }
    if settings.terminal and settings.console_size is not None:
        rows, columns = settings.console_size
        process["consoleSize"] = {"height": rows, "width": columns}
    if settings.apparmor:
        process["apparmorProfile"] = settings.apparmor
    return process


def _command(settings: SpecInput) -> tuple[str, ...]:
    if not settings.init:
        return settings.args
    own_pids = "pid" not in settings.host_namespaces and "pid" not in settings.joined_namespaces
    return init.argv(settings.args, reaper=not own_pids)


def _linux(settings: SpecInput) -> dict[str, Any]:
    shared = settings.host_namespaces | ({"network"} if settings.network == HOST else set())
    paths = {"network": settings.network_path, **settings.joined_namespaces}
    own = [kind for kind in NAMESPACES if kind not in shared]
    namespaces = [{"type": kind, **({"path": paths[kind]} if paths.get(kind) else {})} for kind in own]
    sysctl: dict[str, str] = {}
    if "network" not in shared and "network" not in settings.joined_namespaces:
        # ports below 1024 and ping need no capability inside: nobody else is there to be protected
        sysctl = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
    if settings.domainname and "uts" not in shared:
        sysctl["kernel.domainname"] = settings.domainname
    linux: dict[str, Any] = {
        "namespaces": namespaces,
        "sysctl": {**sysctl, **settings.sysctls},
        "maskedPaths": list(settings.masked_paths),
        "readonlyPaths": list(settings.readonly_paths),
    }
    if settings.devices:
        linux["devices"] = [node.section() for node in settings.devices]
    if settings.cgroups_path:
        linux["cgroupsPath"] = settings.cgroups_path
        linux["resources"] = {"devices": oci_rules(settings.device_rules)}
    if settings.root_propagation:
        linux["rootfsPropagation"] = settings.root_propagation
    if settings.seccomp.section is not None:
        linux["seccomp"] = settings.seccomp.section
    return linux


def _annotations(settings: SpecInput) -> dict[str, str]:
    annotations = dict(settings.annotations)
    if settings.seccomp.section is not None and settings.seccomp.program is not None:
        annotations[SECCOMP_PROGRAM] = base64.b64encode(settings.seccomp.program).decode("ascii")
    return annotations


def _mounts(settings: SpecInput) -> list[dict[str, Any]]:
    """Docker's default mounts, less those that others replace, then these, parents before children."""
    others: list[Bind | Tmpfs] = [*settings.binds, *settings.tmpfs]
    targets = {posixpath.normpath(one.target) for one in others}
    read_only = settings.read_only_root
    own = (
        Bind(settings.resolv_conf_path, "/etc/resolv.conf", read_only),
        Bind(settings.hostname_path, "/etc/hostname", read_only),
        Bind(settings.hosts_path, "/etc/hosts", read_only),
        Bind(settings.init, init.TARGET, read_only=True),
    )
    given = [*(one for one in own if one.source and one.target not in targets), *others]

    def replaced(destination: str) -> bool:
        return destination in targets or ("/dev" in targets and destination.startswith("/dev/"))

    return [
        *(mount for mount in _default_mounts(settings) if not replaced(mount["destination"])),
        *map(_given, sorted(given, key=lambda one: posixpath.normpath(one.target).count("/"))),
    ]


def _default_mounts(settings: SpecInput) -> Iterable[dict[str, Any]]:
    quiet = ["nosuid", "noexec", "nodev"]
    yield _mount("/proc", "proc", "proc", quiet)
    yield _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"])
    yield _mount(
        "/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
    )
    yield _mount("/sys", "sysfs", "sysfs", [*quiet, "rw" if settings.writable_sys else "ro"])
    yield _mount("/sys/fs/cgroup", "cgroup", "cgroup", ["rw" if settings.writable_cgroups else "ro", *quiet])
    yield _mount("/dev/mqueue", "mqueue", "mqueue", quiet)
    if settings.shm == PRIVATE:
        yield _mount("/dev/shm", "tmpfs", "shm", [*quiet, "mode=1777", f"size={settings.shm_size}"])
    elif settings.shm != NONE:
        yield _mount("/dev/shm", "bind", settings.shm, ["rbind", "rprivate", *quiet])


def _given(one: Bind | Tmpfs) -> dict[str, Any]:
    if isinstance(one, Tmpfs):
        return _mount(one.target, "tmpfs", "tmpfs", list(one.options))
    # Alone it has nothing below that could propagate, and crun would take the "r" for the bind's own.
    kind, propagation = ("rbind", one.propagation) if one.recursive else ("bind", one.propagation.lstrip("r"))
    return _mount(one.target, "bind", one.source, [kind, propagation, *(["ro"] if one.read_only else [])])


def _mount(destination: str, kind: str, source: str, options: list[str]) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": options}
