"""Reading json-file logs back: offsets, tails, and what a crash may have torn."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from dockerd_py.engine.jsonlog import JsonLog, Place
from dockerd_py.engine.model import STDERR, STDOUT, LogRecord
from dockerd_py.monitor.logfile import JsonFileWriter

WHEN = 1_700_000_000_123_456_789
BOTH = frozenset({STDOUT, STDERR})


def write(path: Path, *entries: tuple[int, bytes, bool]) -> None:
    writer = JsonFileWriter(str(path))
    for number, (stream, data, ended) in enumerate(entries):
        writer.add(stream, WHEN + number, number + 1, [(data, ended)])
    assert writer.flush()
    writer.close()


def read(path: Path, start: Place | None = None, end: Place | None = None) -> list[LogRecord]:
    with contextlib.closing(JsonLog(path)) as log:
        return [record for batch in log.read(start, end) for record in batch]


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    write(tmp_path / "log", (1, b"out", True), (2, b'e"\\r\x00\xff', True), (1, b"", True), (1, b"end", False))
    assert read(tmp_path / "log") == [
        LogRecord(STDOUT, WHEN, b"out\n", False),
        LogRecord(STDERR, WHEN + 1, b'e"\\r\x00\xff\n', False),
        LogRecord(STDOUT, WHEN + 2, b"\n", False),
        LogRecord(STDOUT, WHEN + 3, b"end", True),
    ]


def test_a_torn_line_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "log", (1, b"one", True))
    with (tmp_path / "log").open("ab") as file:
        file.write(b'{"log":"to\n\n')
    write(tmp_path / "log", (1, b"two", True))
    assert [record.data for record in read(tmp_path / "log")] == [b"one\n", b"two\n"]


def test_a_missing_file_is_an_empty_log(tmp_path: Path) -> None:
    assert read(tmp_path / "nothing") == []
    assert tail(tmp_path / "nothing", 5) == []


def tail(path: Path, count: int, streams: frozenset[int] = BOTH) -> list[bytes]:
    with contextlib.closing(JsonLog(path)) as log:
        batches = list(log.read(log.tail(None, count, streams), None))
    return [record.data for batch in batches for record in batch if record.stream in streams]


@pytest.mark.parametrize("count", [0, 1, 2, 7, 5000, 9999, 10000, 20000])
def test_the_tail_is_the_last_lines(tmp_path: Path, count: int) -> None:
    lines = [b"%d " % number + b"x" * (number % 90) for number in range(10000)]
    write(tmp_path / "log", *((1, line, True) for line in lines))
    assert tail(tmp_path / "log", count) == [line + b"\n" for line in lines][len(lines) - min(count, len(lines)) :]


def test_the_tail_counts_only_the_streams_that_are_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "log", (2, b"e1", True), (1, b"o1", True), (2, b"e2", True), (1, b"o2", True), (1, b"o3", True))
    assert tail(tmp_path / "log", 2, frozenset({STDERR})) == [b"e1\n", b"e2\n"]
    assert tail(tmp_path / "log", 2, frozenset({STDOUT})) == [b"o2\n", b"o3\n"]


def test_the_pieces_of_a_long_line_are_one_line_of_the_tail(tmp_path: Path) -> None:
    write(tmp_path / "log", (1, b"a", True), (1, b"p1", False), (1, b"p2", False), (1, b"p3", True), (1, b"z", True))
    assert tail(tmp_path / "log", 2) == [b"p1", b"p2", b"p3\n", b"z\n"]
    assert tail(tmp_path / "log", 1) == [b"z\n"]


def test_an_unfinished_last_line_counts(tmp_path: Path) -> None:
    write(tmp_path / "log", (1, b"a", True), (1, b"b", True), (1, b"unfinished", False))
    assert tail(tmp_path / "log", 1) == [b"unfinished"]
    assert tail(tmp_path / "log", 2) == [b"b\n", b"unfinished"]
