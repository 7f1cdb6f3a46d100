"""An exec as the engine holds it in memory."""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass, field

from dockerd_py.engine.model import Exec, ExecConfig, Status
from dockerd_py.engine.record import Record
from dockerd_py.errors import Conflict, NotRunning
from dockerd_py.wire import Message


class Phase(enum.Enum):
    CREATED = enum.auto()
    STARTING = enum.auto()
    RUNNING = enum.auto()
    EXITED = enum.auto()


@dataclass
class ExecState:
    id: str
    record: Record
    config: ExecConfig
    prepared: asyncio.Future[None] | None = None  # None: it was started by an earlier daemon
    phase: Phase = Phase.CREATED
    pid: int = 0
    exit_code: int | None = None
    ended_at: float = 0.0  # on the monotonic clock
    early_end: Message | None = None  # the monitor was quicker to tell of the end than of the start
    begun: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def command(self) -> str:
        return " ".join(self.config.cmd)


def check_container(record: Record) -> None:
    """Raises NotRunning, Conflict."""
    if not record.state.running:
        raise NotRunning(f"Container {record.id} is not running")
    if record.state.status is Status.PAUSED:
        raise Conflict(f"Container {record.id} is paused, unpause the container before exec")


def snapshot(one: ExecState) -> Exec:
    return Exec(
        id=one.id,
        container_id=one.record.id,
        config=one.config,
        running=one.phase is Phase.RUNNING,
        exit_code=one.exit_code,
        pid=one.pid,
    )
