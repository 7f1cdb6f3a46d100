"""A connection to the name service: requests, their replies, its end."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from dockerd_py import wire
from dockerd_py.errors import NetworkFailed

log = logging.getLogger(__name__)

REPLY_SECONDS = 10.0


class ServiceGone(NetworkFailed):
    """The connection has ended before there was a reply."""


class RequestRefused(NetworkFailed):
    """The service has answered with an error."""


class NameLink:
    """Descriptors that are sent stay the caller's, who may close them at once.

    ``on_end`` is called when the connection has ended and `close` was not the cause.
    """

    def __init__(self, sock: socket.socket, on_end: Callable[[NameLink], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._on_end = on_end
        self._numbers = itertools.count()
        self._replies: dict[int, asyncio.Future[wire.Message]] = {}
        self._unsent: deque[tuple[wire.Message, tuple[int, ...]]] = deque()  # with descriptors of our own
        self._ended: asyncio.Future[None] = self._loop.create_future()
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._readable)

    async def request(self, op: str, *, fds: tuple[int, ...] = (), **fields: Any) -> wire.Message:
        """Ask and await the reply.  Raises ServiceGone, RequestRefused; the request may have been done all the same
        when nobody answers in time."""
        number = next(self._numbers)
        future: asyncio.Future[wire.Message] = self._loop.create_future()
        self._replies[number] = future
        try:
            self.tell(op, fds=fds, seq=number, **fields)
            # not wait_for: before Python 3.12 it forgets a cancellation that comes in the same moment as the reply
            done, _ = await asyncio.wait((future, self._ended), timeout=REPLY_SECONDS, return_when="FIRST_COMPLETED")
        finally:
            del self._replies[number]
        if not future.done():
            if not done:
                self._end()  # whatever it is, it does not work
            raise ServiceGone(f"the name service has not answered to {op!r}")
        reply = future.result()
        if "error" in reply:
            raise RequestRefused(f"the name service: {reply['error']}")
        return reply

    def tell(self, op: str, *, fds: tuple[int, ...] = (), **fields: Any) -> None:
        """Send something that has no reply; it is lost when the connection has ended.  Raises NetworkFailed for what
        is too long for a message."""
        if self._ended.done():
            return
        message = {"op": op, **fields}
        try:
            wire.encode(message)
        except wire.ProtocolError as error:
            raise NetworkFailed(f"too many names: {error}") from error
        self._unsent.append((message, tuple(map(os.dup, fds))))
        self._flush()

    async def ended(self) -> None:
        """Wait for the other side to go, for a while."""
        await asyncio.wait((self._ended,), timeout=REPLY_SECONDS)
        self.close()

    def close(self) -> None:
        if self._ended.done():
            return
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        for _, fds in self._unsent:
            wire.close_all(list(fds))
        self._unsent.clear()
        self._ended.set_result(None)

    def _end(self) -> None:
        if not self._ended.done():
            self.close()
            self._on_end(self)

    def _flush(self) -> None:
        while self._unsent and not self._ended.done():
            message, fds = self._unsent[0]
            try:
                wire.send(self._sock, message, fds)
            except BlockingIOError:
                self._loop.add_writer(self._sock.fileno(), self._flush)
                return
            except OSError:
                self._end()
                return
            self._unsent.popleft()
            wire.close_all(list(fds))
        if not self._ended.done():
            self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        while not self._ended.done():
            try:
                message, fds = wire.receive(self._sock)
            except BlockingIOError:
                return
            except (OSError, wire.ProtocolError) as error:
                log.debug("the connection to the name service: %s", error)
                message, fds = None, []
            wire.close_all(fds)
            if message is None:
                self._end()
                return
            future = self._replies.get(message.get("seq", -1))
            if future is not None and not future.done():
                future.set_result(message)
