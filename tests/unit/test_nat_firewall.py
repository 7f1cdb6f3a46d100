"""What the firewall lets through and what it does not, tried with packets, on each backend.

Each of these is tried twice: on a host as it comes, and on one whose own FORWARD chain drops and where what crosses a
bridge passes the host's rules, as other engines set it.
"""

from __future__ import annotations

import re

import pytest
from firewall_stage import BR0, BR1, Stage, port
from net_ground import Echo, Ground, ask, reached

from dockerd_py.errors import NetworkFailed
from dockerd_py.nat.model import BridgeRules, LinkRule


@pytest.mark.parametrize("the_stage", ["nftables-plain"], indirect=True)
def test_without_rules_every_way_is_open_that_they_close(stage: Stage) -> None:
    """What is not reached further down is so because of the rules."""
    assert ask(stage.outside, "tcp", "172.30.0.2", 80) == "one 192.0.2.2"
    assert ask(stage.outside, "udp", "fd30::2", 80) == "one 2001:db8::2"
    assert ask(stage.one, "tcp", "172.31.0.2", 80) == "three 172.30.0.2"
    assert ask(stage.one, "udp", "fd31::2", 80) == "three fd30::2"
    assert ask(stage.one, "tcp", Ground.FAR, 80) == "outside 172.30.0.2"


# --- what leaves ---


def test_what_leaves_a_network_has_the_hosts_address(stage: Stage) -> None:
    stage.apply()
    for protocol in ("tcp", "udp"):
        assert ask(stage.one, protocol, Ground.OUTSIDE, 80) == "outside 192.0.2.1"
        assert ask(stage.one, protocol, Ground.OUTSIDE6, 80) == "outside 2001:db8::1"
    assert ask(stage.one, "tcp", Ground.FAR, 80) == "outside 192.0.2.1"


def test_without_masquerading_it_keeps_its_own(stage: Stage) -> None:
    stage.apply(BridgeRules("br0", BR0.subnets, masquerade=False))
    assert ask(stage.one, "tcp", Ground.FAR, 80) == "outside 172.30.0.2"
    assert ask(stage.one, "tcp", Ground.FAR6, 80) == "outside fd30::2"


def test_what_stays_on_a_network_keeps_its_address(stage: Stage) -> None:
    stage.apply()
    assert ask(stage.one, "tcp", "172.30.0.3", 80) == "two 172.30.0.2"
    assert ask(stage.one, "udp", "fd30::3", 80) == "two fd30::2"
    assert ask(stage.host, "tcp", "172.30.0.3", 80) == "two 172.30.0.1"


# --- published ports ---


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("six", [False, True], ids=["4", "6"])
def test_a_published_port_is_reached_from_everywhere(stage: Stage, protocol: str, six: bool) -> None:
    target, host = ("fd30::2", Ground.HOST6) if six else ("172.30.0.2", Ground.HOST)
    stage.apply(ports=(port(8080, target, protocol=protocol),))
    assert ask(stage.outside, protocol, host, 8080) == f"one {Ground.OUTSIDE6 if six else Ground.OUTSIDE}"
    assert ask(stage.host, protocol, host, 8080) == f"one {host}"
    for space in (stage.one, stage.two, stage.three):
        assert ask(space, protocol, host, 8080).startswith("one "), space.name
    # and at the address of the host that a container knows best
    assert ask(stage.two, protocol, "fd30::1" if six else "172.30.0.1", 8080).startswith("one ")


def test_only_the_port_that_is_published_is_reached(stage: Stage) -> None:
    stage.apply(ports=(port(8080, "172.30.0.2"),))
    assert not reached(
        (stage.outside, "tcp", Ground.HOST, 80),
        (stage.outside, "udp", Ground.HOST, 8080),
        (stage.outside, "tcp", Ground.HOST6, 8080),
    )
    stage.apply()
    assert not reached((stage.outside, "tcp", Ground.HOST, 8080))


def test_a_port_that_moves_to_another_container_leads_there(stage: Stage) -> None:
    stage.apply(ports=(port(8080, "172.30.0.2"), port(8081, "172.30.0.3")))
    stage.apply(ports=(port(8080, "172.30.0.3"), port(8081, "172.30.0.2")))
    assert ask(stage.outside, "tcp", Ground.HOST, 8080).startswith("two")
    assert ask(stage.outside, "tcp", Ground.HOST, 8081).startswith("one")


def test_a_port_of_one_address_is_published_there_alone(stage: Stage) -> None:
    stage.host.ip("address replace 192.0.2.10/32 dev up0", "address replace 2001:db8::10/128 dev up0 nodad")
    stage.apply(
        ports=(
            port(8080, "172.30.0.2", host_ip="192.0.2.10"),
            port(8080, "172.30.0.3", host_ip=Ground.HOST),
            port(8081, "172.30.0.2", host_ip="192.0.2.10"),
            port(8082, "fd30::2", host_ip="2001:db8::10"),
        )
    )
    assert ask(stage.outside, "tcp", "192.0.2.10", 8080).startswith("one")
    assert ask(stage.outside, "tcp", Ground.HOST, 8080).startswith("two")
    assert not reached((stage.outside, "tcp", Ground.HOST, 8081))
    assert ask(stage.outside, "tcp", "2001:db8::10", 8082).startswith("one")
    assert not reached((stage.outside, "tcp", Ground.HOST6, 8082))


def test_the_hosts_loopback_keeps_its_ports(stage: Stage) -> None:
    stage.apply(ports=(port(8080, "172.30.0.2"), port(8080, "fd30::2"), port(8081, "172.30.0.2", host_ip="127.0.0.1")))
    for address in ("127.0.0.1", "127.1.2.3", "::1"):
        with Echo(stage.host, "tcp", 8080, address):
            assert ask(stage.host, "tcp", address, 8080).startswith("host")
    with Echo(stage.host, "tcp", 8081, "127.0.0.1"):
        assert ask(stage.host, "tcp", "127.0.0.1", 8081) == "host 127.0.0.1"
    assert not reached((stage.outside, "tcp", Ground.HOST, 8081))


def test_an_sctp_port_gets_its_rule(stage: Stage) -> None:
    stage.apply(ports=(port(8080, "172.30.0.2", protocol="sctp"), port(8080, "fd30::2", protocol="sctp")))
    published = [line for line in stage.state().splitlines() if re.search(r"sctp.*172\.30\.0\.2|132.*172\.30", line)]
    assert len(published) == 1


# --- what is kept apart ---


def test_networks_reach_each_other_by_published_ports_alone(stage: Stage) -> None:
    stage.apply(ports=(port(8080, "172.31.0.2", bridge="br1"), port(8080, "fd31::2", bridge="br1")))
    for address in ("172.31.0.2", "fd31::2"):
        assert not reached(
            (stage.one, "tcp", address, 80),
            (stage.one, "udp", address, 80),
        )
    assert ask(stage.one, "tcp", Ground.HOST, 8080).startswith("three")
    assert ask(stage.one, "tcp", Ground.HOST6, 8080).startswith("three")


def test_nobody_outside_reaches_a_containers_own_address(stage: Stage) -> None:
    stage.apply(ports=(port(8080, "172.30.0.2"), port(8080, "fd30::2")))
    for address in ("172.30.0.2", "fd30::2"):
        assert not reached(
            (stage.outside, "tcp", address, 80),
            (stage.outside, "udp", address, 80),
        )


def test_an_internal_network_is_alone_with_the_hosts_address_on_it(stage: Stage) -> None:
    internal = BridgeRules("br1", BR1.subnets, internal=True)
    stage.apply(BR0, internal, ports=(port(8080, "172.31.0.2", bridge="br1"), port(8081, "172.30.0.2")))
    with Echo(stage.host, "tcp", 9000):
        for mine, far, other, host in (
            ("172.31.0.", Ground.FAR, "172.30.0.2", Ground.HOST),
            ("fd31::", Ground.FAR6, "fd30::2", Ground.HOST6),
        ):
            assert ask(stage.three, "tcp", mine + "3", 80).startswith("four")
            assert ask(stage.three, "tcp", mine + "1", 9000) == f"host {mine}2"
            assert ask(stage.host, "tcp", mine + "2", 80) == f"three {mine}1"
            assert not reached(
                (stage.three, "tcp", far, 80),
                (stage.three, "tcp", other, 80),
                (stage.three, "tcp", host, 9000),
                (stage.one, "tcp", mine + "2", 80),
                (stage.outside, "tcp", mine + "2", 80),
            )
    assert ask(stage.four, "tcp", "172.31.0.1", 8080).startswith("three")
    assert not reached(
        (stage.outside, "tcp", Ground.HOST, 8080),
        (stage.one, "tcp", Ground.HOST, 8080),
        (stage.three, "tcp", Ground.HOST, 8081),
    )


def test_an_internal_network_does_not_reach_another_by_a_port_that_is_relayed(stage: Stage) -> None:
    internal = BridgeRules("br1", BR1.subnets, internal=True)
    with Echo(stage.host, "tcp", 9000), Echo(stage.host, "udp", 9000):
        stage.apply(BR0, internal, relayed=(("tcp", 9000),))
        assert not reached((stage.three, "tcp", "fd31::1", 9000))
        assert ask(stage.three, "udp", "fd31::1", 9000) == "host fd31::2"
        assert ask(stage.one, "tcp", "fd30::1", 9000) == "host fd30::2"
        assert ask(stage.outside, "tcp", Ground.HOST6, 9000).startswith("host")
        stage.apply(BR0, internal)
        assert ask(stage.three, "tcp", "fd31::1", 9000) == "host fd31::2"


def test_without_icc_containers_reach_each_other_by_links_and_published_ports_alone(stage: Stage) -> None:
    closed = BridgeRules("br0", BR0.subnets, icc=False)
    with Echo(stage.two, "tcp", 81):
        stage.apply(
            closed,
            BR1,
            ports=(port(8080, "172.30.0.2"),),
            links=(
                LinkRule("br0", "172.30.0.2", "172.30.0.3", "tcp", 80),
                LinkRule("br0", "fd30::2", "fd30::3", "udp", 80),
            ),
        )
        assert ask(stage.one, "tcp", "172.30.0.3", 80) == "two 172.30.0.2"
        assert ask(stage.one, "udp", "fd30::3", 80) == "two fd30::2"
        assert not reached(
            (stage.one, "tcp", "172.30.0.3", 81),
            (stage.one, "udp", "172.30.0.3", 80),
            (stage.one, "tcp", "fd30::3", 80),
            (stage.two, "tcp", "172.30.0.2", 80),
            (stage.two, "udp", "fd30::2", 80),
        )
        assert ask(stage.two, "tcp", Ground.HOST, 8080).startswith("one")
        assert ask(stage.one, "tcp", Ground.HOST, 8080).startswith("one")
        assert ask(stage.two, "tcp", Ground.FAR, 80) == "outside 192.0.2.1"
        stage.apply(closed, BR1)
        assert not reached((stage.one, "tcp", "172.30.0.3", 80))
        stage.apply()
        assert ask(stage.two, "tcp", "172.30.0.2", 80) == "one 172.30.0.3"


def test_a_bridge_that_is_not_there_cannot_be_closed(stage: Stage) -> None:
    stage.apply()
    before = stage.state()
    with pytest.raises(NetworkFailed, match="br9"):
        stage.apply(BR0, BR1, BridgeRules("br9", icc=False))
    assert stage.state() == before


def test_containers_reach_nothing_on_the_hosts_loopback_even_with_route_localnet(own: Stage) -> None:
    own.host.sysctl("net/ipv4/conf/all/route_localnet", "1")
    own.one.sysctl("net/ipv4/conf/all/route_localnet", "1")
    own.one.ip(
        "address del 127.0.0.1/8 dev lo",
        "route add 127.0.0.0/8 via 172.30.0.1 src 172.30.0.2",
    )
    own.one.run("ip", "route", "flush", "table", "local", "127.0.0.0/8", check=False)
    with Echo(own.host, "tcp", 9000, "127.0.0.1"):
        assert ask(own.one, "tcp", "127.0.0.1", 9000).startswith("host"), "the way is open without us"
        own.apply()
        assert not reached((own.one, "tcp", "127.0.0.1", 9000))
