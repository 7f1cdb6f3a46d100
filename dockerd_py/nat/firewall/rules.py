"""What the firewall does, said once for every backend: from `Rules` to what each address family needs.

A plan has four places where packets are looked at. Its filter rules lie in chains of our own *before* the host's own
filter, and there only ever drop or pass on: a drop is final for everybody, and what passes has been judged. Of the
host's own FORWARD chain nothing more is needed than to let through what goes by our bridges (`Plan.bridges`), however
strict its policy is.

- ``forward``: packets that the host passes on. Containers of one network reach each other (unless its icc is off);
  a container is reached from elsewhere by replies, and by what a published port has redirected; all else that is
  sent to one is dropped, from outside as from another network. An internal network exchanges nothing with others.
- ``local``: packets to the host itself. Nothing from a container reaches the host's 127.0.0.0/8, whatever
  route_localnet says; an internal network sees of the host only what lies in its own subnets, and there no port that
  a relay would lead to another network.
- ``ports``: destinations of published ports, where the host itself is the destination. Never for loopback addresses,
  which the relays serve, nor for link-local ones, whose replies could not find back.
- ``leaving``: what leaves a network for elsewhere gets the host's address; and what a published port leads back into
  the network it came from gets the bridge's, or its replies would not pass the host.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

from dockerd_py.errors import BadParameter
from dockerd_py.nat.model import PROTOCOLS, BridgeRules, LinkRule, Mapping, Rules

PASS = "pass"
DROP = "drop"
MASQUERADE = "masquerade"
LINKS = "links"  # pass what a link allows

KNOWN = "known"  # belongs to a connection that was let through, or is an error about one
REDIRECTED = "redirected"  # of a connection whose destination was changed: a published port

PROTOCOL_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}

# Destinations that are the host's own and yet are never redirected.
NEVER_REDIRECTED = {4: ("127.0.0.0/8",), 6: ("::1/128", "fe80::/10")}

T = TypeVar("T")
_Key = tuple[bool, str, str, int]  # of a published port: family, protocol, the host's address and port

_INTERFACE = re.compile(r"[A-Za-z0-9_.:-]{1,15}")


@dataclass(frozen=True)
class Rule:
    """All that is set must hold. Interfaces by name; source and destination are addresses with a prefix."""

    action: str
    came_by: str = ""
    not_by: str = ""  # came by any other interface than this
    leaves_by: str = ""
    not_leaving_by: str = ""
    source: str = ""
    destination: str = ""
    state: str = ""  # KNOWN or REDIRECTED
    neighbours: bool = False  # ICMPv6 that finds out who has an address
    relayed: bool = False  # to a port of the host's that a relay serves


class Port(NamedTuple):
    """A published port of one family; ``host_ip`` is "" for every address of the host."""

    protocol: str
    host_ip: str
    host_port: int
    address: str
    port: int


class Link(NamedTuple):
    source: str
    target: str
    protocol: str
    port: int


class Relayed(NamedTuple):
    protocol: str
    port: int


@dataclass(frozen=True)
class Plan:
    """What one family (4 or 6) needs."""

    family: int
    forward: tuple[Rule, ...] = ()
    local: tuple[Rule, ...] = ()
    leaving: tuple[Rule, ...] = ()
    ports: frozenset[Port] = frozenset()
    links: frozenset[Link] = frozenset()
    relayed: frozenset[Relayed] = frozenset()
    bridges: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()  # bridges whose own traffic is to be filtered, too


Plans = tuple[Plan, ...]  # one for each family that the kernel has


class Planner:
    """From `Rules` to plans. Remembers the last ones, since most of the next are the same: what is unchanged at both
    ends of the mappings and of the links costs a comparison, and no more."""

    def __init__(self, families: tuple[int, ...] = (4, 6)) -> None:
        self._rules = Rules()
        self._plans = tuple(Plan(family) for family in families)
        self._links: tuple[LinkRule, ...] = ()
        self._published: dict[_Key, Port] = {}

    def plans(self, rules: Rules) -> Plans:
        """What ``rules`` mean for each family; what was asked before makes no difference to it.

        Bridges count for every family, since a container may give itself an address of the other one. Raises
        BadParameter for what is no address, port, protocol or interface, for two mappings of one port, and for a
        family that is not there.
        """
        gone, come = _difference(self._rules.mappings, rules.mappings)
        unpublished, published = [_port(one) for one in gone], [_port(one) for one in come]
        taken = dict(self._published)
        for _, port in unpublished:
            taken.pop(_key(port), None)
        for _, port in published:
            if (other := taken.setdefault(_key(port), port)) is not port:
                raise BadParameter(
                    f"{port.protocol} port {port.host_port} cannot lead to {other.address} and to {port.address}"
                )
        links = tuple(dict.fromkeys(rules.links))
        unlinked, linked = ([_link(one) for one in part] for part in _difference(self._links, links))
        families = {plan.family for plan in self._plans}
        for family, _ in (*published, *linked):
            if family and family not in families:
                raise BadParameter(f"this kernel has no IPv{family}")
        framed = rules.bridges == self._rules.bridges
        plans = tuple(
            replace(
                plan if framed else _frame(rules.bridges, plan.family),
                ports=(plan.ports - _of(plan.family, unpublished)) | _of(plan.family, published),
                links=(plan.links - _of(plan.family, unlinked)) | _of(plan.family, linked),
                relayed=_relayed(rules) if plan.family == 6 else frozenset(),
            )
            for plan in self._plans
        )
        self._rules, self._links, self._plans, self._published = rules, links, plans, taken
        return plans


def _frame(given: tuple[BridgeRules, ...], family: int) -> Plan:
    bridges = sorted(given, key=lambda bridge: bridge.name)
    for bridge in bridges:
        if not _INTERFACE.fullmatch(bridge.name):
            raise BadParameter(f"{bridge.name!r} is no name of an interface")
    return Plan(
        family=family,
        forward=tuple(_forward(bridges, family)),
        local=tuple(_local(bridges, family)),
        leaving=tuple(_leaving(bridges, family)),
        bridges=tuple(bridge.name for bridge in bridges),
        closed=tuple(bridge.name for bridge in bridges if not bridge.icc),
    )


def _difference(old: tuple[T, ...], new: tuple[T, ...]) -> tuple[list[T], list[T]]:
    """What is in one of them only. Neither may have a value twice, but what ``new`` has twice comes out twice."""
    start, shorter = 0, min(len(old), len(new))
    while start < shorter and (old[start] is new[start] or old[start] == new[start]):
        start += 1
    end = 0
    while end < shorter - start and (old[-1 - end] is new[-1 - end] or old[-1 - end] == new[-1 - end]):
        end += 1
    gone, come = old[start : len(old) - end], new[start : len(new) - end]
    left, here = set(gone), set(come)
    return [one for one in gone if one not in here], [one for one in come if one not in left]


def _of(family: int, values: Iterable[tuple[int, T]]) -> frozenset[T]:
    return frozenset(value for version, value in values if version == family)


def _key(port: Port) -> _Key:
    return (":" in port.address, port.protocol, port.host_ip, port.host_port)


def _forward(bridges: list[BridgeRules], family: int) -> Iterable[Rule]:
    for bridge in bridges:
        if bridge.internal:
            yield Rule(DROP, came_by=bridge.name, not_leaving_by=bridge.name)
            yield Rule(DROP, not_by=bridge.name, leaves_by=bridge.name)
    for bridge in bridges:
        yield Rule(PASS, leaves_by=bridge.name, state=KNOWN)
        yield Rule(PASS, leaves_by=bridge.name, state=REDIRECTED)
        if bridge.icc:
            yield Rule(PASS, came_by=bridge.name, leaves_by=bridge.name)
        else:
            if family == 6:
                yield Rule(PASS, came_by=bridge.name, leaves_by=bridge.name, neighbours=True)
            yield Rule(LINKS, came_by=bridge.name, leaves_by=bridge.name)
        yield Rule(DROP, leaves_by=bridge.name)


def _local(bridges: list[BridgeRules], family: int) -> Iterable[Rule]:
    for bridge in bridges:
        yield Rule(DROP, came_by=bridge.name, destination="127.0.0.0/8" if family == 4 else "::1/128")
    for bridge in bridges:
        if not bridge.internal:
            continue
        if family == 6:
            yield Rule(DROP, came_by=bridge.name, relayed=True)
        for subnet in _subnets(bridge, family):
            yield Rule(PASS, came_by=bridge.name, destination=subnet)
        if family == 6:
            yield Rule(PASS, came_by=bridge.name, destination="fe80::/10")
            yield Rule(PASS, came_by=bridge.name, destination="ff02::/16")
        yield Rule(DROP, came_by=bridge.name)


def _leaving(bridges: list[BridgeRules], family: int) -> Iterable[Rule]:
    for bridge in bridges:
        for subnet in _subnets(bridge, family):
            yield Rule(MASQUERADE, source=subnet, leaves_by=bridge.name, state=REDIRECTED)
            if bridge.masquerade and not bridge.internal:
                yield Rule(MASQUERADE, source=subnet, not_leaving_by=bridge.name)


def _subnets(bridge: BridgeRules, family: int) -> list[str]:
    try:
        networks = [ipaddress.ip_network(subnet, strict=False) for subnet in bridge.subnets]
    except ValueError as error:
        raise BadParameter(f"subnets of {bridge.name}: {error}") from None
    return [str(network) for network in networks if network.version == family]


def _version(address: str) -> int:
    try:
        return ipaddress.ip_address(address).version
    except ValueError as error:
        raise BadParameter(str(error)) from None


def _port(mapping: Mapping) -> tuple[int, Port]:
    """With its family; 0 if the firewall has nothing to do with it."""
    _check_port(mapping.protocol, mapping.host_port)
    _check_port(mapping.protocol, mapping.port)
    family = _version(mapping.host_ip)
    if family != _version(mapping.address):
        raise BadParameter(f"port {mapping.host_port} of {mapping.host_ip} cannot lead to {mapping.address}")
    host_ip = ipaddress.ip_address(mapping.host_ip)
    port = Port(
        protocol=mapping.protocol,
        host_ip="" if host_ip.is_unspecified else str(host_ip),
        host_port=mapping.host_port,
        address=str(ipaddress.ip_address(mapping.address)),
        port=mapping.port,
    )
    never = any(host_ip in ipaddress.ip_network(network) for network in NEVER_REDIRECTED[family])
    return (0 if never else family), port


def _relayed(rules: Rules) -> frozenset[Relayed]:
    for protocol, port in rules.relayed:
        _check_port(protocol, port)
    return frozenset(Relayed(protocol, port) for protocol, port in rules.relayed)


def _link(link: LinkRule) -> tuple[int, Link]:
    _check_port(link.protocol, link.port)
    family = _version(link.target)
    if family != _version(link.source):
        raise BadParameter(f"a link from {link.source} to {link.target} crosses the families")
    source, target = (str(ipaddress.ip_address(address)) for address in (link.source, link.target))
    return family, Link(source, target, link.protocol, link.port)


def _check_port(protocol: str, port: int) -> None:
    if protocol not in PROTOCOLS:
        raise BadParameter(f"{protocol!r} is no protocol with ports: {', '.join(PROTOCOLS)} are")
    if not 0 < port < 65536:
        raise BadParameter(f"{port} is no port")
