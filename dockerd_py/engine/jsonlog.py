"""Reading a log of the json-file form, as `dockerd_py.monitor.logfile.JsonFileWriter` writes it.

Everything here blocks, and is called in a thread.
"""

from __future__ import annotations

import calendar
import functools
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from dockerd_py.engine.model import STDERR, STDOUT, LogRecord

BLOCK = 256 * 1024

_STREAMS = {"stdout": STDOUT, "stderr": STDERR}


class Place(NamedTuple):
    """A place between two records: in which file (its inode number) and behind how many bytes of it."""

    file: int
    offset: int


class JsonLog:
    """The files of one log, opened together, so that a rotation meanwhile takes nothing away.

    ``path`` is the newest one, ``path.1`` was full before it, and so on.
    """

    def __init__(self, path: Path) -> None:
        self._files: list[tuple[int, IO[bytes]]] = []  # the oldest one first
        number = 0
        # From the newest to the oldest: a rotation in between shows one twice, but never skips one.
        while True:
            try:
                file = open(f"{path}.{number}" if number else path, "rb")  # noqa: SIM115 - closed by `close`
            except FileNotFoundError:
                if number or not Path(f"{path}.1").exists():
                    break
                number += 1  # the newest one is being replaced
                continue
            inode = os.fstat(file.fileno()).st_ino
            if self._files and self._files[0][0] == inode:
                file.close()
            else:
                self._files.insert(0, (inode, file))
            number += 1

    def close(self) -> None:
        for _inode, file in self._files:
            file.close()

    def read(self, start: Place | None, end: Place | None) -> Iterator[list[LogRecord]]:
        """Records between two places (None: the beginning, the end), a block's worth at a time.

        A start in a file that is gone is the beginning of what there is.  A line that is torn (the host went down
        while it was written) is passed over.
        """
        inodes = [inode for inode, _file in self._files]
        begun = start is None or start.file not in inodes
        for inode, file in self._files:
            offset = 0
            if not begun:
                assert start is not None
                if inode != start.file:
                    continue
                begun, offset = True, start.offset
            last = end is not None and inode == end.file
            yield from _read(file, offset, end.offset if last and end is not None else None)
            if last:
                return

    def tail(self, end: Place | None, count: int, streams: frozenset[int]) -> Place | None:
        """Where the last ``count`` lines of ``streams`` begin; the pieces of a long line are one line."""
        inodes = [inode for inode, _file in self._files]
        beyond = end is not None and end.file in inodes
        place: Place | None = None
        for inode, file in reversed(self._files):
            limit: int | None = None
            if beyond and end is not None:
                if inode != end.file:
                    continue
                beyond, limit = False, end.offset
            offset, found = _tail(file, limit, count, streams)
            place = Place(inode, offset)
            count -= found
            if offset or count <= 0:
                break
        return place


def _read(file: IO[bytes], start: int, end: int | None) -> Iterator[list[LogRecord]]:
    file.seek(start)
    left = float("inf") if end is None else end - start
    rest = b""
    while left > 0:
        data = file.read(int(min(BLOCK, left)))
        if not data:
            break
        left -= len(data)
        lines = (rest + data).split(b"\n")
        rest = lines.pop()
        records = _parse_all(lines)
        if records:
            yield records


def _tail(file: IO[bytes], end: int | None, count: int, streams: frozenset[int]) -> tuple[int, int]:
    """(where the last ``count`` lines begin in one file, how many of them it has)."""
    position = os.fstat(file.fileno()).st_size if end is None else end
    if count <= 0:
        return position, 0
    found = 0
    rest = b""
    start = position
    while position > 0:
        size = min(BLOCK, position)
        position -= size
        file.seek(position)
        block = file.read(size) + rest
        lines = block.split(b"\n")
        rest = lines[0] if position else b""
        offset = position + len(block)
        for index in range(len(lines) - 1, 0 if position else -1, -1):
            offset -= len(lines[index]) + (1 if index < len(lines) - 1 else 0)
            record = _parse(lines[index]) if lines[index] else None
            if record is None or record.stream not in streams:
                continue
            if not record.partial or found == 0:
                # a line ends here; if enough have begun behind it, they begin behind it
                if found == count:
                    return start, found
                found += 1
            start = offset
    return (start, found) if found == count else (0, found)


def _parse_all(lines: list[bytes]) -> list[LogRecord]:
    try:
        # one call for all of them is three times as fast; they are almost always sound
        return [_record(entry) for entry in json.loads(b"[" + b",".join(lines) + b"]")]
    except _TORN:
        return [record for line in lines if line and (record := _parse(line))]


def _parse(line: bytes) -> LogRecord | None:
    try:
        return _record(json.loads(line))
    except _TORN:
        return None


_TORN = (ValueError, KeyError, TypeError, AttributeError)


def _record(entry: dict[str, str]) -> LogRecord:
    data = entry["log"].encode("utf-8", "surrogateescape")
    return LogRecord(_STREAMS[entry["stream"]], parse_time(entry["time"]), data, not data.endswith(b"\n"))


@functools.lru_cache(maxsize=64)  # lines that were read together have the same time
def parse_time(text: str) -> int:
    """``2026-01-31T12:00:00.123456789Z`` in ns since the epoch.  Raises ValueError."""
    seconds = calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S"))
    return seconds * 1_000_000_000 + int(text[20:-1].ljust(9, "0"))
