"""Attaching: a client's connection goes to the container's monitor, history first where it is asked for."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator

from dockerd_py.engine.model import STDERR, STDOUT, AttachOptions
from dockerd_py.engine.record import Record
from dockerd_py.errors import BadParameter, Conflict, PydockerdError
from dockerd_py.runtime.monitors import Monitor

DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"

_CONTROL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def check(record: Record, options: AttachOptions) -> None:
    """Raises BadParameter for detach keys that are none, Conflict for a container that can't be attached to."""
    detach_keys(options.detach_keys)
    if record.state.status == "paused":
        raise Conflict(f"Container {record.id} is paused, unpause the container before attach")
    if record.removing or record.gone:
        raise Conflict(f"container {record.name} is being removed")
    if options.logs:
        raise BadParameter("attach with logs=1 is not supported by this version: read the log, then attach")


def detach_keys(text: str) -> bytes:
    """``ctrl-p,ctrl-q`` as the bytes that a terminal sends.  Raises BadParameter."""
    keys = bytearray()
    for name in (text or DEFAULT_DETACH_KEYS).split(","):
        key = name.removeprefix("ctrl-") if name.startswith("ctrl-") else ""
        if len(name) == 1 and name.isascii():
            keys.append(ord(name))
        elif len(key) == 1 and "a" <= key <= "z":
            keys.append(ord(key) - ord("a") + 1)
        elif key in _CONTROL:
            keys.append(_CONTROL[key])
        else:
            raise BadParameter(f"invalid detach keys ({text}): unknown character {name!r}")
    return bytes(keys)


async def hand_over(record: Record, monitor: Monitor, options: AttachOptions, fd: int, early: bytes) -> None:
    """Give ``fd`` to the monitor, with what the client has sent already."""
    streams = [stream for stream, wanted in ((STDOUT, options.stdout), (STDERR, options.stderr)) if wanted]
    with connection(fd, early) as fds:
        await monitor.request(
            "attach",
            fds=fds,
            stdin=options.stdin and options.stream,
            streams=streams if options.stream else [],
            framed=options.multiplexed,
            keys=list(detach_keys(options.detach_keys)) if record.config.tty or options.detach_keys else [],
        )


@contextlib.contextmanager
def connection(fd: int, early: bytes) -> Iterator[tuple[int, ...]]:
    """The descriptors that tell a monitor of a client's connection and of what has come on it already."""
    if not early:
        yield (fd,)
        return
    memory = os.memfd_create("early", os.MFD_CLOEXEC)
    with os.fdopen(memory, "wb") as file:
        file.write(early)
        file.flush()
        yield (fd, memory)


async def dismiss(monitor: Monitor) -> None:
    """End a monitor whose container was never started, and await its end."""
    try:
        await monitor.request("abort")
    except (PydockerdError, asyncio.TimeoutError):
        monitor.close()
    await monitor.closed
