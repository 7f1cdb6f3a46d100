"""Rules of iptables as the kernel takes them: `struct ipt_entry` and `struct ip6t_entry`, with matches and a target.

The layouts are those of the kernel's headers linux/netfilter_ipv4/ip_tables.h, netfilter_ipv6/ip6_tables.h,
netfilter/x_tables.h, and of each match and target; they are part of its interface and do not change. (The extensions
of libxtables, which python-iptables would make them with, keep one family's state in globals: after the first IPv4
rule they make no IPv6 rule any more.)
"""

from __future__ import annotations

import ctypes
import ipaddress
import struct
from dataclasses import dataclass

from dockerd_py.nat.firewall.rules import PROTOCOL_NUMBERS

RELATED_ESTABLISHED = 1 << 1 | 1 << 2  # XT_CONNTRACK_STATE_BIT of IP_CT_ESTABLISHED, of IP_CT_RELATED
DNAT = 1 << 7  # XT_CONNTRACK_STATE_DNAT

_ALIGNMENT = ctypes.alignment(ctypes.c_uint64)
_ICMPV6 = 58
_NAME = 29  # XT_EXTENSION_MAXNAMELEN
_IFNAMSIZ = 16

_INV_VIA_IN, _INV_VIA_OUT = 0x01, 0x02
_GOTO = {4: 0x02, 6: 0x04}
_IP6T_F_PROTO = 0x01
_XT_CONNTRACK_STATE = 1
_XT_ADDRTYPE_LOCAL = 1 << 2
_XT_SCTP_DEST_PORTS = 0x02
_NF_NAT_RANGE_MAP_IPS, _NF_NAT_RANGE_PROTO_SPECIFIED = 1, 2

_ANY = {4: "0.0.0.0/0", 6: "::/0"}


@dataclass(frozen=True)
class Entry:
    """One rule. ``target`` is a verdict (ACCEPT, DROP, RETURN), a chain, MASQUERADE or DNAT, which has ``to``."""

    target: str
    goto: bool = False  # what returns from the chain does not come back here
    came_by: str = ""
    leaves_by: str = ""
    not_came_by: bool = False  # by any other interface than that
    not_leaves_by: bool = False
    source: str = ""  # with or without a prefix
    destination: str = ""
    protocol: str = ""
    port: int = 0  # of the destination
    state: int = 0  # RELATED_ESTABLISHED or DNAT
    local: bool = False  # an address of the host's is the destination
    neighbour: int = 0  # a type of ICMPv6
    to: tuple[str, int] = ("", 0)


def encode(family: int, entry: Entry) -> bytes:
    matches = b"".join(_matches(entry))
    target = _target(family, entry)
    size = _HEADER_SIZE[family] + len(matches)
    return _header(family, entry, size, size + len(target)) + matches + target


def extensions(entry: Entry) -> set[tuple[str, str]]:
    """What the rule needs beside its table: ("matches" or "targets", name)."""
    wanted = {
        ("matches", "conntrack"): entry.state,
        ("matches", "addrtype"): entry.local,
        ("matches", "sctp"): entry.protocol == "sctp",
        ("targets", "DNAT"): entry.target == "DNAT",
        ("targets", "MASQUERADE"): entry.target == "MASQUERADE",
    }
    return {extension for extension, needed in wanted.items() if needed}


_HEADER_SIZE = {4: struct.calcsize("@84sIHHI2Q"), 6: struct.calcsize("@136sIHHI2Q")}


def _header(family: int, entry: Entry, target_offset: int, next_offset: int) -> bytes:
    interfaces = [_interface(entry.came_by), _interface(entry.leaves_by)]
    addresses = [ipaddress.ip_network(text or _ANY[family]) for text in (entry.source, entry.destination)]
    packed = b"".join(
        [
            *(address.network_address.packed for address in addresses),
            *(address.netmask.packed for address in addresses),
            *(name for name, _ in interfaces),
            *(mask for _, mask in interfaces),
        ]
    )
    inverted = (_INV_VIA_IN if entry.not_came_by else 0) | (_INV_VIA_OUT if entry.not_leaves_by else 0)
    flags = _GOTO[family] if entry.goto else 0
    protocol = _ICMPV6 if entry.neighbour else PROTOCOL_NUMBERS.get(entry.protocol, 0)
    if family == 4:
        packed += struct.pack("@HBB", protocol, flags, inverted)
    else:
        packed += struct.pack("@HBBB", protocol, 0, flags | (_IP6T_F_PROTO if protocol else 0), inverted)
    return struct.pack("@84sIHHI2Q" if family == 4 else "@136sIHHI2Q", packed, 0, target_offset, next_offset, 0, 0, 0)


def _interface(name: str) -> tuple[bytes, bytes]:
    """The name and its mask: all of it counts, with the zero after it."""
    mask = b"\xff" * (len(name) + 1) if name else b""
    return name.encode().ljust(_IFNAMSIZ, b"\0"), mask.ljust(_IFNAMSIZ, b"\0")


def _matches(entry: Entry) -> list[bytes]:
    matches = []
    if entry.protocol == "tcp":
        matches.append(_extension("tcp", 0, struct.pack("@4H4B", 0, 65535, entry.port, entry.port, 0, 0, 0, 0)))
    elif entry.protocol == "udp":
        matches.append(_extension("udp", 0, struct.pack("@4HB0H", 0, 65535, entry.port, entry.port, 0)))
    elif entry.protocol == "sctp":
        ports = struct.pack("@4H", entry.port, entry.port, 0, 65535)
        matches.append(_extension("sctp", 0, ports + struct.pack("@256xI12xiII", 0, 0, _XT_SCTP_DEST_PORTS, 0)))
    if entry.neighbour:
        matches.append(_extension("icmp6", 0, struct.pack("@4B", entry.neighbour, 0, 255, 0)))
    if entry.state:
        flags = struct.pack("@128x2I5H4H4H0I", 0, 0, *[0] * 5, _XT_CONNTRACK_STATE, 0, entry.state, 0, *[0] * 4)
        matches.append(_extension("conntrack", 3, flags))
    if entry.local:
        matches.append(_extension("addrtype", 1, struct.pack("@HHI", 0, _XT_ADDRTYPE_LOCAL, 0)))
    return matches


def _target(family: int, entry: Entry) -> bytes:
    if entry.target == "MASQUERADE":
        # IPv4: struct nf_nat_ipv4_multi_range_compat with its one range; IPv6: struct nf_nat_range.
        data = struct.pack("@II4s4sHH", 1, 0, bytes(4), bytes(4), 0, 0) if family == 4 else bytes(40)
        return _extension("MASQUERADE", 0, data)
    if entry.target == "DNAT":
        address = ipaddress.ip_address(entry.to[0]).packed.ljust(16, b"\0")
        port = struct.pack(">H", entry.to[1])
        flags = _NF_NAT_RANGE_MAP_IPS | _NF_NAT_RANGE_PROTO_SPECIFIED
        return _extension("DNAT", 2, struct.pack("@I16s16s2s2s2s0I", flags, address, address, port, port, bytes(2)))
    # A verdict or a chain: libiptc puts in the number.
    return _extension(entry.target, 0, struct.pack("@i", 0))


def _extension(name: str, revision: int, data: bytes) -> bytes:
    """struct xt_entry_match, which is laid out like struct xt_entry_target."""
    size = 32 + len(data)
    size += -size % _ALIGNMENT
    return struct.pack(f"@H{_NAME}sB", size, name.encode(), revision) + data.ljust(size - 32, b"\0")
