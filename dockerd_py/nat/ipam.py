"""Which addresses a network's containers have: pure, in memory, rebuilt from the records at each start.

Nothing is enumerated, so an IPv6 /64 costs what is in use in it.  The errors are Docker's own sentences where it has
one, since its users and tools know them.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Iterable, Sequence

from dockerd_py.errors import BadParameter, Conflict, NetworkFailed
from dockerd_py.nat.model import Pool

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network

_TAKEN = "Address already in use"

_UNUSABLE = tuple(  # this host, loopback, multicast and reserved; in IPv6 of one link only, too
    map(ipaddress.ip_network, ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3", "::/8", "fe80::/10", "ff00::/8"))
)


class Addresses:
    """The addresses of one pool, whose gateway is chosen.

    ``network`` is "name (id)", for sentences.  Given is the next one after the last one given, so that an address is
    not that of another container right after its container is gone.
    """

    def __init__(self, pool: Pool, network: str) -> None:
        self.subnet = ipaddress.ip_network(pool.subnet)
        self._network = network
        area = ipaddress.ip_network(pool.ip_range) if pool.ip_range else self.subnet
        self._first, self._last = int(area[0]), int(area[-1])
        self._reserved = _reserved(self.subnet) | {int(ipaddress.ip_address(text)) for text in pool.aux.values()}
        if pool.gateway:
            self._reserved.add(int(ipaddress.ip_address(pool.gateway)))
        self._given: set[int] = set()
        self._latest = self._first - 1

    def __contains__(self, address: str) -> bool:
        """Whether it is one of the subnet's."""
        parsed = _parsed(address)
        return parsed.version == self.subnet.version and parsed in self.subnet

    @property
    def in_use(self) -> frozenset[str]:
        return frozenset(str(self._text(number)) for number in self._given)

    def take(self, wanted: str = "") -> str:
        """``wanted``, which may be any address of the subnet, or the next free one of the range.

        Raises Conflict if it is in use, BadParameter if it is none of the subnet's, NetworkFailed if all are in use.
        """
        number = self._check(wanted) if wanted else self._next()
        self._given.add(number)
        if not wanted:
            self._latest = number
        return self._text(number)

    def take_back(self, address: str) -> None:
        """What a record says to be in use.  Raises Conflict, BadParameter; a reserved one is kept, too."""
        number = self._number(address)
        if number in self._given:
            raise Conflict(_TAKEN)
        self._given.add(number)
        if self._first <= number <= self._last:
            self._latest = max(self._latest, number)

    def is_reserved(self, address: str) -> bool:
        """Whether no container can have it: the gateway's, for one."""
        return int(_parsed(address)) in self._reserved

    def release(self, address: str) -> None:
        """Fine for one that nobody has."""
        self._given.discard(int(_parsed(address)))

    def _check(self, wanted: str) -> int:
        number = self._number(wanted)
        if number in self._given or number in self._reserved:
            raise Conflict(_TAKEN)
        return number

    def _number(self, text: str) -> int:
        if text not in self:
            raise BadParameter(f"Invalid address {text}: It does not belong to any of this network's subnets")
        return int(_parsed(text))

    def _next(self) -> int:
        number = self._latest
        # One of so many in a row is free, unless none is.
        for _ in range(len(self._given) + len(self._reserved) + 1):
            number = number + 1 if self._first <= number + 1 <= self._last else self._first
            if number not in self._given and number not in self._reserved:
                return number
        raise NetworkFailed(
            f"no available IPv{self.subnet.version} addresses on this network's address pools: {self._network}"
        )

    def _text(self, number: int) -> str:
        return str(self.subnet[number - int(self.subnet[0])])


def take_from(pools: Sequence[Addresses], wanted: str = "") -> tuple[Addresses, str]:
    """As `Addresses.take`, of the first pool that has one; all are of one family, and there is one at least."""
    if wanted:
        pools = [pool for pool in pools if wanted in pool] or pools[:1]
    for pool in pools[:-1]:
        try:
            return pool, pool.take(wanted)
        except NetworkFailed:
            continue
    return pools[-1], pools[-1].take(wanted)


def mac_of(ipv4: str) -> str:
    """The MAC address that goes with it: a locally administered one, so that neighbours' caches stay right."""
    return "02:42:" + ipaddress.IPv4Address(ipv4).packed.hex(":")


def check_pools(pools: Iterable[Pool], taken: Iterable[str] = ()) -> tuple[Pool, ...]:
    """The same in their canonical form, with a gateway each.

    The gateway is by default the first address of the subnet, or of the range if there is one, as with Docker.
    ``taken`` are other networks' subnets.  Raises BadParameter, and Conflict for subnets that overlap.
    """
    checked: list[Pool] = []
    others = [ipaddress.ip_network(subnet) for subnet in taken]
    for pool in pools:
        subnet = _subnet(pool.subnet)
        if any(overlaps(subnet, other) for other in others):
            raise Conflict("Pool overlaps with other one on this address space")
        others.append(subnet)
        checked.append(_checked(pool, subnet))
    return tuple(checked)


def overlaps(one: Subnet, other: Subnet) -> bool:
    """Two of different families do not."""
    return one.version == other.version and one.overlaps(other)


def _checked(pool: Pool, subnet: Subnet) -> Pool:
    area = _range(pool.ip_range, subnet) if pool.ip_range else subnet
    aux = {name: _inside(text, subnet, f"auxiliary address {name}") for name, text in pool.aux.items()}
    if len(set(aux.values())) < len(aux):
        raise BadParameter(f"an auxiliary address of {subnet} is given twice")
    busy = _reserved(subnet) | {int(address) for address in aux.values()}
    if pool.gateway:
        gateway = _inside(pool.gateway, subnet, "gateway")
        if int(gateway) in busy:
            raise BadParameter(f"invalid gateway {pool.gateway}: it is the subnet's own, or an auxiliary address")
    else:
        free = (number for number in range(int(area[0]), int(area[-1]) + 1) if number not in busy)
        number = next(free, None)
        if number is None:
            raise BadParameter(f"invalid subnet {subnet}: no address of it is left for the gateway")
        gateway = subnet[number - int(subnet[0])]
    return dataclasses.replace(
        pool,
        subnet=str(subnet),
        gateway=str(gateway),
        ip_range=str(area) if pool.ip_range else "",
        aux={name: str(address) for name, address in aux.items()},
    )


def _subnet(text: str) -> Subnet:
    subnet = _block(text, "subnet")
    if subnet.num_addresses < 4:
        raise BadParameter(f"invalid subnet {text}: it has no room for a gateway and a container")
    if any(overlaps(subnet, other) for other in _UNUSABLE):
        raise BadParameter(f"invalid subnet {text}: no interface can have an address of it")
    return subnet


def _range(text: str, subnet: Subnet) -> Subnet:
    area = _block(text, "ip-range")
    if area.version != subnet.version:
        raise BadParameter(f"invalid ip-range {text}: parent subnet is an IPv{subnet.version} block")
    if area.prefixlen < subnet.prefixlen:
        raise BadParameter(f"invalid ip-range {text}: CIDR block is bigger than its parent subnet {subnet}")
    if area[0] not in subnet:
        raise BadParameter(f"invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range")
    return area


def _block(text: str, what: str) -> Subnet:
    address, slash, prefix = text.partition("/")
    try:
        if not slash or not prefix.isdigit():
            raise ValueError
        block = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise BadParameter(f"invalid {what} {text}: invalid CIDR block notation") from None
    if block[0] != ipaddress.ip_address(address):
        raise BadParameter(f"invalid {what} {text}: it should be {block}")
    return block


def _inside(text: str, subnet: Subnet, what: str) -> Address:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise BadParameter(f"invalid {what} {text}: invalid address") from None
    if address.version != subnet.version:
        raise BadParameter(f"invalid {what} {text}: parent subnet is an IPv{subnet.version} block")
    if address not in subnet:
        raise BadParameter(f"invalid {what} {text}: parent subnet {subnet} doesn't contain this address")
    return address


def _reserved(subnet: Subnet) -> set[int]:
    """The network's own address (in IPv6 that of all its routers, RFC 4291), and IPv4's broadcast address."""
    own = {int(subnet[0])}
    return own | {int(subnet[-1])} if subnet.version == 4 else own


def _parsed(text: str) -> Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise BadParameter(f"invalid IP address: {text}") from None
