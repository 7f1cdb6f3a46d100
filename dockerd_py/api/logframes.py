"""Log records as the bytes of an answer: Docker's frames, or the plain output where the container has a terminal.

A frame is 8 bytes of header (stream, three zeros, length as big-endian 32 bits) and its payload.  Each record is a
frame of its own, because clients that iterate over frames expect lines.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import quote_plus

from dockerd_py.api.times import Stamper
from dockerd_py.engine.model import LogRecord

_header = struct.Struct(">BxxxI").pack


def encoder(*, framed: bool, timestamps: bool, details: bytes = b"") -> Callable[[Sequence[LogRecord]], bytes]:
    """A function that turns the next batch of records into bytes.

    ``timestamps`` puts the time of a line before its first piece; ``details``, if there are any, come behind that.
    """
    if not timestamps and not details:
        return _frames if framed else _plain
    stamper = Stamper()
    continued: set[int] = set()  # streams whose last piece had no line end yet

    def prefixed(records: Sequence[LogRecord]) -> bytes:
        parts: list[bytes] = []
        for record in records:
            data = record.data
            if record.stream not in continued:
                if details:
                    data = details + data
                if timestamps:
                    data = stamper.stamp(record.time) + b" " + data
            if record.partial:
                continued.add(record.stream)
            else:
                continued.discard(record.stream)
            if framed:
                parts.append(_header(record.stream, len(data)))
            parts.append(data)
        return b"".join(parts)

    return prefixed


def spell_details(attributes: Mapping[str, str]) -> bytes:
    """The attributes that a log's options chose, before each line: ``a=1,b=2`` in the form of a URL, and a blank."""
    pairs = (f"{quote_plus(key)}={quote_plus(value)}" for key, value in sorted(attributes.items()))
    return ",".join(pairs).encode() + b" "


def _frames(records: Sequence[LogRecord]) -> bytes:
    headers: dict[tuple[int, int], bytes] = {}  # few lengths occur often
    parts: list[bytes] = []
    for record in records:
        data = record.data
        key = (record.stream, len(data))
        header = headers.get(key)
        if header is None:
            header = headers[key] = _header(*key)
        parts.append(header)
        parts.append(data)
    return b"".join(parts)


def _plain(records: Sequence[LogRecord]) -> bytes:
    return b"".join([record.data for record in records])
