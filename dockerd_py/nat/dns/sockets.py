"""Sockets inside another network namespace.

A socket belongs to the namespace that it was made in, for good: whoever holds it needs no right to that namespace.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import socket
import sys
from collections.abc import Iterator
from typing import NamedTuple

from dockerd_py.nat.dns import redirect

log = logging.getLogger(__name__)

BACKLOG = 32

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Sockets(NamedTuple):
    """What the service has in one container's namespace."""

    udp: socket.socket  # where questions come in
    tcp: socket.socket  # listening
    out: socket.socket  # UDP, for servers at the container's own loopback

    @property
    def ports(self) -> tuple[int, int]:
        return self.udp.getsockname()[1], self.tcp.getsockname()[1]

    def close(self) -> None:
        for sock in self:
            sock.close()


NEW = (0, 0)
"""Ports of the kernel's choice."""


def open_in(namespace: int, ports: tuple[int, int] = NEW) -> Sockets:
    """The sockets behind 127.0.0.11:53 of the network namespace ``namespace`` (a descriptor).

    ``ports`` are those of earlier ones there, which are closed by now: if the ports are free, all is as it was, and it
    takes a hundredth of the time.

    On a kernel without nf_tables they are bound there, and a name server in the container has to leave that address
    out.  Takes the calling thread there and back.  Raises OSError; nothing is left open then.
    """
    with inside(namespace):
        if ports != NEW:
            with contextlib.suppress(OSError):
                return _bind(ports)
        try:
            found = _bind(NEW)
        except OSError as error:
            raise _where(error) from error
        try:
            redirect.install(*found.ports)
        except OSError as error:
            found.close()
            if error.errno not in redirect.NO_NF_TABLES:
                raise
            log.info("no nf_tables here (%s): the name service takes port 53 of the container's 127.0.0.11", error)
            try:
                found = _bind((redirect.PORT, redirect.PORT))
            except OSError as second:
                raise _where(second) from second
        return found


@contextlib.contextmanager
def inside(namespace: int) -> Iterator[None]:
    """Have the calling thread in ``namespace``.  A thread that could not come back ends the process: it would act,
    for all others, in a place that is not theirs."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _setns(namespace)
        try:
            yield
        finally:
            try:
                _setns(home)
            except OSError:
                log.critical("cannot leave a container's network namespace")
                os.abort()
    finally:
        os.close(home)


def _bind(ports: tuple[int, int]) -> Sockets:
    flags = socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    with contextlib.ExitStack() as failed:
        kinds = (socket.SOCK_DGRAM, socket.SOCK_STREAM, socket.SOCK_DGRAM)
        found = Sockets(*(failed.enter_context(socket.socket(socket.AF_INET, kind | flags)) for kind in kinds))
        # connections of a service that was restarted may still wait for their last packets
        found.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.udp.bind((redirect.ADDRESS, ports[0]))
        found.tcp.bind((redirect.ADDRESS, ports[1]))
        found.tcp.listen(BACKLOG)
        found.out.bind(("127.0.0.1", 0))
        failed.pop_all()
    return found


def _where(error: OSError) -> OSError:
    return OSError(error.errno, f"{redirect.ADDRESS} in the container: {error.strerror}")


if sys.version_info >= (3, 12):

    def _setns(namespace: int) -> None:
        os.setns(namespace, _CLONE_NEWNET)

else:

    def _setns(namespace: int) -> None:
        if _libc.setns(namespace, _CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"setns: {os.strerror(code)}")
