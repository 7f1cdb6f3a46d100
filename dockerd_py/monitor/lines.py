"""From a stream of bytes to log records: whole lines, or pieces of a line that is too long for one record."""

from __future__ import annotations

PIECE = 48 * 1024
"""The longest record in bytes.  A longer line is cut into pieces, as journald cuts the lines of a service."""

Piece = tuple[bytes, bool]
"""(the bytes without their newline, whether a newline followed)."""


class LineSplitter:
    """Cuts one stream.  Feed it what was read; at the stream's end ask for the rest."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Piece]:
        """The records that ``data`` completes, in order."""
        lines = (self._rest + data if self._rest else data).split(b"\n")
        self._rest = lines.pop()
        pieces: list[Piece] = []
        for line in lines:
            if len(line) > PIECE:
                pieces += [(line[i : i + PIECE], False) for i in range(0, len(line), PIECE)]
                pieces[-1] = (pieces[-1][0], True)
            else:
                pieces.append((line, True))
        while len(self._rest) > PIECE:
            pieces.append((self._rest[:PIECE], False))
            self._rest = self._rest[PIECE:]
        return pieces

    @property
    def rest(self) -> bytes:
        """What stands after the last newline, or piece."""
        return self._rest

    def finish(self) -> list[Piece]:
        """What stands after the last newline: at most one record."""
        rest, self._rest = self._rest, b""
        return [(rest, False)] if rest else []
