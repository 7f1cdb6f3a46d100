"""Networks in the API: what clients send becomes requests, and what there is becomes Docker's JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from docker.types import EndpointConfig, IPAMConfig, IPAMPool, NetworkingConfig
from hypothesis import given, settings
from hypothesis import strategies as st
from values import make_container

from dockerd_py.api import encode, encode_network
from dockerd_py.api.decode import decode_commit, decode_create
from dockerd_py.api.decode_network import decode_connect, decode_network
from dockerd_py.api.filters import container_filter, network_filter, prune_networks_filter
from dockerd_py.api.first_year import settings_of_start
from dockerd_py.engine import network_checks
from dockerd_py.engine.model import ContainerConfig, HostConfig, State, Status
from dockerd_py.engine.network_model import (
    Attachment,
    EndpointRequest,
    Link,
    Network,
    NetworkRequest,
    Pool,
    PortBinding,
)
from dockerd_py.errors import BadParameter, Denied, NotSupported, PydockerdError

NOW = (1, 43)
SECOND = 1_000_000_000
FRONT = Network(
    id="f" * 64,
    name="front",
    created=1_700_000_000 * SECOND,
    driver="bridge",
    labels={"tier": "web"},
    options={"com.docker.network.bridge.name": "br-front"},
    pools=(Pool("10.9.0.0/16", "10.9.0.1", "10.9.8.0/24", {"printer": "10.9.0.9"}), Pool("fd00::/64")),
    ipv6=True,
    bridge="br-front",
)
BRIDGE = Network(id="b" * 64, name="bridge", created=SECOND, driver="bridge", pools=(Pool("172.17.0.0/16"),))
ON_BRIDGE = Attachment(
    "bridge", BRIDGE.id, EndpointRequest("default"), bridge="pydocker0", endpoint_id="1" * 64, mac="02:42:ac:11:00:02",
    ipv4="172.17.0.2", prefix4=16, gateway4="172.17.0.1",
)  # fmt: skip
ON_FRONT = Attachment(
    "front", FRONT.id, EndpointRequest("front", aliases=("db",), links=("a:b",), ipv4="10.9.0.7", options={"k": "v"}),
    bridge="br-front", names=("nice_name", "db", "aaaaaaaaaaaa"), endpoint_id="2" * 64, mac="02:42:0a:09:00:07",
    ipv4="10.9.0.7", prefix4=16, gateway4="10.9.0.1", ipv6="fd00::7", prefix6=64, gateway6="fd00::1",
)  # fmt: skip
RUNNING = State(Status.RUNNING, pid=77, started_at=SECOND)


def on(*attachments: Attachment, **changes: Any) -> Any:
    return make_container(attachments=attachments, **{"state": RUNNING, **changes})


def create(endpoints: dict[str, Any] | None = None, mode: str = "", **config: Any) -> Any:
    body: dict[str, Any] = {**config, "HostConfig": {"NetworkMode": mode, **config.get("HostConfig", {})}}
    if endpoints is not None:
        body["NetworkingConfig"] = {"EndpointsConfig": endpoints}
    return decode_create(body)


# What a container asks of networks


@pytest.mark.parametrize("mode", ["default", "bridge", "none", "host", "container:x", "front", "f" * 64])
def test_any_network_is_a_mode(mode: str) -> None:
    assert create(mode=mode).host.network_mode == mode
    assert create({mode: {"Aliases": None, "IPAMConfig": {}}}, mode).host.networks == ()


def test_what_is_asked_of_a_network_arrives() -> None:
    endpoint = EndpointConfig(
        "1.43", aliases=["db", "db"], links={"web": "w"}, ipv4_address="10.9.0.7", ipv6_address="FD00::07",
        link_local_ips=["169.254.1.2"], mac_address="02-42-AC-11-00-02",
    )  # fmt: skip
    body = {"HostConfig": {"NetworkMode": "front"}, "NetworkingConfig": NetworkingConfig({"front": endpoint})}
    assert decode_create(body).host.networks == (
        EndpointRequest(
            "front", aliases=("db",), links=("web:w",), ipv4="10.9.0.7", ipv6="fd00::7", link_local=("169.254.1.2",),
            mac="02:42:ac:11:00:02",
        ),
    )  # fmt: skip


def test_a_network_beside_the_mode_is_the_one() -> None:
    assert create({"front": {}}).host.networks == (EndpointRequest("front"),)
    assert create({"front": {"NetworkID": "f" * 64}}, "front").host.networks == (EndpointRequest("f" * 64),)
    assert create({"bridge": {"NetworkID": "f" * 64, "MacAddress": "02:42:00:00:00:01"}}).host.networks == (
        EndpointRequest("bridge", mac="02:42:00:00:00:01"),
    )


def test_the_state_of_an_endpoint_that_clients_send_back_is_not_asked_for() -> None:
    shown = encode_network.endpoints(on(ON_BRIDGE))["bridge"]
    assert create({"bridge": {**shown, "MacAddress": ""}}, "bridge").host.networks == ()


@pytest.mark.parametrize(
    ("text", "canonical"),
    [("02:42:AC:11:00:02", "02:42:ac:11:00:02"), ("0242.ac11.0002", "02:42:ac:11:00:02"), ("", "")],
)
def test_the_mac_address_is_a_setting_of_the_container(text: str, canonical: str) -> None:
    assert create(MacAddress=text).config.mac_address == canonical


CONTAINER = "container:x"
SHARED = (
    "container sharing network namespace with another container or host cannot be connected to any other network"
)
PRIVATE = "container cannot be connected to multiple networks with one of the networks in private (none) mode"


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (({"a": {}, "b": {}},), "Container cannot be connected to network endpoints: a, b"),
        (({"a": {}, "b": {}}, "a"), "Container cannot be connected to network endpoints: a, b"),
        ((None, "container:"), "Invalid network mode: invalid container format container:<name|id>"),
        (({"front": {}}, CONTAINER), SHARED),
        (({"front": {}}, "host"), "container cannot be disconnected from host network or connected to host network"),
        (({"front": {}}, "none"), PRIVATE),
        (({"default": {"IPAMConfig": {"IPv4Address": "1.2.3.4"}}},),
         "user specified IP address is supported on user defined networks only"),
        (({"bridge": {"Aliases": ["x"]}}, "bridge"),
         "network-scoped alias is supported only for containers in user defined networks"),
        (({"host": {"MacAddress": "02:42:ac:11:00:02"}}, "host"),
         'the network "host" has no interface that could be set up'),
        (({"front": {"DriverOpts": {"a": "b"}}}, "front"),
         "the driver option a of an endpoint is not supported: leave it out"),
        (({"a": {"IPAMConfig": {"IPv4Address": "fd00::1"}}}, "a"), "invalid IPv4 address: fd00::1"),
        (({"a": {"IPAMConfig": {"IPv4Address": "10.0.0"}}}, "a"), "invalid IPv4 address: 10.0.0"),
        (({"a": {"IPAMConfig": {"IPv6Address": "1.2.3.4"}}}, "a"), "invalid IPv6 address: 1.2.3.4"),
        (({"a": {"IPAMConfig": {"IPv6Address": "fe80::1%eth0"}}}, "a"), "invalid IPv6 address: fe80::1%eth0"),
        (({"a": {"IPAMConfig": {"LinkLocalIPs": ["1.2.3.4"]}}}, "a"), "invalid link-local IP address: 1.2.3.4"),
        (({"a": {"MacAddress": "02:42"}}, "a"), "invalid MAC address: 02:42"),
    ],
)  # fmt: skip
def test_networks_that_cannot_be_are_refused_in_dockers_words(made: tuple[Any, ...], message: str) -> None:
    with pytest.raises(BadParameter) as caught:
        create(*made)
    assert (str(caught.value), caught.value.status) == (message, 400)


@pytest.mark.parametrize(
    ("mode", "config", "message"),
    [
        (CONTAINER, {"Hostname": "h"}, "conflicting options: hostname and the network mode"),
        (CONTAINER, {"HostConfig": {"Dns": ["1.1.1.1"]}}, "conflicting options: dns and the network mode"),
        (CONTAINER, {"HostConfig": {"ExtraHosts": ["a:1.1.1.1"]}},
         "conflicting options: custom host-to-IP mapping and the network mode"),
        (CONTAINER, {"ExposedPorts": {"80/tcp": {}}},
         "conflicting options: port exposing and the container type network mode"),
        (CONTAINER, {"MacAddress": "02:42:ac:11:00:02"}, "conflicting options: mac-address and the network mode"),
        ("host", {"MacAddress": "02:42:ac:11:00:02"}, "conflicting options: mac-address and the network mode"),
        ("", {"MacAddress": "02:42:ac:11:00"}, "invalid MAC address: 02:42:ac:11:00"),
        ("", {"MacAddress": "01:00:5e:00:00:01"}, "invalid MAC address: 01:00:5e:00:00:01 is that of a group"),
        ("", {"MacAddress": "00:00:00:00:00:00"}, "invalid MAC address: 00:00:00:00:00:00 is that of nobody"),
    ],
)  # fmt: skip
def test_what_does_not_go_with_the_mode_is_refused_in_dockers_words(
    mode: str, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadParameter) as caught:
        create(None, mode, **config)
    assert str(caught.value) == message


def test_links_and_ports_do_not_go_with_anothers_network() -> None:
    links = (Link("a", "b"),)
    undefined = "can't be used with links. This would result in undefined behavior"
    publishing = "port publishing and the container type network mode"
    for host, message in (
        (HostConfig(network_mode="host", links=links), f"host type networking {undefined}"),
        (HostConfig(network_mode=CONTAINER, links=links), f"container type network {undefined}"),
        (HostConfig(network_mode=CONTAINER, publish_all=True), publishing),
        (HostConfig(network_mode=CONTAINER, port_bindings=(PortBinding(80),)), publishing),
    ):
        with pytest.raises(BadParameter) as caught:
            network_checks.check_create(ContainerConfig(), host)
        assert str(caught.value) == f"conflicting options: {message}"


def test_two_mac_addresses_for_one_network_are_refused() -> None:
    ours = {"front": {"MacAddress": "02:42:00:00:00:01"}}
    assert create(ours, "front", MacAddress="02:42:00:00:00:01").host.networks[0].mac == "02:42:00:00:00:01"
    with pytest.raises(BadParameter, match=r"^the container-wide MAC address must match"):
        create(ours, "front", MacAddress="02:42:00:00:00:02")


def test_an_image_has_no_mac_address() -> None:
    with pytest.raises(NotSupported, match=r"^MacAddress is not supported"):
        decode_commit({"MacAddress": "02:42:00:00:00:01"})


def test_a_start_with_settings_keeps_the_networks_unless_it_names_another() -> None:
    container = make_container(host=HostConfig(network_mode="front", networks=(EndpointRequest("f", ipv4="10.9.0.7"),)))
    assert settings_of_start(container, {"Privileged": True}, (1, 10)).networks == container.host.networks
    assert settings_of_start(container, {"NetworkMode": "none"}, (1, 20)).networks == ()


def test_connect_names_a_container_and_what_it_asks() -> None:
    body = {"Container": "web", "EndpointConfig": {"IPAMConfig": {"IPv4Address": "10.9.0.7"}, "NetworkID": "x"}}
    assert decode_connect(body, "front") == ("web", EndpointRequest("front", ipv4="10.9.0.7"))
    assert decode_connect({"Container": "web", "EndpointConfig": None}, "f") == ("web", EndpointRequest("f"))
    with pytest.raises(BadParameter, match="Container is missing"):
        decode_connect({}, "front")


# A new network


def test_a_name_is_enough_for_a_network() -> None:
    assert decode_network({"Name": "front", "CheckDuplicate": True}) == NetworkRequest("front")
    assert decode_network({"Name": "front", "Scope": "local", "IPAM": {"Config": [{}]}}) == NetworkRequest("front")


def test_what_is_asked_of_a_new_network_arrives() -> None:
    pool = IPAMPool("10.9.0.0/16", "10.9.8.0/24", "10.9.0.1", {"printer": "10.9.0.9"})
    body = {
        "Name": "front", "CheckDuplicate": None, "Driver": "macvlan", "Options": {"parent": "eth0"}, "Internal": True,
        "Labels": {"a": "b"}, "EnableIPv6": True, "Attachable": True, "Ingress": False, "ConfigOnly": False,
        "IPAM": dict(IPAMConfig("default", [pool, IPAMPool("FD00:0::/64")], {"o": "p"})),
    }  # fmt: skip
    assert decode_network(body) == NetworkRequest(
        "front", "macvlan", internal=True, attachable=True, ipv6=True, labels={"a": "b"}, options={"parent": "eth0"},
        ipam_options={"o": "p"},
        pools=(Pool("10.9.0.0/16", "10.9.0.1", "10.9.8.0/24", {"printer": "10.9.0.9"}), Pool("fd00::/64")),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        ({"Name": "a", "Ingress": True}, NotSupported, "Ingress is not supported: there is no swarm"),
        ({"Name": "a", "ConfigOnly": True}, NotSupported, "ConfigOnly is not supported"),
        ({"Name": "a", "ConfigFrom": {"Network": "b"}}, NotSupported, "ConfigFrom is not supported"),
        ({"Name": "a", "Scope": "swarm"}, NotSupported, 'Scope "swarm" is not supported: there is no swarm'),
        ({"Name": "a", "EnableIPv4": False}, NotSupported, "EnableIPv4 cannot be false"),
        ({"Name": "a", "IPAM": {"Config": [{"Subnet": "10.9.0.1/16"}]}}, BadParameter,
         "invalid subnet 10.9.0.1/16: it should be 10.9.0.0/16"),
        ({"Name": "a", "IPAM": {"Config": [{"Subnet": "10.9.0.0"}]}}, BadParameter,
         "invalid subnet 10.9.0.0: invalid CIDR block notation"),
        ({"Name": "a", "IPAM": {"Config": [{"Subnet": "10.9.0.0/16", "Gateway": "x"}]}}, BadParameter,
         "invalid gateway address: x"),
        ({"Name": "a", "IPAM": {"Config": [{"Gateway": "10.9.0.1"}]}}, BadParameter,
         "invalid network config: IPAM.Config[0].Subnet is missing"),
        ({"Name": "a", "IPAM": {"Config": [{"Subnet": "10.9.0.0/16", "AuxiliaryAddresses": {"p": "q"}}]}}, BadParameter,
         "invalid auxiliary address p: q"),
    ],
)  # fmt: skip
def test_a_network_that_cannot_be_is_refused_by_name(
    body: dict[str, Any], kind: type[PydockerdError], message: str
) -> None:
    with pytest.raises(kind) as caught:
        decode_network(body)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("", BadParameter, "invalid name: '' is empty"),
        (" ", BadParameter, "invalid name: ' ' is empty"),
        ("a/b", BadParameter, "invalid name: 'a/b' has a slash"),
        ("a\x1bb", BadParameter, "invalid name: 'a\\x1bb' has a slash, or what cannot be printed"),
        (CONTAINER, BadParameter, 'invalid name: "container:x" means the network of a container'),
        ("bridge", Denied, "operation is not permitted on predefined bridge network"),
        ("default", Denied, "operation is not permitted on predefined default network"),
    ],
)
def test_a_name_that_cannot_be_is_refused(name: str, kind: type[PydockerdError], message: str) -> None:
    with pytest.raises(kind) as caught:
        network_checks.check_name(name)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("name", ["front", "my front", "_x", "ümlaut", "f" * 64, "a.b-c"])
def test_most_names_can_be_as_in_docker(name: str) -> None:
    assert network_checks.check_name(name) == name


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NETWORK_KEYS = ["Name", "Driver", "Scope", "IPAM", "Options", "Labels", "ConfigFrom", "EnableIPv6", "EnableIPv4"]
POOL_KEYS = ["Subnet", "IPRange", "Gateway", "AuxiliaryAddresses"]
ENDPOINT_KEYS = ["IPAMConfig", "Links", "Aliases", "MacAddress", "DriverOpts", "NetworkID", "GwPriority"]


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from(NETWORK_KEYS), JSON, max_size=4),
    st.dictionaries(st.sampled_from(POOL_KEYS), JSON, max_size=4),
    st.dictionaries(st.sampled_from(ENDPOINT_KEYS), JSON, max_size=4),
)
def test_any_json_is_either_a_request_or_a_bad_one(
    network: dict[str, Any], pool: dict[str, Any], endpoint: dict[str, Any]
) -> None:
    for decode in (
        lambda: decode_network({"Name": "a", "IPAM": {"Config": [pool]}, **network}),
        lambda: decode_connect({"Container": "c", "EndpointConfig": endpoint}, "n"),
    ):
        try:
            decode()
        except BadParameter:
            pass


# What is shown


def test_a_network_is_shown_as_docker_shows_it() -> None:
    member = on(ON_BRIDGE, ON_FRONT)
    assert json.loads(json.dumps(encode_network.network(FRONT, [member]))) == {
        "Name": "front", "Id": "f" * 64, "Created": "2023-11-14T22:13:20Z", "Scope": "local", "Driver": "bridge",
        "EnableIPv6": True, "Internal": False, "Attachable": False, "Ingress": False, "ConfigFrom": {"Network": ""},
        "ConfigOnly": False, "Options": {"com.docker.network.bridge.name": "br-front"}, "Labels": {"tier": "web"},
        "IPAM": {
            "Driver": "default", "Options": {},
            "Config": [
                {"Subnet": "10.9.0.0/16", "IPRange": "10.9.8.0/24", "Gateway": "10.9.0.1",
                 "AuxiliaryAddresses": {"printer": "10.9.0.9"}},
                {"Subnet": "fd00::/64"},
            ],
        },
        "Containers": {
            member.id: {
                "Name": "nice_name", "EndpointID": "2" * 64, "MacAddress": "02:42:0a:09:00:07",
                "IPv4Address": "10.9.0.7/16", "IPv6Address": "fd00::7/64",
            },
        },
    }  # fmt: skip
    assert encode_network.network(BRIDGE, [member])["Containers"][member.id]["IPv6Address"] == ""
    assert encode_network.network(FRONT)["Containers"] == {}


def test_a_container_is_shown_with_its_networks_and_the_default_ones_address() -> None:
    shown = encode.container_inspect(on(ON_BRIDGE, ON_FRONT), NOW)["NetworkSettings"]
    assert {key: shown[key] for key in ("IPAddress", "IPPrefixLen", "Gateway", "MacAddress", "EndpointID")} == {
        "IPAddress": "172.17.0.2", "IPPrefixLen": 16, "Gateway": "172.17.0.1", "MacAddress": "02:42:ac:11:00:02",
        "EndpointID": "1" * 64,
    }  # fmt: skip
    assert (shown["Bridge"], shown["SandboxID"], shown["SandboxKey"]) == ("", "a" * 64, "/proc/77/ns/net")
    assert shown["Networks"] == {
        "bridge": {
            "IPAMConfig": None, "Links": None, "Aliases": None, "NetworkID": "b" * 64, "EndpointID": "1" * 64,
            "Gateway": "172.17.0.1", "IPAddress": "172.17.0.2", "IPPrefixLen": 16, "IPv6Gateway": "",
            "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "MacAddress": "02:42:ac:11:00:02", "DriverOpts": None,
            "DNSNames": None,
        },
        "front": {
            "IPAMConfig": {"IPv4Address": "10.9.0.7"}, "Links": ["a:b"], "Aliases": ["db", "aaaaaaaaaaaa"],
            "NetworkID": "f" * 64, "EndpointID": "2" * 64, "Gateway": "10.9.0.1", "IPAddress": "10.9.0.7",
            "IPPrefixLen": 16, "IPv6Gateway": "fd00::1", "GlobalIPv6Address": "fd00::7", "GlobalIPv6PrefixLen": 64,
            "MacAddress": "02:42:0a:09:00:07", "DriverOpts": {"k": "v"},
            "DNSNames": ["nice_name", "db", "aaaaaaaaaaaa"],
        },
    }  # fmt: skip
    alone = encode.container_inspect(on(ON_FRONT), NOW)["NetworkSettings"]
    assert (alone["IPAddress"], alone["EndpointID"], list(alone["Networks"])) == ("", "", ["front"])


def test_the_list_says_which_networks_a_container_is_on() -> None:
    shown = encode.container_summary(on(ON_BRIDGE, ON_FRONT), NOW, "busybox")
    assert {name: one["IPAddress"] for name, one in shown["NetworkSettings"]["Networks"].items()} == {
        "bridge": "172.17.0.2", "front": "10.9.0.7",
    }  # fmt: skip


def test_a_container_that_does_not_run_has_networks_without_addresses() -> None:
    idle = Attachment("front", FRONT.id, EndpointRequest("front"))
    shown = encode.container_inspect(on(idle, state=State()), NOW)["NetworkSettings"]
    assert (shown["SandboxKey"], shown["SandboxID"], shown["Networks"]["front"]["IPAddress"]) == ("", "", "")
    assert shown["Networks"]["front"]["Aliases"] == ["aaaaaaaaaaaa"]  # compose looks for it before it starts one


def test_a_host_name_of_its_own_is_an_alias_too() -> None:
    container = on(ON_FRONT, config=ContainerConfig(hostname="box"))
    assert encode_network.endpoints(container)["front"]["Aliases"] == ["db", "aaaaaaaaaaaa", "box"]


def test_a_joined_network_is_no_sandbox_of_ones_own() -> None:
    joined = on(host=HostConfig(network_mode="container:" + "c" * 64))
    shown = encode.container_inspect(joined, NOW)["NetworkSettings"]
    assert (shown["SandboxID"], shown["SandboxKey"], shown["Networks"]) == ("", "/proc/77/ns/net", {})


def test_before_networks_had_names_a_container_had_one_address() -> None:
    for version in ((1, 9), (1, 20)):
        shown = encode.container_inspect(on(ON_BRIDGE), version)["NetworkSettings"]
        assert (shown["IPAddress"], shown["IPPrefixLen"], shown["Gateway"]) == ("172.17.0.2", 16, "172.17.0.1")
        assert (shown["Bridge"], "Networks" in shown) == ("pydocker0", False)
    assert encode.container_inspect(on(ON_FRONT), (1, 10))["NetworkSettings"]["IPAddress"] == "10.9.0.7"
    stopped = encode.container_inspect(on(state=State(Status.EXITED)), (1, 10))["NetworkSettings"]
    assert (stopped["Bridge"], stopped["IPAddress"], stopped["Gateway"]) == ("", "", "")


# Filters


def passing(filters: dict[str, Any], in_use: tuple[str, ...] = ()) -> list[str]:
    host = Network(id="0" * 64, name="host", created=SECOND, driver="host")
    back = replace(FRONT, id="ba" * 32, name="back", driver="macvlan", labels={})
    passes = network_filter(json.dumps(filters), lambda network: network.name in in_use)
    return [network.name for network in (BRIDGE, host, FRONT, back) if passes(network)]


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, ["bridge", "host", "front", "back"]),
        ({"driver": ["macvlan", "host"]}, ["host", "back"]),
        ({"name": ["ron"]}, ["front"]),
        ({"name": {"^b": True}}, ["bridge", "back"]),
        ({"id": ["baba"]}, ["back"]),
        ({"label": ["tier"]}, ["front"]),
        ({"label": ["tier=db"]}, []),
        ({"scope": ["local"]}, ["bridge", "host", "front", "back"]),
        ({"scope": ["swarm"]}, []),
        ({"type": ["builtin"]}, ["bridge", "host"]),
        ({"type": ["custom"]}, ["front", "back"]),
        ({"type": ["custom", "builtin"], "name": ["front"]}, ["front"]),
        ({"dangling": ["true"]}, ["back"]),
        ({"dangling": ["0"]}, ["bridge", "host", "front"]),
    ],
)
def test_the_list_of_networks_is_filtered(filters: dict[str, Any], names: list[str]) -> None:
    assert passing(filters, in_use=("front",)) == names


@pytest.mark.parametrize(
    "filters", [{"colour": ["red"]}, {"type": ["x"]}, {"dangling": ["x"]}, {"name": ["("]}, {"id": "x"}]
)
def test_filters_of_networks_that_mean_nothing_are_refused(filters: dict[str, Any]) -> None:
    with pytest.raises(BadParameter, match="invalid filter"):
        passing(filters)


def test_networks_are_pruned_by_age_and_label() -> None:
    assert prune_networks_filter("")(FRONT)
    assert prune_networks_filter('{"until": ["1700000001"], "label": ["tier=web"]}')(FRONT)
    assert not prune_networks_filter('{"until": ["1700000000"]}')(FRONT)
    assert not prune_networks_filter('{"label!": ["tier"]}')(FRONT)
    with pytest.raises(BadParameter, match="invalid filter 'dangling'"):
        prune_networks_filter('{"dangling": ["true"]}')


@pytest.mark.parametrize(
    ("wanted", "found"),
    [("front", True), (FRONT.id, True), (FRONT.id[:12], True), ("f", False), ("fron", False), ("bridge", False)],
)
def test_containers_are_chosen_by_their_network(wanted: str, found: bool) -> None:
    passes, _ = container_filter(json.dumps({"network": [wanted]}), None)  # type: ignore[arg-type]
    assert passes(on(ON_FRONT)) is found
