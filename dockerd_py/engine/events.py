"""What happened, kept for a while and told to everybody who listens."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Mapping

from dockerd_py.engine.model import Event

HISTORY = 1024
BACKLOG = 4096
"""How many events a listener may lag behind before it is let go of."""


class EventLog:
    def __init__(self) -> None:
        self._history: deque[Event] = deque(maxlen=HISTORY)
        self._listeners: set[asyncio.Queue[Event | None]] = set()
        self._last_time = 0

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    def publish(self, kind: str, action: str, object_id: str, attributes: Mapping[str, str]) -> None:
        """Times of events are strictly increasing, so that ``since`` never gives one twice."""
        self._last_time = max(time.time_ns(), self._last_time + 1)
        event = Event(kind, action, object_id, dict(attributes), self._last_time)
        self._history.append(event)
        for queue in list(self._listeners):
            if queue.qsize() >= BACKLOG:
                self._listeners.discard(queue)
                queue.put_nowait(None)
            else:
                queue.put_nowait(event)

    async def subscribe(self, *, since: int = 0, until: int = 0) -> AsyncGenerator[Event, None]:
        """Events from ``since`` on (0: from now on, or with ``until`` all that are remembered), to ``until`` (0: for
        ever); both ns since the epoch.

        Nothing is lost between what is remembered and what comes: both are taken in the same moment, which is
        when the first event is asked for.  Ends early for a listener that lags too far behind.
        """
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        past = [event for event in self._history if event.time >= since] if since or until else []
        self._listeners.add(queue)
        # not wait_for: before Python 3.12 it forgets a cancellation that comes in the same moment as an event
        remaining = max(0.0, (until - time.time_ns()) / 1e9)
        end = asyncio.get_running_loop().call_later(remaining, queue.put_nowait, None) if until else None
        try:
            for event in past:
                if until and event.time > until:
                    return
                yield event
            while (upcoming := await queue.get()) is not None and not (until and upcoming.time > until):
                yield upcoming
        finally:
            self._listeners.discard(queue)
            if end is not None:
                end.cancel()

    def close(self) -> None:
        """End every subscription."""
        for queue in self._listeners:
            queue.put_nowait(None)
        self._listeners.clear()
