"""Which subnet a network gets when nobody has said so: one that nothing on the host uses.  Pure."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator, Sequence

from dockerd_py.errors import NetworkFailed
from dockerd_py.nat.ipam import Subnet, overlaps

FIRST_YEAR = (
    "172.17.42.1/16", "10.0.42.1/16", "10.1.42.1/16", "10.42.42.1/16",
    "172.16.42.1/24", "172.16.43.1/24", "172.16.44.1/24",
    "10.0.42.1/24", "10.0.43.1/24",
    "192.168.42.1/24", "192.168.43.1/24", "192.168.44.1/24",
)  # fmt: skip
"""The addresses that the first year's daemon tried for its bridge, in its order."""

DEFAULT_POOLS: tuple[tuple[str, int], ...] = (
    ("172.17.0.0/16", 16), ("172.18.0.0/16", 16), ("172.19.0.0/16", 16), ("172.20.0.0/14", 16), ("172.24.0.0/14", 16),
    ("172.28.0.0/14", 16), ("192.168.0.0/16", 20),
)  # fmt: skip
"""Today's: each a block and the prefix of the subnets that are made of it."""

_EXHAUSTED = (
    "could not find an available, non-overlapping IPv{} address pool among the defaults to assign to the network"
)


def choose_for_bridge(taken: Iterable[str]) -> ipaddress.IPv4Interface:
    """The address of our own bridge: the first of the first year's that is free, or one of a subnet of today's.

    ``taken`` are subnets and addresses that it must not overlap with.  Raises NetworkFailed.
    """
    busy = _subnets(taken)
    for text in FIRST_YEAR:
        candidate = ipaddress.IPv4Interface(text)
        if not any(overlaps(candidate.network, other) for other in busy):
            return candidate
    subnet = choose(str(other) for other in busy)
    return ipaddress.IPv4Interface(f"{subnet[1]}/{subnet.prefixlen}")


def choose(taken: Iterable[str], pools: Sequence[tuple[str, int]] = ()) -> ipaddress.IPv4Network:
    """The first free subnet of the pools, IPv4's of them, or of today's default ones.  Raises NetworkFailed."""
    for subnet in _free(_subnets(taken), pools or DEFAULT_POOLS):
        if isinstance(subnet, ipaddress.IPv4Network):
            return subnet
    raise NetworkFailed(_EXHAUSTED.format(4))


def choose_v6(seed: str, taken: Iterable[str] = (), pools: Sequence[tuple[str, int]] = ()) -> ipaddress.IPv6Network:
    """The first free subnet of IPv6's pools; if there is no such pool, a /64 of RFC 4193 that follows from ``seed``.

    Raises NetworkFailed.
    """
    busy = _subnets(taken)
    own = [(base, size) for base, size in pools if ":" in base]
    if not own:
        # Section 3.2.2: 40 bits by chance; and 16 that tell the subnets of one such block from each other.
        digest = hashlib.sha256(seed.encode()).digest()
        own = [(str(ipaddress.IPv6Network((b"\xfd" + digest[:5] + bytes(10), 48))), 64)]
    for subnet in _free(busy, own):
        if isinstance(subnet, ipaddress.IPv6Network):
            return subnet
    raise NetworkFailed(_EXHAUSTED.format(6))


def _free(busy: Sequence[Subnet], pools: Sequence[tuple[str, int]]) -> Iterator[Subnet]:
    """The first free one of each pool that has one."""
    for base, size in pools:
        block = ipaddress.ip_network(base)
        step = 1 << (block.max_prefixlen - size)
        start, end = int(block[0]), int(block[-1])
        while start <= end:
            candidate = type(block)((start, size))
            ends = [int(other[-1]) for other in busy if overlaps(candidate, other)]
            if not ends:
                yield candidate
                break
            # Behind what is in the way, however many subnets that is.
            start += max((max(ends) - start) // step + 1, 1) * step


def _subnets(texts: Iterable[str]) -> list[Subnet]:
    return [ipaddress.ip_network(text, strict=False) for text in texts]
