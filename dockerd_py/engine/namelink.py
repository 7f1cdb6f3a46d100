"""A connection to the name service: requests, their replies, its end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from dockerd_py import wire
from dockerd_py.errors import NetworkFailed
from dockerd_py.wirelink import Link

REPLY_SECONDS = 10.0


class ServiceGone(NetworkFailed):
    """The connection has ended before there was a reply."""


class RequestRefused(NetworkFailed):
    """The service has answered with an error."""


class NameLink(Link):
    """``on_end`` is called when the connection has ended and `close` was not the cause."""

    def __init__(self, sock: socket.socket, on_end: Callable[[NameLink], None]) -> None:
        super().__init__(sock)
        self._on_end = on_end

    async def request(self, op: str, *, fds: tuple[int, ...] = (), **fields: Any) -> wire.Message:
        """Ask and await the reply.  Raises ServiceGone, RequestRefused; the request may have been done all the same
        when nobody answers in time."""
        try:
            reply = await self.ask(op, fds=fds, timeout=REPLY_SECONDS, **fields)
        except asyncio.TimeoutError:
            self._end()  # whatever it is, it does not work
            reply = None
        except wire.ProtocolError as error:
            raise NetworkFailed(f"too many names: {error}") from error
        if reply is None:
            raise ServiceGone(f"the name service has not answered to {op!r}")
        if "error" in reply:
            raise RequestRefused(f"the name service: {reply['error']}")
        return reply

    async def ended(self) -> None:
        """Wait for the other side to go, for a while."""
        await asyncio.wait((self.closed,), timeout=REPLY_SECONDS)
        self.close()

    def _lost(self) -> None:
        self._on_end(self)
