"""The values that the engine and the parts of `nat` exchange: frozen, addresses as text in their canonical form."""

from __future__ import annotations

from dataclasses import dataclass, field

BRIDGE = "bridge"
MACVLAN = "macvlan"
IPVLAN = "ipvlan"

PROTOCOLS = ("tcp", "udp", "sctp")


@dataclass(frozen=True)
class Pool:
    """One range of addresses of a network."""

    subnet: str  # "172.17.0.0/16"
    gateway: str = ""  # an address in it; "": not chosen yet, or none
    ip_range: str = ""  # where containers get theirs from; "": the whole subnet
    aux: dict[str, str] = field(default_factory=dict)  # addresses that no container gets, by the name of who has them


@dataclass(frozen=True)
class Bridge:
    """What the kernel is to have for one network."""

    name: str  # of the interface
    addresses: tuple[str, ...] = ()  # its own, with their prefixes: "172.17.0.1/16", "fd00::1/64"
    mtu: int = 0  # 0: as the kernel makes it
    given: bool = False  # the administrator's: neither made nor changed nor removed


@dataclass(frozen=True)
class Plug:
    """How one network namespace is plugged into one network."""

    interface: str  # inside: "eth0"
    mac: str  # "02:42:ac:11:00:02"
    addresses: tuple[str, ...] = ()  # with their prefixes
    gateways: tuple[str, ...] = ()  # of the default routes that go out here, one a family at most
    mtu: int = 0
    kind: str = BRIDGE  # or MACVLAN, IPVLAN
    parent: str = ""  # the bridge; for macvlan and ipvlan the interface that it shares
    host_interface: str = ""  # the other end of the veth pair, of a bridge
    mode: str = ""  # of macvlan and ipvlan, "": bridge and l2


@dataclass(frozen=True)
class BridgeRules:
    """What the firewall does for one bridge."""

    name: str
    subnets: tuple[str, ...] = ()  # of both families
    internal: bool = False  # nothing goes out or in but between its containers and the host's own address on it
    icc: bool = True  # whether its containers reach each other without a link
    masquerade: bool = True  # what leaves by another interface has the host's address


@dataclass(frozen=True)
class Mapping:
    """A published port: what comes to the host's goes to the container's."""

    protocol: str  # one of PROTOCOLS
    host_ip: str  # "0.0.0.0", "::", or one address of the host
    host_port: int
    bridge: str
    address: str  # the container's, of the same family as host_ip
    port: int


@dataclass(frozen=True)
class LinkRule:
    """Two containers on a bridge without icc that may talk at one port of the target's."""

    bridge: str
    source: str  # address
    target: str  # address
    protocol: str
    port: int


@dataclass(frozen=True)
class Rules:
    """All that the firewall is to do, the same whatever it did before."""

    bridges: tuple[BridgeRules, ...] = ()
    mappings: tuple[Mapping, ...] = ()
    links: tuple[LinkRule, ...] = ()
    relayed: tuple[tuple[str, int], ...] = ()  # protocol and port of those at :: that a process of the host's passes on
