"""/containers/{}/attach/ws: attach over a WebSocket (RFC 6455), whose bytes are never in frames of Docker's own.

A WebSocket's connection cannot be given away, as somebody has to frame its messages: the daemon relays between it
and a socket pair of which the container's monitor holds the other end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket

from aiohttp import WSCloseCode, WSMsgType, web

from dockerd_py.api.call import Call
from dockerd_py.api.routing import Route
from dockerd_py.api.streams import attach_options
from dockerd_py.errors import BadParameter, PydockerdError

log = logging.getLogger(__name__)

READ_SIZE = 64 * 1024
MAX_MESSAGE = 4 << 20  # bytes that a client may send in one message


async def attach(call: Call) -> web.StreamResponse:
    containers = call.engine.containers
    container = containers.get(call.name)
    options = attach_options(call, framed=False)
    await containers.check_attach(container.id, options)
    # Clients of the first year send no subprotocol and read any; those that name some get the first one.
    offered = [name.strip() for name in call.request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
    response = web.WebSocketResponse(max_msg_size=MAX_MESSAGE, protocols=[name for name in offered if name][:1])
    if not response.can_prepare(call.request):
        raise BadParameter("Bad parameter: attach/ws needs the opening handshake of a WebSocket")
    call.started = True
    response.headers.update(call.extra_headers)
    await response.prepare(call.request)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with ours:
        try:
            await containers.attach(container.id, options, theirs.detach(), b"")
        except PydockerdError as error:
            log.warning("attach to %s: %s", container.name, error)
            await response.close(code=WSCloseCode.INTERNAL_ERROR, message=str(error).encode()[:120])
            return response
        await call.front.while_connected(_relay(response, ours))
    return response


async def _relay(response: web.WebSocketResponse, connection: socket.socket) -> None:
    """Both ways until the container's end; the client's end of the conversation is the end of its input."""
    upwards = asyncio.create_task(_upwards(response, connection))
    try:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            while data := await loop.sock_recv(connection, READ_SIZE):
                await response.send_bytes(data)
        await response.close()
    finally:
        upwards.cancel()
        await asyncio.gather(upwards, return_exceptions=True)


async def _upwards(response: web.WebSocketResponse, connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        async for message in response:
            if message.type is WSMsgType.BINARY:
                await loop.sock_sendall(connection, message.data)
            elif message.type is WSMsgType.TEXT:
                await loop.sock_sendall(connection, message.data.encode())
        connection.shutdown(socket.SHUT_RDWR)  # a client that went away is no longer attached


ROUTES = (Route("GET", "/containers/{}/attach/ws", attach),)
