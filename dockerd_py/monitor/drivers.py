"""The log drivers by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dockerd_py.monitor.journalwriter import JournalWriter
from dockerd_py.monitor.lines import Piece
from dockerd_py.monitor.logfile import JsonFileWriter
from dockerd_py.monitor.logwriters import LogWriter, NullWriter


class Both:
    """A writer that cannot be read from, and beside it a file that can."""

    def __init__(self, first: LogWriter, second: LogWriter) -> None:
        self._first = first
        self._second = second
        self._waits_for_first = False

    def add(self, stream: int, when: int, first_ordinal: int, pieces: Sequence[Piece]) -> None:
        self._first.add(stream, when, first_ordinal, pieces)
        self._second.add(stream, when, first_ordinal, pieces)

    def flush(self) -> bool:
        self._waits_for_first = not self._first.flush()
        return self._second.flush() and not self._waits_for_first

    def wait_fd(self) -> int | None:
        return self._first.wait_fd() if self._waits_for_first else None

    def retry_at(self) -> float | None:
        times = [at for at in (self._first.retry_at(), self._second.retry_at()) if at is not None]
        return min(times, default=None)

    def mark(self) -> dict[str, int]:
        return self._second.mark()

    def close(self) -> None:
        self._first.close()
        self._second.close()


def make(
    driver: str,
    *,
    path: str,
    fields: dict[str, str],
    names: Sequence[str],
    epoch: str,
    settings: Mapping[str, Any] | None = None,
) -> LogWriter:
    """The writer for a log driver's name; raises ValueError for an unknown one.

    ``settings``, all optional: ``file`` (max_size, max_files, attributes) and ``syslog`` (see `SyslogWriter`).
    """
    given = settings or {}
    if driver == "journald":
        return JournalWriter(fields, names, epoch)
    if driver in ("json-file", "local"):
        return JsonFileWriter(path, **given.get("file", {}))
    if driver == "syslog":
        from dockerd_py.monitor.syslogwriter import SyslogWriter  # noqa: PLC0415 - a monitor's memory counts

        writer = SyslogWriter(given["syslog"])
        return Both(writer, JsonFileWriter(path, **given["file"])) if "file" in given else writer
    if driver == "none":
        return NullWriter()
    raise ValueError(f"unknown log driver: {driver}")
