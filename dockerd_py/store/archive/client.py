"""Unpacking from the daemon's side: start the helper, feed it, take its answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dockerd_py
from dockerd_py import subprocesses
from dockerd_py.errors import BadArchive, StoreError
from dockerd_py.store.drivers.base import Whiteouts

log = logging.getLogger(__name__)

_PIECE = 1 << 20

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
    answer_fd, helper_fd = os.pipe()
    try:
        process = await subprocesses.spawn(
            [sys.executable, "-I", "-S", "-X", "utf8", "-c", _PROGRAM, _OUR_PATH,
             os.fspath(target), whiteouts.value, str(helper_fd)],
            stdin=asyncio.subprocess.PIPE,
            pass_fds=(helper_fd,),
        )  # fmt: skip
        os.close(helper_fd)
        helper_fd = -1
        try:
            assert process.stdin is not None
            await _feed(source, process.stdin, progress)
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return _read_answer(answer_fd, process.returncode)
    finally:
        os.close(answer_fd)
        if helper_fd >= 0:
            os.close(helper_fd)


async def _feed(
    source: AsyncIterator[bytes],
    sink: asyncio.StreamWriter,
    progress: Callable[[int], None] | None,
) -> None:
    """Pass all of ``source`` on.  A helper that has seen enough closes its end, and its answer says why."""
    taken = 0
    try:
        async for data in source:
            for start in range(0, len(data), _PIECE):
                sink.write(data[start : start + _PIECE])
                await sink.drain()
            taken += len(data)
            if progress is not None:
                progress(taken)
    except (BrokenPipeError, ConnectionResetError):
        if not sink.is_closing():
            raise  # the source's own
    finally:
        sink.close()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await sink.wait_closed()


def _read_answer(fd: int, returncode: int | None) -> Unpacked:
    with os.fdopen(os.dup(fd), "rb") as file:
        text = file.read()
    if not text:
        how = f"by signal {-returncode}" if returncode and returncode < 0 else f"with code {returncode}"
        raise StoreError(f"unpacking failed: the helper process ended {how} before it had an answer")
    answer: dict[str, Any] = json.loads(text)
    if "error" in answer:
        kind = BadArchive if answer["kind"] == "archive" else StoreError
        raise kind(f"cannot unpack the archive: {answer['error']}")
    if answer["lost"]:
        log.warning("extended attributes that cannot be kept: %s", ", ".join(answer["lost"]))
    return Unpacked(answer["diff_id"], answer["size"], answer["entries"])
