"""UDP conversations with a published port follow it at once when it comes, moves and goes."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from net_ground import Echo, Ground, Space, ask

from dockerd_py.nat.conntrack import forget_udp
from dockerd_py.nat.firewall import Firewall, open_firewall
from dockerd_py.nat.model import BridgeRules, Mapping, Rules

BR0 = BridgeRules("br0", ("172.30.0.0/24", "fd30::/64"))


class Stage:
    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        ground.bridge("br0", "172.30.0.1/24", "fd30::1/64")
        self.one = ground.container("one", "br0", "172.30.0.2/24", "fd30::2/64")
        self.two = ground.container("two", "br0", "172.30.0.3/24", "fd30::3/64")
        self.firewall: Firewall = ground.host.do(open_firewall("auto", "", enabled=True))

    def apply(self, *mappings: Mapping) -> None:
        self.ground.host.do(self.firewall.apply(Rules((BR0,), mappings)))

    def forget(self, *mappings: Mapping) -> None:
        self.ground.host.do(forget_udp(mappings))


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Ground() as ground:
        stage = Stage(ground)
        with Echo(stage.one, "udp", 53), Echo(stage.two, "udp", 53):
            yield stage
        ground.host.do(stage.firewall.close())


class Conversation:
    """A client that keeps its port."""

    def __init__(self, space: Space, address: str, port: int) -> None:
        self.socket = space.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect((address, port))
        self.socket.settimeout(5)

    def ask(self) -> str:
        """Who answers; "" if the host says that nobody is there."""
        try:
            self.socket.send(b"?")
            return self.socket.recv(100).decode().split()[0]
        except ConnectionRefusedError:
            return ""

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def mapping(address: str, *, host_ip: str = "", port: int = 5353) -> Mapping:
    return Mapping("udp", host_ip or ("::" if ":" in address else "0.0.0.0"), port, "br0", address, 53)


@pytest.mark.parametrize(
    ("host", "first", "second", "host_ip"),
    [
        (Ground.HOST, "172.30.0.2", "172.30.0.3", ""),
        (Ground.HOST, "172.30.0.2", "172.30.0.3", Ground.HOST),
        (Ground.HOST6, "fd30::2", "fd30::3", ""),
    ],
)
def test_a_conversation_follows_a_port_that_moves(
    stage: Stage, host: str, first: str, second: str, host_ip: str
) -> None:
    before, after = mapping(first, host_ip=host_ip), mapping(second, host_ip=host_ip)
    with Conversation(stage.ground.outside, host, 5353) as client:
        stage.apply(before)
        assert client.ask() == "one"
        stage.apply(after)
        assert client.ask() == "one", "the kernel goes on as before until it is told"
        stage.forget(before, after)
        assert client.ask() == "two"


def test_a_conversation_ends_with_its_port_and_begins_with_it(stage: Stage) -> None:
    with Conversation(stage.ground.outside, Ground.HOST, 5353) as client:
        assert client.ask() == ""
        stage.apply(mapping("172.30.0.2"))
        stage.forget(mapping("172.30.0.2"))
        assert client.ask() == "one"
        stage.apply()
        stage.forget(mapping("172.30.0.2"))
        assert client.ask() == ""


def test_other_conversations_are_remembered(stage: Stage) -> None:
    """With another port, with another address of the host's, and those that pass the host by."""
    stage.ground.host.ip("address add 192.0.2.10/32 dev up0")
    one, two = mapping("172.30.0.2", port=5354), mapping("172.30.0.3", port=5354)
    with (
        Conversation(stage.ground.outside, Ground.HOST, 5354) as another_port,
        Conversation(stage.ground.outside, "192.0.2.10", 5354) as another_address,
        Echo(stage.ground.outside, "udp", 5353),
        Conversation(stage.one, Ground.OUTSIDE, 5353) as passing,
    ):
        stage.apply(one)
        assert [another_port.ask(), another_address.ask(), passing.ask()] == ["one", "one", "outside"]
        stage.apply(two)
        entries = _entries(stage.ground.host)
        stage.forget(mapping("172.30.0.3"), mapping("172.30.0.3", host_ip="192.0.2.11", port=5354))
        assert _entries(stage.ground.host) == entries
        assert [another_port.ask(), another_address.ask(), passing.ask()] == ["one", "one", "outside"]


def test_a_port_of_tcp_is_none_of_its_business(stage: Stage) -> None:
    with Conversation(stage.ground.outside, Ground.HOST, 5353) as client:
        stage.apply(mapping("172.30.0.2"))
        assert client.ask() == "one"
        stage.apply(mapping("172.30.0.3"))
        stage.forget(Mapping("tcp", "0.0.0.0", 5353, "br0", "172.30.0.3", 53))
        assert client.ask() == "one"


def test_with_many_entries_only_those_of_the_port_go(stage: Stage) -> None:
    stage.apply(mapping("172.30.0.2"), mapping("172.30.0.2", port=5354))
    for port in (5353, 5354):
        for _ in range(300):
            assert ask(stage.ground.outside, "udp", Ground.HOST, port).startswith("one")
    stage.forget(mapping("172.30.0.2"))
    entries = _entries(stage.ground.host)
    assert not any("dport=5353" in entry.split() for entry in entries)
    assert len([entry for entry in entries if "dport=5354" in entry.split()]) >= 290


def _entries(host: Space) -> set[str]:
    """What the kernel remembers of UDP, without how long still."""
    with host.entered(), open("/proc/thread-self/net/nf_conntrack") as listed:
        return {" ".join(word for word in line.split() if "=" in word) for line in listed if " udp " in line}
