"""Attach with the log first: what a container has written, and then what it writes, with nothing lost between them,
nothing twice, and each stream in its order.

The daemon writes the log to the client's connection itself.  As a long log takes its time, and the container goes on
writing, it does so in rounds, each up to where the log stands by then, at the client's pace and without any hold on the
container.  Before the last round the monitor gets the connection, held: it keeps what the container writes from then
on, says where the log stands, and sends what it keeps once that has been written, too.  Meanwhile the rule for slow
clients is the same as later: one that reads nothing for a second is let go.  When the daemon dies, the monitor lets go
of the client, whose connection ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace

from dockerd_py.engine import attach
from dockerd_py.engine.logs import LogBatch, Logs, Position, told
from dockerd_py.engine.model import STDERR, AttachOptions
from dockerd_py.engine.record import Record
from dockerd_py.errors import NotSupported, PydockerdError
from dockerd_py.monitor.clients import FRAME, STALL_SECONDS, hang_up
from dockerd_py.runtime.monitors import Monitor, MonitorGone, RequestFailed

log = logging.getLogger(__name__)

ROUNDS = 8
LAST_ROUND = 256 * 1024
"""Bytes of the log that a round may bring for the next one to be the last."""


class Replay:
    def __init__(
        self, logs: Logs, record: Record, monitor: Monitor | None, options: AttachOptions, fd: int, early: bytes
    ) -> None:
        """monitor: None to end with the log.  Owns ``fd``; the rest is as for `Containers.attach`."""
        self._logs = logs
        self._record = record
        self._monitor = monitor
        self._options = options
        self._framed = options.multiplexed and not record.config.tty
        self._streams = attach.streams(options)
        self._connection = socket.socket(fileno=fd)
        self._early = early
        self._at: Position | None = None  # where the client is in the log

    async def run(self) -> None:
        """To the log's end, or until the monitor sends the rest; what fails is told on the connection."""
        self._connection.setblocking(False)
        with self._connection:
            try:
                await self._run()
            except (ConnectionError, asyncio.TimeoutError) as error:
                log.debug("%s: a client was lost while it was sent the log: %s", self._record.name, error)
            except PydockerdError as error:
                log.warning("attach to %s: %s", self._record.name, error)
                with contextlib.suppress(ConnectionError, asyncio.TimeoutError):
                    await self._send(self._spell(STDERR, f"Error: {error}\n".encode()), STALL_SECONDS)

    async def _run(self) -> None:
        if self._monitor is None:
            await self._bring_to(self._logs.end(self._record))
            hang_up(self._connection)
            return
        try:
            for _ in range(ROUNDS):
                if await self._bring_to(told(await self._monitor.request("position"))) <= LAST_ROUND:
                    break
            with _pipe() as (hold, release):
                reply = await attach.hand_over_held(
                    self._record, self._monitor, self._options, self._connection.fileno(), self._early, hold
                )
                await self._bring_to(told(reply), STALL_SECONDS)
                os.write(release, b"\n")
        except MonitorGone:
            await self._bring_to(await self._logs.end_of(self._record, self._monitor))
            hang_up(self._connection)
        except RequestFailed as error:
            raise NotSupported(
                f"container {self._record.name} was started by an older version, which cannot send the log and go on: "
                "restart it, or ask for the log alone"
            ) from error

    async def _bring_to(self, end: Position, patience: float | None = None) -> int:
        """Send what of the log stands between where the client is and ``end``; how many bytes.

        patience: seconds that the client may read nothing for.  Raises ConnectionError, asyncio.TimeoutError.
        """
        sent = last = 0
        async with aclosing(self._logs.between(self._record, self._streams, self._at, end)) as batches:
            async for batch in batches:
                data = self._encode(batch)
                last = batch[-1].time
                sent += len(data)
                await self._send(data, patience)
        self._at = replace(end, time=end.time or last)
        return sent

    def _encode(self, batch: LogBatch) -> bytes:
        chosen = [record for record in batch if record.stream in self._streams]
        if not self._framed:
            return b"".join([record.data for record in chosen])
        return b"".join([self._spell(record.stream, record.data) for record in chosen])

    def _spell(self, stream: int, data: bytes) -> bytes:
        return FRAME.pack(stream, len(data)) + data if self._framed else data

    async def _send(self, data: bytes, patience: float | None) -> None:
        left = memoryview(data)
        while left:
            try:
                left = left[self._connection.send(left, socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                await asyncio.wait_for(_writable(self._connection), patience)


async def _writable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(connection.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(connection.fileno())


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    """(the end to read from, the end to write to)."""
    ends = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)
