"""Bytes over file descriptors that callers give and get, without ever waiting for a caller.

A slow reader of a log holds up its own stream only, and what a caller hands in is read without blocking the loop
even when another holder of the same pipe or socket takes the bytes away in between.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import socket
import stat
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import IO

from dockerd_py.dbus.tasks import end
from dockerd_py.engine.model import STDERR, STDOUT, LogRecord
from dockerd_py.errors import BadArchive, BadParameter

_CHUNK = 256 * 1024


async def read_all(fd: int, gone: asyncio.Event) -> AsyncGenerator[bytes, None]:
    """Yield what can be read from ``fd``, a file, a pipe or a socket, up to its end, and close it.

    Raises BadParameter for another kind of descriptor, BadArchive when ``gone`` is set before the end.
    """
    mode = os.fstat(fd).st_mode
    try:
        if stat.S_ISREG(mode):
            while data := await asyncio.to_thread(os.read, fd, _CHUNK):
                _still_wanted(gone)
                yield data
            return
        if stat.S_ISFIFO(mode):
            # Opened anew, so that not to block is our choice alone and does not change the caller's end.
            reopened = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.close(fd)
            fd = reopened
        elif not stat.S_ISSOCK(mode):
            raise BadParameter("An image is read from a file, a pipe or a socket, and the descriptor is none of them")
        while data := await _read_ready(fd, gone, from_socket=stat.S_ISSOCK(mode)):
            yield data
    finally:
        os.close(fd)


async def write_log(pipe: IO[bytes], batches: AsyncIterator[list[LogRecord]], *, timestamps: bool) -> None:
    """Write log records to ``pipe``, an unbuffered one, as fast as its reader takes them, and close it.

    Ends early when the reader closes its end.
    """
    gate = _Gate()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_write_pipe(lambda: gate, pipe)
    pump = asyncio.create_task(_pump(batches, transport, gate, timestamps=timestamps))
    reader_left = asyncio.create_task(gate.closed.wait())
    try:
        await asyncio.wait((pump, reader_left), return_when=asyncio.FIRST_COMPLETED)
        if pump.done():
            transport.close()  # once the rest has gone out
            await reader_left
            pump.result()
    finally:
        if not gate.closed.is_set():
            transport.abort()
        await end((pump, reader_left))


async def _pump(
    batches: AsyncIterator[list[LogRecord]],
    transport: asyncio.WriteTransport,
    gate: _Gate,
    *,
    timestamps: bool,
) -> None:
    begins_line = {STDOUT: True, STDERR: True}
    try:
        async for batch in batches:
            pieces = []
            for record in batch:
                if timestamps and begins_line[record.stream]:
                    pieces.append(_stamp(record.time))
                begins_line[record.stream] = record.data.endswith(b"\n")
                pieces.append(record.data)
            if gate.closed.is_set():
                return
            transport.write(b"".join(pieces))
            await gate.open.wait()
    finally:
        if isinstance(batches, AsyncGenerator):
            await batches.aclose()


class _Gate(asyncio.BaseProtocol):
    """Open while the reader keeps up."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.closed = asyncio.Event()

    def pause_writing(self) -> None:
        self.open.clear()

    def resume_writing(self) -> None:
        self.open.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
        self.open.set()


async def _read_ready(fd: int, gone: asyncio.Event, *, from_socket: bool) -> bytes:
    loop = asyncio.get_running_loop()
    while True:
        _still_wanted(gone)
        with suppress(BlockingIOError, InterruptedError):
            return _receive(fd) if from_socket else os.read(fd, _CHUNK)
        ready = asyncio.Event()
        loop.add_reader(fd, ready.set)
        waits = [asyncio.create_task(each.wait()) for each in (ready, gone)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(fd)
            for each in waits:
                each.cancel()


def _receive(fd: int) -> bytes:
    with socket.socket(fileno=os.dup(fd)) as sock:
        return sock.recv(_CHUNK, socket.MSG_DONTWAIT)


def _still_wanted(gone: asyncio.Event) -> None:
    if gone.is_set():
        raise BadArchive("The caller went away before the whole archive was read")


def _stamp(nanoseconds: int) -> bytes:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z ".encode()
