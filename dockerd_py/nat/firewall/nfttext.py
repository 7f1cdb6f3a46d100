"""A plan in the words of nft(8). One text is one transaction.

(Text, since the JSON of libnftables before 1.0.8 cannot declare a map whose values are address and port.) All that
goes into a text is checked by `rules.plan`: addresses, numbers, names of interfaces.

The table is ours alone, one a family:

- the chains ``forward`` and ``local`` at priority mangle, before anybody's filter, with the plan's rules;
- ``prerouting`` and ``output``, which lead to ``ports``: two maps, of ports of any and of one address of the host;
- ``postrouting``.

Published ports and links are elements of maps and sets, so that a packet, and a change, take as long with a thousand
as with one.
"""

from __future__ import annotations

from collections.abc import Iterable

from dockerd_py.nat.firewall.rules import (
    DROP,
    KNOWN,
    LINKS,
    MASQUERADE,
    NEVER_REDIRECTED,
    PASS,
    PROTOCOL_NUMBERS,
    REDIRECTED,
    Link,
    Plan,
    Port,
    Relayed,
    Rule,
)

_FAMILY = {4: "ip", 6: "ip6"}
_ADDRESS = {4: "ipv4_addr", 6: "ipv6_addr"}

_STATES = {
    KNOWN: "ct state established,related ",
    REDIRECTED: "ct status dnat ",
    "": "",
}
_VERDICTS = {
    PASS: "accept",
    DROP: "drop",
    MASQUERADE: "masquerade",
}
_FRAME = ("forward", "local", "postrouting")


def family_of(plan: Plan) -> str:
    return _FAMILY[plan.family]


def declare(table: str, plan: Plan) -> Iterable[str]:
    """The table with its chains, maps and sets, all still empty but for what never changes."""
    ip, address = _FAMILY[plan.family], _ADDRESS[plan.family]
    at = f"{ip} {table}"
    yield f"add table {at}"
    yield f"add map {at} ports {{ type inet_proto . inet_service : {address} . inet_service; }}"
    yield f"add map {at} ports_at {{ type {address} . inet_proto . inet_service : {address} . inet_service; }}"
    yield f"add set {at} links {{ type {address} . {address} . inet_proto . inet_service; }}"
    yield f"add set {at} relayed {{ type inet_proto . inet_service; }}"
    yield f"add chain {at} forward {{ type filter hook forward priority -150; policy accept; }}"
    yield f"add chain {at} local {{ type filter hook input priority -150; policy accept; }}"
    yield f"add chain {at} prerouting {{ type nat hook prerouting priority -100; policy accept; }}"
    yield f"add chain {at} output {{ type nat hook output priority -100; policy accept; }}"
    yield f"add chain {at} postrouting {{ type nat hook postrouting priority 100; policy accept; }}"
    yield f"add chain {at} ports"
    for chain in ("prerouting", "output"):
        yield f"add rule {at} {chain} fib daddr type local jump ports"
    for network in NEVER_REDIRECTED[plan.family]:
        yield f"add rule {at} ports {ip} daddr {network} return"
    yield f"add rule {at} ports dnat {ip} addr . port to {ip} daddr . meta l4proto . th dport map @ports_at"
    yield f"add rule {at} ports dnat {ip} addr . port to meta l4proto . th dport map @ports"


def fill(table: str, plan: Plan) -> Iterable[str]:
    """The rules of the three chains that depend on which bridges there are."""
    at = f"{_FAMILY[plan.family]} {table}"
    for chain, rules in zip(_FRAME, (plan.forward, plan.local, plan.leaving), strict=True):
        yield f"flush chain {at} {chain}"
        for rule in rules:
            yield f"add rule {at} {chain} {_rule(rule, plan.family)}"


def passage(chain: str, plan: Plan) -> Iterable[str]:
    """What the host's own filter table gets: the chain that its FORWARD chain jumps to."""
    at = f"{_FAMILY[plan.family]} filter {chain}"
    yield f"add chain {at}"
    yield f"flush chain {at}"
    for bridge in plan.bridges:
        yield f'add rule {at} iifname "{bridge}" counter accept'
        yield f'add rule {at} oifname "{bridge}" counter accept'


def elements(
    verb: str, table: str, family: int, ports: Iterable[Port], links: Iterable[Link], relayed: Iterable[Relayed]
) -> Iterable[str]:
    """``verb`` is "add" or "delete"."""
    at = f"{_FAMILY[family]} {table}"
    ports = sorted(ports, key=lambda port: (port.protocol, port.host_ip, port.host_port))
    anywhere = [f"{_key(port)} : {port.address} . {port.port}" for port in ports if not port.host_ip]
    somewhere = [f"{port.host_ip} . {_key(port)} : {port.address} . {port.port}" for port in ports if port.host_ip]
    pairs = [
        f"{link.source} . {link.target} . {PROTOCOL_NUMBERS[link.protocol]} . {link.port}"
        for link in sorted(links, key=lambda link: (link.source, link.target, link.protocol, link.port))
    ]
    served = [f"{PROTOCOL_NUMBERS[one.protocol]} . {one.port}" for one in sorted(relayed)]
    for name, values in (("ports", anywhere), ("ports_at", somewhere), ("links", pairs), ("relayed", served)):
        if values:
            yield f"{verb} element {at} {name} {{ {', '.join(values)} }}"


def _key(port: Port) -> str:
    return f"{PROTOCOL_NUMBERS[port.protocol]} . {port.host_port}"


def _rule(rule: Rule, family: int) -> str:
    ip = _FAMILY[family]
    words = ""
    for name, operator, key in (
        (rule.came_by, "", "iifname"),
        (rule.not_by, "!= ", "iifname"),
        (rule.leaves_by, "", "oifname"),
        (rule.not_leaving_by, "!= ", "oifname"),
    ):
        if name:
            words += f'{key} {operator}"{name}" '
    if rule.source:
        words += f"{ip} saddr {rule.source} "
    if rule.destination:
        words += f"{ip} daddr {rule.destination} "
    if rule.neighbours:
        words += "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } "
    if rule.relayed:
        words += "meta l4proto . th dport @relayed "
    words += _STATES[rule.state]
    if rule.action == LINKS:
        return f"{words}{ip} saddr . {ip} daddr . meta l4proto . th dport @links accept"
    return words + _VERDICTS[rule.action]
