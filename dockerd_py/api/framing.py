"""Where one HTTP/1 request on a connection ends and what follows it begins.

A request that takes its connection over (attach) may be followed at once by bytes that are no HTTP.  They must not
reach the HTTP parser, so somebody has to know where that request's body ends before the parser sees it.  `Framing`
follows the requests of one connection (RFC 9112, sections 6 and 7) just far enough to tell.  It changes one thing:
the parser is not shown that a client asks for an upgrade, since parsers then stop to read bodies, each version in
its own way, and RFC 9110 lets a server take no notice (a WebSocket's opening handshake it is shown, as that has no
body).  What cannot be followed is the parser's to refuse: from there
on everything is passed as it is, and no hijack is found any more.
"""

from __future__ import annotations

import re
from collections.abc import Callable

UPGRADE_HEADER = "Pydockerd-Upgrade"
"""The name under which the Upgrade header of a request comes out."""

MAX_HEAD = 65536
"""Longest request head that is followed, in bytes; the HTTP parser refuses shorter ones already."""

MAX_LINE = 4096
"""Longest chunk header or trailer line."""

_END_OF_HEAD = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)[ \t]*(?=\r\n)", re.IGNORECASE)
_CODING = re.compile(rb"\r\ntransfer-encoding:[ \t]*([^\r\n]*?)[ \t]*(?=\r\n)", re.IGNORECASE)
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
_CONNECTION = re.compile(rb"\r\nconnection:(?=[^\r\n]*upgrade)", re.IGNORECASE)
_WEBSOCKET = re.compile(
    rb"GET (?:/v[0-9.]+)?/containers/[^ ?]+/attach/ws[ ?].*\r\nupgrade:[ \t]*websocket[ \t]*\r\n",
    re.IGNORECASE | re.DOTALL,
)
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;[^\r\n]*)?")


class Framing:
    """The framing of one connection.  ``hijacks(head)`` says whether a request takes the connection over."""

    def __init__(self, hijacks: Callable[[bytes], bool]) -> None:
        self._hijacks = hijacks
        self._in_head = True
        self._step: Callable[[bytes, int], int] | None = None  # of the body; None outside of one, or having given up
        self._partial = bytearray()  # of a head or line that has not ended yet
        self._remaining = 0
        self._hijacked = False
        self.requests = 0  # heads seen so far

    def advance(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Follow ``data``, the next bytes of the connection: what of it goes on to the parser now (a head goes on
        when it is whole), and, once a hijacking request has ended in it, what stands behind; None before.
        Not to be called again after that."""
        passed: list[bytes] = []
        begin = position = 0
        while position < len(data):
            if self._in_head:
                passed.append(data[begin:position])
                head, position = self._head(data, position)
                begin = position
                passed.append(head)
            elif self._step is not None:
                position = self._step(data, position)
            else:
                position = len(data)
            if self._hijacked and self._in_head:
                passed.append(data[begin:position])
                return b"".join(passed), data[position:]
        if not passed:
            return data, None
        passed.append(data[begin:])
        return b"".join(passed), None

    def _head(self, data: bytes, position: int) -> tuple[bytes, int]:
        """The head that ends in ``data``, as the parser is to see it, and where it ends; empty while none does."""
        partial = self._partial
        if not partial:
            while position < len(data) and data[position] in b"\r\n":  # empty lines before a request are allowed
                position += 1
            end = data.find(_END_OF_HEAD, position, position + MAX_HEAD)
            if end >= 0:
                end += len(_END_OF_HEAD)
                return self._begin_body(data[position:end]), end
        before = len(partial)
        partial += data[position : position + MAX_HEAD + 1]
        end = partial.find(_END_OF_HEAD, max(0, before - 3))
        if end >= 0:
            end += len(_END_OF_HEAD)
            head = bytes(partial[:end])
            partial.clear()
            return self._begin_body(head), position + end - before
        if len(partial) <= MAX_HEAD:
            return b"", len(data)
        head = bytes(partial)
        self._give_up()
        return head, position + len(head) - before

    def _begin_body(self, head: bytes) -> bytes:
        self.requests += 1
        if _WEBSOCKET.match(head):
            self._give_up()  # what follows is the WebSocket's, and the parser's to hand on
            return head
        self._hijacked = self._hijacks(head)
        lengths = set(_LENGTH.findall(head))
        codings = _CODING.findall(head)
        if codings:
            if lengths or not codings[-1].lower().endswith(b"chunked"):
                self._give_up()
            else:
                self._enter(self._chunk_header)
        elif lengths:
            if len(lengths) > 1 or len(length := lengths.pop()) > 18:
                self._give_up()
            elif int(length):
                self._remaining = int(length)
                self._enter(self._body)
        if _UPGRADE.search(head):
            head = _CONNECTION.sub(b"\r\nPydockerd-Connection:", head)
            head = _UPGRADE.sub(b"\r\n%b:" % UPGRADE_HEADER.encode(), head)
        return head

    def _body(self, data: bytes, position: int) -> int:
        taken = min(self._remaining, len(data) - position)
        self._remaining -= taken
        if self._remaining == 0:
            self._leave()
        return position + taken

    def _chunk_header(self, data: bytes, position: int) -> int:
        line, position = self._line(data, position)
        if line is None:
            return position
        match = _CHUNK.fullmatch(line)
        if match is None:
            self._give_up()
        elif int(match[1], 16):
            self._remaining = int(match[1], 16) + 2  # with the line end behind it
            self._enter(self._chunk)
        else:
            self._enter(self._trailer)
        return position

    def _chunk(self, data: bytes, position: int) -> int:
        taken = min(self._remaining, len(data) - position)
        self._remaining -= taken
        if self._remaining == 0:
            self._enter(self._chunk_header)
        return position + taken

    def _trailer(self, data: bytes, position: int) -> int:
        line, position = self._line(data, position)
        if line == b"":
            self._leave()
        return position

    def _line(self, data: bytes, position: int) -> tuple[bytes | None, int]:
        """The line that ends in ``data``, without its end, and where the next one begins; None if none ends."""
        partial = self._partial
        if not partial:
            end = data.find(b"\r\n", position, position + MAX_LINE)
            if end >= 0:
                return data[position:end], end + 2
        before = len(partial)
        partial += data[position : position + MAX_LINE + 2]
        end = partial.find(b"\r\n", max(0, before - 1))
        if end < 0:
            if len(partial) > MAX_LINE:
                self._give_up()
            return None, len(data)
        line = bytes(partial[:end])
        partial.clear()
        return line, position + end + 2 - before

    def _enter(self, step: Callable[[bytes, int], int]) -> None:
        self._in_head = False
        self._step = step

    def _leave(self) -> None:
        self._in_head = True
        self._step = None

    def _give_up(self) -> None:
        self._in_head = False
        self._step = None
        self._hijacked = False
        self._partial.clear()
