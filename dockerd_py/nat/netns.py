"""Network namespaces, by unshare(2) and setns(2) in the calling thread; no process is started for them.

A thread that uses this has one namespace that it belongs to: its home, the one that it was in first.  It is elsewhere
only inside `Home.inside` and `Home.new`.  Where the way back fails, the thread is told apart from all others: it does
nothing any more until it is back (`Home.enter_at_start`), so that nothing meant for the host happens in a container.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator

from dockerd_py.errors import NetworkFailed

_CLONE_NEWNET = 0x40000000
_HERE = "/proc/thread-self/ns/net"
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914  # netdevice(7)
_IFF_UP = 1

_libc = ctypes.CDLL(None, use_errno=True)


class Home:
    """The network namespace of the thread that makes this; one thread uses it, this one or one that it starts."""

    def __init__(self) -> None:
        self._fd = _here()
        self._astray = False

    def close(self) -> None:
        os.close(self._fd)

    def enter_at_start(self) -> None:
        """Called before anything is done.  Raises OSError if this thread is elsewhere and cannot get back."""
        if self._astray:
            self._return()

    @contextlib.contextmanager
    def inside(self, namespace: int) -> Iterator[None]:
        """Within: in the namespace of that descriptor.  Raises OSError: EINVAL if it is no network namespace's."""
        self._astray = True
        try:
            _check(_libc.setns(namespace, _CLONE_NEWNET), "setns")
            yield
        finally:
            self._return()

    def new(self) -> int:
        """A descriptor of a new namespace with a loopback interface that is up, IPv6 on that interface only.

        As in Docker's containers: an interface has IPv6 from the moment on in which it gets an IPv6 address.
        """
        self._astray = True
        try:
            _check(_libc.unshare(_CLONE_NEWNET), "unshare")
            namespace = _here()
            try:
                with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
                    write_sysctl("net/ipv6/conf/all/disable_ipv6", "1")
                    write_sysctl("net/ipv6/conf/lo/disable_ipv6", "0")
                _set_up("lo")
            except BaseException:
                os.close(namespace)
                raise
            return namespace
        finally:
            self._return()

    def _return(self) -> None:
        _check(_libc.setns(self._fd, _CLONE_NEWNET), "setns back")
        self._astray = False


def read_sysctl(name: str) -> str:
    """Of the namespace that the calling thread is in; the name's parts are separated by slashes."""
    with open(f"/proc/sys/{name}", encoding="ascii") as file:
        return file.read().strip()


def write_sysctl(name: str, value: str) -> None:
    """As `read_sysctl`.  Raises OSError."""
    fd = os.open(f"/proc/sys/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode("ascii"))
    finally:
        os.close(fd)


def want_sysctl(name: str, value: str) -> None:
    """Write it unless it is so already.  Raises NetworkFailed."""
    dotted = name.replace("/", ".")
    try:
        if read_sysctl(name) != value:
            write_sysctl(name, value)
    except FileNotFoundError:
        raise NetworkFailed(f"cannot set {dotted}={value}: this kernel has no such setting") from None
    except OSError as error:
        raise NetworkFailed(f"cannot set {dotted}={value}: {error.strerror}") from error


def _here() -> int:
    return os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)


def _set_up(interface: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        request = struct.pack("16sh22x", interface.encode(), 0)
        flags = struct.unpack("16sh22x", fcntl.ioctl(link, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(link, _SIOCSIFFLAGS, struct.pack("16sh22x", interface.encode(), flags | _IFF_UP))


def _check(result: int, what: str) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
