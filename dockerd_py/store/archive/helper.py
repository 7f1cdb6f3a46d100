"""The helper programs from the daemon's side: start one, feed it, read its answer and its bytes, end it.

Each is a process of its own that confines itself before it looks at what a stranger wrote (``program`` has their
side).  It ends when the block that holds it does, whether that was the work's end, an error, or a client that went
away; and when the daemon dies, since its pipes break then.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import dockerd_py
from dockerd_py import errors, subprocesses
from dockerd_py.errors import PydockerdError, StoreError

_PIPE_SIZE = 1 << 20
_PIECE = 256 * 1024
_SOURCE_SECONDS = 1.0  # that a source may take to say what is wrong with it, once nobody reads it any more

# Isolated and without site-packages, which cost three times the start; our own package is found last.
_PROGRAM = (
    "import sys, json; sys.path.append(sys.argv[1]); from importlib import import_module; "
    "import_module('dockerd_py.store.archive.' + sys.argv[2]).main(json.loads(sys.argv[3]))"
)
_OUR_PATH = os.fspath(Path(dockerd_py.__file__).parent.parent)

Progress = Callable[[int], None]
"""Is told the number of bytes taken from a source so far."""


class Helper:
    """A helper that has begun well: ``result`` is its first line, ``content`` yields what follows."""

    def __init__(self, process: asyncio.subprocess.Process, output: FileIO, complaint: FileIO, doing: str) -> None:
        self.result: dict[str, Any] = {}
        self._process = process
        self._output = output
        self._complaint = complaint
        self._doing = doing
        self._rest = b""

    async def content(self) -> AsyncGenerator[bytes, None]:
        """The bytes behind the first line.  Raises as the helper's beginning does, when it fails in the middle."""
        if self._rest:
            yield self._rest
        while piece := await _read(self._output.fileno()):
            yield piece
        if await self._process.wait() != 0:
            raise self._failure()

    async def begin(self) -> bool:
        """Read the first line.  False when there is none.  Raises the error that it tells of."""
        taken = bytearray()
        while (end := taken.find(b"\n")) < 0:
            piece = await _read(self._output.fileno())
            if not piece:
                return False
            taken += piece
        self._rest = bytes(taken[end + 1 :])
        self.result = json.loads(taken[:end])
        if "error" in self.result:
            raise _error(self.result, self._doing)
        return True

    def _failure(self) -> PydockerdError:
        text = (self._complaint.read(_PIECE) or b"").decode("utf-8", "replace").strip()
        with contextlib.suppress(ValueError):
            return _error(json.loads(text.rpartition("\n")[2]), self._doing)
        return _told(StoreError, f"the helper process {_ending(self._process)}" + (text and f": {text}"), self._doing)

    async def failed_to_begin(self) -> PydockerdError:
        await self._process.wait()
        return self._failure()


@asynccontextmanager
async def helper(
    module: str,
    arguments: dict[str, Any],
    source: AsyncIterator[bytes] | None = None,
    *,
    doing: str = "",
    progress: Progress | None = None,
) -> AsyncIterator[Helper]:
    """Run ``main(arguments)`` of a module of this package, with ``source`` on its standard input.

    The block begins when it has answered.  Raises the error that it answers with and StoreError when it does not
    answer (their texts begin with ``doing``, where it is given), and whatever ``source`` raises.
    """
    with contextlib.ExitStack() as open_fds:
        output, helper_output = _pipe(open_fds)
        complaint, helper_complaint = _pipe(open_fds)
        helper_input, sink = _pipe(open_fds) if source is not None else (None, None)
        _tune(output.fileno())
        process = await subprocesses.spawn(
            [sys.executable, "-I", "-S", "-X", "utf8", "-c", _PROGRAM, _OUR_PATH, module, json.dumps(arguments)],
            stdin=asyncio.subprocess.DEVNULL if helper_input is None else helper_input,
            stdout=helper_output,
            stderr=helper_complaint,
        )
        feeding: asyncio.Task[None] | None = None
        try:
            helper_output.close()
            helper_complaint.close()
            if source is not None and helper_input is not None and sink is not None:
                helper_input.close()
                _tune(sink.fileno())
                feeding = asyncio.create_task(_feed(source, sink, process, progress))
            one = Helper(process, output, complaint, doing)
            if not await one.begin():
                if feeding is not None:
                    done, _ = await asyncio.wait([feeding], timeout=_SOURCE_SECONDS)
                    for failed in done:
                        await failed  # what went wrong is the source
                raise await one.failed_to_begin()
            yield one
        finally:
            _kill(process)
            if feeding is not None:
                feeding.cancel()
                await asyncio.gather(feeding, return_exceptions=True)
            await process.wait()


async def answer(
    module: str,
    arguments: dict[str, Any],
    source: AsyncIterator[bytes] | None = None,
    *,
    doing: str = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The first line of a helper that says nothing else."""
    async with helper(module, arguments, source, doing=doing, progress=progress) as one:
        async with aclosing(one.content()) as nothing:
            async for _ in nothing:
                pass
        return one.result


async def outgoing(module: str, arguments: dict[str, Any], doing: str) -> AsyncGenerator[bytes, None]:
    """What a helper writes, as it is asked for.  To be closed; the helper is gone then.  Raises as `helper`."""
    async with helper(module, arguments, doing=doing) as one, aclosing(one.content()) as content:
        async for piece in content:
            yield piece


def _pipe(owner: contextlib.ExitStack) -> tuple[FileIO, FileIO]:
    """(reading end, writing end)."""
    reading, writing = os.pipe()
    return owner.enter_context(FileIO(reading, "rb")), owner.enter_context(FileIO(writing, "wb"))


def _tune(fd: int) -> None:
    os.set_blocking(fd, False)
    # Beyond what an unprivileged user may have in pipes the kernel says no, and the pipe stays as it is.
    with contextlib.suppress(PermissionError):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()


async def _feed(
    source: AsyncIterator[bytes], sink: FileIO, process: asyncio.subprocess.Process, progress: Progress | None
) -> None:
    """A source that fails kills the helper: an archive that breaks off must not pass for a whole one."""
    try:
        taken = 0
        async for piece in source:
            if not await _write(sink.fileno(), piece):
                return  # it has seen enough
            taken += len(piece)
            if progress is not None:
                progress(taken)
        sink.close()
    except BaseException:
        _kill(process)
        raise


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


def _ending(process: asyncio.subprocess.Process) -> str:
    code = process.returncode or 0
    how = f"by signal {-code}" if code < 0 else f"with code {code}"
    return f"ended {how} before it had an answer"


def _error(result: dict[str, Any], doing: str) -> PydockerdError:
    kind = getattr(errors, str(result["kind"]), StoreError)
    if not (isinstance(kind, type) and issubclass(kind, PydockerdError)):
        kind = StoreError
    return _told(kind, str(result["error"]), doing)


def _told(kind: type[PydockerdError], text: str, doing: str) -> PydockerdError:
    found: PydockerdError = kind.__new__(kind)
    Exception.__init__(found, f"{doing}: {text}" if doing else text)
    return found
