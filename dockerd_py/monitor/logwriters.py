"""What every log writer does, and the one that writes nowhere.

A writer takes records at once (`add`) and writes them when it can (`flush`).  The supervisor reads no more from the
container while anything is unwritten, so memory stays bounded and nothing is dropped: a slow log slows its writer.
"""

from __future__ import annotations

import time
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
