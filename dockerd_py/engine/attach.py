"""Attaching: a client's connection goes to the container's monitor, for its log first see `replay`."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator

from dockerd_py.engine import logsettings
from dockerd_py.engine.model import STDERR, STDOUT, AttachOptions, Status
from dockerd_py.engine.record import Record
from dockerd_py.errors import BadParameter, Conflict, NotReadable, PydockerdError
from dockerd_py.runtime.monitors import Monitor
from dockerd_py.wire import Message

DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"

_CONTROL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def check(record: Record, options: AttachOptions) -> None:
    """Raises BadParameter for detach keys that are none, Conflict for a container that can't be attached to,
    NotReadable where the log is asked for and nothing is kept of it."""
    detach_keys(options.detach_keys)
    if options.stream and record.state.status is Status.PAUSED:
        raise Conflict(f"Container {record.id} is paused, unpause the container before attach")
    if record.removing or record.gone:
        raise Conflict(f"container {record.name} is being removed")
    if options.logs and not logsettings.readable(record.log_driver, record.host.log_options):
        raise NotReadable(record.log_driver)


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
    with connection(fd, early) as fds:
        await monitor.request("attach", fds=fds, **what(record, options))


async def hand_over_held(
    record: Record, monitor: Monitor, options: AttachOptions, fd: int, early: bytes, hold: int
) -> Message:
    """As `hand_over`, but nothing is sent to the client until a byte has come from the pipe ``hold``; when that ends
    without one, the monitor lets go of the client.  Returns where the log stands before what it will be sent."""
    with connection(fd, early, hold) as fds:
        return await monitor.request("attach_held", fds=fds, **what(record, options))


def what(record: Record, options: AttachOptions) -> Message:
    """What a monitor is told of a client."""
    return {
        "stdin": options.stdin,
        "streams": sorted(streams(options)),
        "framed": options.multiplexed,
        "keys": list(detach_keys(options.detach_keys)) if record.config.tty or options.detach_keys else [],
    }


def streams(options: AttachOptions) -> frozenset[int]:
    return frozenset(stream for stream, wanted in ((STDOUT, options.stdout), (STDERR, options.stderr)) if wanted)


@contextlib.contextmanager
def connection(fd: int, early: bytes, *more: int) -> Iterator[tuple[int, ...]]:
    """The descriptors that tell a monitor of a client's connection and of what has come on it already."""
    if not early:
        yield (fd, *more)
        return
    memory = os.memfd_create("early", os.MFD_CLOEXEC)
    with os.fdopen(memory, "wb") as file:
        file.write(early)
        file.flush()
        yield (fd, *more, memory)


async def dismiss(monitor: Monitor) -> None:
    """End a monitor whose container was never started, and await its end."""
    try:
        await monitor.request("abort")
    except (PydockerdError, asyncio.TimeoutError):
        monitor.close()
    await monitor.closed
