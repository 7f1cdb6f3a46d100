"""Lines for a syslog daemon: RFC 3164 (what most of them read), RFC 5424, or the form of the local socket.

A record is sent when it can be: while the daemon does not take it, the container waits, as with every log of ours.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from dockerd_py.monitor.lines import Piece
from dockerd_py.monitor.logwriters import RETRY_SECONDS, STDERR

LOCAL = "/dev/log"
CONNECT_SECONDS = 3.0
INFO, ERROR = 6, 3
FACILITIES = {
    name: number
    for number, name in enumerate(
        ("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp")
    )
} | {f"local{n}": 16 + n for n in range(8)}
FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")


class SyslogWriter:
    def __init__(self, settings: Mapping[str, str]) -> None:
        """settings: ``address`` (udp://, tcp://, unix://, unixgram://; "" for /dev/log), ``facility``, ``format`` (""
        for that of the local socket), ``tag``, ``hostname``.
        """
        self._address = settings["address"]
        self._format = settings["format"]
        self._facility = FACILITIES[settings["facility"]]
        self._tag = settings["tag"]
        self._hostname = settings["hostname"]
        self._stream = urlsplit(self._address).scheme in ("tcp", "unix")
        self._pending: deque[bytes] = deque()
        self._sent = 0  # bytes of the first of them
        self._socket: socket.socket | None = None
        self._retry_at: float | None = None

    def add(self, stream: int, when: int, first_ordinal: int, pieces: Sequence[Piece]) -> None:
        head = self._head(8 * self._facility + (ERROR if stream == STDERR else INFO), when)
        end = b"\n" if self._stream else b""
        self._pending.extend(head + data.replace(b"\0", b" ") + end for data, _ended in pieces)

    def flush(self) -> bool:
        self._retry_at = None
        try:
            if self._pending and self._socket is None:
                self._socket = self._connect()
            while self._pending:
                assert self._socket is not None
                record = self._pending[0]
                try:
                    self._sent += self._socket.send(record[self._sent :], socket.MSG_NOSIGNAL)
                except OSError as error:
                    if error.errno != errno.EMSGSIZE:
                        raise
                    self._sent = len(record)  # no datagram of that size will ever pass
                if not self._stream or self._sent == len(record):
                    self._pending.popleft()
                    self._sent = 0
        except BlockingIOError:
            return False
        except OSError:
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

    def _head(self, priority: int, when: int) -> bytes:
        seconds, nanoseconds = divmod(when, 1_000_000_000)
        if self._format.startswith("rfc5424"):
            shown = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
            fraction = f".{nanoseconds // 1000:06d}" if self._format == "rfc5424micro" else ""
            text = f"<{priority}>1 {shown}{fraction}Z {self._hostname} {self._tag} {os.getpid()} - - "
        else:
            # RFC 3164 section 4.1.2: the day of the month is padded with a blank; the local socket has no host
            local = time.localtime(seconds)
            shown = f"{time.strftime('%b', local)} {local.tm_mday:2d} {time.strftime('%H:%M:%S', local)}"
            host = f"{self._hostname} " if self._address or self._format else ""
            text = f"<{priority}>{shown} {host}{self._tag}[{os.getpid()}]: "
        return text.encode("utf-8", "surrogateescape")

    def _connect(self) -> socket.socket:
        url = urlsplit(self._address)
        target: Any
        if url.scheme in ("udp", "tcp"):
            kind = socket.SOCK_DGRAM if url.scheme == "udp" else socket.SOCK_STREAM
            assert url.hostname is not None
            family, _, _, _, target = socket.getaddrinfo(url.hostname, url.port or 514, type=kind)[0]
            connection = socket.socket(family, kind)
        else:
            kind = socket.SOCK_STREAM if url.scheme == "unix" else socket.SOCK_DGRAM
            connection, target = socket.socket(socket.AF_UNIX, kind), url.path or LOCAL
        try:
            connection.settimeout(CONNECT_SECONDS)
            connection.connect(target)
        except OSError:
            connection.close()
            raise
        connection.setblocking(False)
        return connection

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self._sent = 0  # the next connection gets it whole
