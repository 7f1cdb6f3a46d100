"""Pause and unpause: a container's processes stand still, and nothing else changes.

The state is written before the processes are frozen or thawed: what a daemon that was killed in between has left is
brought in line with it by the next one's recovery.
"""

from __future__ import annotations

from dockerd_py.engine.events import EventLog
from dockerd_py.engine.lifecycle import Lifecycle
from dockerd_py.engine.model import Status
from dockerd_py.engine.record import Record, with_state
from dockerd_py.errors import Conflict, NotRunning
from dockerd_py.store.tasks import uninterrupted
from dockerd_py.units.base import Units


class Pausing:
    def __init__(self, lifecycle: Lifecycle, units: Units, events: EventLog) -> None:
        self._lifecycle = lifecycle
        self._units = units
        self._events = events

    async def pause(self, record: Record) -> None:
        """Raises Conflict (paused already, restarting), NotRunning, NotSupported, TimedOut."""
        await uninterrupted(self._pause(record))

    async def unpause(self, record: Record) -> None:
        """Raises Conflict when it is not paused."""
        await uninterrupted(self._unpause(record))

    async def _pause(self, record: Record) -> None:
        async with record.lock, record.content_lock:  # a commit freezes and thaws, too
            match record.state.status:
                case Status.PAUSED:
                    raise Conflict(f"Container {record.id} is already paused")
                case Status.RESTARTING:
                    raise Conflict(f"Container {record.id} is restarting, wait until the container is running")
                case Status.RUNNING:
                    pass
                case _:
                    raise NotRunning(f"Container {record.id} is not running")
            await self._become(record, Status.PAUSED)
            try:
                await self._units.freeze(record.scope)
            except BaseException:
                await self._become(record, Status.RUNNING)
                raise
        self._events.publish("container", "pause", record.id, record.attributes())

    async def _unpause(self, record: Record) -> None:
        async with record.lock, record.content_lock:
            if record.state.status is not Status.PAUSED:
                raise Conflict(f"Container {record.id} is not paused")
            await self._become(record, Status.RUNNING)
            await self._units.thaw(record.scope)
        self._events.publish("container", "unpause", record.id, record.attributes())

    async def _become(self, record: Record, status: Status) -> None:
        record.state = with_state(record, status=status)
        self._lifecycle.on_change(record)
        await self._lifecycle.save(record)
