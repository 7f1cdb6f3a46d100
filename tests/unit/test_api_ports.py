"""Ports at the API's edge: what is asked, and how each version is shown what there is."""

from __future__ import annotations

from typing import Any

import pytest
from docker.types import HostConfig as PyHostConfig
from values import make_container

from dockerd_py.api import encode, ports
from dockerd_py.api.decode import decode_create
from dockerd_py.api.encode import host_config
from dockerd_py.api.fields import Fields
from dockerd_py.api.filters import container_filter
from dockerd_py.api.first_year import settings_of_start
from dockerd_py.api.ports import Port
from dockerd_py.api.specs import encode_port_bindings, port_bindings
from dockerd_py.engine import ports as engine_ports
from dockerd_py.engine.model import Container, ContainerConfig, HostConfig, State, Status
from dockerd_py.engine.network_model import PortBinding, PublishedPort
from dockerd_py.errors import BadParameter
from dockerd_py.nat.hostports import PortWanted

BOTH = (PublishedPort(80, "tcp", "0.0.0.0", 8080), PublishedPort(80, "tcp", "::", 8080))


def running(*published: PublishedPort, exposed: tuple[str, ...] = (), **changes: Any) -> Container:
    state = State(Status.RUNNING, ports=published)
    return make_container(state=state, config=ContainerConfig(exposed_ports=exposed), **changes)


# What is asked for


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ()),
        (None, ()),
        ({"80/tcp": None}, ()),
        ({"80/tcp": [{"HostIp": "", "HostPort": ""}]}, (PortBinding(80),)),
        ({"80": [{}]}, (PortBinding(80),)),
        ({"80/tcp": [{"HostPort": "0"}]}, (PortBinding(80),)),
        ({"53/UDP": [{"HostPort": "5353"}]}, (PortBinding(53, "udp", "", 5353, 5353),)),
        ({"80/tcp": [{"HostPort": "8000-8010"}]}, (PortBinding(80, "tcp", "", 8000, 8010),)),
        ({"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "1"}, {"HostIp": "0:0::1", "HostPort": "1"}]},
         (PortBinding(80, "tcp", "127.0.0.1", 1, 1), PortBinding(80, "tcp", "::1", 1, 1))),
    ],
)  # fmt: skip
def test_bindings_are_read_and_shown_as_they_were_asked(given: Any, expected: tuple[PortBinding, ...]) -> None:
    decoded = port_bindings(Fields({"PortBindings": given}))
    assert decoded == expected
    assert port_bindings(Fields({"PortBindings": encode_port_bindings(decoded)})) == expected


def test_what_docker_py_sends_arrives() -> None:
    given = PyHostConfig("1.43", port_bindings={"80/tcp": 8080, "81": None, "82/udp": ("127.0.0.1", 83)})
    host = decode_create({"HostConfig": dict(given, PublishAllPorts=True)}).host
    assert host.publish_all
    assert set(host.port_bindings) == {
        PortBinding(80, "tcp", "", 8080, 8080), PortBinding(81), PortBinding(82, "udp", "127.0.0.1", 83, 83),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ({"HostPort": "70000"}, 'invalid port specification: "70000"'),
        ({"HostPort": "8010-8000"}, 'invalid port specification: "8010-8000"'),
        ({"HostPort": "0-10"}, 'invalid port specification: "0-10"'),
        ({"HostPort": "80-"}, 'invalid port specification: "80-"'),
        ({"HostPort": 80}, "HostPort must be a string"),
        ({"HostIp": "localhost"}, "invalid IP address: localhost"),
        ("80", "must be an object"),
    ],
)
def test_a_binding_that_cannot_be_is_named(binding: Any, message: str) -> None:
    with pytest.raises(BadParameter, match=message):
        decode_create({"HostConfig": {"PortBindings": {"80/tcp": [binding]}}})


@pytest.mark.parametrize("zone", ["eth0", "2", "2\n; flush ruleset"])
def test_a_port_is_published_at_no_address_with_a_zone(zone: str) -> None:
    with pytest.raises(BadParameter, match="invalid IP address: 2001:db8::1%"):
        engine_ports.check(HostConfig(port_bindings=(PortBinding(80, "tcp", f"2001:db8::1%{zone}", 80, 80),)))


@pytest.mark.parametrize("key", ["0/tcp", "70000/tcp", "80/icmp", "http", ""])
def test_a_port_that_is_none_is_named(key: str) -> None:
    with pytest.raises(BadParameter, match="invalid p"):
        decode_create({"HostConfig": {"PortBindings": {key: []}}})


def test_inspect_shows_the_bindings_as_asked() -> None:
    host = HostConfig(
        port_bindings=(PortBinding(80, first=8080, last=8080), PortBinding(80, first=1, last=9), PortBinding(81)),
        publish_all=True,
    )
    shown = host_config(make_container(host=host))
    assert shown["PublishAllPorts"] is True
    assert shown["PortBindings"] == {
        "80/tcp": [{"HostIp": "", "HostPort": "8080"}, {"HostIp": "", "HostPort": "1-9"}],
        "81/tcp": [{"HostIp": "", "HostPort": ""}],
    }


def test_a_start_of_the_first_year_brings_its_bindings_and_takes_away_those_before() -> None:
    container = make_container(host=HostConfig(port_bindings=(PortBinding(80),), publish_all=True))
    host = settings_of_start(container, {"PortBindings": {"22/tcp": [{"HostIp": "", "HostPort": "2222"}]}}, (1, 9))
    assert host.port_bindings == (PortBinding(22, "tcp", "", 2222, 2222),)
    assert not host.publish_all
    assert settings_of_start(container, {"PublishAllPorts": "True", "Binds": []}, (1, 9)).publish_all


# What is to be held


def test_bindings_are_wanted_and_with_publish_all_the_other_exposed_ports() -> None:
    exposed = ("90/tcp", "80/tcp", "53/udp", "53")
    bindings = (PortBinding(80, "tcp", "127.0.0.1", 8080, 8090),)
    assert engine_ports.wanted(exposed, bindings, False) == [PortWanted(80, "tcp", "127.0.0.1", 8080, 8090)]
    assert engine_ports.wanted(exposed, bindings, True) == [
        PortWanted(80, "tcp", "127.0.0.1", 8080, 8090),
        PortWanted(53, "tcp"),
        PortWanted(53, "udp"),
        PortWanted(90, "tcp"),
    ]
    assert engine_ports.wanted((), (), True) == []


@pytest.mark.parametrize(
    ("mode", "warnings"),
    [
        ("default", []),
        ("bridge", []),
        ("host", ["Published ports are discarded when using host network mode"]),
        ("none", ["Published ports are discarded without a network"]),
    ],
)
def test_what_has_no_effect_is_said(mode: str, warnings: list[str]) -> None:
    assert engine_ports.check(HostConfig(network_mode=mode, publish_all=True)) == warnings
    assert engine_ports.check(HostConfig(network_mode=mode, port_bindings=(PortBinding(80),))) == warnings
    assert engine_ports.check(HostConfig(network_mode=mode)) == []


def test_a_container_in_anothers_network_publishes_nothing() -> None:
    with pytest.raises(BadParameter, match="port publishing and the container type network mode"):
        engine_ports.check(HostConfig(network_mode="container:x", publish_all=True))
    assert engine_ports.check(HostConfig(network_mode="container:x")) == []


@pytest.mark.parametrize(
    "binding",
    [PortBinding(0), PortBinding(65536), PortBinding(1, "ip"), PortBinding(1, first=2, last=1), PortBinding(1, last=1)],
)
def test_a_binding_is_checked_whoever_made_it(binding: PortBinding) -> None:
    with pytest.raises(BadParameter):
        engine_ports.check(HostConfig(port_bindings=(binding,)))


# What is shown


def test_the_list_shows_both_families_and_exposed_ports() -> None:
    shown = ports.ports_of(running(*BOTH, exposed=("80/tcp", "53/udp")))
    assert ports.todays_list(shown) == [
        {"PrivatePort": 53, "Type": "udp"},
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
    ]
    assert ports.bindings(shown) == {
        "53/udp": None,
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
    }


def test_list_and_inspect_of_today_have_them() -> None:
    container = running(*BOTH)
    listed = encode.container_summary(container, (1, 41), "busybox")
    assert listed["Ports"] == ports.todays_list(ports.ports_of(container))
    inspected = encode.container_inspect(container, (1, 41))
    assert inspected["NetworkSettings"]["Ports"] == ports.bindings(ports.ports_of(container))


@pytest.mark.parametrize("version", [(1, 4), (1, 9)])
def test_the_first_year_had_one_address_for_all(version: tuple[int, int]) -> None:
    shown = ports.ports_of(running(*BOTH, PublishedPort(81, "tcp", "::", 81)))
    assert ports.first_year_settings(shown, version)["Ports"] == {
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}],
        "81/tcp": [{"HostIp": "::", "HostPort": "81"}],
    }
    if version >= (1, 5):
        assert [one["PublicPort"] for one in ports.first_year_list(shown, version)] == [8080, 81]
    else:
        assert ports.first_year_list(shown, version) == "0.0.0.0:8080->80/tcp, :::81->81/tcp"
        mapping = ports.first_year_settings(shown, version)["PortMapping"]
        assert mapping == {"Tcp": {"80": "8080", "81": "81"}, "Udp": {}}


def test_what_does_not_run_or_has_no_network_shows_none() -> None:
    assert ports.ports_of(make_container(state=State(Status.EXITED, ports=BOTH))) == []
    for mode in ("none", "host", "container:x"):
        assert ports.ports_of(running(exposed=("80/tcp",), host=HostConfig(network_mode=mode))) == []
    assert ports.ports_of(running(exposed=("80/tcp",), host=HostConfig(network_mode="mine"))) == [Port(80)]


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ('{"publish": ["8080"]}', True),
        ('{"publish": ["8000-9000/tcp"]}', True),
        ('{"publish": ["8080/udp"]}', False),
        ('{"publish": ["80"]}', False),
        ('{"publish": ["80", "8080"]}', True),
        ('{"expose": ["80"]}', True),
        ('{"expose": ["52-54/udp"]}', True),
        ('{"expose": ["8080"]}', False),
        ('{"publish": ["8080"], "expose": ["81"]}', False),
    ],
)
def test_filters_by_ports(text: str, passes: bool) -> None:
    container = running(*BOTH, exposed=("53/udp",), host=HostConfig(port_bindings=(PortBinding(80, first=8080),)))
    matches, _ = container_filter(text, None)  # type: ignore[arg-type]
    assert matches(container) is passes
