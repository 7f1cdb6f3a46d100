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


class Pair(NamedTuple):
    """Where one container's questions come in."""

    udp: socket.socket
    tcp: socket.socket  # listening

    @property
    def ports(self) -> tuple[int, int]:
        return self.udp.getsockname()[1], self.tcp.getsockname()[1]

    def close(self) -> None:
        self.udp.close()
        self.tcp.close()


NEW = (0, 0)
"""Ports of the kernel's choice."""


def open_in(namespace: int, ports: tuple[int, int] = NEW) -> Pair:
    """The sockets behind 127.0.0.11:53 of the network namespace ``namespace`` (a descriptor).

    ``ports`` are those of an earlier pair there, which is closed by now: if they are free, all is as it was, and it
    takes a hundredth of the time.

    On a kernel without nf_tables they are bound there, and a name server in the container has to leave that address
    out.  Takes the calling thread there and back.  Raises OSError; nothing is left open then.
    """
    with inside(namespace):
        if ports != NEW:
            with contextlib.suppress(OSError):
                return _bind(ports)
        try:
            pair = _bind(NEW)
        except OSError as error:
            raise _where(error) from error
        try:
            redirect.install(*pair.ports)
        except OSError as error:
            pair.close()
            if error.errno not in redirect.NO_NF_TABLES:
                raise
            log.info("no nf_tables here (%s): the name service takes port 53 of the container's 127.0.0.11", error)
            try:
                pair = _bind((redirect.PORT, redirect.PORT))
            except OSError as second:
                raise _where(second) from second
        return pair


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


def _bind(ports: tuple[int, int]) -> Pair:
    flags = socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | flags)
    try:
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | flags)
    except OSError:
        udp.close()
        raise
    pair = Pair(udp, tcp)
    try:
        # connections of a service that was restarted may still wait for their last packets
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        udp.bind((redirect.ADDRESS, ports[0]))
        tcp.bind((redirect.ADDRESS, ports[1]))
        tcp.listen(BACKLOG)
    except OSError:
        pair.close()
        raise
    return pair


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
