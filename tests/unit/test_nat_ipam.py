"""Which addresses containers get."""

from __future__ import annotations

import contextlib
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockerd_py.errors import BadParameter, Conflict, NetworkFailed
from dockerd_py.nat.ipam import Addresses, check_pools, mac_of, take_from
from dockerd_py.nat.model import Pool

NETWORK = "front (0123456789ab)"


def addresses(subnet: str = "172.20.0.0/29", **settings: object) -> Addresses:
    return Addresses(check_pools([Pool(subnet, **settings)])[0], NETWORK)  # type: ignore[arg-type]


def all_of(pool: Addresses) -> list[str]:
    taken = []
    with contextlib.suppress(NetworkFailed):
        while True:
            taken.append(pool.take())
    return taken


def test_the_gateway_the_network_and_the_broadcast_address_are_no_containers() -> None:
    assert all_of(addresses()) == [f"172.20.0.{number}" for number in range(2, 7)]


def test_an_exhausted_pool_says_so_with_the_networks_name_and_id() -> None:
    pool = addresses()
    all_of(pool)
    sentence = r"^no available IPv4 addresses on this network's address pools: front \(0123456789ab\)$"
    with pytest.raises(NetworkFailed, match=sentence):
        pool.take()
    pool.release("172.20.0.4")
    assert pool.take() == "172.20.0.4"


def test_the_next_address_is_the_one_after_the_last_given_even_if_lower_ones_are_free_again() -> None:
    pool = addresses()
    assert [pool.take(), pool.take()] == ["172.20.0.2", "172.20.0.3"]
    pool.release("172.20.0.2")
    pool.release("172.20.0.3")
    assert [pool.take() for _ in range(4)] == ["172.20.0.4", "172.20.0.5", "172.20.0.6", "172.20.0.2"]


def test_a_wanted_address_is_given_and_does_not_move_the_next_one() -> None:
    pool = addresses()
    assert pool.take("172.20.0.6") == "172.20.0.6"
    assert pool.take() == "172.20.0.2"


@pytest.mark.parametrize("wanted", ["172.20.0.0", "172.20.0.1", "172.20.0.7", "172.20.0.5", "172.20.0.3"])
def test_an_address_in_use_or_reserved_is_refused_as_docker_does(wanted: str) -> None:
    pool = addresses(aux={"router": "172.20.0.5"})
    pool.take("172.20.0.3")
    with pytest.raises(Conflict, match=r"^Address already in use$"):
        pool.take(wanted)


@pytest.mark.parametrize("wanted", ["172.20.0.8", "10.0.0.1", "fd00::1"])
def test_an_address_of_another_subnet_is_refused(wanted: str) -> None:
    with pytest.raises(BadParameter) as failure:
        addresses().take(wanted)
    assert str(failure.value) == f"Invalid address {wanted}: It does not belong to any of this network's subnets"


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(BadParameter, match="invalid IP address: here"):
        addresses().take("here")


def test_a_range_bounds_what_is_given_and_not_what_may_be_wanted() -> None:
    pool = addresses("172.20.0.0/16", ip_range="172.20.5.0/30", gateway="172.20.0.1")
    assert all_of(pool) == ["172.20.5.0", "172.20.5.1", "172.20.5.2", "172.20.5.3"]
    assert pool.take("172.20.9.9") == "172.20.9.9"


def test_the_records_addresses_are_not_given_again() -> None:
    pool = addresses()
    pool.take_back("172.20.0.3")
    assert pool.take() == "172.20.0.4"
    with pytest.raises(Conflict):
        pool.take_back("172.20.0.3")
    pool.take_back("172.20.0.1")  # of a record older than the gateway
    assert pool.in_use == {"172.20.0.1", "172.20.0.3", "172.20.0.4"}


def test_an_ipv6_subnet_of_any_size_costs_only_what_is_in_use() -> None:
    pool = addresses("fd00:1:2:3::/64")
    assert [pool.take() for _ in range(3)] == ["fd00:1:2:3::2", "fd00:1:2:3::3", "fd00:1:2:3::4"]
    assert pool.take("fd00:1:2:3:ffff::") == "fd00:1:2:3:ffff::"
    pool.take_back("fd00:1:2:3:ffff:ffff:ffff:ffff")
    assert pool.take() == "fd00:1:2:3::5"
    with pytest.raises(Conflict):
        pool.take("fd00:1:2:3::")


def test_a_second_pool_is_used_when_the_first_is_exhausted() -> None:
    pools = [addresses("10.1.0.0/30"), addresses("10.2.0.0/30")]
    assert take_from(pools) == (pools[0], "10.1.0.2")
    assert take_from(pools) == (pools[1], "10.2.0.2")
    with pytest.raises(NetworkFailed, match="no available IPv4 addresses"):
        take_from(pools)
    pools[1].release("10.2.0.2")
    assert take_from(pools, "10.2.0.2") == (pools[1], "10.2.0.2")
    with pytest.raises(Conflict):
        take_from(pools, "10.2.0.2")
    with pytest.raises(BadParameter, match="It does not belong to any"):
        take_from(pools, "10.3.0.2")


def test_a_mac_address_follows_from_the_address() -> None:
    assert mac_of("172.17.0.2") == "02:42:ac:11:00:02"


@given(
    st.integers(min_value=24, max_value=30),
    st.lists(st.tuples(st.sampled_from(["take", "want", "release"]), st.integers(min_value=0, max_value=255))),
)
def test_no_address_is_ever_given_twice_and_none_is_lost(prefix: int, steps: list[tuple[str, int]]) -> None:
    subnet = ipaddress.ip_network(f"10.9.8.0/{prefix}")
    pool = addresses(str(subnet))
    usable = {str(host) for host in subnet.hosts()} - {"10.9.8.1"}
    given_out: set[str] = set()
    for step, number in steps:
        address = f"10.9.8.{number}"
        if step == "take":
            if given_out == usable:
                with pytest.raises(NetworkFailed):
                    pool.take()
            else:
                new = pool.take()
                assert new in usable - given_out
                given_out.add(new)
        elif step == "release":
            pool.release(address)
            given_out.discard(address)
        elif address in usable - given_out:
            assert pool.take(address) == address
            given_out.add(address)
        else:
            with pytest.raises((Conflict, BadParameter)):
                pool.take(address)
        assert pool.in_use == given_out


# --- pools ---


@pytest.mark.parametrize(
    ("pool", "gateway"),
    [
        (Pool("172.20.0.0/16"), "172.20.0.1"),
        (Pool("172.20.0.0/16", ip_range="172.20.5.0/24"), "172.20.5.0"),
        (Pool("172.20.0.0/16", ip_range="172.20.0.0/24"), "172.20.0.1"),
        (Pool("172.20.0.0/16", aux={"a": "172.20.0.1"}), "172.20.0.2"),
        (Pool("172.20.0.0/16", gateway="172.20.7.7"), "172.20.7.7"),
        (Pool("FD00:0:0:1::/64"), "fd00:0:0:1::1"),
    ],
)
def test_the_gateway_is_the_one_given_or_the_first_address(pool: Pool, gateway: str) -> None:
    assert check_pools([pool])[0].gateway == gateway


def test_pools_come_back_in_their_canonical_form() -> None:
    pool = Pool("FD00:0::/64", gateway="FD00::0001", ip_range="fd00:0:0:0:1::/80", aux={"a": "fd00::A"})
    assert check_pools([pool]) == (Pool("fd00::/64", "fd00::1", "fd00::1:0:0:0/80", {"a": "fd00::a"}),)


@pytest.mark.parametrize(
    ("pool", "sentence"),
    [
        (Pool("172.20.0.0"), "invalid subnet 172.20.0.0: invalid CIDR block notation"),
        (Pool("172.20.0.0/255.255.0.0"), "invalid subnet 172.20.0.0/255.255.0.0: invalid CIDR block notation"),
        (Pool(""), "invalid subnet : invalid CIDR block notation"),
        (Pool("172.20.0.1/16"), "invalid subnet 172.20.0.1/16: it should be 172.20.0.0/16"),
        (Pool("172.20.0.0/31"), "invalid subnet 172.20.0.0/31: it has no room for a gateway and a container"),
        (Pool("172.20.0.4/32"), "invalid subnet 172.20.0.4/32: it has no room for a gateway and a container"),
        (Pool("224.1.0.0/16"), "invalid subnet 224.1.0.0/16: no interface can have an address of it"),
        (Pool("127.1.0.0/16"), "invalid subnet 127.1.0.0/16: no interface can have an address of it"),
        (Pool("0.0.0.0/0"), "invalid subnet 0.0.0.0/0: no interface can have an address of it"),
        (Pool("fe80::/64"), "invalid subnet fe80::/64: no interface can have an address of it"),
        (
            Pool("172.20.0.0/16", gateway="172.21.0.1"),
            "invalid gateway 172.21.0.1: parent subnet 172.20.0.0/16 doesn't contain this address",
        ),
        (Pool("172.20.0.0/16", gateway="fd00::1"), "invalid gateway fd00::1: parent subnet is an IPv4 block"),
        (Pool("172.20.0.0/16", gateway="x"), "invalid gateway x: invalid address"),
        (
            Pool("172.20.0.0/16", gateway="172.20.255.255"),
            "invalid gateway 172.20.255.255: it is the subnet's own, or an auxiliary address",
        ),
        (
            Pool("172.20.0.0/16", gateway="172.20.0.9", aux={"a": "172.20.0.9"}),
            "invalid gateway 172.20.0.9: it is the subnet's own, or an auxiliary address",
        ),
        (
            Pool("172.20.0.0/16", aux={"nas": "10.0.0.1"}),
            "invalid auxiliary address nas 10.0.0.1: parent subnet 172.20.0.0/16 doesn't contain this address",
        ),
        (
            Pool("172.20.0.0/16", aux={"a": "172.20.0.9", "b": "172.20.0.9"}),
            "an auxiliary address of 172.20.0.0/16 is given twice",
        ),
        (
            Pool("172.20.0.0/16", ip_range="172.21.0.0/24"),
            "invalid ip-range 172.21.0.0/24: parent subnet 172.20.0.0/16 doesn't contain ip-range",
        ),
        (
            Pool("172.20.0.0/16", ip_range="172.0.0.0/8"),
            "invalid ip-range 172.0.0.0/8: CIDR block is bigger than its parent subnet 172.20.0.0/16",
        ),
        (Pool("172.20.0.0/16", ip_range="172.20.1.1/24"), "invalid ip-range 172.20.1.1/24: it should be 172.20.1.0/24"),
        (Pool("172.20.0.0/16", ip_range="fd00::/80"), "invalid ip-range fd00::/80: parent subnet is an IPv4 block"),
        (
            Pool("172.20.0.0/16", ip_range="172.20.9.9/32", aux={"a": "172.20.9.9"}),
            "invalid subnet 172.20.0.0/16: no address of it is left for the gateway",
        ),
    ],
)
def test_a_pool_that_cannot_be_is_refused_by_a_sentence(pool: Pool, sentence: str) -> None:
    with pytest.raises(BadParameter) as failure:
        check_pools([pool])
    assert str(failure.value) == sentence


def test_pools_that_overlap_are_refused_within_a_network_and_between_two() -> None:
    with pytest.raises(Conflict, match=r"^Pool overlaps with other one on this address space$"):
        check_pools([Pool("10.0.0.0/8"), Pool("10.1.0.0/16")])
    with pytest.raises(Conflict):
        check_pools([Pool("10.1.0.0/16")], taken=["fd00::/8", "10.0.0.0/8"])
    assert len(check_pools([Pool("10.1.0.0/16"), Pool("fd00::/64"), Pool("10.2.0.0/16")], taken=["10.3.0.0/16"])) == 3
