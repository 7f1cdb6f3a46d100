"""The host's ports: which are given to a container, and held for it by sockets, so that nobody else can take them.

A port is held by what a program that listens there would have: a listening TCP socket, whose queue keeps the clients
that come before somebody accepts them; a bound UDP socket; a bound SCTP socket.  Where the kernel has no SCTP nobody
can take such a port, and nothing is held.  Whoever gets the sockets has the port as long as one copy of them is open.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from dockerd_py.errors import BadParameter, NetworkFailed
from dockerd_py.nat.model import PROTOCOLS

EPHEMERAL_FIRST = 49153
EPHEMERAL_LAST = 65535
BACKLOG = 4096  # at most; the kernel's net.core.somaxconn is the limit

ANY4 = "0.0.0.0"  # noqa: S104 - published ports are meant to be reached
ANY6 = "::"


@dataclass(frozen=True)
class PortWanted:
    """A port of a container's that is to have one of the host's."""

    port: int
    protocol: str = "tcp"  # one of PROTOCOLS
    host_ip: str = ""  # "": the default address; and where that is 0.0.0.0, all of IPv6, too
    first: int = 0  # on the host; the first free one from first to last is taken.  0: of the ephemeral ones
    last: int = 0


@dataclass(frozen=True)
class HeldPort:
    """A port of the host's, held until `close` and until every other copy of its socket is closed."""

    port: int  # the container's
    protocol: str
    host_ip: str  # "0.0.0.0", "::" (no IPv4 with it), or one address of the host
    host_port: int
    socket: socket.socket | None = field(compare=False)  # None: a protocol that the kernel does not have

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()


class Held(list[HeldPort]):
    """Closes them at the end of a ``with``."""

    def __enter__(self) -> Held:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        for one in self:
            one.close()


class _Taken(Exception):
    """Somebody has the port."""


class HostPorts:
    """Remembers which ephemeral port of each protocol was the last one, so that one is not soon given again."""

    def __init__(self) -> None:
        self._last_given = dict.fromkeys(PROTOCOLS, EPHEMERAL_LAST)

    def hold(
        self,
        wanted: Sequence[PortWanted],
        default_ip: str = ANY4,
        *,
        endpoint: str = "",
        ours: Collection[tuple[str, int]] = (),
    ) -> Held:
        """Hold a port of the host's for each of ``wanted``: one entry an address, in their order.

        Those with one port only are served before those with a choice.  ``endpoint`` ("NAME (ID)") is named in errors.
        ``ours``: protocol and number of what containers have; only the words of an error depend on it.

        Raises NetworkFailed (taken, none free, an address that the host has not, no right to) with Docker's words,
        BadParameter for no address; nothing is held then.  Blocks for microseconds a port.
        """
        held: dict[int, list[HeldPort]] = {}
        try:
            for index in sorted(range(len(wanted)), key=lambda index: _choices(wanted[index])):
                held[index] = self._hold(wanted[index], default_ip, ours)
        except (NetworkFailed, BadParameter) as error:
            for one in _flat(held.values()):
                one.close()
            if endpoint and isinstance(error, NetworkFailed):
                text = f"driver failed programming external connectivity on endpoint {endpoint}: {error}"
                raise NetworkFailed(text) from error
            raise
        return Held(_flat(held[index] for index in range(len(wanted))))

    def _hold(self, want: PortWanted, default_ip: str, ours: Collection[tuple[str, int]]) -> list[HeldPort]:
        address = _address(want.host_ip or default_ip)
        both = not want.host_ip and address == ANY4
        numbers = range(want.first, want.last + 1) if want.first else self._ephemeral(want.protocol)
        for number in numbers:
            try:
                held = _take(want, number, address, both=both)
            except _Taken as taken:
                if want.first and want.first == want.last:
                    raise NetworkFailed(_taken_text(taken, want.protocol, number, ours)) from taken
                continue
            if not want.first:
                self._last_given[want.protocol] = number
            return held
        where = f"{want.first}-{want.last}" if want.first else f"{EPHEMERAL_FIRST}-{EPHEMERAL_LAST}"
        raise NetworkFailed(f"Bind for {_joined(address, where)} failed: all ports are allocated")

    def _ephemeral(self, protocol: str) -> Iterator[int]:
        after = self._last_given[protocol] + 1
        yield from range(after, EPHEMERAL_LAST + 1)
        yield from range(EPHEMERAL_FIRST, min(after, EPHEMERAL_LAST + 1))


def _choices(want: PortWanted) -> int:
    return want.last - want.first if want.first else EPHEMERAL_LAST


def _flat(held: Iterable[list[HeldPort]]) -> Iterator[HeldPort]:
    return (one for several in held for one in several)


def _address(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise BadParameter(f"invalid IP address: {text}") from None
    return str(address)


def _take(want: PortWanted, number: int, address: str, *, both: bool) -> list[HeldPort]:
    held: list[HeldPort] = []
    try:
        for each in (address, ANY6) if both else (address,):
            # a host without IPv6 has nobody there to be served
            with contextlib.suppress(_NoFamily) if both and each == ANY6 else contextlib.nullcontext():
                sock = _bind(want.protocol, each, number)
                held.append(HeldPort(want.port, want.protocol, each, number, sock))
    except (_Taken, NetworkFailed):
        for one in held:
            one.close()
        raise
    return held


class _NoFamily(NetworkFailed):
    """The kernel has nothing of this family of addresses."""


_KINDS = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
}

_NO_PROTOCOL = (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT)
_NO_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


def _bind(protocol: str, address: str, number: int) -> socket.socket | None:
    """A socket that holds the port.  Raises _Taken, _NoFamily, NetworkFailed."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind, number_of_protocol = _KINDS[protocol]
    where = f"listen {protocol}{'6' if family == socket.AF_INET6 else '4'} {_joined(address, str(number))}"
    try:
        sock = socket.socket(family, kind, number_of_protocol)
    except OSError as error:
        if error.errno in _NO_PROTOCOL and protocol == "sctp":
            return None
        raise _failure(error, f"{where}: socket") from error
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if protocol == "tcp":
            # or what is left of a former container's connections (TIME_WAIT) would keep the port; it does not let two
            # listen.  For UDP it would.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, number))
        if protocol == "tcp":
            sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise _Taken(address, where) from error
        raise _failure(error, f"{where}: bind") from error
    return sock


def _failure(error: OSError, where: str) -> NetworkFailed:
    code = error.errno or errno.EIO
    kind = _NoFamily if code in _NO_FAMILY else NetworkFailed
    return kind(f"{where}: {os.strerror(code)[:1].lower()}{os.strerror(code)[1:]}")


def _taken_text(taken: _Taken, protocol: str, number: int, ours: Collection[tuple[str, int]]) -> str:
    address, where = taken.args
    if (protocol, number) in ours:
        return f"Bind for {_joined(address, str(number))} failed: port is already allocated"
    return f"{where}: bind: address already in use"


def _joined(address: str, port: str) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
