"""Starting a helper process of ours, and its two pipes: the archive that goes in or out, and the answer at the end.

The answer is one line of JSON.  ``{"error", "kind"}`` with kind "archive" or "store" tells of a failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import sys
from collections.abc import AsyncGenerator, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

import dockerd_py
from dockerd_py import subprocesses
from dockerd_py.errors import BadArchive, StoreError

_PIPE_SIZE = 1 << 20
_PIECE = 256 * 1024

# Isolated and without site-packages, which cost three times the start; our own package is found last.
_PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); from importlib import import_module; "
    "import_module('dockerd_py.store.archive.' + sys.argv[2]).main(*sys.argv[3:])"
)
_OUR_PATH = os.fspath(Path(dockerd_py.__file__).parent.parent)


async def start(
    module: str,
    arguments: Sequence[str],
    answer: FileIO,
    *,
    stdin: subprocesses.Redirect,
    stdout: subprocesses.Redirect,
) -> asyncio.subprocess.Process:
    """Start ``main`` of a module beside this one, with its arguments and, last, the descriptor for its answer."""
    return await subprocesses.spawn(
        [sys.executable, "-I", "-S", "-X", "utf8", "-c", _PROGRAM, _OUR_PATH, module, *arguments, str(answer.fileno())],
        stdin=stdin,
        stdout=stdout,
        pass_fds=(answer.fileno(),),
    )


async def outgoing(
    module: str, arguments: Sequence[str], doing: str, *, stdin: subprocesses.Redirect = asyncio.subprocess.DEVNULL
) -> AsyncGenerator[bytes, None]:
    """What a helper writes to its standard output, as it is asked for.  To be closed; the helper is gone then.

    Raises StoreError and BadArchive, which begin with ``doing``.
    """
    with contextlib.ExitStack() as open_fds:
        answer, helper_answer = pipe(open_fds)
        source, helper_output = pipe(open_fds)
        tune(source.fileno())
        process = await start(module, arguments, helper_answer, stdin=stdin, stdout=helper_output)
        helper_answer.close()
        helper_output.close()
        try:
            while piece := await _read(source.fileno()):
                yield piece
            await process.wait()
        finally:
            await end(process)
        read_answer(answer, process.returncode, doing)


async def end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def pipe(owner: contextlib.ExitStack) -> tuple[FileIO, FileIO]:
    """(reading end, writing end)."""
    reading, writing = os.pipe()
    return owner.enter_context(FileIO(reading, "rb")), owner.enter_context(FileIO(writing, "wb"))


def tune(fd: int) -> None:
    os.set_blocking(fd, False)
    # Beyond what an unprivileged user may have in pipes the kernel says no, and the pipe stays as it is.
    with contextlib.suppress(PermissionError):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)


def read_answer(answer: FileIO, returncode: int | None, doing: str) -> dict[str, Any]:
    text = answer.readall()
    if not text:
        how = f"by signal {-returncode}" if returncode and returncode < 0 else f"with code {returncode}"
        raise StoreError(f"{doing}: the helper process ended {how} before it had an answer")
    result: dict[str, Any] = json.loads(text)
    if "error" in result:
        kind = BadArchive if result["kind"] == "archive" else StoreError
        raise kind(f"{doing}: {result['error']}")
    return result


async def _read(fd: int) -> bytes:
    loop = asyncio.get_running_loop()
    while True:
        try:
            return os.read(fd, _PIECE)
        except BlockingIOError:
            ready = asyncio.Event()
            loop.add_reader(fd, ready.set)
            try:
                await ready.wait()
            finally:
                loop.remove_reader(fd)
