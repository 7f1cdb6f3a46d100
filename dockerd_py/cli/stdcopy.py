"""The frames in which a container's standard output and error share one connection.

A frame is 8 bytes of head (the stream's number, three zero bytes, the payload's length as a big-endian 32-bit number)
and the payload.  Payloads are passed on as they arrive, so nothing is held back but an incomplete head.
"""

from __future__ import annotations

from dockerd_py.cli.errors import ConnectionLost

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

STDIN, STDOUT, STDERR, SYSTEM_ERROR = range(4)

_HEAD = 8


class Demultiplexer:
    """Feed it the stream in pieces of any size."""

    def __init__(self) -> None:
        self._rest = b""  # an incomplete head
        self._stream = STDOUT
        self._left = 0  # of the current payload

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Pairs of stream and bytes: STDOUT, STDERR, or SYSTEM_ERROR for a message of the daemon's.

        What one piece has of a stream without another's in between comes as one pair.
        Raises ConnectionLost for what is no such frame.
        """
        data = self._rest + data
        at, end = 0, len(data)
        run: list[bytes] = []
        run_stream = self._stream
        while at < end:
            if self._left:
                piece = data[at : at + self._left]
                self._left -= len(piece)
                at += len(piece)
                if run and run_stream != self._stream:
                    yield run_stream, b"".join(run)
                    run.clear()
                run_stream = self._stream
                run.append(piece)
            elif end - at < _HEAD:
                break
            else:
                self._begin(data[at : at + _HEAD])
                at += _HEAD
        self._rest = data[at:]
        if run:
            yield run_stream, b"".join(run)

    @property
    def complete(self) -> bool:
        """Whether the stream may end here: not within a frame."""
        return not self._rest and not self._left

    def _begin(self, head: bytes) -> None:
        if head[0] > SYSTEM_ERROR or head[1:4] != b"\0\0\0":
            raise ConnectionLost(f"The daemon's stream is not in frames of stdout and stderr: {head!r}")
        self._stream = head[0] or STDOUT  # standard input, echoed
        self._left = int.from_bytes(head[4:], "big")
