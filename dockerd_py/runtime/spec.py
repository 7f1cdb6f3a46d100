"""A container's settings → the OCI configuration (config.json), equal to what Docker gives the same container.

Pure functions: everything that depends on the host (mounted root filesystem, resolved user, seccomp profile, made
files) comes in as a value.  Control groups are not part of it, neither limits nor a path: the runtime is started
inside the container's scope and leaves them alone.
"""

from __future__ import annotations

import base64
import posixpath
import resource
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dockerd_py.runtime.seccomp import Profile

OCI_VERSION = "1.0.2"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHM_SIZE = 64 << 20
NOFILE = 1 << 20

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
class Rlimit:
    type: str  # "RLIMIT_NOFILE"
    soft: int
    hard: int


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


def build_spec(settings: SpecInput) -> dict[str, Any]:
    """The configuration, ready for json.dump."""
    return {
        "ociVersion": OCI_VERSION,
        "hostname": settings.hostname or settings.id[:12],
        "root": {"path": settings.root, "readonly": False},
        "process": _process(settings),
        "mounts": _mounts(settings),
        "annotations": _annotations(settings),
        "linux": _linux(settings),
    }


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


def default_rlimits() -> tuple[Rlimit, ...]:
    """Open files: 1048576, or this process's hard limit where that is lower (to raise it needs a capability)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = NOFILE if hard == resource.RLIM_INFINITY else min(NOFILE, hard)
    return (Rlimit("RLIMIT_NOFILE", limit, limit),)


def _process(settings: SpecInput) -> dict[str, Any]:
    process: dict[str, Any] = {
        "terminal": settings.terminal,
        "user": {
            "uid": settings.uid,
            "gid": settings.gid,
            "umask": settings.umask,
            "additionalGids": list(settings.groups),
        },
        "args": list(settings.args),
        "env": list(settings.environment),
        "cwd": settings.cwd or "/",
        "capabilities": {name: list(settings.capabilities) for name in ("bounding", "effective", "permitted")},
        "noNewPrivileges": False,
        "oomScoreAdj": settings.oom_score_adj,
        "rlimits": [{"type": one.type, "soft": one.soft, "hard": one.hard} for one in settings.rlimits],
    }
    if settings.terminal and settings.console_size is not None:
        rows, columns = settings.console_size
        process["consoleSize"] = {"height": rows, "width": columns}
    return process


def _linux(settings: SpecInput) -> dict[str, Any]:
    namespaces = ["pid", "ipc", "uts", "mount", "cgroup"]
    sysctl = {}
    if settings.network != HOST:
        namespaces.append("network")
        # ports below 1024 and ping need no capability inside: nobody else is there to be protected
        sysctl = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
    if settings.domainname:
        sysctl["kernel.domainname"] = settings.domainname
    linux: dict[str, Any] = {
        "namespaces": [{"type": name} for name in namespaces],
        "sysctl": sysctl,
        "maskedPaths": list(settings.masked_paths),
        "readonlyPaths": list(settings.readonly_paths),
    }
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
    files = (
        Bind(settings.resolv_conf_path, "/etc/resolv.conf"),
        Bind(settings.hostname_path, "/etc/hostname"),
        Bind(settings.hosts_path, "/etc/hosts"),
    )
    given = [*(one for one in files if one.source and one.target not in targets), *others]

    def replaced(destination: str) -> bool:
        return destination in targets or ("/dev" in targets and destination.startswith("/dev/"))

    return [
        *(mount for mount in _default_mounts(settings.shm_size) if not replaced(mount["destination"])),
        *map(_given, sorted(given, key=lambda one: posixpath.normpath(one.target).count("/"))),
    ]


def _default_mounts(shm_size: int) -> Iterable[dict[str, Any]]:
    quiet = ["nosuid", "noexec", "nodev"]
    return (
        _mount("/proc", "proc", "proc", quiet),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount(
            "/dev/pts",
            "devpts",
            "devpts",
            ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        _mount("/sys", "sysfs", "sysfs", [*quiet, "ro"]),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", ["ro", *quiet]),
        _mount("/dev/mqueue", "mqueue", "mqueue", quiet),
        _mount("/dev/shm", "tmpfs", "shm", [*quiet, "mode=1777", f"size={shm_size}"]),
    )


def _given(one: Bind | Tmpfs) -> dict[str, Any]:
    if isinstance(one, Tmpfs):
        return _mount(one.target, "tmpfs", "tmpfs", list(one.options))
    # Alone it has nothing below that could propagate, and crun would take the "r" for the bind's own.
    kind, propagation = ("rbind", one.propagation) if one.recursive else ("bind", one.propagation.lstrip("r"))
    return _mount(one.target, "bind", one.source, [kind, propagation, *(["ro"] if one.read_only else [])])


def _mount(destination: str, kind: str, source: str, options: list[str]) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": options}
