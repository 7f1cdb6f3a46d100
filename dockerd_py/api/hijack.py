"""Taking a connection away from the HTTP server, with every byte that the client sent after its request.

`Front` sits between the transport and aiohttp's protocol and passes everything on, but for what follows the body of
a request that may be hijacked: that it holds back, bounded, until the handler takes the connection over
(``take``) or the connection ends.  Only public interfaces of aiohttp are used.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from dockerd_py.api.framing import Framing

T = TypeVar("T")

HELD_LIMIT = 65536
"""Bytes that are held back before the client is made to wait (one read more can be held)."""

_HIJACKING = re.compile(rb"POST (?:/v[0-9.]+)?/(?:containers/[^ ?]+/attach|exec/[^ ?]+/start)[ ?]")


class ClientGone(Exception):
    """The client closed its connection; there is nobody to answer."""


class Front(asyncio.Protocol):
    """The protocol of one connection, in front of ``inner``, aiohttp's."""

    def __init__(self, inner: asyncio.Protocol, fronts: dict[asyncio.BaseTransport, Front]) -> None:
        self._inner = inner
        self._fronts = fronts
        self._framing = Framing(lambda head: _HIJACKING.match(head) is not None)
        self._held: bytearray | None = None
        self._handled = 0
        self._lost = False
        self._taken = False
        self._untold_loss: tuple[Exception | None, bool] = (None, False)
        self._flushed: asyncio.Future[None] | None = None
        self._watched: set[asyncio.Future[Any]] = set()

    def next_request(self) -> None:
        """Tell that the next of the connection's requests is being handled."""
        self._handled += 1

    @property
    def holding(self) -> bool:
        """Whether the request being handled may be hijacked: everything behind it is being held back."""
        return self._held is not None and self._handled == self._framing.requests

    @property
    def gone(self) -> bool:
        """Whether the client has gone, or the connection is being closed."""
        return self._lost or self._transport.is_closing()

    def cancel_work(self) -> None:
        """Cancel what `while_connected` is waiting for."""
        for task in tuple(self._watched):
            task.cancel()

    async def while_connected(self, work: Coroutine[Any, Any, T]) -> T:
        """What ``work`` returns; it is cancelled, and ClientGone raised, when the client goes away."""
        task = asyncio.ensure_future(work)
        self._watched.add(task)
        if self._lost:
            task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            if self._lost:
                raise ClientGone from None
            raise
        finally:
            self._watched.discard(task)

    async def take(self, reply: bytes) -> tuple[int, bytes]:
        """Send ``reply``, the head of the answer, and give the connection away: a file descriptor of it, which is
        the caller's to close (it is in non-blocking mode), and the bytes that the client has already sent.

        The request's body must have been read.  Raises ClientGone.
        """
        assert self._held is not None, "this request was not recognised as one that may be hijacked"
        transport = self._transport
        transport.pause_reading()
        transport.write(reply)
        if transport.get_write_buffer_size():
            self._flushed = asyncio.get_running_loop().create_future()
            transport.set_write_buffer_limits(0)
            await self._flushed
        if self.gone:
            raise ClientGone
        self._taken = True
        descriptor = os.dup(transport.get_extra_info("socket").fileno())
        early = bytes(self._held)
        self._held = bytearray()
        transport.abort()  # closes our descriptor only: the connection lives on in the copy
        return descriptor, early

    def handled(self) -> None:
        """Tell that the request's handler is done, which is when ``inner`` may learn that its connection was taken:
        some versions of aiohttp (3.8.1) cancel a handler whose connection is lost."""
        self._taken = False
        exc, untold = self._untold_loss
        if untold:
            self._untold_loss = None, False
            asyncio.get_running_loop().call_soon(self._inner.connection_lost, exc)

    def close(self) -> None:
        """End the connection at once, as the only way left to say that an answer broke off."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._fronts[transport] = self
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._fronts.pop(self._transport, None)
        if self._flushed is not None and not self._flushed.done():
            self._flushed.set_result(None)
        self.cancel_work()
        if self._taken:
            self._untold_loss = exc, True
        else:
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._held is not None:
            self._held += data
        else:
            data, rest = self._framing.advance(data)
            if rest is not None:
                self._held = bytearray(rest)
            if data:
                self._inner.data_received(data)
            if self._held is None:
                return
        if len(self._held) > HELD_LIMIT:
            self._transport.pause_reading()

    def eof_received(self) -> bool | None:
        if self._held is not None:
            # The end of the client's input is the container's to see: whoever takes the connection reads it again.
            return True
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._flushed is not None and not self._flushed.done():
            self._flushed.set_result(None)
        self._inner.resume_writing()


class NoAnswer(web.StreamResponse):
    """What a handler returns when the answer was written already, or nobody is there to read one."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None
