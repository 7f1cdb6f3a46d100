"""A container as the engine holds it in memory: its row of the database and what it has in hand at run time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import Path

from dockerd_py.config import Config
from dockerd_py.engine.model import STDERR, STDOUT, Container, ContainerConfig, HostConfig, State, WaitResult
from dockerd_py.engine.mount_model import VOLUME, Mount
from dockerd_py.engine.network_model import Attachment, Link
from dockerd_py.runtime.monitors import Monitor

LOG_STREAMS = frozenset({STDOUT, STDERR})


@dataclass(frozen=True)
class LogPosition:
    """Where a log stands after its last line.  ``epoch`` is empty as long as the container never started."""

    epoch: str = ""
    ordinal: int = 0


@dataclass
class Record:
    id: str
    name: str
    image_id: str
    created: int
    config: ContainerConfig
    host: HostConfig
    state: State
    driver: str
    log_driver: str
    path: str
    args: tuple[str, ...]
    runtime: str
    mounts: tuple[Mount, ...] = ()
    log_end: LogPosition = LogPosition()
    cgroup: str = ""
    apparmor: str = ""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    content_lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # held while its files have to stay
    monitor: Monitor | None = None
    exec_ids: list[str] = field(default_factory=list)  # those that have not ended
    removing: bool = False
    gone: bool = False
    stays: bool = False  # its end does not remove it: it is about to be started again
    restart: asyncio.Task[None] | None = None  # its policy's, while it waits
    restart_delay: float = 0.0  # seconds that the last one waited
    at_exit: list[asyncio.Future[WaitResult]] = field(default_factory=list)
    ending: list[asyncio.Future[WaitResult]] | None = None  # who is told when its end is written down
    at_restart: list[asyncio.Future[bool]] = field(default_factory=list)
    at_removal: list[asyncio.Future[WaitResult]] = field(default_factory=list)

    @property
    def scope(self) -> str:
        return f"container-{self.id}.scope"

    @property
    def volumes(self) -> tuple[str, ...]:
        """The names of its volumes."""
        return tuple(dict.fromkeys(mount.name for mount in self.mounts if mount.type == VOLUME))

    @property
    def result(self) -> WaitResult:
        return WaitResult(self.state.exit_code, self.state.error)

    def attributes(self, **more: str) -> dict[str, str]:
        """What an event says of this container."""
        return {**self.config.labels, "image": self.config.image or self.image_id, "name": self.name, **more}

    def begin_end(self) -> None:
        """It has ended, and this is about to be written down: who waits for an exit from now on waits for another."""
        self.ending, self.at_exit = self.at_exit, []

    def settle_exit(self) -> None:
        """Tell those that wait for the end that has just been written down, or else for the next one."""
        waiting = self.at_exit if self.ending is None else self.ending
        for future in waiting:
            if not future.done():
                future.set_result(self.result)
        waiting.clear()
        self.ending = None

    def settle_restart(self, *, started: bool) -> None:
        """The wait for its policy's restart is over, one way or the other."""
        for future in self.at_restart:
            if not future.done():
                future.set_result(started)
        self.at_restart.clear()

    def settle_removal(self) -> None:
        self.settle_exit()
        for future in self.at_removal:
            if not future.done():
                future.set_result(self.result)
        self.at_removal.clear()


class Paths:
    """Where things of a container lie."""

    def __init__(self, config: Config) -> None:
        self.root = config.root
        self.exec_root = config.exec_root
        self.spool = config.root / "spool"
        self.containers = config.root / "containers"
        self.run = config.exec_root / "containers"
        self.runtime_root = config.exec_root / "runtime"

    def directory(self, container_id: str) -> Path:
        """What stays: the log file, hostname, hosts and resolv.conf."""
        return self.containers / container_id

    def run_directory(self, container_id: str) -> Path:
        """What a reboot clears: the bundle, and the monitor's sockets."""
        return self.run / container_id

    def exec_directory(self, container_id: str) -> Path:
        """What its execs need; the name is short, as sockets in it have at most 107 bytes."""
        return self.run / container_id / "x"

    def monitor_socket(self, container_id: str) -> str:
        return str(self.run / container_id / "monitor.sock")

    def log_file(self, container_id: str, driver: str = "json-file") -> Path:
        """Where the lines are, of a driver that has files, or a readable copy in one."""
        return self.containers / container_id / f"{container_id}-{'json' if driver == 'json-file' else 'local'}.log"


def snapshot(
    record: Record,
    paths: Paths,
    attachments: tuple[Attachment, ...] = (),
    link_names: tuple[str, ...] = (),
    links: tuple[Link, ...] = (),
) -> Container:
    """The frozen value that leaves the engine."""
    directory = paths.directory(record.id)
    return Container(
        id=record.id,
        name=record.name,
        image_id=record.image_id,
        created=record.created,
        config=record.config,
        host=record.host,
        state=record.state,
        path=record.path,
        args=record.args,
        driver=record.driver,
        log_driver=record.log_driver,
        log_path=str(paths.log_file(record.id)) if record.log_driver == "json-file" else "",
        runtime=record.runtime,
        scope=record.scope,
        cgroup=record.cgroup,
        mounts=record.mounts,
        hostname_path=str(directory / "hostname"),
        hosts_path=str(directory / "hosts"),
        resolv_conf_path=str(directory / "resolv.conf"),
        exec_ids=tuple(record.exec_ids),
        apparmor=record.apparmor,
        attachments=attachments,
        link_names=link_names,
        links=links,
    )


def with_state(record: Record, **changes: object) -> State:
    return replace(record.state, **changes)  # type: ignore[arg-type]
