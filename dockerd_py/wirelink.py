"""The daemon's end of a connection to one of its helpers: requests and replies, on the event loop (see `wire`)."""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import os
import socket
from collections import deque
from typing import Any, NamedTuple

from dockerd_py import wire

log = logging.getLogger(__name__)

_ENDED = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)


class _Unsent(NamedTuple):
    number: int | None  # of the request
    data: bytes
    fds: list[int]  # ours to close


class Link:
    """One connection.  ``closed`` is done when it has ended, whoever has ended it.

    Descriptors that are sent stay the caller's, who may close them at once.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._numbers = itertools.count(1)
        self._replies: dict[int, asyncio.Future[wire.Message]] = {}
        self._unsent: deque[_Unsent] = deque()
        self.closed: asyncio.Future[None] = self._loop.create_future()
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._readable)

    async def ask(
        self, op: str, *, fds: tuple[int, ...] = (), timeout: float | None, **fields: Any
    ) -> wire.Message | None:
        """Send a request and await the reply; None when the connection ends before that.  What cannot be sent has a
        reply of our own, an error as the other side's.

        Raises asyncio.TimeoutError, and ProtocolError for what is too long for a message.
        """
        number = next(self._numbers)
        future: asyncio.Future[wire.Message] = self._loop.create_future()
        self._replies[number] = future
        try:
            self._send(number, {"op": op, "seq": number, **fields}, fds)
            # not wait_for: before Python 3.12 it forgets a cancellation that comes in the same moment as the reply
            await asyncio.wait((future, self.closed), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._replies[number]
            self._give_up(number)
        if future.done():
            return future.result()
        if self.closed.done():
            return None
        raise asyncio.TimeoutError

    def tell(self, op: str, *, fds: tuple[int, ...] = (), **fields: Any) -> None:
        """Send something that has no reply; it is lost when the connection has ended.  Raises ProtocolError."""
        self._send(None, {"op": op, **fields}, fds)

    def close(self) -> None:
        if self.closed.done():
            return
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        for unsent in self._unsent:
            wire.close_all(unsent.fds)
        self._unsent.clear()
        self.closed.set_result(None)

    # What is its own of each kind of helper

    def _take(self, message: wire.Message) -> None:
        """What is no reply."""

    def _lost(self) -> None:
        """The other side has ended the connection, which is closed by now."""

    # Below

    def _send(self, number: int | None, message: wire.Message, fds: tuple[int, ...]) -> None:
        if not self.closed.done():
            self._unsent.append(_Unsent(number, wire.encode(message), list(map(os.dup, fds))))
            self._flush()

    def _give_up(self, number: int) -> None:
        for unsent in self._unsent:
            if unsent.number == number:
                self._unsent.remove(unsent)
                wire.close_all(unsent.fds)
                return

    def _flush(self) -> None:
        while self._unsent and not self.closed.done():
            unsent = self._unsent[0]
            try:
                wire.send_encoded(self._sock, unsent.data, unsent.fds)
            except BlockingIOError:
                self._loop.add_writer(self._sock.fileno(), self._flush)
                return
            except OSError as error:
                failure: OSError | None = error
            else:
                failure = None
            self._unsent.popleft()
            wire.close_all(unsent.fds)
            if failure is not None:
                self._readable()  # what it has said before its end
                if failure.errno in _ENDED:
                    self._end()
                self._refuse(unsent.number, f"it cannot be asked: {failure.strerror}")
        if not self.closed.done():
            self._loop.remove_writer(self._sock.fileno())

    def _refuse(self, number: int | None, text: str) -> None:
        """Nothing is wrong with the connection, but with this request."""
        if self.closed.done():
            return
        future = self._replies.get(number or 0)
        if future is None:
            log.warning("%s: %s", type(self).__name__, text)
        elif not future.done():
            future.set_result({"error": text})

    def _readable(self) -> None:
        while not self.closed.done():
            try:
                message, fds = wire.receive(self._sock)
            except BlockingIOError:
                return
            except ConnectionResetError:
                continue  # it has ended without reading our last request, which is told before what it has said
            except (OSError, wire.ProtocolError) as error:
                log.warning("lost the connection to %s: %s", type(self).__name__, error)
                message, fds = None, []
            wire.close_all(fds)
            if message is None:
                self._end()
                return
            future = self._replies.get(message.get("seq", 0))
            if future is None:
                self._take(message)
            elif not future.done():
                future.set_result(message)

    def _end(self) -> None:
        if not self.closed.done():
            self.close()
            self._lost()
