"""The Remote API's HTTP server on sockets that listen already.

Guarantees: every request gets an answer in the form of its API version; a failure that the engine foresees becomes
that error's status and sentence; anything else becomes a 500 with an id, whose traceback is in the log under the
same id; a client that goes away ends what was being done only for it.  All of this stands here, once.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import time
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.http import HttpProcessingError

from dockerd_py.api import (
    archives,
    containers,
    contents,
    eras,
    execs,
    graph,
    images,
    networks,
    stats,
    streams,
    system,
    upkeep,
    volumes,
    websocket,
)
from dockerd_py.api.call import COMMON_HEADERS, CORS_HEADERS, Call
from dockerd_py.api.hijack import ClientGone, Front, NoAnswer
from dockerd_py.api.routing import ApiVersion, OtherVersion, PageNotFound, Routes, split_version
from dockerd_py.errors import PydockerdError
from dockerd_py.version import API_VERSION

if TYPE_CHECKING:
    from dockerd_py.engine.engine import Engine

log = logging.getLogger(__name__)


def _is_worth_logging(record: logging.LogRecord) -> bool:
    """Whether aiohttp's record is about more than bytes from a client that are no HTTP request."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        log.debug("a request that is not HTTP: %s", error.message)
        return False
    return True


_http_log = logging.getLogger(f"{__name__}.http")
_http_log.addFilter(_is_worth_logging)

BACKLOG = 1024
READ_BUFFER = 1 << 18
LONGEST_LINE = 1 << 16
SHUTDOWN_SECONDS = 2.0


class ApiServer:
    """Serves ``engine`` to HTTP clients."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        parts = (
            system, containers, contents, upkeep, graph, images, volumes, networks, archives, streams, stats,
            websocket, execs,
        )  # fmt: skip
        self._extra_headers = CORS_HEADERS if engine.config.api_enable_cors else {}
        self._routes = Routes(tuple(route for part in parts for route in part.ROUTES))
        self._fronts: dict[asyncio.BaseTransport, Front] = {}
        self._servers: list[asyncio.AbstractServer] = []
        self._http: web.Server | None = None

    async def start(self, sockets: list[socket.socket]) -> None:
        """Serve on ``sockets``, unix or TCP, which listen already and belong to the server from now on."""
        http = self._http = web.Server(
            self._handle,
            access_log=None,
            # Unpacked here, a body could take any memory; archives are unpacked by a helper, whatever packed them.
            auto_decompress=False,
            read_bufsize=READ_BUFFER,
            max_line_size=LONGEST_LINE,
            max_field_size=LONGEST_LINE,
            logger=_http_log,
        )
        loop = asyncio.get_running_loop()
        for listener in sockets:
            # create_server and not create_unix_server, which removes the socket's file when it is closed: the file
            # may be systemd's.
            server = await loop.create_server(lambda: Front(http(), self._fronts), sock=listener, backlog=BACKLOG)
            self._servers.append(server)

    async def stop(self) -> None:
        """Stop listening, let answers that are nearly done finish, and close every connection."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        for front in tuple(self._fronts.values()):
            front.cancel_work()
        if self._http is not None:
            await self._http.shutdown(SHUTDOWN_SECONDS)
            self._http = None

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        begun = time.monotonic()
        front = self._fronts.get(request.transport) if request.transport is not None else None
        if front is None:
            return NoAnswer()
        front.next_request()
        try:
            answer = await self._answer(request, front)
            if not answer.prepared:
                answer.headers.update(self._extra_headers)
        finally:
            front.handled()
        if front.holding:
            # What was held back was never shown to the HTTP parser, so no further request can follow.
            answer.force_close()
        if log.isEnabledFor(logging.DEBUG):
            took = (time.monotonic() - begun) * 1000
            log.debug("%s %s: %d in %.1f ms", request.method, request.rel_url, answer.status, took)
        return answer

    async def _answer(self, request: web.BaseRequest, front: Front) -> web.StreamResponse:
        version = API_VERSION
        call: Call | None = None
        try:
            if request.method == "OPTIONS":
                return web.Response(headers=COMMON_HEADERS)
            version, path = split_version(request.path)
            handler, names = self._routes.find(request.method, path)
            if not eras.has_route(version, request.method, path):
                raise PageNotFound
            call = Call(request, self._engine, front, version, names, self._extra_headers)
            if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
                request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return await handler(call)
        except OtherVersion as error:
            told = eras.version_of_client(request.headers.get("User-Agent", ""), error)
            return self._failed(call, told, *eras.version_failure(told, error), front)
        except PydockerdError as error:
            if error.status >= 500:
                log.error("%s %s: %s", request.method, request.path, error)
            status, message = eras.error_status(version, error), eras.error_message(version, error)
            return self._failed(call, version, status, message, front)
        except ClientGone:
            return NoAnswer()
        except Exception as error:
            if front.gone and isinstance(error, ConnectionError):
                return NoAnswer()
            identity = secrets.token_hex(4)
            log.exception("%s %s failed unexpectedly (%s)", request.method, request.path, identity)
            message = f"internal error {identity}: the daemon's log has the details"
            return self._failed(call, version, 500, message, front)

    @staticmethod
    def _failed(call: Call | None, version: ApiVersion, status: int, message: str, front: Front) -> web.StreamResponse:
        if call is not None and call.started:
            front.close()
            return NoAnswer()
        if status == 304:
            return web.Response(status=status, headers=COMMON_HEADERS)
        body, content_type = eras.error_body(version, message)
        return web.Response(body=body, status=status, headers=COMMON_HEADERS, content_type=content_type)
