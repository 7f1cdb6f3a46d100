"""Lines for the journal, in its native protocol."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from dockerd_py.monitor.lines import Piece
from dockerd_py.monitor.logwriters import STDERR, STDOUT, SocketWriter, timestamp

JOURNAL_SOCKET = "/run/systemd/journal/socket"

UNIT_SUFFIXES = (
    ".service", ".socket", ".target", ".device", ".mount", ".automount", ".swap", ".timer", ".path", ".slice", ".scope",
)  # fmt: skip


class JournalWriter(SocketWriter):
    """Datagrams of the journal's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).

    ``OBJECT_SYSTEMD_UNIT`` is what makes ``journalctl -u container-X`` find a record of ours; it stands there for
    each spelling of X.
    """

    def __init__(self, fields: dict[str, str], names: Sequence[str], epoch: str) -> None:
        super().__init__()
        self._epoch = epoch
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

    def connect(self) -> socket.socket:
        # journald's socket is held by PID 1 and stays when journald restarts; but it may be stopped too
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * 1024 * 1024)
            connection.connect(JOURNAL_SOCKET)
        except OSError:
            connection.close()
            raise
        return connection
