"""Port 53 of 127.0.0.11 inside a network namespace, without holding port 53.

A socket at 127.0.0.11:53 stands in the way of a name server in the container: bind(2) of the wildcard address fails
then.  So the sockets have ports of the kernel's choice, and four rules of nf_tables in the container's namespace
rewrite the port on the way there and back, as a pure change of packets: both directions leave by the output hook of
the same namespace, so neither connection tracking nor address translation is asked of the kernel.

Spoken by netlink itself (linux/netfilter/nfnetlink.h, nf_tables.h): the service imports no library, and a container's
start takes no program for it.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
import struct

TABLE = "pydockerd_names"
ADDRESS = "127.0.0.11"
PORT = 53

_NETLINK_NETFILTER = 12
_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_BATCH_BEGIN, _BATCH_END = 16, 17
_NEW_TABLE, _DELETE_TABLE, _NEW_CHAIN, _NEW_RULE = 0, 2, 3, 6
_REQUEST, _ACK, _EXCLUSIVE, _CREATE, _APPEND = 1, 4, 0x200, 0x400, 0x800
_ERROR = 2  # NLMSG_ERROR
_IPV4 = 2  # NFPROTO_IPV4
_NESTED = 0x8000
_OUTPUT = 3  # NF_INET_LOCAL_OUT
_RAW = -300  # NF_IP_PRI_RAW: before connection tracking, if there is any, sees the packet
_SOURCE, _DESTINATION = 12, 16  # in the header of IPv4
_CHECKSUM = {socket.IPPROTO_UDP: 6, socket.IPPROTO_TCP: 16}  # in the headers of each
_REGISTER = struct.pack(">I", 1)

NO_NF_TABLES = (errno.EOPNOTSUPP, errno.ENOENT, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT)
"""What `install` raises OSError with on a kernel without nf_tables."""


def install(udp: int, tcp: int) -> None:
    """Lead port 53 of ADDRESS to the ports ``udp`` and ``tcp`` there, in the calling thread's network namespace.

    In place of what an earlier call has done.  All or nothing.  Raises OSError.
    """
    table = _attribute(1, TABLE)
    hook = _number(1, _OUTPUT) + _attribute(2, struct.pack(">i", _RAW))
    chain = table + _attribute(3, "output") + _attribute(4 | _NESTED, hook) + _attribute(7, "filter")
    messages = [(_NEW_TABLE, _CREATE | _EXCLUSIVE, table), (_NEW_CHAIN, _CREATE, chain)]
    for protocol, port in ((socket.IPPROTO_UDP, udp), (socket.IPPROTO_TCP, tcp)):
        for there in (True, False):
            rule = table + _attribute(2, "output") + _attribute(4 | _NESTED, _expressions(protocol, port, there=there))
            messages.append((_NEW_RULE, _CREATE | _APPEND, rule))
    try:
        _transact(messages)
    except FileExistsError:
        # not at once: to delete a table, the kernel waits 10 ms for all processors
        _transact([(_DELETE_TABLE, 0, table), *messages])


def _expressions(protocol: int, port: int, *, there: bool) -> bytes:
    """``ip daddr ADDRESS <protocol> dport 53 <protocol> dport set <port>``, or with source ports, the way back."""
    address, offset = (_DESTINATION, 2) if there else (_SOURCE, 0)
    before, after = (PORT, port) if there else (port, PORT)
    return (
        _load(1, address, 4)
        + _equals(socket.inet_aton(ADDRESS))
        + _expression("meta", _attribute(1, _REGISTER) + _number(2, 16))  # the protocol above IP
        + _equals(bytes([protocol]))
        + _load(2, offset, 2)
        + _equals(struct.pack(">H", before))
        + _expression("immediate", _attribute(1, _REGISTER) + _value(2, struct.pack(">H", after)))
        + _expression(
            "payload",
            _number(2, 2) + _number(3, offset) + _number(4, 2) + _attribute(5, _REGISTER)
            + _number(6, 1) + _number(7, _CHECKSUM[protocol]),
        )
    )  # fmt: skip


def _load(header: int, offset: int, length: int) -> bytes:
    where = _number(2, header) + _number(3, offset) + _number(4, length)
    return _expression("payload", _attribute(1, _REGISTER) + where)


def _equals(value: bytes) -> bytes:
    return _expression("cmp", _attribute(1, _REGISTER) + _number(2, 0) + _value(3, value))


def _value(kind: int, data: bytes) -> bytes:
    return _attribute(kind | _NESTED, _attribute(1, data))


def _expression(name: str, data: bytes) -> bytes:
    return _attribute(1 | _NESTED, _attribute(1, name) + _attribute(2 | _NESTED, data))


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack(">I", value))


def _attribute(kind: int, value: bytes | str) -> bytes:
    data = value if isinstance(value, bytes) else value.encode() + b"\0"
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def _transact(messages: list[tuple[int, int, bytes]]) -> None:
    """Send one batch; the kernel does all of it or nothing."""
    numbers = itertools.count(1)
    batch = [_message(_BATCH_BEGIN, _REQUEST, next(numbers), b"", family=0, resource=_SUBSYSTEM)]
    for operation, flags, data in messages:
        last = next(numbers)
        flags |= _REQUEST | _ACK
        batch.append(_message(_SUBSYSTEM << 8 | operation, flags, last, data, family=_IPV4, resource=0))
    batch.append(_message(_BATCH_END, _REQUEST, next(numbers), b"", family=0, resource=_SUBSYSTEM))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as sock:
        sock.bind((0, 0))
        sock.settimeout(5)
        sock.send(b"".join(batch))
        answered = 0
        while answered < last:
            data = sock.recv(65536)
            while data:
                length, kind, _flags, number, _port = struct.unpack_from("=IHHII", data)
                if kind == _ERROR:
                    (code,) = struct.unpack_from("=i", data, 16)
                    if code:
                        raise OSError(-code, f"nf_tables: {os.strerror(-code)}")
                    answered = number
                data = data[length + (-length % 4) :]


def _message(kind: int, flags: int, number: int, data: bytes, *, family: int, resource: int) -> bytes:
    return struct.pack("=IHHIIBBH", 20 + len(data), kind, flags, number, 0, family, 0, socket.htons(resource)) + data
