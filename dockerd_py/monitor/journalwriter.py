"""Lines for the journal, in its native protocol."""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Sequence

from dockerd_py.monitor.lines import Piece
from dockerd_py.monitor.logwriters import RETRY_SECONDS, STDERR, STDOUT, timestamp

JOURNAL_SOCKET = "/run/systemd/journal/socket"

UNIT_SUFFIXES = (
    ".service", ".socket", ".target", ".device", ".mount", ".automount", ".swap", ".timer", ".path", ".slice", ".scope",
)  # fmt: skip


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
