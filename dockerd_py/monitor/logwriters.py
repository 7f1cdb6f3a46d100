"""What every log writer does, and the one that writes nowhere.

A writer takes records at once (`add`) and writes them when it can (`flush`).  The supervisor reads no more from the
container while anything is unwritten, so memory stays bounded and nothing is dropped: a slow log slows its writer.
"""

from __future__ import annotations

import socket
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from dockerd_py.monitor.lines import Piece

STDOUT, STDERR = 1, 2

RETRY_SECONDS = 0.5


class LogWriter(Protocol):
    def add(self, stream: int, when: int, first_ordinal: int, pieces: Sequence[Piece]) -> None:
        """Take records in; ``when`` in ns since the epoch."""

    def flush(self) -> bool:
        """Write what was taken in.  False: it can't be written now; `wait_fd` or `retry_at` says when to try again."""

    def wait_fd(self) -> int | None:
        """The descriptor whose writability ends a wait."""

    def retry_at(self) -> float | None:
        """The time.monotonic() after which `flush` should be tried though no descriptor tells so."""

    def mark(self) -> dict[str, int]:
        """Where the log stands after all that was flushed, for a reader of it."""

    def close(self) -> None: ...


def timestamp(when: int) -> str:
    """RFC 3339 in UTC with nine decimals."""
    seconds, nanoseconds = divmod(when, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09d}Z"


class NullWriter:
    def add(self, stream: int, when: int, first_ordinal: int, pieces: Sequence[Piece]) -> None:
        pass

    def flush(self) -> bool:
        return True

    def wait_fd(self) -> int | None:
        return None

    def retry_at(self) -> float | None:
        return None

    def mark(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        pass


class SocketWriter(ABC):
    """A writer whose records are bytes that go out by a socket, which it connects when it has any, and again when it
    is lost."""

    def __init__(self) -> None:
        self._pending: deque[bytes] = deque()
        self._socket: socket.socket | None = None
        self._retry_at: float | None = None

    @abstractmethod
    def connect(self) -> socket.socket:
        """A socket that does not block.  Raises OSError."""

    def put(self, connection: socket.socket, record: bytes) -> bool:
        """Send it, or some of it: whether all of it is out.  Raises OSError."""
        connection.send(record)
        return True

    def disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def flush(self) -> bool:
        self._retry_at = None
        try:
            while self._pending:
                if self._socket is None:
                    self._socket = self.connect()
                if self.put(self._socket, self._pending[0]):
                    self._pending.popleft()
        except BlockingIOError:
            return False
        except OSError:
            self.disconnect()
            self._retry_at = time.monotonic() + RETRY_SECONDS
            return False
        return True

    def wait_fd(self) -> int | None:
        return None if self._socket is None else self._socket.fileno()

    def retry_at(self) -> float | None:
        return self._retry_at

    def mark(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        self.disconnect()
