"""Messages between daemon, fork server, monitors, name service: one JSON object a packet, descriptors beside it.

The sockets are SOCK_SEQPACKET (unix(7)): a packet is a message, so there is no framing to get wrong, and the end of
the peer is an empty packet.  A message is at most MAX_MESSAGE bytes; anything that may be larger travels as a file
descriptor (a memfd or a socket).
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
from collections.abc import Sequence
from typing import Any

from dockerd_py.pids import is_dead

MAX_MESSAGE = 192 * 1024
MAX_FDS = 4

Message = dict[str, Any]


class ProtocolError(Exception):
    """The peer sent something that is no message."""


class DescriptorsLost(ProtocolError):
    """A message whose file descriptors this process has no room for (RLIMIT_NOFILE, getrlimit(2))."""

    def __init__(self, message: Message) -> None:
        super().__init__("too many open files")
        self.message = message


def encode(message: Message) -> bytes:
    data = json.dumps(message, separators=(",", ":")).encode()
    if len(data) > MAX_MESSAGE:
        raise ProtocolError(f"a message of {len(data)} bytes is too long")
    return data


def send(sock: socket.socket, message: Message, fds: tuple[int, ...] = ()) -> None:
    """Send one message; raises BlockingIOError, BrokenPipeError and the like as send(2) does."""
    send_encoded(sock, encode(message), fds)


def send_encoded(sock: socket.socket, data: bytes, fds: Sequence[int] = ()) -> None:
    socket.send_fds(sock, [data], list(fds), socket.MSG_NOSIGNAL)


def receive(sock: socket.socket) -> tuple[Message | None, list[int]]:
    """Take one message and its file descriptors (close-on-exec); None at the peer's end.

    Raises ProtocolError, DescriptorsLost; file descriptors that came along are closed then.
    """
    fds = array.array("i")
    flags = socket.MSG_CMSG_CLOEXEC
    data, ancillary, msg_flags, _ = sock.recvmsg(MAX_MESSAGE + 1, socket.CMSG_SPACE(MAX_FDS * fds.itemsize), flags)
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    received = list(fds)
    if not data:
        close_all(received)
        return None, []
    try:
        if msg_flags & socket.MSG_TRUNC:
            raise ProtocolError("a message was cut short")
        message = json.loads(data)
        if not isinstance(message, dict):
            raise ProtocolError("a message is no object")
        if msg_flags & socket.MSG_CTRUNC:
            raise DescriptorsLost(message)
    except DescriptorsLost:
        close_all(received)
        raise
    except (ValueError, ProtocolError) as error:
        close_all(received)
        raise ProtocolError(str(error)) from error
    return message, received


def close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def bind(path: str, kind: int = socket.SOCK_SEQPACKET) -> socket.socket:
    """A listening socket at ``path``, mode 0600, in place of what was there.  Whoever sees it can connect.

    The directory may be any length: sun_path holds 108 bytes, so the name is given relative to the directory's
    file descriptor.
    """
    directory, name = os.path.split(path)
    sock = socket.socket(socket.AF_UNIX, kind)
    dir_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        new = f".{name}.{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new, dir_fd=dir_fd)  # of somebody with the same id, who was killed here: see `abandoned`
        old = os.umask(0o177)
        try:
            sock.bind(f"/proc/self/fd/{dir_fd}/{new}")
        finally:
            os.umask(old)
        sock.listen(4096)
        os.rename(new, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except OSError:
        sock.close()
        raise
    finally:
        os.close(dir_fd)
    return sock


def abandoned(path: str) -> list[str]:
    """Sockets whose makers were killed inside `bind`, before they had put them at ``path``."""
    directory, name = os.path.split(path)
    found = []
    for entry in os.listdir(directory):
        start, _, pid = entry.rpartition(".")
        if start == f".{name}" and pid.isdecimal() and is_dead(int(pid)):
            found.append(os.path.join(directory, entry))
    return found


def connect(path: str) -> socket.socket:
    """Connect to a socket made by `bind`; raises OSError (ENOENT, ECONNREFUSED) when nobody listens."""
    directory, name = os.path.split(path)
    dir_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.connect(f"/proc/self/fd/{dir_fd}/{name}")
    except OSError:
        sock.close()
        raise
    finally:
        os.close(dir_fd)
    return sock


def peer_uid(sock: socket.socket) -> int:
    """The user on the other side (SO_PEERCRED, unix(7))."""
    credentials = array.array("i")
    credentials.frombytes(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return credentials[1]
