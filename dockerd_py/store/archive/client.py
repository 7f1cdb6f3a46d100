"""Unpacking from the daemon's side: start the helper, feed it, take its answer."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import dockerd_py
from dockerd_py import subprocesses
from dockerd_py.errors import BadArchive, StoreError
from dockerd_py.store.drivers.base import Whiteouts

log = logging.getLogger(__name__)

_PIPE_SIZE = 1 << 20

# Isolated and without site-packages, which cost three times the start; our own package is found last.
_PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); from dockerd_py.store.archive.unpack import main; "
    "main(sys.argv[2], sys.argv[3], int(sys.argv[4]))"
)
_OUR_PATH = os.fspath(Path(dockerd_py.__file__).parent.parent)


@dataclass(frozen=True)
class Unpacked:
    diff_id: str  # "sha256:<hex>" of the tar, uncompressed, to its last byte
    size: int  # bytes of the regular files
    entries: int


async def unpack(
    source: AsyncIterator[bytes],
    target: Path,
    whiteouts: Whiteouts,
    progress: Callable[[int], None] | None = None,
) -> Unpacked:
    """Unpack the tar that ``source`` yields (plain, gzip, bzip2, xz or zstd) into the directory ``target``.

    ``progress`` is told the number of bytes taken so far.  Raises BadArchive, StoreError, and whatever ``source``
    raises.  On any failure, and when cancelled, the helper is gone and ``target`` is the caller's to throw away.
    """
    with contextlib.ExitStack() as open_fds:
        answer, helper_answer = _pipe(open_fds)
        helper_input, sink = _pipe(open_fds)
        _tune(sink.fileno())
        process = await subprocesses.spawn(
            [sys.executable, "-I", "-S", "-X", "utf8", "-c", _PROGRAM, _OUR_PATH,
             os.fspath(target), whiteouts.value, str(helper_answer.fileno())],
            stdin=helper_input,
            pass_fds=(helper_answer.fileno(),),
        )  # fmt: skip
        helper_answer.close()
        helper_input.close()
        try:
            await _feed(source, sink.fileno(), progress)
            sink.close()
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return _read_answer(answer, process.returncode)


def _pipe(owner: contextlib.ExitStack) -> tuple[FileIO, FileIO]:
    reading, writing = os.pipe()
    return owner.enter_context(FileIO(reading, "rb")), owner.enter_context(FileIO(writing, "wb"))


def _tune(fd: int) -> None:
    os.set_blocking(fd, False)
    # Beyond what an unprivileged user may have in pipes the kernel says no, and the pipe stays as it is.
    with contextlib.suppress(PermissionError):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)


async def _feed(source: AsyncIterator[bytes], fd: int, progress: Callable[[int], None] | None) -> None:
    """Pass all of ``source`` on, or as much as the helper wants: it may have seen enough to say no."""
    taken = 0
    async for data in source:
        if not await _write(fd, data):
            return
        taken += len(data)
        if progress is not None:
            progress(taken)


async def _write(fd: int, data: bytes) -> bool:
    """False when nobody reads there any more."""
    loop = asyncio.get_running_loop()
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            room = asyncio.Event()
            loop.add_writer(fd, room.set)
            try:
                await room.wait()
            finally:
                loop.remove_writer(fd)
        except BrokenPipeError:
            return False
    return True


def _read_answer(answer: FileIO, returncode: int | None) -> Unpacked:
    text = answer.readall()
    if not text:
        how = f"by signal {-returncode}" if returncode and returncode < 0 else f"with code {returncode}"
        raise StoreError(f"unpacking failed: the helper process ended {how} before it had an answer")
    result: dict[str, Any] = json.loads(text)
    if "error" in result:
        kind = BadArchive if result["kind"] == "archive" else StoreError
        raise kind(f"cannot unpack the archive: {result['error']}")
    if result["lost"]:
        log.warning("extended attributes that cannot be kept: %s", ", ".join(result["lost"]))
    return Unpacked(result["diff_id"], result["size"], result["entries"])
