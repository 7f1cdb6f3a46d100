"""Forgets UDP conversations that the kernel would lead on along a way that a published port no longer has.

A rule of NAT decides about a conversation's first packet; the kernel remembers the way for the others (conntrack), and
as long as one comes now and then it never asks again. TCP ends with the container; UDP does not. So what has been
remembered about a port goes whenever a mapping of it comes or goes.

Speaks ctnetlink (linux/netfilter/nfnetlink_conntrack.h) itself: pyroute2's socket for it cannot have the kernel pick
entries by port, and a busy host has hundreds of thousands.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable, Iterator

from dockerd_py.errors import NetworkFailed
from dockerd_py.nat.model import Mapping

_NETLINK_NETFILTER = 12
_GET, _DELETE = (1 << 8) | 1, (1 << 8) | 2  # nfnetlink's subsystem of conntrack; IPCTNL_MSG_CT_GET, _DELETE
_NEW = 1 << 8  # as which entries are listed
_REQUEST, _ACK, _DUMP = 0x001, 0x004, 0x300
_ERROR, _DONE = 2, 3
_NESTED = 0x8000

_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY, _CTA_ID, _CTA_ZONE, _CTA_FILTER = 1, 2, 12, 18, 25
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_CTA_IP_V4_SRC, _CTA_IP_V4_DST, _CTA_IP_V6_SRC, _CTA_IP_V6_DST = 1, 2, 3, 4
_CTA_PROTO_NUM, _CTA_PROTO_SRC_PORT, _CTA_PROTO_DST_PORT = 1, 2, 3
_CTA_FILTER_ORIG_FLAGS, _CTA_FILTER_REPLY_FLAGS = 1, 2
_BY_PROTOCOL_AND_PORT = 1 << 3 | 1 << 5  # CTA_FILTER_F_CTA_PROTO_NUM, _DST_PORT

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_RECEIVE = 1 << 18


async def forget_udp(mappings: Iterable[Mapping]) -> None:
    """Forget what is remembered of the UDP ports among ``mappings``, whoever they led to.

    A mapping of all addresses concerns conversations with any address that is the host's. Raises NetworkFailed.
    """
    concerned = [mapping for mapping in mappings if mapping.protocol == "udp"]
    if concerned:
        await asyncio.to_thread(_forget, concerned)


def _forget(mappings: list[Mapping]) -> None:
    try:
        with _Netlink() as link:
            for mapping in mappings:
                family = _FAMILIES[ipaddress.ip_address(mapping.host_ip).version]
                for attributes in link.entries(family, mapping.host_port):
                    if _concerns(attributes, family, mapping):
                        link.delete(family, attributes)
    except OSError as error:
        if error.errno == errno.EPROTONOSUPPORT:
            raise NetworkFailed("the kernel's module nf_conntrack_netlink is missing") from None
        raise NetworkFailed(f"UDP conversations cannot be forgotten: {error}") from None


def _concerns(attributes: dict[int, bytes], family: int, mapping: Mapping) -> bool:
    _, (destination, port), protocol = _tuple(attributes[_CTA_TUPLE_ORIG], family)
    if protocol != socket.IPPROTO_UDP or port != mapping.host_port:
        return False
    (replier, from_port), _, _ = _tuple(attributes[_CTA_TUPLE_REPLY], family)
    if (replier, from_port) == (ipaddress.ip_address(mapping.address), mapping.port):
        return True
    host_ip = ipaddress.ip_address(mapping.host_ip)
    return _is_local(str(destination), family) if host_ip.is_unspecified else destination == host_ip


def _is_local(address: str, family: int) -> bool:
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


Address = ipaddress.IPv4Address | ipaddress.IPv6Address
End = tuple[Address, int]


def _tuple(data: bytes, family: int) -> tuple[End, End, int]:
    """Source, destination and protocol of one direction."""
    parts = _attributes(data)
    addresses, protocol = _attributes(parts[_CTA_TUPLE_IP]), _attributes(parts[_CTA_TUPLE_PROTO])
    four = family == socket.AF_INET
    source = ipaddress.ip_address(addresses[_CTA_IP_V4_SRC if four else _CTA_IP_V6_SRC])
    destination = ipaddress.ip_address(addresses[_CTA_IP_V4_DST if four else _CTA_IP_V6_DST])
    return (
        (source, int.from_bytes(protocol.get(_CTA_PROTO_SRC_PORT, b""), "big")),
        (destination, int.from_bytes(protocol.get(_CTA_PROTO_DST_PORT, b""), "big")),
        protocol[_CTA_PROTO_NUM][0],
    )


class _Netlink:
    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        self._socket.settimeout(30)
        self._sequence = 0

    def __enter__(self) -> _Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def entries(self, family: int, port: int) -> list[dict[int, bytes]]:
        """The attributes of all entries of UDP to ``port``; an older kernel adds others."""
        protocol = _attribute(_CTA_PROTO_NUM, bytes([socket.IPPROTO_UDP]))
        protocol += _attribute(_CTA_PROTO_DST_PORT, port.to_bytes(2, "big"))
        flags = struct.pack("=I", _BY_PROTOCOL_AND_PORT)
        wanted = _attribute(_CTA_TUPLE_ORIG | _NESTED, _attribute(_CTA_TUPLE_PROTO | _NESTED, protocol)) + _attribute(
            _CTA_FILTER | _NESTED,
            _attribute(_CTA_FILTER_ORIG_FLAGS, flags) + _attribute(_CTA_FILTER_REPLY_FLAGS, bytes(4)),
        )
        return list(self._ask(_GET, _DUMP, family, wanted))

    def delete(self, family: int, attributes: dict[int, bytes]) -> None:
        """One entry, and no other that has come in its place; fine when it is gone."""
        which = b"".join(
            _attribute(kind | (_NESTED if kind == _CTA_TUPLE_ORIG else 0), attributes[kind])
            for kind in (_CTA_TUPLE_ORIG, _CTA_ID, _CTA_ZONE)
            if kind in attributes
        )
        with contextlib.suppress(FileNotFoundError):
            list(self._ask(_DELETE, _ACK, family, which))

    def _ask(self, kind: int, flags: int, family: int, body: bytes) -> Iterator[dict[int, bytes]]:
        """The attributes of each message of the answer. Raises OSError with what the kernel says."""
        self._sequence += 1
        message = struct.pack("=BBH", family, 0, 0) + body
        header = struct.pack("=IHHII", 16 + len(message), kind, _REQUEST | flags, self._sequence, 0)
        self._socket.send(header + message)
        while True:
            data = self._socket.recv(_RECEIVE)
            while data:
                length, kind, _, sequence, _ = struct.unpack_from("=IHHII", data)
                message, data = data[16:length], data[(length + 3) & ~3 :]
                if sequence != self._sequence:
                    continue
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    (code,) = struct.unpack_from("=i", message)
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    return
                if kind == _NEW:
                    yield _attributes(message[4:])


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        found[kind & 0x3FFF] = data[4:length]
        data = data[(max(length, 4) + 3) & ~3 :]
    return found
