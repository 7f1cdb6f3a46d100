"""Whoever is cancelled while it waits stays cancelled, even in the moment in which what it waits for comes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from dockerd_py import wire
from dockerd_py.engine.events import EventLog
from dockerd_py.engine.model import Event
from dockerd_py.runtime.monitors import Monitor

FAR = 1 << 62


async def ends_or_stays_cancelled(work: Awaitable[object], arrive: Callable[[], object], steps: int) -> None:
    """Cancel ``work`` some steps of the loop after what it waits for has come."""
    task = asyncio.ensure_future(work)
    for _ in range(5):
        await asyncio.sleep(0)
    arrive()
    for _ in range(steps):
        await asyncio.sleep(0)
    if task.cancel():
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("steps", range(6))
@pytest.mark.parametrize("until", [0, FAR])
def test_a_listener_that_is_cancelled_when_an_event_comes(steps: int, until: int) -> None:
    async def main() -> None:
        log = EventLog()
        source = log.subscribe(until=until)

        async def following() -> Event:
            return await anext(source)

        await ends_or_stays_cancelled(following(), lambda: log.publish("container", "die", "c", {}), steps)
        await source.aclose()
        assert log.listeners == 0

    asyncio.run(main())


@pytest.mark.parametrize("steps", range(6))
def test_a_request_that_is_cancelled_when_its_reply_comes(steps: int) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        monitor = Monitor(ours)
        with theirs:
            await ends_or_stays_cancelled(monitor.request("x"), lambda: wire.send(theirs, {"seq": 1}, ()), steps)
            monitor.close()

    asyncio.run(main())


def test_a_request_that_is_not_answered_in_time_is_given_up() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        monitor = Monitor(ours)
        with theirs:
            with pytest.raises(asyncio.TimeoutError):
                await monitor.request("x", timeout=0.01)
            monitor.close()

    asyncio.run(main())
