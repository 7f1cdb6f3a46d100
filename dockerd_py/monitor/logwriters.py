"""Where a container's lines go: the journal, a file of Docker's json-file form, or nowhere.

A writer takes records at once (`add`) and writes them when it can (`flush`).  The supervisor reads no more from the
container while anything is unwritten, so memory stays bounded and nothing is dropped: a slow log slows its writer.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections import deque
from collections.abc import Sequence
from json.encoder import encode_basestring_ascii
from typing import Protocol

from dockerd_py.monitor.lines import Piece

STDOUT, STDERR = 1, 2

JOURNAL_SOCKET = "/run/systemd/journal/socket"
RETRY_SECONDS = 0.5

UNIT_SUFFIXES = (
    ".service", ".socket", ".target", ".device", ".mount", ".automount", ".swap", ".timer", ".path", ".slice", ".scope",
)  # fmt: skip


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


class JsonFileWriter:
    """One JSON object a line: ``{"log": "...\\n", "stream": "stdout", "time": "..."}``.

    Bytes that are not UTF-8 are written as lone surrogates (``\\udcXX``, PEP 383), from which a reader gets them
    back.
    """

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._fd).st_size
        self._pending = bytearray()
        self._retry_at: float | None = None

    def add(self, stream: int, when: int, first_ordinal: int, pieces: Sequence[Piece]) -> None:
        tail = f',"stream":"{"stdout" if stream == STDOUT else "stderr"}","time":"{timestamp(when)}"}}\n'
        quote = encode_basestring_ascii
        text = [
            '{"log":' + quote(data.decode("utf-8", "surrogateescape") + ("\n" if ended else "")) + tail
            for data, ended in pieces
        ]
        self._pending += "".join(text).encode("ascii")

    def flush(self) -> bool:
        self._retry_at = None
        while self._pending:
            try:
                count = os.write(self._fd, self._pending)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                self._retry_at = time.monotonic() + RETRY_SECONDS
                return False
            self._size += count
            del self._pending[:count]
        return True

    def wait_fd(self) -> int | None:
        return None

    def retry_at(self) -> float | None:
        return self._retry_at

    def mark(self) -> dict[str, int]:
        return {"offset": self._size}

    def close(self) -> None:
        os.close(self._fd)


class JournalWriter:
    """Datagrams of the journal's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).

    ``OBJECT_SYSTEMD_UNIT`` is what makes ``journalctl -u container-X`` find a record of ours; it stands there for
    each spelling of X.
    """

    def __init__(self, fields: dict[str, str], names: Sequence[str], epoch: str) -> None:
        self._epoch = epoch
        self._pending: deque[bytes] = deque()
        self._socket: socket.socket | None = None
        self._retry_at: float | None = None
        self._prefix = {STDOUT: b"", STDERR: b""}
        self.set_fields(fields, names)

    def set_fields(self, fields: dict[str, str], names: Sequence[str]) -> None:
        """Take these fields for every record to come, and ``names`` as the X of ``container-X``."""
        units = [
            f"container-{name}{suffix}"
            for name in names
            for suffix in (".service", ".scope", *([""] if name.endswith(UNIT_SUFFIXES) else []))
        ]
        fixed = [f"{key}={value}" for key, value in fields.items()]
        fixed += [f"OBJECT_SYSTEMD_UNIT={unit}" for unit in units]
        fixed.append(f"CONTAINER_LOG_EPOCH={self._epoch}")
        for stream, priority in ((STDOUT, 6), (STDERR, 3)):
            # a value of ours with a newline (an image's name can't have one) would end the field early
            lines = [line.replace("\n", " ") for line in (f"PRIORITY={priority}", *fixed)]
            self._prefix[stream] = ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")

    def add(self, stream: int, when: int, first_ordinal: int, pieces: Sequence[Piece]) -> None:
        head = self._prefix[stream] + b"SYSLOG_TIMESTAMP=" + timestamp(when).encode() + b"\nCONTAINER_LOG_ORDINAL="
        whole, cut = b"\n", b"\nCONTAINER_PARTIAL_MESSAGE=true\n"
        self._pending.extend(
            b"%b%d\nMESSAGE=%b%b" % (head, ordinal, data, whole if ended else cut)
            for ordinal, (data, ended) in enumerate(pieces, first_ordinal)
        )

    def flush(self) -> bool:
        self._retry_at = None
        pending = self._pending
        try:
            if pending and self._socket is None:
                self._connect()
            while pending:
                assert self._socket is not None
                self._socket.send(pending[0])
                pending.popleft()
        except BlockingIOError:
            return False
        except OSError:
            # journald's socket is held by PID 1 and stays when journald restarts; but it may be stopped too
            self._disconnect()
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
        self._disconnect()

    def _connect(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * 1024 * 1024)
        self._socket.connect(JOURNAL_SOCKET)

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def make(driver: str, *, path: str, fields: dict[str, str], names: Sequence[str], epoch: str) -> LogWriter:
    """The writer for a log driver's name; raises ValueError for an unknown one."""
    if driver == "journald":
        return JournalWriter(fields, names, epoch)
    if driver == "json-file":
        return JsonFileWriter(path)
    if driver == "none":
        return NullWriter()
    raise ValueError(f"unknown log driver: {driver}")
