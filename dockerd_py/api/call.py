"""One request on its way through a handler: checked access to its query and body, and the forms of an answer."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web

from dockerd_py.api.fields import JsonObject, check_text, parse_object
from dockerd_py.api.hijack import Front
from dockerd_py.api.routing import ApiVersion, spell
from dockerd_py.api.times import parse_time
from dockerd_py.api.truth import is_true
from dockerd_py.errors import BadParameter
from dockerd_py.version import API_VERSION, FIRST_YEAR, VERSION

if TYPE_CHECKING:
    from dockerd_py.engine.engine import Engine

MAX_JSON_BODY = 4 << 20
"""Longest JSON body in bytes; uploads of archives are streamed and have no limit here."""

COMMON_HEADERS = {
    "Api-Version": spell(API_VERSION),
    "Docker-Experimental": "false",
    "Ostype": "linux",
    "Server": f"pydockerd/{VERSION} (linux)",
}

CORS_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "Origin, X-Requested-With, Content-Type, Accept",
    "Access-Control-Allow-Methods": "GET, POST, DELETE, PUT, OPTIONS",
}
"""For pages of any origin, with --api-enable-cors."""


class Call:
    """``names`` are those in the path; ``started`` tells whether the head of the answer has been sent.

    extra_headers: of every answer; those that are not begun by `stream` get them from the server.
    """

    def __init__(
        self,
        request: web.BaseRequest,
        engine: Engine,
        front: Front,
        version: ApiVersion,
        names: tuple[str, ...],
        extra_headers: Mapping[str, str],
    ) -> None:
        self.request = request
        self.engine = engine
        self.front = front
        self.version = version
        self.names = names
        self.query = request.rel_url.query
        self.extra_headers = extra_headers
        self.started = False

    @property
    def name(self) -> str:
        """The one name in the path."""
        return check_text(self.names[0], "the name")

    # The query

    def text(self, key: str, default: str = "") -> str:
        return check_text(self.query.get(key, default), key)

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(check_text(value, key) for value in self.query.getall(key, ()))

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.query.get(key)
        return default if value is None else is_true(value)

    def number(self, key: str) -> int | None:
        """None when it is absent or empty."""
        value = self.query.get(key, "").strip()
        if not value:
            return None
        digits = value[1:] if value[0] in "+-" else value
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 10):
            if self.version <= FIRST_YEAR:
                return 0
            raise BadParameter(f"Bad parameter: {key} must be a number")
        return int(value)

    def moment(self, key: str) -> int:
        """Nanoseconds since the epoch; 0 when it is absent."""
        return parse_time(self.query.get(key, ""), key)

    def terminal_size(self) -> tuple[int, int]:
        """The rows ``h`` and the columns ``w``."""
        height, width = self.number("h"), self.number("w")
        if height is None or width is None or not (0 <= height <= 65535 and 0 <= width <= 65535):
            raise BadParameter("Bad parameter: h and w must be numbers from 0 to 65535")
        return height, width

    # The body

    async def body(self) -> bytes:
        encoding = self.request.headers.get("Content-Encoding", "identity").lower()
        if encoding not in ("", "identity"):
            raise BadParameter(f"Bad parameter: Content-Encoding {encoding!r} is not supported for this request")
        chunks = bytearray()
        async for chunk in self.upload():
            chunks += chunk
            if len(chunks) > MAX_JSON_BODY:
                raise BadParameter(f"Bad parameter: the request body is longer than {MAX_JSON_BODY} bytes")
        return bytes(chunks)

    async def json_body(self) -> JsonObject:
        return parse_object(await self.body()) if self.request.body_exists else {}

    async def upload(self) -> AsyncGenerator[bytes, None]:
        """The body as it arrives.  BadParameter when it breaks off or its encoding is broken."""
        if not self.request.body_exists:
            return
        try:
            async for chunk in self.request.content.iter_any():
                yield chunk
        except (OSError, aiohttp.ClientError, web.RequestPayloadError) as error:
            raise BadParameter(f"the request body broke off before its end: {error}") from error

    # The answer

    def json(self, value: Any, status: int = 200) -> web.Response:
        return web.Response(body=dump(value), status=status, headers=COMMON_HEADERS, content_type="application/json")

    def empty(self, status: int = 204) -> web.Response:
        return web.Response(status=status, headers=COMMON_HEADERS)

    async def stream(self, content_type: str, headers: dict[str, str] | None = None) -> web.StreamResponse:
        """Begin an answer of unknown length: its head is sent at once."""
        response = web.StreamResponse(
            headers={**COMMON_HEADERS, **self.extra_headers, **(headers or {}), "Content-Type": content_type}
        )
        self.started = True
        await response.prepare(self.request)
        return response


def dump(value: Any) -> bytes:
    """JSON as Docker's clients get it: compact, UTF-8, ending in a newline."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"
