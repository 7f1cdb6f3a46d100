"""Unpacking from the daemon's side: start the helper, feed it, take its answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dockerd_py.store.archive import helper
from dockerd_py.store.drivers.base import Whiteouts

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Unpacked:
    diff_id: str  # "sha256:<hex>" of the tar, uncompressed, to its last byte
    size: int  # bytes of the regular files
    entries: int
    taken: int  # bytes of the tar, uncompressed


async def unpack(
    source: AsyncIterator[bytes],
    target: Path,
    whiteouts: Whiteouts,
    progress: Callable[[int], None] | None = None,
    *,
    keep: Path | None = None,
    limit: int = 0,
) -> Unpacked:
    """Unpack the tar that ``source`` yields (plain, gzip, bzip2, xz or zstd) into the directory ``target``.

    ``progress`` is told the number of bytes taken so far.  ``keep`` is a directory, outside of ``target``, for what
    ``outgoing.pack`` needs to write the same tar again.  ``limit`` is the most bytes that the tar may have,
    uncompressed (0: as many as there is room for).  Raises BadArchive, StoreError, and whatever ``source`` raises.
    On any failure, and when cancelled, the helper is gone and ``target`` is the caller's to throw away.
    """
    arguments = [os.fspath(target), whiteouts.value, "" if keep is None else os.fspath(keep), str(limit)]
    result = await feed("unpack", arguments, source, "cannot unpack the archive", progress)
    if result["lost"]:
        log.warning("extended attributes that cannot be kept: %s", ", ".join(result["lost"]))
    return Unpacked(result["diff_id"], result["size"], result["entries"], result["taken"])


async def feed(
    module: str,
    arguments: Sequence[str],
    source: AsyncIterator[bytes],
    doing: str,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Start a helper, pass ``source`` to its standard input, and return its answer.

    Raises BadArchive and StoreError, which begin with ``doing``, and whatever ``source`` raises; the helper is gone
    then.
    """
    with contextlib.ExitStack() as open_fds:
        answer, helper_answer = helper.pipe(open_fds)
        helper_input, sink = helper.pipe(open_fds)
        helper.tune(sink.fileno())
        process = await helper.start(
            module, arguments, helper_answer, stdin=helper_input, stdout=asyncio.subprocess.DEVNULL
        )
        helper_answer.close()
        helper_input.close()
        try:
            await _feed(source, sink.fileno(), progress)
            sink.close()
            await process.wait()
        finally:
            await helper.end(process)
        return helper.read_answer(answer, process.returncode, doing)


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
