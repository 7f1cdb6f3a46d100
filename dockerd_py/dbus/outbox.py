"""What waits to be sent on one connection.

Stands in for dbus-next's writer, which takes a full socket for an error and leaves file descriptors to whoever made
them.  This one waits for room, owns the descriptors of what it sends and closes them, and says when too much waits.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from dbus_next.message import Message

from dockerd_py.dbus.errors import LimitsExceeded

MAX_QUEUED = 1024 * 1024
MAX_SENT = 32 * 1024 * 1024 - 64 * 1024  # dbus-daemon ends the connection of who sends 32 MiB


@dataclass(frozen=True)
class _Outgoing:
    data: memoryview
    fds: tuple[int, ...]
    sent: asyncio.Future[None]


class Outbox:
    """Messages are queued until the bus has said hello, and dropped after the end."""

    def __init__(
        self, sock: socket.socket, on_full: Callable[[], None], on_error: Callable[[Exception], None]
    ) -> None:
        """``on_full`` is called when ``full`` has changed; ``on_error`` when the socket has failed."""
        self.full = False
        self._sock = sock
        self._on_full = on_full
        self._on_error = on_error
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Outgoing] = deque()
        self._queued = 0
        self._open = False
        self._abandoned = False

    def schedule_write(self, msg: Message | None = None, future: asyncio.Future[None] | None = None) -> None:
        """Queue ``msg``; without one, what was queued before the hello goes out.  Called by dbus-next."""
        if msg is None:
            self._open = True
            self._wake()
            return
        assert future is not None
        fds = tuple(msg.unix_fds or ())
        try:
            data = msg._marshall(negotiate_unix_fd=True)  # type: ignore[no-untyped-call]
        except BaseException:
            close_all(fds)
            raise
        self.put(data, fds, future)

    def put(self, data: bytes, fds: tuple[int, ...], sent: asyncio.Future[None]) -> None:
        """Queue a message and take over its file descriptors.  Raises LimitsExceeded when it is too large."""
        if self._abandoned or len(data) > MAX_SENT:
            close_all(fds)
            sent.cancel()
            if len(data) > MAX_SENT:
                raise LimitsExceeded("the answer is larger than what the bus carries in one message")
            return
        self._queue.append(_Outgoing(memoryview(data), fds, sent))
        self._queued += len(data)
        self._weigh()
        self._wake()

    async def drained(self) -> None:
        """Wait until what is queued now has gone out, or been dropped."""
        if self._queue:
            await asyncio.wait([self._queue[-1].sent])

    def abandon(self) -> None:
        """Drop everything, also what comes later."""
        self._abandoned = True
        for each in self._queue:
            close_all(each.fds)
            each.sent.cancel()
        self._queue.clear()

    def _wake(self) -> None:
        if self._queue and self._open and not self._abandoned:
            self._loop.add_writer(self._sock, self._write)

    def _write(self) -> None:
        try:
            while self._queue:
                if not self._send(self._queue[0]):
                    return
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._on_error(error)
            return
        self._loop.remove_writer(self._sock)

    def _send(self, first: _Outgoing) -> bool:
        """Send what the socket takes of the first message; whether it went out whole."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", first.fds))] if first.fds else []
        count = self._sock.sendmsg([first.data], rights)
        close_all(first.fds)
        self._queued -= count
        self._weigh()
        if count < len(first.data):
            self._queue[0] = _Outgoing(first.data[count:], (), first.sent)
            return False
        self._queue.popleft()
        if not first.sent.done():
            first.sent.set_result(None)
        return True

    def _weigh(self) -> None:
        if self.full != (self._queued > MAX_QUEUED):
            self.full = not self.full
            self._on_full()


def close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        with suppress(OSError):
            os.close(fd)
