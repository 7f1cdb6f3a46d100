"""Where one HTTP/1 request on a connection ends and what follows it begins.

A request that takes its connection over (attach) may be followed at once by bytes that are no HTTP.  They must not
reach the HTTP parser, so somebody has to know where that request's body ends before the parser sees it.  `Framing`
follows the requests of one connection (RFC 9112, sections 6 and 7) just far enough to tell, and changes nothing.
What it cannot follow is the parser's to refuse: it then stops looking and never finds a hijack again.
"""

from __future__ import annotations

import re
from collections.abc import Callable

MAX_HEAD = 65536
"""Longest request head that is followed, in bytes; the HTTP parser refuses shorter ones already."""

MAX_LINE = 4096
"""Longest chunk header or trailer line."""

_END_OF_HEAD = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)[ \t]*(?=\r\n)", re.IGNORECASE)
_CODING = re.compile(rb"\r\ntransfer-encoding:[ \t]*([^\r\n]*?)[ \t]*(?=\r\n)", re.IGNORECASE)
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;[^\r\n]*)?")


class Framing:
    """The framing of one connection.  ``hijacks(head)`` says whether a request line takes the connection over; a
    request that asks for an upgrade of any kind counts as one too, because no HTTP need follow it."""

    def __init__(self, hijacks: Callable[[bytes], bool]) -> None:
        self._hijacks = hijacks
        self._step: Callable[[bytes, int], int] | None = self._head
        self._partial = bytearray()  # of a head or line that has not ended yet
        self._remaining = 0
        self._hijacked = False
        self.requests = 0  # heads seen so far

    def advance(self, data: bytes) -> int | None:
        """Follow ``data``, the next bytes of the connection.  The index in it at which the body of a hijacking
        request ends; None if there is no such end in it.  Not to be called again after an index."""
        position = 0
        while self._step is not None and position < len(data):
            position = self._step(data, position)
            if self._hijacked and self._step == self._head:
                return position
        return None

    def _head(self, data: bytes, position: int) -> int:
        partial = self._partial
        if not partial:
            while position < len(data) and data[position] in b"\r\n":  # empty lines before a request are allowed
                position += 1
            end = data.find(_END_OF_HEAD, position, position + MAX_HEAD)
            if end >= 0:
                self._begin_body(data[position : end + 2])
                return end + len(_END_OF_HEAD)
        before = len(partial)
        searched = max(0, before - 3)
        partial += data[position : position + MAX_HEAD + 1]
        end = partial.find(_END_OF_HEAD, searched)
        if end < 0:
            if len(partial) > MAX_HEAD:
                self._give_up()
            return len(data)
        head = bytes(partial[: end + 2])
        partial.clear()
        self._begin_body(head)
        return position + end + len(_END_OF_HEAD) - before

    def _begin_body(self, head: bytes) -> None:
        self.requests += 1
        self._hijacked = self._hijacks(head) or _UPGRADE.search(head) is not None
        lengths = set(_LENGTH.findall(head))
        codings = _CODING.findall(head)
        if codings:
            if lengths or not codings[-1].lower().endswith(b"chunked"):
                self._give_up()
            else:
                self._step = self._chunk_header
        elif lengths:
            if len(lengths) > 1 or len(length := lengths.pop()) > 18:
                self._give_up()
            elif int(length):
                self._remaining = int(length)
                self._step = self._body

    def _body(self, data: bytes, position: int) -> int:
        taken = min(self._remaining, len(data) - position)
        self._remaining -= taken
        if self._remaining == 0:
            self._step = self._head
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
            self._step = self._chunk
        else:
            self._step = self._trailer
        return position

    def _chunk(self, data: bytes, position: int) -> int:
        taken = min(self._remaining, len(data) - position)
        self._remaining -= taken
        if self._remaining == 0:
            self._step = self._chunk_header
        return position + taken

    def _trailer(self, data: bytes, position: int) -> int:
        line, position = self._line(data, position)
        if line == b"":
            self._step = self._head
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

    def _give_up(self) -> None:
        self._step = None
        self._partial.clear()
