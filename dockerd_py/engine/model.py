"""What the engine takes and gives: frozen values with every field typed, in our own units.

The front doors build the settings from JSON or D-Bus variants and render the results; they never see a row of
the database.  Times are integers, nanoseconds since the epoch (0 = never); sizes are bytes; ids are 64 hex digits.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from dockerd_py.engine.health_model import Health, Healthcheck
from dockerd_py.engine.isolation import Namespaces, Resolver, Security, Tuning
from dockerd_py.engine.mount_model import DEFAULT_SHM_SIZE, Bind, Mount, MountRequest
from dockerd_py.engine.network_model import Attachment, Endpoint, EndpointRequest, Link, PortBinding, PublishedPort
from dockerd_py.units.base import Usage


@dataclass(frozen=True)
class ContainerConfig:
    """What an image may set too (Docker's ``Config``)."""

    image: str = ""
    cmd: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None  # None: the image's; (): none at all
    env: tuple[str, ...] = ()  # "K=V", or "K" to take a variable of the image's away
    working_dir: str = ""
    user: str = ""
    hostname: str = ""
    domainname: str = ""
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    exposed_ports: tuple[str, ...] = ()  # "80/tcp"
    volumes: tuple[str, ...] = ()  # container paths
    stop_signal: str = ""
    stop_timeout: int | None = None  # seconds
    network_disabled: bool = False
    mac_address: str = ""  # on the network of its mode
    on_build: tuple[str, ...] = ()
    healthcheck: Healthcheck | None = None
    shell: tuple[str, ...] = ()  # of commands that are one line, such as a health check's; (): /bin/sh -c


@dataclass(frozen=True)
class DeviceRate:
    """What one block device of the host may be used for."""

    path: str
    rate: int  # bytes or operations a second; a weight from 10 to 1000


@dataclass(frozen=True)
class RestartPolicy:
    """What happens when a container ends by itself."""

    name: str = ""  # "no", "always", "unless-stopped", "on-failure"; "": the client's API knows no policies
    maximum_retries: int = 0  # with on-failure; 0: any number


@dataclass(frozen=True)
class HostConfig:
    """What belongs to one container on one host (Docker's ``HostConfig``).  0 means "no limit" throughout."""

    binds: tuple[Bind, ...] = ()
    mounts: tuple[MountRequest, ...] = ()
    volumes_from: tuple[str, ...] = ()  # "container[:ro|rw]"
    volume_driver: str = ""  # of the volumes that this container's creation makes; "": local
    tmpfs: dict[str, str] = field(default_factory=dict)  # from the target to its options: "size=64m,exec"
    shm_size: int = DEFAULT_SHM_SIZE  # bytes of /dev/shm
    memory: int = 0
    memory_swap: int = 0  # memory + swap; -1: as much swap as there is; 0: twice the memory
    cpu_shares: int = 0  # 2 to 262144
    nano_cpus: int = 0  # a thousand millionth of one processor
    cpu_quota: int = 0  # microseconds a period
    cpu_period: int = 0  # microseconds
    memory_reservation: int = 0  # bytes that are left to it when memory is short
    memory_swappiness: int | None = None  # 0 to 100; None: the host's
    cpuset_cpus: str = ""  # "0-2,5"
    cpuset_mems: str = ""
    blkio_weight: int = 0  # 10 to 1000
    blkio_weight_devices: tuple[DeviceRate, ...] = ()
    blkio_read_bps: tuple[DeviceRate, ...] = ()
    blkio_write_bps: tuple[DeviceRate, ...] = ()
    blkio_read_iops: tuple[DeviceRate, ...] = ()
    blkio_write_iops: tuple[DeviceRate, ...] = ()
    pids_limit: int = 0  # also -1
    network_mode: str = "default"  # "bridge", "none", "host", "container:<id>", a network's name or id
    networks: tuple[EndpointRequest, ...] = ()  # the one of its mode is the first, if it has any
    port_bindings: tuple[PortBinding, ...] = ()
    publish_all: bool = False  # every exposed port that no binding names, too
    links: tuple[Link, ...] = ()
    auto_remove: bool = False
    restart: RestartPolicy = RestartPolicy()
    log_driver: str = ""  # "": the daemon's default; else "journald" or "json-file"
    log_options: dict[str, str] = field(default_factory=dict)
    container_id_file: str = ""
    namespaces: Namespaces = field(default_factory=Namespaces)
    security: Security = field(default_factory=Security)
    tuning: Tuning = field(default_factory=Tuning)
    resolver: Resolver = field(default_factory=Resolver)
    runtime: str = ""  # "": the daemon's; else "crun" or "runc"
    cgroup_parent: str = ""  # a slice of systemd's; "": machine.slice
    annotations: dict[str, str] = field(default_factory=dict)
    lxc_conf: tuple[tuple[str, str], ...] = ()  # as given; what it means is in the other settings already
    console_size: tuple[int, int] = (0, 0)  # of its terminal at its start: rows, columns; (0, 0): not known


class Status(str, enum.Enum):
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"  # it has ended, and its restart policy is about to start it again
    EXITED = "exited"
    REMOVING = "removing"
    DEAD = "dead"  # could not be removed, or lost


@dataclass(frozen=True)
class State:
    status: Status = Status.CREATED
    pid: int = 0
    exit_code: int = 0
    started_at: int = 0
    finished_at: int = 0
    oom_killed: bool = False
    error: str = ""
    restarts: int = 0  # by its policy, since somebody last started it
    stopped_by_hand: bool = False  # or killed, since it was last started
    health: Health | None = None  # None: it has no health check
    endpoints: tuple[Endpoint, ...] = ()  # also of one that has ended: it gets them again
    ports: tuple[PublishedPort, ...] = ()  # while it runs
    forwards: bool = False  # its questions go through the name service, though none of its networks has names

    @property
    def running(self) -> bool:
        """Whether it has processes."""
        return self.status in (Status.RUNNING, Status.PAUSED)

    @property
    def active(self) -> bool:
        """Whether it has processes, or is about to have some again."""
        return self.running or self.status is Status.RESTARTING


@dataclass(frozen=True)
class Container:
    """One container as it is now.  ``config`` is already merged with the image's."""

    id: str
    name: str  # without the leading slash
    image_id: str  # 64 hex digits
    created: int
    config: ContainerConfig
    host: HostConfig
    state: State
    path: str
    args: tuple[str, ...]
    driver: str  # storage driver
    log_driver: str
    log_path: str  # "" where the journal has it
    runtime: str
    scope: str  # "container-<id>.scope"
    cgroup: str  # the scope's control group while it runs, else ""
    mounts: tuple[Mount, ...]
    hostname_path: str
    hosts_path: str
    resolv_conf_path: str
    exec_ids: tuple[str, ...] = ()  # those that have not ended
    apparmor: str = ""  # the profile that it was started with
    attachments: tuple[Attachment, ...] = ()
    link_names: tuple[str, ...] = ()  # by which others are linked to it: "parent/alias"
    links: tuple[Link, ...] = ()  # its own to what is there, with the names of the targets
    size_rw: int | None = None  # only when asked for
    size_root_fs: int | None = None

    @property
    def short_id(self) -> str:
        return self.id[:12]


@dataclass(frozen=True)
class Created:
    id: str
    warnings: tuple[str, ...]


class WaitCondition(str, enum.Enum):
    NOT_RUNNING = "not-running"
    NEXT_EXIT = "next-exit"
    REMOVED = "removed"


@dataclass(frozen=True)
class WaitResult:
    exit_code: int
    error: str = ""


@dataclass(frozen=True)
class LogOptions:
    stdout: bool = True
    stderr: bool = True
    follow: bool = False
    since: int = 0
    until: int = 0
    tail: int | None = None  # lines; None: all


STDOUT = 1
STDERR = 2


class LogRecord(NamedTuple):
    """One line, or one piece of a long line.  ``data`` ends with a newline unless ``partial`` is set (a piece
    that goes on in the next record of its stream) or the container's output did not end with one."""

    stream: int  # STDOUT or STDERR
    time: int
    data: bytes
    partial: bool = False


@dataclass(frozen=True)
class AttachOptions:
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    stream: bool = False
    logs: bool = False
    waits: bool = True  # for the next start of a container that has ended; False: its log is all then
    multiplexed: bool = True  # stdcopy frames; ignored for a container with a terminal, which is always raw
    detach_keys: str = ""  # "ctrl-p,ctrl-q"


@dataclass(frozen=True)
class ExecConfig:
    """What is to be run in a container beside its own command."""

    cmd: tuple[str, ...]
    user: str = ""  # "": the container's
    privileged: bool = False
    tty: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    env: tuple[str, ...] = ()  # "K=V", or "K" to take a variable of the container's away
    working_dir: str = ""  # "": the container's
    detach_keys: str = ""
    console_size: tuple[int, int] = (0, 0)  # rows, columns
    unattended: bool = False  # the engine runs it for itself, and a later one does not wait for it


@dataclass(frozen=True)
class Exec:
    """One exec as it is now."""

    id: str
    container_id: str
    config: ExecConfig
    running: bool
    exit_code: int | None  # None: not ended yet
    pid: int  # on the host; 0 before its start


class RunResult(NamedTuple):
    """How a process that the engine ran in a container ended."""

    exit_code: int
    output: bytes  # both streams; no more than was asked for
    timed_out: bool  # it was killed


@dataclass(frozen=True)
class Processes:
    """The processes of a container, as ps(1) shows them."""

    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Image:
    """One image with its names."""

    id: str  # 64 hex digits of the config's sha256
    parent_id: str
    created: int
    size: int
    tags: tuple[str, ...]  # "repo:tag", sorted
    digests: tuple[str, ...]  # "repo@sha256:..."
    diff_ids: tuple[str, ...]  # "sha256:..."; the base layer first
    config: ContainerConfig
    author: str
    comment: str
    architecture: str
    os: str
    docker_version: str
    driver: str
    container_count: int = 0
    own_size: int = 0  # where each layer is an image: what this one adds to its parent; else as ``size``
    container: str = ""  # the container that it was committed from
    container_config: ContainerConfig = field(default_factory=ContainerConfig)


@dataclass(frozen=True)
class ImageChange:
    """One line of what removing an image did: either a name or an id."""

    untagged: str = ""
    deleted: str = ""  # 64 hex digits


@dataclass(frozen=True)
class HistoryEntry:
    """One step of an image's making."""

    id: str  # of the image that it made; "" where that is not here
    created: int
    created_by: str
    comment: str
    tags: tuple[str, ...]
    size: int  # bytes of its layer


@dataclass(frozen=True)
class Pruned:
    """What a clean-up did."""

    containers: tuple[str, ...] = ()
    images: tuple[ImageChange, ...] = ()
    volumes: tuple[str, ...] = ()
    reclaimed: int = 0  # bytes


@dataclass(frozen=True)
class CommitOptions:
    """``config`` is laid over the container's own settings, or with ``merge`` unset taken as it is; ``changes`` are
    Dockerfile instructions on top of it."""

    repo: str = ""
    tag: str = ""
    comment: str = ""
    author: str = ""
    pause: bool = True
    config: ContainerConfig = field(default_factory=ContainerConfig)
    merge: bool = True
    changes: tuple[str, ...] = ()


class ChangeKind(enum.IntEnum):
    MODIFIED = 0
    ADDED = 1
    DELETED = 2


class Change(NamedTuple):
    """One line of what a container changed."""

    path: str  # absolute
    kind: ChangeKind


@dataclass(frozen=True)
class PathStat:
    """One file of a container's."""

    name: str
    size: int
    mode: int  # st_mode
    mtime: int
    link_target: str  # of a symbolic link: where it leads in the end, absolute, inside the container


@dataclass(frozen=True)
class Progress:
    """One step of a long operation, as Docker's JSON message streams show it."""

    status: str
    id: str = ""
    current: int = 0
    total: int = 0


ProgressSink = Callable[[Progress], None]


class InterfaceUsage(NamedTuple):
    """The counters of one network interface."""

    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


@dataclass(frozen=True)
class Stats:
    """What a container uses at one moment; all zero for one that does not run."""

    time: int = 0
    usage: Usage = field(default_factory=Usage)
    system_time: int = 0  # ns that all processors have spent, idle time included
    processors: int = 0
    memory_limit: int = 0  # its own, else the host's memory
    interfaces: dict[str, InterfaceUsage] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """``type`` container, image, volume, daemon; ``action`` create, start, die, ... (Docker's names)."""

    type: str
    action: str
    id: str
    attributes: dict[str, str]
    time: int
