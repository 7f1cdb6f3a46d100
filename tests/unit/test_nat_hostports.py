"""Ports of the host's, held by sockets: who gets which, and what is said when there is none."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from dockerd_py.errors import BadParameter, NetworkFailed
from dockerd_py.nat.hostports import EPHEMERAL_FIRST, EPHEMERAL_LAST, HostPorts, PortWanted

HERE = "127.0.0.1"


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def has_sctp() -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


def free_run(count: int, kind: int = socket.SOCK_STREAM) -> int:
    """The first of ``count`` numbers in a row that nobody has, below the ephemeral ones."""
    for first in range(20000 + os.getpid() % 5000, 30000, count):
        try:
            for number in range(first, first + count):
                with socket.socket(socket.AF_INET, kind) as sock:
                    sock.bind(("", number))
        except OSError:
            continue
        return first
    raise AssertionError("no free ports on this machine")


@contextmanager
def somebody_at(address: str, number: int = 0, kind: int = socket.SOCK_STREAM) -> Iterator[int]:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as sock:
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, number))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        yield sock.getsockname()[1]


def can_bind(address: str, number: int, kind: int = socket.SOCK_STREAM) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as sock:
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((address, number))
            if kind == socket.SOCK_STREAM:
                sock.listen()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
    return True


def test_an_explicit_port_is_held_until_it_is_closed() -> None:
    number = free_run(1)
    with HostPorts().hold([PortWanted(80, "tcp", HERE, number, number)]) as (held,):
        assert (held.port, held.protocol, held.host_ip, held.host_port) == (80, "tcp", HERE, number)
        assert not can_bind(HERE, number)
    assert can_bind(HERE, number)


def test_a_udp_port_is_held_and_leaves_the_tcp_port_of_that_number_alone() -> None:
    number = free_run(1, socket.SOCK_DGRAM)
    with HostPorts().hold([PortWanted(53, "udp", HERE, number, number)]):
        assert not can_bind(HERE, number, socket.SOCK_DGRAM)
        assert can_bind(HERE, number)


def test_without_an_address_it_is_the_same_number_in_both_families() -> None:
    with HostPorts().hold([PortWanted(80)]) as held:
        assert [one.host_ip for one in held] == ["0.0.0.0", "::"][: 1 + has_ipv6()]
        assert len({one.host_port for one in held}) == 1


@needs_ipv6
def test_a_number_that_is_taken_in_ipv6_only_is_not_given_for_both() -> None:
    number = free_run(2)
    with somebody_at("::", number), HostPorts().hold([PortWanted(80, first=number, last=number + 1)]) as held:
        assert {one.host_port for one in held} == {number + 1}
    with somebody_at("::", number), pytest.raises(NetworkFailed, match="address already in use"):
        HostPorts().hold([PortWanted(80, first=number, last=number)])
    assert can_bind("0.0.0.0", number)


@needs_ipv6
def test_the_two_families_are_held_apart() -> None:
    number = free_run(1)
    with (
        HostPorts().hold([PortWanted(80, "tcp", "0.0.0.0", number, number)]) as only4,
        HostPorts().hold([PortWanted(80, "tcp", "::", number, number)]) as only6,
    ):
        assert [one.host_ip for one in (*only4, *only6)] == ["0.0.0.0", "::"]


def test_the_default_address_is_for_those_that_name_none() -> None:
    with HostPorts().hold([PortWanted(80), PortWanted(81, host_ip="127.0.0.2")], HERE) as held:
        assert [one.host_ip for one in held] == [HERE, "127.0.0.2"]


def test_an_address_is_shown_in_its_canonical_form() -> None:
    if not has_ipv6():
        pytest.skip("this machine has no IPv6")
    with HostPorts().hold([PortWanted(80, host_ip="0:0:0:0:0:0:0:1")]) as (held,):
        assert held.host_ip == "::1"


def test_ephemeral_ports_ascend_for_each_protocol_though_they_are_free_again() -> None:
    ports = HostPorts()

    def given(protocol: str) -> int:
        with ports.hold([PortWanted(80, protocol, HERE)]) as (held,):
            return held.host_port

    tcp = [given("tcp") for _ in range(3)]
    assert EPHEMERAL_FIRST <= tcp[0] < tcp[1] < tcp[2] <= EPHEMERAL_LAST
    udp = given("udp")
    assert udp >= EPHEMERAL_FIRST
    assert given("tcp") > tcp[2]


def test_ephemeral_ports_begin_again_after_the_last_one() -> None:
    ports = HostPorts()
    ports._last_given["tcp"] = EPHEMERAL_LAST - 1  # as if all but one had been given
    with ports.hold([PortWanted(80, host_ip=HERE)]) as (last,), ports.hold([PortWanted(80, host_ip=HERE)]) as (first,):
        assert last.host_port == EPHEMERAL_LAST or first.host_port < EPHEMERAL_LAST
        assert EPHEMERAL_FIRST <= first.host_port < EPHEMERAL_LAST


def test_an_ephemeral_port_that_somebody_has_is_passed_over() -> None:
    with HostPorts().hold([PortWanted(80, host_ip=HERE)]) as (one,), HostPorts().hold([PortWanted(80)]) as held:
        assert held[0].host_port > one.host_port


def test_of_a_range_the_first_free_one_is_taken() -> None:
    first = free_run(3)
    wanted = [PortWanted(80, "tcp", HERE, first, first + 2)] * 3
    with somebody_at(HERE, first + 1), HostPorts().hold(wanted[:2]) as held:
        assert [one.host_port for one in held] == [first, first + 2]
        with pytest.raises(NetworkFailed, match=rf"Bind for {HERE}:{first}-{first + 2} failed: all ports are alloc"):
            HostPorts().hold(wanted[:1])


def test_who_has_no_choice_is_served_first() -> None:
    first = free_run(2)
    wanted = [PortWanted(80, "tcp", HERE, first, first + 1), PortWanted(81, "tcp", HERE, first, first)]
    with HostPorts().hold(wanted) as held:
        assert [(one.port, one.host_port) for one in held] == [(80, first + 1), (81, first)]


def test_a_port_of_another_program_is_named_as_such() -> None:
    with somebody_at(HERE) as number, pytest.raises(NetworkFailed) as caught:
        HostPorts().hold([PortWanted(80, "tcp", HERE, number, number)])
    assert str(caught.value) == f"listen tcp4 {HERE}:{number}: bind: address already in use"


def test_a_port_of_another_container_is_already_allocated() -> None:
    with somebody_at("0.0.0.0") as number, pytest.raises(NetworkFailed) as caught:
        HostPorts().hold(
            [PortWanted(80, first=number, last=number)], endpoint="web (0123abcd)", ours={("tcp", number)}
        )
    assert str(caught.value) == (
        "driver failed programming external connectivity on endpoint web (0123abcd): "
        f"Bind for 0.0.0.0:{number} failed: port is already allocated"
    )


def test_one_address_of_a_port_that_somebody_has_at_all_addresses_is_taken() -> None:
    with somebody_at("0.0.0.0") as number, pytest.raises(NetworkFailed):
        HostPorts().hold([PortWanted(80, "tcp", HERE, number, number)])
    with somebody_at(HERE) as number, pytest.raises(NetworkFailed):
        HostPorts().hold([PortWanted(80, first=number, last=number)])


def test_an_address_that_the_host_has_not_is_refused() -> None:
    with pytest.raises(NetworkFailed, match=r"listen tcp4 192\.0\.2\.1:8080: bind: cannot assign requested address"):
        HostPorts().hold([PortWanted(80, "tcp", "192.0.2.1", 8080, 8080)])
    with pytest.raises(NetworkFailed, match="cannot assign requested address"):
        HostPorts().hold([PortWanted(80, "tcp", "192.0.2.1")])


@pytest.mark.parametrize("text", ["nonsense", "300.0.0.1", "fe80::1%eth0%"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(BadParameter, match="invalid IP address"):
        HostPorts().hold([PortWanted(80, host_ip=text)])


def test_a_failure_gives_back_what_was_taken_before() -> None:
    number = free_run(1)
    with somebody_at(HERE) as taken, pytest.raises(NetworkFailed):
        HostPorts().hold(
            [PortWanted(80, "tcp", HERE, number, number), PortWanted(81, "tcp", HERE, taken, taken)],
        )
    assert can_bind(HERE, number)


def test_two_ports_of_one_container_cannot_share_one_of_the_hosts() -> None:
    number = free_run(1)
    with pytest.raises(NetworkFailed, match="address already in use"):
        HostPorts().hold([PortWanted(80, "tcp", HERE, number, number), PortWanted(81, "tcp", HERE, number, number)])


def test_a_client_that_comes_before_anybody_accepts_waits_and_is_served() -> None:
    with HostPorts().hold([PortWanted(80, host_ip=HERE)]) as (held,):
        clients = [socket.create_connection((HERE, held.host_port)) for _ in range(200)]
        assert held.socket is not None
        for client in clients:
            with closing(client):
                served, _ = held.socket.accept()
                served.sendall(b"x")
                assert client.recv(1) == b"x"
                served.close()


def test_old_connections_do_not_keep_a_port() -> None:
    number = free_run(1)
    wanted = [PortWanted(80, "tcp", HERE, number, number)]
    with HostPorts().hold(wanted) as (held,), socket.create_connection((HERE, number)) as client:
        assert held.socket is not None
        served, _ = held.socket.accept()
        served.close()  # the side that closes first has the connection in TIME_WAIT
        assert client.recv(1) == b""
    with HostPorts().hold(wanted) as (held,):
        assert held.host_port == number


def test_an_sctp_port_is_held_where_the_kernel_has_sctp() -> None:
    with HostPorts().hold([PortWanted(80, "sctp", HERE, 7777, 7777)]) as (held,):
        assert (held.protocol, held.host_port) == ("sctp", 7777)
        assert (held.socket is not None) == has_sctp()


def test_the_sockets_are_not_inherited_by_programs() -> None:
    with HostPorts().hold([PortWanted(80), PortWanted(53, "udp")]) as held:
        assert all(one.socket is None or not one.socket.get_inheritable() for one in held)
