"""From a request's method and path to its API version, its handler and the names in its path.

Every route exists twice: ``/v1.24/containers/json`` and ``/containers/json``, which means the newest version.  Names
of containers and images may hold any character, slashes too.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from dockerd_py.errors import BadParameter, NotFound
from dockerd_py.version import API_VERSION, MIN_API_VERSION

if TYPE_CHECKING:
    from dockerd_py.api.call import Call

ApiVersion = tuple[int, int]
Handler = Callable[["Call"], Awaitable[web.StreamResponse]]

_VERSIONED = re.compile(r"/v([0-9.]+)(/.*)")
_VERSION = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})")


class PageNotFound(NotFound):
    def __init__(self) -> None:
        super().__init__("page not found")


class OtherVersion(BadParameter):
    """An API version that is not spoken here."""

    def __init__(self, message: str, version: ApiVersion) -> None:
        super().__init__(message)
        self.version = version


@dataclass(frozen=True)
class Route:
    """``pattern`` as in ``/containers/{}/json``: each ``{}`` is a name."""

    method: str
    pattern: str
    handler: Handler


class Routes:
    def __init__(self, routes: tuple[Route, ...]) -> None:
        self._exact: dict[tuple[str, str], Handler] = {}
        self._patterns: dict[tuple[str, str], list[tuple[re.Pattern[str], Handler]]] = {}
        for route in routes:
            if "{}" not in route.pattern:
                self._exact[route.method, route.pattern] = route.handler
                continue
            expression = re.compile("(.+)".join(re.escape(part) for part in route.pattern.split("{}")), re.DOTALL)
            self._patterns.setdefault((route.method, _family(route.pattern)), []).append((expression, route.handler))

    def find(self, method: str, path: str) -> tuple[Handler, tuple[str, ...]]:
        """The handler of ``path`` (without its version) and the names in it.  PageNotFound."""
        handler = self._exact.get((method, path))
        if handler is not None:
            return handler, ()
        for expression, handler in self._patterns.get((method, _family(path)), ()):
            if match := expression.fullmatch(path):
                return handler, match.groups()
        raise PageNotFound


def split_version(path: str) -> tuple[ApiVersion, str]:
    """The API version that ``path`` asks for, and the rest of it.

    OtherVersion for one that is too new or too old, PageNotFound for one that is none.
    """
    match = _VERSIONED.fullmatch(path)
    if match is None:
        return API_VERSION, path
    number = _VERSION.fullmatch(match[1])
    if number is None:
        raise PageNotFound
    version = int(number[1]), int(number[2])
    if version > API_VERSION:
        raise OtherVersion(
            f"client version {spell(version)} is too new. Maximum supported API version is {spell(API_VERSION)}",
            version,
        )
    if version < MIN_API_VERSION:
        raise OtherVersion(
            f"client version {spell(version)} is too old. Minimum supported API version is {spell(MIN_API_VERSION)}, "
            "please upgrade your client to a newer version",
            version,
        )
    return version, match[2]


def spell(version: ApiVersion) -> str:
    return f"{version[0]}.{version[1]}"


def _family(path: str) -> str:
    return path.split("/", 2)[1] if path.startswith("/") else ""
