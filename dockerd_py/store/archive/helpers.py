"""The helper programs from the daemon's side: start one, read its first line, pass its bytes on, end it.

Each is a process of its own that confines itself before it looks at what a container wrote.  It ends when the block
that holds it does, whether that was the work's end, an error, or a client that went away.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dockerd_py
from dockerd_py import errors, subprocesses
from dockerd_py.errors import PydockerdError, StoreError

_PIECE = 1 << 18
_SOURCE_SECONDS = 1.0  # that a source may take to say what is wrong with it, once nobody reads it any more
_OUR_PATH = os.fspath(Path(dockerd_py.__file__).parent.parent)

# Isolated and without site-packages, which cost three times the start; our own package is found last.
_PROGRAM = (
    "import sys, json; sys.path.append(sys.argv[1]); from importlib import import_module; "
    "import_module('dockerd_py.store.archive.' + sys.argv[2]).main(json.loads(sys.argv[3]))"
)


class Helper:
    """A helper that has begun well: ``result`` is its first line, ``content`` yields what follows."""

    def __init__(self, result: dict[str, Any], rest: bytes, process: asyncio.subprocess.Process) -> None:
        self.result = result
        self._rest = rest
        self._process = process

    async def content(self) -> AsyncGenerator[bytes, None]:
        """The bytes behind the first line.  Raises StoreError when the helper fails in the middle of them."""
        if self._rest:
            yield self._rest
        output = self._process.stdout
        assert output is not None
        while piece := await output.read(_PIECE):
            yield piece
        if await self._process.wait() != 0:
            assert self._process.stderr is not None
            text = (await self._process.stderr.read()).decode("utf-8", "replace").strip()
            raise StoreError(text or "the helper process was killed")


@asynccontextmanager
async def helper(
    module: str, arguments: dict[str, Any], source: AsyncIterator[bytes] | None = None
) -> AsyncIterator[Helper]:
    """Run ``main(arguments)`` of a module of this package, with ``source`` on its standard input.

    The block begins when it has answered.  Raises the error that it answers with, StoreError when it does not
    answer, and whatever ``source`` raises.
    """
    process = await subprocesses.spawn(
        [sys.executable, "-I", "-S", "-X", "utf8", "-c", _PROGRAM, _OUR_PATH, module, json.dumps(arguments)],
        stdin=asyncio.subprocess.DEVNULL if source is None else PIPE,
        stdout=PIPE,
        stderr=PIPE,
    )
    feeding = None if source is None else asyncio.ensure_future(_feed(source, process))
    try:
        line, rest = await _first_line(process)
        if not line:
            if feeding is not None:
                done, _ = await asyncio.wait([feeding], timeout=_SOURCE_SECONDS)
                for failed in done:
                    await failed  # what went wrong is the source
            assert process.stderr is not None
            text = (await process.stderr.read()).decode("utf-8", "replace").strip()
            raise StoreError(f"the helper process gave no answer: {text or 'it was killed'}")
        result = json.loads(line)
        if "error" in result:
            raise _error(result)
        yield Helper(result, rest, process)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        if feeding is not None:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
        await process.wait()


async def answer(module: str, arguments: dict[str, Any], source: AsyncIterator[bytes] | None = None) -> dict[str, Any]:
    """The first line of a helper that says nothing else."""
    async with helper(module, arguments, source) as one:
        return one.result


async def _first_line(process: asyncio.subprocess.Process) -> tuple[bytes, bytes]:
    assert process.stdout is not None
    taken = bytearray()
    while piece := await process.stdout.read(_PIECE):
        at = len(taken)
        taken += piece
        end = taken.find(b"\n", at)
        if end >= 0:
            return bytes(taken[:end]), bytes(taken[end + 1 :])
    return b"", b""


async def _feed(source: AsyncIterator[bytes], process: asyncio.subprocess.Process) -> None:
    """A source that fails kills the helper: an archive that breaks off must not pass for a whole one."""
    sink = process.stdin
    assert sink is not None
    try:
        async for piece in source:
            sink.write(piece)
            await sink.drain()
        sink.close()
    except (BrokenPipeError, ConnectionResetError):
        return  # it has seen enough
    except BaseException:
        if process.returncode is None:
            process.kill()
        raise


def _error(result: dict[str, Any]) -> PydockerdError:
    kind = getattr(errors, str(result["kind"]), StoreError)
    if not (isinstance(kind, type) and issubclass(kind, PydockerdError)):
        kind = StoreError
    found: PydockerdError = kind.__new__(kind)
    Exception.__init__(found, result["error"])
    return found
