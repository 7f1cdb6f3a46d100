"""The daemon's API as the commands use it: paths and queries in, decoded JSON out, errors raised.

The version of the API is the one that the commands were written for; a newer daemon keeps speaking it.
"""

from __future__ import annotations

import json
import os
import sys

from dockerd_py.cli.errors import CliError, ConnectionLost, DaemonError
from dockerd_py.cli.transport import Host, Response, send, upload
from dockerd_py.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    Query = Mapping[str, str | int | bool | list[str] | None]

API_VERSION = "1.41"


class Client:
    """Every request has a connection of its own, so a client can be used from within a stream."""

    def __init__(self, host: Host, debug: bool = False, api_version: str = API_VERSION) -> None:
        self.host = host
        self.debug = debug
        self.api_version = api_version

    def begin(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> socket.socket:
        """Send a request without waiting for the answer: `answer` of its `Response` has it."""
        return send(self.host, method, self._target(method, path, query), self._headers(headers), body)

    def request(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """The answer, whose body is still to be read.  Raises DaemonError for a status of 400 and above."""
        return answer(Response(self.begin(method, path, query, body=body, headers=headers)))

    def upload(
        self, path: str, query: Query, body: Iterable[bytes], headers: dict[str, str], method: str = "POST"
    ) -> Response:
        """Send a long body; with a Content-Length among the headers, or in chunks.  Raises DaemonError as above."""
        return answer(upload(self.host, method, self._target(method, path, query), self._headers(headers), body))

    def _target(self, method: str, path: str, query: Query | None) -> str:
        target = f"/v{self.api_version}{path}{_encoded(query)}"
        if self.debug:
            print(f"pydocker: {method} {target}", file=sys.stderr)
        return target

    def _headers(self, headers: dict[str, str] | None) -> dict[str, str]:
        return {"User-Agent": f"pydocker/{VERSION}", **(headers or {})}

    def get(self, path: str, query: Query | None = None) -> Any:
        return decode(self.request("GET", path, query).read())

    def post(self, path: str, query: Query | None = None, payload: object | None = None) -> Any:
        """Send ``payload`` as JSON, if there is one.  None for an answer without a body."""
        if payload is None:
            response = self.request("POST", path, query)
        else:
            body = json.dumps(payload, separators=(",", ":")).encode()
            response = self.request("POST", path, query, body=body, headers={"Content-Type": "application/json"})
        data = response.read()
        return decode(data) if data.strip() else None

    def delete(self, path: str, query: Query | None = None) -> Any:
        data = self.request("DELETE", path, query).read()
        return decode(data) if data.strip() else None

    def hijack(self, path: str, query: Query | None = None, payload: object = None) -> tuple[socket.socket, bytes]:
        """Turn the connection into a raw stream; returns it with the bytes that were already read from it.

        ``payload`` is sent as JSON, if there is one.
        """
        headers = {"Connection": "Upgrade", "Upgrade": "tcp"}
        body = None
        if payload is not None:
            body = json.dumps(payload, separators=(",", ":")).encode()
            headers["Content-Type"] = "application/json"
        response = self.request("POST", path, query, body=body, headers=headers)
        if response.status not in (101, 200):
            response.close()
            raise ConnectionLost(f"The daemon did not open a stream: it answered {response.status}.")
        return response.take_over()


def answer(response: Response) -> Response:
    """The same.  Raises DaemonError for a status of 400 and above."""
    if response.status >= 400:
        raise DaemonError(response.status, _reason(response))
    return response


def container_path(ref: str, rest: str = "") -> str:
    """``/containers/<ref><rest>``, with the ref escaped.  Raises CliError for what can name no container."""
    name = ref.removeprefix("/")
    if name in ("", ".", ".."):
        raise CliError(f'"{ref}" is no container\'s name or id')
    if not (name.isascii() and name.isalnum()):
        from urllib.parse import quote

        name = quote(name, safe="")
    return f"/containers/{name}{rest}"


def image_path(ref: str, rest: str = "") -> str:
    """``/images/<ref><rest>``; the slashes and colons of a reference stay.  Raises CliError as above."""
    if any(part in ("", ".", "..") for part in ref.split("/")):
        raise CliError(f'"{ref}" is no image\'s name or id')
    if not (ref.isascii() and ref.isalnum()):
        from urllib.parse import quote

        ref = quote(ref, safe="/:@")
    return f"/images/{ref}{rest}"


def decode(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        raise ConnectionLost(f"The daemon's answer is no JSON: {data[:80]!r}") from None


def messages(response: Response) -> Iterator[Any]:
    """The objects of a stream of JSON, each as soon as it is complete, whatever separates them."""
    import codecs

    text = ""
    utf8 = codecs.getincrementaldecoder("utf-8")("replace")
    decoder = json.JSONDecoder()
    for piece in response:
        text += utf8.decode(piece)
        while text := text.lstrip():
            try:
                value, end = decoder.raw_decode(text)
            except ValueError:
                break
            yield value
            text = text[end:]
    if text.strip():
        raise ConnectionLost(f"The daemon's answer is no JSON: {text[:80]!r}")


def default_host() -> str:
    """The address when no -H says otherwise; "" when the environment has none either."""
    return os.environ.get("PYDOCKER_HOST") or os.environ.get("DOCKER_HOST") or ""


def _encoded(query: Query | None) -> str:
    given = {key: value for key, value in (query or {}).items() if value is not None}
    if not given:
        return ""
    from urllib.parse import urlencode

    pairs = {key: int(value) if isinstance(value, bool) else value for key, value in given.items()}
    return "?" + urlencode(pairs, doseq=True)


def _reason(response: Response) -> str:
    data = response.read()
    text = data.decode("utf-8", "replace").strip()
    if response.headers.get("content-type", "").startswith("application/json"):
        try:
            text = json.loads(data)["message"].strip()
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
    return text or f"HTTP status {response.status}"
