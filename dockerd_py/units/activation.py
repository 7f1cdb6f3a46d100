"""Sockets that the service manager opened for us: sd_listen_fds(3) without libsystemd."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from dockerd_py.errors import ConfigError

FIRST = 3  # the first descriptor passed (SD_LISTEN_FDS_START)


@dataclass(frozen=True)
class ActivationSocket:
    name: str  # FileDescriptorName= of the socket unit, else "unknown", as systemd says
    socket: socket.socket  # listening, non-blocking, not inherited by programs we start


def activation_sockets(environ: Mapping[str, str] = os.environ, *, first: int = FIRST) -> list[ActivationSocket]:
    """The listening stream sockets that were passed to this process, in the units' order; none: an empty list.

    They are meant for this process only when ``LISTEN_PID`` is its pid.  The caller owns them.  Raises ConfigError
    when the variables are malformed or a descriptor is not a listening stream socket of a family we serve.
    """
    count = environ.get("LISTEN_FDS", "")
    pid = environ.get("LISTEN_PID", "")
    if not count or not pid:
        return []
    if not (count.isascii() and count.isdigit() and pid.isascii() and pid.isdigit()):
        raise ConfigError(f"LISTEN_FDS={count} LISTEN_PID={pid}: not numbers; start the daemon through its socket unit")
    if int(pid) != os.getpid():
        return []
    descriptors = range(first, first + int(count))
    names = environ.get("LISTEN_FDNAMES", "").split(":") if environ.get("LISTEN_FDNAMES") else []
    if names and len(names) != len(descriptors):
        raise ConfigError(f"LISTEN_FDNAMES names {len(names)} descriptors, LISTEN_FDS says {count}")
    for fd in descriptors:
        _keep_to_ourselves(fd)
    return [ActivationSocket(names[i] if names else "unknown", _listening(fd)) for i, fd in enumerate(descriptors)]


def _keep_to_ourselves(fd: int) -> None:
    try:
        os.set_inheritable(fd, False)
    except OSError as error:
        raise ConfigError(f"the service manager's descriptor {fd} is not open: {error.strerror}") from error


def _listening(fd: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise ConfigError(f"the service manager's descriptor {fd} is no socket: {error.strerror}") from error
    if (
        sock.family not in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)
        or sock.type != socket.SOCK_STREAM
        or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    ):
        sock.detach()
        raise ConfigError(f"descriptor {fd} is not a listening stream socket: use ListenStream= in the socket unit")
    sock.setblocking(False)
    return sock
