"""Logs and attach: the two ways to a container's output."""

from __future__ import annotations

import contextlib
import logging

from aiohttp import web

from dockerd_py.api import eras
from dockerd_py.api.call import Call
from dockerd_py.api.framing import UPGRADE_HEADER
from dockerd_py.api.hijack import NoAnswer
from dockerd_py.api.logframes import encoder, spell_details
from dockerd_py.api.routing import Route
from dockerd_py.engine.model import AttachOptions, LogOptions
from dockerd_py.errors import BadParameter, PydockerdError

log = logging.getLogger(__name__)


async def logs(call: Call) -> web.StreamResponse:
    options = LogOptions(
        stdout=call.flag("stdout"),
        stderr=call.flag("stderr"),
        follow=call.flag("follow"),
        since=call.moment("since"),
        until=call.moment("until"),
        tail=_tail(call),
    )
    if not (options.stdout or options.stderr):
        raise BadParameter("Bad parameters: you must choose at least one stream")
    container = call.engine.containers.get(call.name)
    framed = not container.config.tty
    details = spell_details(call.engine.containers.log_attributes(container.id)) if call.flag("details") else b""
    encode = encoder(framed=framed, timestamps=call.flag("timestamps"), details=details)

    async def pump() -> web.StreamResponse:
        async with contextlib.aclosing(call.engine.containers.logs(container.id, options)) as batches:
            response: web.StreamResponse | None = None
            if options.follow:  # clients wait for the head before they show anything
                response = await call.stream(eras.stream_type(call.version, framed))
            async for batch in batches:
                if response is None:  # not "or": a response is a mapping, and so an empty one is false
                    response = await call.stream(eras.stream_type(call.version, framed))
                await response.write(encode(batch))
        if response is None:
            response = await call.stream(eras.stream_type(call.version, framed))
        await response.write_eof()
        return response

    return await call.front.while_connected(pump())


async def attach(call: Call) -> web.StreamResponse:
    """Hand the connection over to the container's monitor."""
    containers = call.engine.containers
    container = containers.get(call.name)
    framed = eras.multiplexes(call.version) and not container.config.tty
    options = attach_options(call, framed=framed)
    container = await containers.check_attach(container.id, options)
    await call.body()
    if not call.front.holding:
        raise BadParameter("Bad parameter: attach needs a well-formed request with a connection of its own")
    descriptor, early = await call.front.take(stream_head(call, framed))
    try:
        await containers.attach(container.id, options, descriptor, early)
    except PydockerdError as error:  # nobody can be answered any more: the end of the connection has to tell
        log.warning("attach to %s: %s", container.name, error)
    return NoAnswer()


def attach_options(call: Call, *, framed: bool) -> AttachOptions:
    """What the query asks for."""
    return AttachOptions(
        stdin=call.flag("stdin"),
        stdout=call.flag("stdout"),
        stderr=call.flag("stderr"),
        stream=call.flag("stream"),
        logs=call.flag("logs"),
        waits=not (call.flag("logs") and eras.attaches_after_start(call.version)),
        multiplexed=framed,
        detach_keys=call.text("detachKeys"),
    )


def stream_head(call: Call, framed: bool) -> bytes:
    """The head of the answer to a request that takes its connection over."""
    content_type = eras.stream_type(call.version, framed)
    extra = "".join(f"{name}: {value}\r\n" for name, value in call.extra_headers.items())
    if call.request.headers.get(UPGRADE_HEADER, "").lower() == "tcp":
        head = f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {content_type}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
    else:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n"
    return f"{head}{extra}\r\n".encode()


def _tail(call: Call) -> int | None:
    if call.text("tail") in ("", "all"):
        return None
    lines = call.number("tail")
    return None if lines is None or lines < 0 else lines


ROUTES = (
    Route("GET", "/containers/{}/logs", logs),
    Route("POST", "/containers/{}/attach", attach),
)
