from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dockerd_py.dbus.streams import read_all, write_log
from dockerd_py.engine.model import STDERR, STDOUT, LogRecord
from dockerd_py.errors import BadArchive, BadParameter


async def _read(fd: int, gone: asyncio.Event | None = None) -> bytes:
    return b"".join([piece async for piece in read_all(fd, gone or asyncio.Event())])


async def _batches(*batches: list[LogRecord]) -> AsyncIterator[list[LogRecord]]:
    for batch in batches:
        yield batch


def _is_closed(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return True
    return False


def test_an_archive_comes_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"x" * 1_000_000)
    fd = os.open(path, os.O_RDONLY)
    assert asyncio.run(_read(fd)) == b"x" * 1_000_000
    assert _is_closed(fd)


def test_an_archive_comes_from_a_pipe_that_is_filled_meanwhile() -> None:
    async def scenario() -> bytes:
        reading, writing = os.pipe()
        result = asyncio.create_task(_read(reading))
        for _ in range(10):
            os.write(writing, b"y" * 1000)
            await asyncio.sleep(0.01)
        assert not result.done()
        os.close(writing)
        return await asyncio.wait_for(result, 5)

    assert asyncio.run(scenario()) == b"y" * 10_000


def test_an_archive_comes_from_a_socket() -> None:
    async def scenario() -> bytes:
        ours, theirs = socket.socketpair()
        result = asyncio.create_task(_read(theirs.detach()))
        await asyncio.sleep(0.05)
        ours.sendall(b"z" * 5000)
        ours.close()
        return await asyncio.wait_for(result, 5)

    assert asyncio.run(scenario()) == b"z" * 5000


def test_the_callers_end_of_a_pipe_keeps_its_flags() -> None:
    async def scenario() -> None:
        reading, writing = os.pipe()
        theirs = os.dup(reading)
        result = asyncio.create_task(_read(reading))
        await asyncio.sleep(0.05)
        assert os.get_blocking(theirs)
        os.close(writing)
        await asyncio.wait_for(result, 5)
        os.close(theirs)

    asyncio.run(scenario())


def test_a_device_is_no_archive() -> None:
    fd = os.open("/dev/zero", os.O_RDONLY)
    with pytest.raises(BadParameter, match="a file, a pipe or a socket"):
        asyncio.run(_read(fd))
    assert _is_closed(fd)


def test_reading_ends_when_the_caller_has_gone() -> None:
    async def scenario() -> None:
        reading, writing = os.pipe()
        gone = asyncio.Event()
        result = asyncio.create_task(_read(reading, gone))
        await asyncio.sleep(0.05)
        gone.set()
        with pytest.raises(BadArchive, match="went away"):
            await asyncio.wait_for(result, 5)
        os.close(writing)

    asyncio.run(scenario())


def test_a_log_is_written_as_it_is() -> None:
    async def scenario() -> bytes:
        reading, writing = os.pipe()
        records = [LogRecord(STDOUT, 1, b"one\n"), LogRecord(STDERR, 2, b"\xff\x00"), LogRecord(STDOUT, 3, b"two")]
        await write_log(os.fdopen(writing, "wb", buffering=0), _batches(records[:2], records[2:]), timestamps=False)
        with os.fdopen(reading, "rb") as pipe:
            return pipe.read()

    assert asyncio.run(scenario()) == b"one\n\xff\x00two"


def test_times_stand_at_the_beginning_of_lines_only() -> None:
    async def scenario() -> bytes:
        reading, writing = os.pipe()
        pieces = [LogRecord(STDOUT, 1_500_000_000_000_000_001, b"a", partial=True), LogRecord(STDOUT, 2, b"b\n")]
        await write_log(os.fdopen(writing, "wb", buffering=0), _batches(pieces), timestamps=True)
        with os.fdopen(reading, "rb") as pipe:
            return pipe.read()

    assert asyncio.run(scenario()) == b"2017-07-14T02:40:00.000000001Z ab\n"


def test_a_slow_reader_holds_up_its_own_log_and_nothing_else() -> None:
    produced = 0

    async def flood() -> AsyncIterator[list[LogRecord]]:
        nonlocal produced
        while True:
            produced += 1
            yield [LogRecord(STDOUT, 0, b"x" * 10_000)]
            await asyncio.sleep(0)

    async def scenario() -> None:
        reading, writing = os.pipe()
        task = asyncio.create_task(write_log(os.fdopen(writing, "wb", buffering=0), flood(), timestamps=False))
        started = asyncio.get_running_loop().time()
        await asyncio.sleep(0.3)
        assert asyncio.get_running_loop().time() - started < 1
        assert produced < 100, "it goes on reading the log though nobody takes it"
        before = produced
        for _ in range(5):
            os.read(reading, 1 << 20)
            await asyncio.sleep(0.02)
        assert produced > before
        os.close(reading)
        await asyncio.wait_for(task, 5)
        assert _is_closed(writing)

    asyncio.run(scenario())


def test_a_quiet_log_ends_when_its_reader_leaves() -> None:
    finished = False

    async def quiet() -> AsyncIterator[list[LogRecord]]:
        nonlocal finished
        try:
            yield [LogRecord(STDOUT, 0, b"first\n")]
            await asyncio.Event().wait()
        finally:
            finished = True

    async def scenario() -> None:
        reading, writing = os.pipe()
        task = asyncio.create_task(write_log(os.fdopen(writing, "wb", buffering=0), quiet(), timestamps=False))
        await asyncio.sleep(0.1)
        os.close(reading)
        await asyncio.wait_for(task, 5)

    asyncio.run(scenario())
    assert finished


def test_a_log_whose_caller_is_given_up_is_closed() -> None:
    async def quiet() -> AsyncIterator[list[LogRecord]]:
        yield [LogRecord(STDOUT, 0, b"x" * 1_000_000)]

    async def scenario() -> None:
        reading, writing = os.pipe()
        task = asyncio.create_task(write_log(os.fdopen(writing, "wb", buffering=0), quiet(), timestamps=False))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.05)
        assert _is_closed(writing)
        os.close(reading)

    asyncio.run(scenario())
