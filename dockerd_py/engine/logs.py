"""A container's log, read back and followed.

History comes from where it is kept (the journal, a file); what is new comes from the monitor, record by record,
without the journal's delay.  The seam is exact: the monitor says after which record it begins to send, and history
is read up to that record.  A reader that is too slow for the monitor is dropped by it, and goes on from the history.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from dockerd_py.engine import jsonlog, logsettings
from dockerd_py.engine.model import STDERR, STDOUT, LogOptions, LogRecord, Status
from dockerd_py.engine.record import Paths, Record
from dockerd_py.errors import NotReadable
from dockerd_py.monitor.clients import FOLLOW
from dockerd_py.runtime.monitors import Monitor, MonitorGone, RequestFailed
from dockerd_py.units.journal import JournalReader, JournalRecord
from dockerd_py.wire import Message

T = TypeVar("T")
LogBatch = list[LogRecord]

JOURNAL_LAG = 5.0
"""Seconds that the journal is given to show a record that was sent to it."""

READ_SIZE = 256 * 1024


@dataclass(frozen=True)
class Position:
    """A place between two records."""

    epoch: str = ""  # of the record before it
    ordinal: int = 0  # of the record before it; 0: nothing of this epoch
    place: jsonlog.Place | None = None  # in a file; None: its end
    past: int = 0  # in a file: how many records behind ``place``
    time: int = 0  # records of earlier starts are not later, those behind it not earlier; 0: not known


class Logs:
    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._journal = JournalReader()

    async def read(self, record: Record, options: LogOptions) -> AsyncGenerator[LogBatch, None]:
        """Batches of records, oldest first; with ``follow``, until the container ends for good.

        Raises NotReadable where the log driver keeps nothing.
        """
        if not logsettings.readable(record.log_driver, record.host.log_options):
            raise NotReadable(record.log_driver)
        streams = frozenset(s for s, wanted in ((STDOUT, options.stdout), (STDERR, options.stderr)) if wanted)

        def wanted(batch: list[LogRecord]) -> list[LogRecord]:
            return [
                entry
                for entry in batch
                if entry.stream in streams
                and entry.time >= options.since
                and (not options.until or entry.time <= options.until)
            ]

        start: Position | None = None
        while True:
            seam, follower = await self._seam(record, follow=options.follow)
            async with aclosing(self._history(record, options, streams, start, seam)) as history:
                async for batch in history:
                    if chosen := wanted(batch):
                        yield chosen
            if follower is None:
                if not options.follow or not await _restarted(record, seam.epoch):
                    return
                start = seam
                continue
            followed = _Followed(follower, seam)
            async with aclosing(followed.batches()) as batches:
                async for batch in batches:
                    if chosen := wanted(batch):
                        yield chosen
                    if options.until and batch[-1].time > options.until:
                        return
            if followed.ended and not await _restarted(record, seam.epoch):
                return
            start = followed.position

    async def _seam(self, record: Record, *, follow: bool) -> tuple[Position, socket.socket | None]:
        """Where history ends: where the monitor stands, or the end of what it wrote before it ended."""
        monitor = record.monitor
        if monitor is None:
            return self.end(record), None
        ours: socket.socket | None = None
        theirs: socket.socket | None = None
        if follow:
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
        try:
            fds = () if theirs is None else (theirs.fileno(),)
            reply = await monitor.request("follow" if follow else "position", fds=fds)
        except (MonitorGone, RequestFailed):
            if ours is not None:
                ours.close()
            return await self.end_of(record, monitor), None
        except BaseException:
            if ours is not None:
                ours.close()
            raise
        finally:
            if theirs is not None:
                theirs.close()
        return told(reply), ours

    def end(self, record: Record) -> Position:
        """Where the log of a container without a monitor ends."""
        return self._end(record, record.log_end.epoch, record.log_end.ordinal, record.state.finished_at)

    async def end_of(self, record: Record, monitor: Monitor) -> Position:
        """Where the log ends that a monitor wrote which has gone, or is about to go."""
        end = await asyncio.shield(monitor.exited)  # others wait for it too
        if end is None:
            return self._end(record, record.log_end.epoch, 0, 0)
        return self._end(record, end.epoch, end.ordinal, end.finished_at)

    def _end(self, record: Record, epoch: str, ordinal: int, time: int) -> Position:
        if record.log_driver == "journald":
            return Position(epoch, ordinal, time=time)
        path = self._paths.log_file(record.id, record.log_driver)
        try:
            status = path.stat()
        except FileNotFoundError:
            return Position(epoch, ordinal, jsonlog.Place(0, 0), time=time)
        return Position(epoch, ordinal, jsonlog.Place(status.st_ino, status.st_size), time=time)

    def between(
        self, record: Record, streams: frozenset[int], start: Position | None, end: Position
    ) -> AsyncGenerator[LogBatch, None]:
        """What stands in the log between two positions (``start`` None: from its beginning); to be closed.

        Records of other streams may be among it.
        """
        return self._history(record, LogOptions(), streams, start, end)

    async def _history(
        self, record: Record, options: LogOptions, streams: frozenset[int], start: Position | None, end: Position
    ) -> AsyncGenerator[LogBatch, None]:
        """What stands in the log between two positions (``start`` None: from its beginning, or its tail)."""
        if record.log_driver == "journald":
            async for found in self._journal_history(record, options, streams, start, end):
                yield [LogRecord(one.stream, one.time, one.data, one.partial) for one in found]
            return
        path = self._paths.log_file(record.id, record.log_driver)

        def entries() -> Iterator[list[LogRecord]]:
            with contextlib.closing(jsonlog.JsonLog(path)) as files:
                begin = None if start is None else start.place
                if start is None and options.tail is not None:
                    begin = files.tail(end.place, options.tail, streams)
                yield from files.read(begin, end.place)

        skip = 0 if start is None else start.past
        async for batch in _in_thread(entries):
            if skip < len(batch):
                yield batch[skip:]
            skip = max(0, skip - len(batch))

    async def _journal_history(
        self, record: Record, options: LogOptions, streams: frozenset[int], start: Position | None, end: Position
    ) -> AsyncGenerator[list[JournalRecord], None]:
        if end.ordinal:
            await asyncio.to_thread(self._journal.wait_for, record.id, end.epoch, end.ordinal, JOURNAL_LAG)
        source = self._journal.records(
            record.id,
            since=options.since if start is None else start.time,
            until=options.until,
            tail=options.tail if start is None else None,
            streams=streams,
        )
        async with aclosing(source):
            async for batch in source:
                if start is not None:
                    batch = [one for one in batch if one.epoch != start.epoch or one.ordinal > start.ordinal]
                before = [one for one in batch if one.epoch != end.epoch or one.ordinal <= end.ordinal]
                if before:
                    yield before
                if len(before) < len(batch):
                    return


class _Followed:
    """What a monitor sends to one follower."""

    def __init__(self, sock: socket.socket, position: Position) -> None:
        self._sock = sock
        self.position = position
        self.ended = False

    async def batches(self) -> AsyncGenerator[LogBatch, None]:
        """Batches until the container ends (`ended`), or the monitor lets go of this follower."""
        loop = asyncio.get_running_loop()
        rest = b""
        try:
            while not self.ended:
                try:
                    data = await loop.sock_recv(self._sock, READ_SIZE)
                except ConnectionError:
                    return
                if not data:
                    return
                batch, rest = self._parse(rest + data)
                if batch:
                    yield batch
        finally:
            self._sock.close()

    def _parse(self, data: bytes) -> tuple[list[LogRecord], bytes]:
        batch: list[LogRecord] = []
        at = 0
        while len(data) - at >= FOLLOW.size:
            stream, ended, length, when, _ordinal = FOLLOW.unpack_from(data, at)
            if stream == 0:
                self.ended = True
                break
            begin = at + FOLLOW.size
            if len(data) - begin < length:
                break
            at = begin + length
            payload = data[begin:at]
            batch.append(LogRecord(stream, when, payload + b"\n" if ended else payload, not ended))
        if batch:
            self.position = replace(
                self.position,
                ordinal=self.position.ordinal + len(batch),
                past=self.position.past + len(batch),
                time=batch[-1].time,
            )
        return batch, data[at:]


def told(reply: Message) -> Position:
    """The position in a monitor's answer."""
    return Position(reply["epoch"], reply["ordinal"], _place(reply["mark"]), time=reply.get("time", 0))


def _place(mark: dict[str, int]) -> jsonlog.Place | None:
    return jsonlog.Place(mark["file"], mark["offset"]) if "file" in mark else None


async def _restarted(record: Record, epoch: str) -> bool:
    """After the end of the start that ``epoch`` names: whether the container's restart policy has started it again."""
    if record.log_end.epoch != epoch:
        return record.state.running
    if (monitor := record.monitor) is not None and record.state.running:
        await asyncio.shield(monitor.exited)  # others wait for it too
    async with record.lock:  # whoever writes down the end holds it
        if record.state.status is not Status.RESTARTING:
            return record.state.running
        restarted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        record.at_restart.append(restarted)
    return await restarted


async def _in_thread(make: Callable[[], Iterator[T]]) -> AsyncGenerator[T, None]:
    """The items of a blocking iterator, each produced in a thread while the one before is consumed."""
    loop = asyncio.get_running_loop()
    done = object()
    iterator = await loop.run_in_executor(None, make)
    step: asyncio.Future[Any] | None = None
    try:
        while True:
            step = loop.run_in_executor(None, next, iterator, done)
            if (item := await asyncio.shield(step)) is done:
                return
            yield item
    finally:
        if step is not None:
            await asyncio.wait([step])  # a generator that runs in its thread cannot be closed
        close = getattr(iterator, "close", None)
        if close is not None:
            await loop.run_in_executor(None, close)
