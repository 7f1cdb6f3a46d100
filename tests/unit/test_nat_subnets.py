"""Which subnet a network gets when nobody has said so."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockerd_py.errors import NetworkFailed
from dockerd_py.nat.subnets import FIRST_YEAR, choose, choose_for_bridge, choose_v6

EXHAUSTED = (
    "^could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network$"
)


def test_our_own_bridge_gets_the_first_years_first_address() -> None:
    assert str(choose_for_bridge([])) == "172.17.42.1/16"


@pytest.mark.parametrize(
    ("taken", "address"),
    [
        (["172.17.0.0/16"], "10.0.42.1/16"),
        (["172.16.0.0/12"], "10.0.42.1/16"),
        (["172.17.200.200/32"], "10.0.42.1/16"),  # a name server
        (["172.16.0.0/12", "10.0.0.0/8"], "192.168.42.1/24"),
        (["10.0.0.0/8", "172.17.0.0/16", "fd00::/8"], "172.16.42.1/24"),
        (["10.0.0.0/8", "172.16.0.0/12", "192.168.32.0/20"], "192.168.0.1/20"),
    ],
)
def test_it_avoids_what_the_host_uses(taken: list[str], address: str) -> None:
    assert str(choose_for_bridge(taken)) == address


def test_new_networks_get_todays_pools_in_their_order_and_then_no_more() -> None:
    taken: list[str] = []
    for _ in range(31):
        taken.append(str(choose(taken)))
    with pytest.raises(NetworkFailed, match=EXHAUSTED):
        choose(taken)
    assert taken == [
        *(f"172.{number}.0.0/16" for number in range(17, 32)),
        *(f"192.168.{number}.0/20" for number in range(0, 256, 16)),
    ]


def test_the_bridge_finds_no_address_where_all_is_taken() -> None:
    with pytest.raises(NetworkFailed, match=EXHAUSTED):
        choose_for_bridge(["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"])


def test_the_administrators_pools_are_used_instead() -> None:
    pools = (("fd00:1::/32", 64), ("10.10.0.0/16", 24), ("10.11.0.0/30", 30))
    assert str(choose([], pools)) == "10.10.0.0/24"
    assert str(choose(["10.10.0.0/23", "10.10.3.7/32"], pools)) == "10.10.2.0/24"
    assert str(choose(["10.10.0.0/16"], pools)) == "10.11.0.0/30"
    with pytest.raises(NetworkFailed, match=EXHAUSTED):
        choose(["10.0.0.0/8"], pools)


def test_a_pool_of_millions_of_subnets_is_not_searched_one_by_one() -> None:
    assert str(choose(["10.0.0.0/9", "10.128.0.0/10"], (("10.0.0.0/8", 30),))) == "10.192.0.0/30"
    assert str(choose_v6("", ["fd00::/17"], (("fd00::/16", 120),))) == "fd00:8000::/120"


@given(st.lists(st.integers(min_value=0, max_value=1023), max_size=40), st.integers(min_value=25, max_value=30))
def test_what_is_chosen_is_the_lowest_free_one(numbers: list[int], size: int) -> None:
    busy = [ipaddress.IPv4Address("10.0.0.0") + number for number in numbers]
    taken = [f"{address}/32" for address in busy]
    free = [
        subnet
        for subnet in ipaddress.IPv4Network("10.0.0.0/22").subnets(new_prefix=size)
        if not any(address in subnet for address in busy)
    ]
    if free:
        assert choose(taken, (("10.0.0.0/22", size),)) == free[0]
    else:
        with pytest.raises(NetworkFailed):
            choose(taken, (("10.0.0.0/22", size),))


def test_ipv6_subnets_are_unique_local_ones_that_follow_from_the_seed() -> None:
    one, same, other = choose_v6("a"), choose_v6("a"), choose_v6("b")
    assert one == same != other
    assert one.prefixlen == 64
    assert one.subnet_of(ipaddress.IPv6Network("fd00::/8"))
    assert int(one[0]) >> 64 & 0xFFFF == 0
    second = choose_v6("a", [str(one)])
    assert second != one
    assert second.supernet(new_prefix=48) == one.supernet(new_prefix=48)


def test_the_first_years_addresses_are_hosts_of_private_subnets() -> None:
    for text in FIRST_YEAR:
        interface = ipaddress.IPv4Interface(text)
        assert interface.is_private
        assert interface.ip in list(interface.network.hosts())
