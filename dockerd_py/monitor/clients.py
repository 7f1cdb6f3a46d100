"""Who listens to a container: attached terminals and programs, and readers that follow its log.

Neither may hold the container up: what a client does not take is buffered up to a limit.  Beyond it a client that
still reads slows the container down; one that reads nothing for STALL_SECONDS is let go.  An attached client that is
held is sent nothing until the daemon, which writes to it first, is done: whether it reads is for the daemon to see.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import select
import socket
import struct
import termios
import time
from collections.abc import Sequence

from dockerd_py.monitor.lines import Piece

BUFFER_LIMIT = 1024 * 1024
FOLLOW_LIMIT = 8 * 1024 * 1024
STALL_SECONDS = 1.0
LINGER_SECONDS = 2.0
READ_SIZE = 64 * 1024
UNREAD_LIMIT = 4 * 1024 * 1024

FRAME = struct.Struct(">BxxxI")
"""Docker's stdcopy header: stream, three zero bytes, the payload's length."""

FOLLOW = struct.Struct(">BBIQQ")
"""Header of a followed record: stream (0: the end), 1 if a newline followed, length, time in ns, ordinal."""


class Client:
    """The sending side of one connection: a buffer that drains when the peer reads."""

    def __init__(self, sock: socket.socket, limit: int) -> None:
        self.sock = sock
        self.limit = limit
        self.buffer = bytearray()
        self.gone = False
        self.last_progress = time.monotonic()
        sock.setblocking(False)

    @property
    def full(self) -> bool:
        return len(self.buffer) > self.limit

    @property
    def held(self) -> bool:
        """Whether it is not yet to be sent anything."""
        return False

    @property
    def stalled_at(self) -> float | None:
        """When to let go of this client unless it reads before."""
        return self.last_progress + STALL_SECONDS if self.full and not self.held else None

    def queue(self, data: bytes) -> None:
        if self.gone:
            return
        if not self.buffer:
            self.last_progress = time.monotonic()
        self.buffer += data
        self.flush()

    def flush(self) -> None:
        """Send what the peer takes; sets `gone` when it takes no more for good."""
        while self.buffer and not self.held:
            try:
                count = self.sock.send(memoryview(self.buffer)[:READ_SIZE], socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return
            except OSError:
                self.gone = True
                self.buffer.clear()
                return
            del self.buffer[:count]
            self.last_progress = time.monotonic()

    def happened(self, events: int) -> None:
        """What epoll(7) told of the connection, but for input."""
        if events & select.EPOLLOUT:
            self.flush()
        if events & (select.EPOLLERR | select.EPOLLHUP):
            self.gone = True

    @property
    def lingers_until(self) -> float | None:
        """When `part` gives up waiting for the peer's end."""
        return None

    def part(self, now: float) -> bool:
        """All was sent, and nothing is to follow: tell the peer so.  Whether `close` takes nothing of it back."""
        return True

    def close(self) -> None:
        self.sock.close()


class Attached(Client):
    """A client's own connection, handed over by the daemon: it gets the output and may give the input.

    hold: the reading end of a pipe.  The client is held until a byte comes from it; its end lets go of the client.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        stdin: bool,
        streams: frozenset[int],
        framed: bool,
        detach_keys: bytes,
        hold: int | None = None,
    ) -> None:
        super().__init__(sock, BUFFER_LIMIT)
        self.hold = hold
        self.streams = streams
        self.framed = framed
        self.wants_stdin = stdin
        self.input_ended = False
        self._lingers_until: float | None = None
        self._unreceived = 0
        self._keys = detach_keys
        self._matched = 0  # how many of the detach keys were just typed

    @property
    def held(self) -> bool:
        return self.hold is not None

    def hold_ended(self) -> None:
        """What came from the pipe decides whether the client is sent what waits for it, or gone."""
        if self.hold is None:
            return
        released = os.read(self.hold, 1)
        os.close(self.hold)
        self.hold = None
        if released:
            self.last_progress = time.monotonic()
            self.flush()
        else:
            self.gone = True

    @property
    def lingers_until(self) -> float | None:
        return self._lingers_until

    def part(self, now: float) -> bool:
        # Over TCP, input that comes after our close makes the kernel reset the connection, and what the peer has not
        # received until then is lost: so its own end is awaited, for a while.
        if self.sock.family == socket.AF_UNIX or self.input_ended:
            return True
        if self._lingers_until is None:
            self._lingers_until = now + LINGER_SECONDS
            try:
                self.sock.shutdown(socket.SHUT_WR)
            except OSError:
                return True
            self._unreceived = _unreceived(self.sock)
        ended = _throw_input_away(self.sock)
        if not ended and (unreceived := _unreceived(self.sock)) < self._unreceived:
            self._unreceived, self._lingers_until = unreceived, now + LINGER_SECONDS
        return ended or now >= self._lingers_until

    def close(self) -> None:
        """Its peer sees the end of the connection, and no error though there is input that nobody has read."""
        if self.hold is not None:
            os.close(self.hold)
            self.hold = None
        else:
            hang_up(self.sock)
        super().close()

    def output(self, stream: int, data: bytes) -> None:
        if stream in self.streams:
            self.queue(FRAME.pack(stream, len(data)) + data if self.framed else data)

    def read(self) -> bytes | None:
        """Bytes for the container's input; b"" when there is nothing now; None at the end of the input."""
        try:
            data = self.sock.recv(READ_SIZE)
        except BlockingIOError:
            return b""
        except OSError:
            self.gone = True
            return None
        return self.typed(data) if data else None

    def typed(self, data: bytes) -> bytes:
        """What of ``data`` is input: the detach keys are held back, and all of them in a row let go of the client."""
        if not self._keys:
            return data
        out = bytearray()
        for byte in data:
            if byte != self._keys[self._matched] and self._matched:
                out += self._keys[: self._matched]
                self._matched = 0
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    self.gone = True
                    return bytes(out)
            else:
                out.append(byte)
        return bytes(out)


class Follower(Client):
    """A reader of the log that gets each record as it is written, from the moment it asked."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, FOLLOW_LIMIT)

    def records(self, stream: int, when: int, first_ordinal: int, pieces: Sequence[Piece]) -> None:
        if self.full:
            # It can't keep up.  It reads what it misses from the log itself, and asks again.
            self.gone = True
            return
        pack = FOLLOW.pack
        self.queue(
            b"".join(
                [
                    pack(stream, ended, len(data), when, ordinal) + data
                    for ordinal, (data, ended) in enumerate(pieces, first_ordinal)
                ]
            )
        )

    def end(self) -> None:
        self.queue(FOLLOW.pack(0, 0, 0, 0, 0))


def hang_up(sock: socket.socket) -> None:
    """What is to be done before a connection is closed: over a unix socket, input that nobody has read would be an
    error for the peer, instead of the end."""
    if sock.family == socket.AF_UNIX:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)  # from now on no more can come
        _throw_input_away(sock)


def _unreceived(sock: socket.socket) -> int:
    """Bytes that were sent and that the peer's kernel has not acknowledged: SIOCOUTQ of tcp(7)."""
    found = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, found)
    return found[0]


def _throw_input_away(sock: socket.socket) -> bool:
    """Whether the peer has ended its side."""
    try:
        for _ in range(UNREAD_LIMIT // READ_SIZE):
            if not sock.recv(READ_SIZE):
                return True
    except BlockingIOError:
        return False
    except OSError:
        return True
    return False


def read_memfd(fd: int, limit: int = 16 * 1024 * 1024) -> bytes:
    """The whole content of a memfd; closes it."""
    with os.fdopen(fd, "rb") as file:
        file.seek(0)
        return file.read(limit)
