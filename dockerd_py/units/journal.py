"""Containers' logs as the journal holds them: complete records, in order, fast, and safe from forgery.

Only records that root's processes sent are taken (``_UID=0``, which journald fills in itself), so that no container
and no user can put a line into another's log.  Nothing is cut short, whatever a message's length.  A reader sees
what the journal held when it was opened, across rotated files; live output is broadcast by the monitor, and the
journal lags behind it: `JournalReader.wait_for` bridges the two.

Fields: systemd.journal-fields(7) and Docker's journald driver; CONTAINER_LOG_EPOCH names one run of a container,
CONTAINER_LOG_ORDINAL counts its records from 1.
"""

from __future__ import annotations

import asyncio
import calendar
import contextlib
import errno
import time
from collections.abc import AsyncGenerator, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from dockerd_py.errors import PydockerdError

STDOUT, STDERR = 1, 2
BATCH = 512  # records
SECOND = 1_000_000_000
SEEK_MARGIN = 5 * SECOND  # a record's time is the monitor's, its place in the journal is journald's
UNTIL_MARGIN = 2 * SECOND  # how much later a record may be before nothing earlier is expected to follow
OPEN_LINE_REACH = 2_000  # records that a tail looks further back for the rest of a long line
REOPEN_EVERY = 0.25  # seconds; a rotation makes files that an open reader does not see

_PRIORITY = {STDOUT: b"6", STDERR: b"3"}


@dataclass(frozen=True, slots=True)
class JournalRecord:
    """One line, or one piece of a long one: then ``partial`` is set and ``data`` has no newline at its end."""

    stream: int  # 1 stdout, 2 stderr
    time: int  # nanoseconds since the epoch
    data: bytes
    partial: bool
    epoch: str
    ordinal: int


class JournalReader:
    """Reads containers' logs from the system's journal, or from the files in ``directory``.

    Holds nothing open between calls, so any number of threads may use one.
    """

    def __init__(self, directory: str | None = None) -> None:
        self._directory = directory

    def read(
        self,
        container_id: str,
        *,
        since: int = 0,
        until: int = 0,
        tail: int | None = None,
        streams: Collection[int] = (STDOUT, STDERR),
    ) -> Iterator[list[JournalRecord]]:
        """A container's records in batches, oldest first.  Blocks: iterate it in a thread.

        ``since`` and ``until`` are nanoseconds since the epoch, both included, 0 for none; ``tail`` counts lines,
        back from ``until``.  Raises PydockerdError when the journal cannot be read.
        """
        if tail == 0 or not streams:
            return
        with _errors(), contextlib.closing(self._open(container_id, streams)) as reader:
            if tail is None:
                if since:
                    reader.seek_realtime(max(0, since - SEEK_MARGIN) // 1000)
                else:
                    reader.seek_head()
                yield from _forward(reader, since, until, {}, at_record=False)
            else:
                first = _walk_back(reader, since, until, tail)
                if first:
                    yield from _forward(reader, since, until, first, at_record=True)

    async def records(
        self,
        container_id: str,
        *,
        since: int = 0,
        until: int = 0,
        tail: int | None = None,
        streams: Collection[int] = (STDOUT, STDERR),
    ) -> AsyncGenerator[list[JournalRecord], None]:
        """`read`, off the event loop.  Closes the journal also when it is left before its end."""
        batches = self.read(container_id, since=since, until=until, tail=tail, streams=streams)
        pending: asyncio.Future[list[JournalRecord] | None] | None = None
        try:
            while True:
                pending = asyncio.ensure_future(asyncio.to_thread(next, batches, None))
                batch = await asyncio.shield(pending)
                if batch is None:
                    return
                yield batch
        finally:
            if pending is not None and not pending.done():
                await asyncio.wait([pending])  # a generator that runs cannot be closed
            await asyncio.to_thread(batches.close)  # type: ignore[attr-defined]

    def wait_for(self, container_id: str, epoch: str, ordinal: int, timeout: float) -> bool:
        """Block until the journal holds this record; False when it does not within ``timeout`` seconds.

        A reader opened afterwards sees it.
        """
        deadline = time.monotonic() + timeout
        matches = (f"CONTAINER_LOG_EPOCH={epoch}", f"CONTAINER_LOG_ORDINAL={ordinal}")
        pause = 0.002
        while True:
            with _errors(), contextlib.closing(self._open(container_id, (STDOUT, STDERR), *matches)) as reader:
                reopen = time.monotonic() + REOPEN_EVERY
                while time.monotonic() < reopen:
                    reader.seek_tail()
                    if reader._previous():
                        return True
                    if time.monotonic() > deadline:
                        return False
                    time.sleep(pause)
                    pause = min(pause * 2, 0.02)

    def _open(self, container_id: str, streams: Collection[int], *matches: str) -> Any:
        from systemd._reader import LOCAL_ONLY, _Reader  # noqa: PLC0415 - the daemon also runs without it

        reader = _Reader(flags=0, path=self._directory) if self._directory else _Reader(flags=LOCAL_ONLY)
        try:
            reader.data_threshold = 0
            reader.add_match(f"CONTAINER_ID_FULL={container_id}")
            reader.add_match("_UID=0")
            if len(set(streams)) == 1:
                (stream,) = set(streams)
                reader.add_match(f"PRIORITY={_PRIORITY[stream].decode()}")
            for match in matches:
                reader.add_match(match)
        except BaseException:
            reader.close()
            raise
        return reader


def _forward(
    reader: Any, since: int, until: int, first: dict[int, tuple[str, int]], *, at_record: bool
) -> Iterator[list[JournalRecord]]:
    """Batches from where ``reader`` stands.  ``first``: the record that each stream starts with (a tail's); a
    stream that is not in it gives nothing until then, unless ``first`` is empty."""
    waiting = dict(first)
    present = set(first)
    batch: list[JournalRecord] = []
    while at_record or reader._next():
        at_record = False
        record = _record(reader)
        if record is None or record.time < since:
            continue
        if until and record.time > until:
            if record.time > until + UNTIL_MARGIN:
                break
            continue
        if waiting:
            if waiting.get(record.stream) == (record.epoch, record.ordinal):
                del waiting[record.stream]
            elif record.stream in waiting or record.stream not in present:
                continue
        batch.append(record)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _walk_back(reader: Any, since: int, until: int, tail: int) -> dict[int, tuple[str, int]]:
    """Go back ``tail`` lines from the end and return each stream's first record of them; empty: no line at all.

    The reader stands on the earliest of them then.
    """
    if until:
        reader.seek_realtime((until + UNTIL_MARGIN + SEEK_MARGIN) // 1000)
    else:
        reader.seek_tail()
    first: dict[int, tuple[str, int]] = {}
    latest: dict[int, str] = {}  # the epoch of each stream's line that is being gathered
    closed: set[int] = set()  # streams whose lines all begin later than where we are
    lines = steps = wanted = beyond = 0
    while reader._previous():
        steps += 1
        record = _record(reader)
        if record is None or (until and record.time > until):
            continue
        if record.time < since:
            break
        stream = record.stream
        counts = not record.partial or latest.get(stream) != record.epoch
        if lines == tail and counts:
            closed.add(stream)
        if lines == tail:
            beyond += 1
            if closed >= first.keys() or beyond > OPEN_LINE_REACH:
                break
        if stream in closed:
            continue
        lines += counts
        latest[stream] = record.epoch
        first[stream] = (record.epoch, record.ordinal)
        wanted = steps
    else:
        reader.seek_head()  # ran off the beginning: the first record from there is step number `steps`
        if first:
            reader._next(steps - wanted + 1)
        return first
    if steps > wanted and first:
        reader._next(steps - wanted)
    return first


def _record(reader: Any) -> JournalRecord | None:
    """The record at which ``reader`` stands; None when it is not a log line of the container's.

    All fields at once: one by one, a compressed message would be decompressed again for each field behind it.
    """
    fields = reader._get_all()
    try:
        partial = fields.get("CONTAINER_PARTIAL_MESSAGE") == b"true"
        message = fields["MESSAGE"]
        return JournalRecord(
            STDERR if fields["PRIORITY"] == _PRIORITY[STDERR] else STDOUT,
            parse_time(fields["SYSLOG_TIMESTAMP"]),
            message if partial else message + b"\n",
            partial,
            fields["CONTAINER_LOG_EPOCH"].decode(),
            int(fields["CONTAINER_LOG_ORDINAL"]),
        )
    except (KeyError, ValueError, TypeError, AttributeError):  # a field is missing, malformed or there twice
        return None


_seconds: dict[bytes, int] = {}


def parse_time(text: bytes) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time in UTC ("2014-01-01T00:00:00.123456789Z").

    Raises ValueError.
    """
    head, tail = text[:19], text[19:]
    seconds = _seconds.get(head)
    if seconds is None:
        if len(_seconds) > 4096:
            _seconds.clear()
        seconds = _seconds[head] = calendar.timegm(time.strptime(head.decode("ascii"), "%Y-%m-%dT%H:%M:%S"))
    if tail == b"Z":
        return seconds * SECOND
    if tail[:1] != b"." or tail[-1:] != b"Z" or not tail[1:-1].isdigit() or len(tail) > 11:
        raise ValueError(f"not a time in UTC: {text!r}")
    return seconds * SECOND + int(tail[1:-1].ljust(9, b"0"))


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise PydockerdError(f"the journal cannot be read: {error}; install python3-systemd") from error
    except OSError as error:
        hint = "; run journalctl --verify" if error.errno in (errno.EBADMSG, errno.EPROTONOSUPPORT) else ""
        raise PydockerdError(f"the journal cannot be read: {error.strerror}{hint}") from error
