"""Lines for a syslog daemon: RFC 3164 (what most of them read), RFC 5424, or the form of the local socket.

A record is sent when it can be: while the daemon does not take it, the container waits, as with every log of ours.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from dockerd_py.monitor.lines import Piece
from dockerd_py.monitor.logwriters import STDERR, SocketWriter

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


class SyslogWriter(SocketWriter):
    def __init__(self, settings: Mapping[str, str]) -> None:
        """settings: ``address`` (udp://, tcp://, unix://, unixgram://; "" for /dev/log), ``facility``, ``format`` (""
        for that of the local socket), ``tag``, ``hostname``.
        """
        super().__init__()
        self._address = settings["address"]
        self._format = settings["format"]
        self._facility = FACILITIES[settings["facility"]]
        self._tag = settings["tag"]
        self._hostname = settings["hostname"]
        self._stream = urlsplit(self._address).scheme in ("tcp", "unix")
        self._sent = 0  # bytes of the first record that waits

    def add(self, stream: int, when: int, first_ordinal: int, pieces: Sequence[Piece]) -> None:
        head = self._head(8 * self._facility + (ERROR if stream == STDERR else INFO), when)
        end = b"\n" if self._stream else b""
        self._pending.extend(head + data.replace(b"\0", b" ") + end for data, _ended in pieces)

    def put(self, connection: socket.socket, record: bytes) -> bool:
        try:
            self._sent += connection.send(record[self._sent :], socket.MSG_NOSIGNAL)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            self._sent = len(record)  # no datagram of that size will ever pass
        if self._stream and self._sent < len(record):
            return False
        self._sent = 0
        return True

    def disconnect(self) -> None:
        super().disconnect()
        self._sent = 0  # the next connection gets it whole

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

    def connect(self) -> socket.socket:
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
