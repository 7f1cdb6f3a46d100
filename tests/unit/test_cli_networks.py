"""The network's part of the command line: what it asks of the daemon, and what it prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import pytest
from cli_daemon import NO_CONTENT, Daemon, failure, reply

from dockerd_py.cli.errors import UsageError
from dockerd_py.cli.network_options import parse_network
from dockerd_py.cli.options import RUN_FLAGS, Settings, settings
from dockerd_py.flags import FlagError, parse

ID = "0123456789abcdef" * 4
FRONT = {
    "Id": ID, "Name": "front", "Driver": "bridge", "Scope": "local", "EnableIPv6": True, "Internal": False,
    "Labels": {"b": "2", "a": "1"}, "Created": "2023-11-14T22:13:20Z",
}  # fmt: skip
BRIDGE = {**FRONT, "Id": "f" * 64, "Name": "bridge", "EnableIPv6": False, "Labels": None}
DONE = reply({})


def made_of(*argv: str) -> Settings:
    return settings(parse(RUN_FLAGS, argv), detach=False)


# run and create


@pytest.mark.parametrize(
    ("argv", "mode", "endpoint"),
    [
        ([], "default", None),
        (["--net=front"], "front", None),
        (["--network", "container:x"], "container:x", None),
        (["--network-alias", "a", "--net-alias=b", "--net", "front"], "front", {"Aliases": ["a", "b"]}),
        (["--net=front", "--ip=10.9.0.7", "--ip6", "fd00::7", "--link-local-ip", "169.254.1.1"], "front",
         {"IPAMConfig": {"IPv4Address": "10.9.0.7", "IPv6Address": "fd00::7", "LinkLocalIPs": ["169.254.1.1"]}}),
        (["--ip=10.9.0.7"], "default", {"IPAMConfig": {"IPv4Address": "10.9.0.7"}}),
        (["--network", "name=front,alias=a,alias=b,ip=10.9.0.7,driver-opt=k=v"], "front",
         {"Aliases": ["a", "b"], "DriverOpts": {"k": "v"}, "IPAMConfig": {"IPv4Address": "10.9.0.7"}}),
        (["--network=name=front,alias=a", "--ip", "10.9.0.7"], "front",
         {"Aliases": ["a"], "IPAMConfig": {"IPv4Address": "10.9.0.7"}}),
    ],
)  # fmt: skip
def test_a_container_is_created_on_its_network(argv: list[str], mode: str, endpoint: dict[str, Any] | None) -> None:
    made = made_of(*argv, "bb")
    assert (made.body["HostConfig"]["NetworkMode"], made.networks) == (mode, {})
    expected = None if endpoint is None else {"EndpointsConfig": {mode: endpoint}}
    assert made.body.get("NetworkingConfig") == expected


@pytest.mark.parametrize(
    "argv", [["--mac-address", "02:42:00:00:00:01"], ["--network", "name=default,mac-address=02:42:00:00:00:01"]]
)
def test_the_mac_address_is_the_containers(argv: list[str]) -> None:
    body = made_of(*argv, "bb").body
    assert (body["MacAddress"], "NetworkingConfig" in body) == ("02:42:00:00:00:01", False)


def test_further_networks_are_for_later() -> None:
    made = made_of("--network=front", "--network=name=back,ip=10.8.0.2,mac-address=02:42:00:00:00:02", "bb")
    assert made.body["HostConfig"]["NetworkMode"] == "front"
    assert made.networks == {"back": {"IPAMConfig": {"IPv4Address": "10.8.0.2"}, "MacAddress": "02:42:00:00:00:02"}}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--net=front", "--net=front"], 'network "front" is specified multiple times'),
        (["--net=front", "--net=host"], "Conflicting options: --network=host goes with no other network"),
        (["-n=false", "--net=front"], "Conflicting options: --networking=false and --network=front"),
        (["--net=name=front,ip=10.9.0.1", "--ip=10.9.0.2"], "--ip says what --network says, too"),
        (["--net=name=front,alias=a", "--net-alias=b"], "--network-alias says what --network says, too"),
    ],
)
def test_networks_that_contradict_each_other_are_refused(argv: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        made_of(*argv, "bb")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--ip", "fd00::1"], '"fd00::1" is no address of IPv4'),
        (["--ip6", "10.0.0.1"], '"10.0.0.1" is no address of IPv6'),
        (["--link-local-ip", "x"], '"x" is no IP address'),
        (["--mac-address", "02:42"], "it must be six pairs of hexadecimal digits"),
        (["--network", ""], "it must be a network's name"),
        (["--network", "alias=a"], "the network is missing: name=NAME"),
        (["--network", "name=a,colour=red"], '"colour" is no key: there are name, alias'),
        (["--network", "name=a,ip=x"], '"x" is no IP address'),
        (["--network", "name=a,b"], '"b" is no KEY=value'),
    ],
)
def test_what_is_no_address_and_no_network_is_named(argv: list[str], message: str) -> None:
    with pytest.raises(FlagError) as caught:
        made_of(*argv, "bb")
    assert message in str(caught.value)


def test_a_name_with_a_colon_is_no_list_of_settings() -> None:
    assert parse_network("container:web") == ("container:web", {})


def test_create_connects_to_further_networks_before_it_says_the_id(tmp_path: Path) -> None:
    answers = {"POST /containers/create": reply({"Id": ID}, "201 Created"), "POST /networks/back/connect": DONE}
    with Daemon(tmp_path, answers) as daemon:
        done = daemon.command("create", "--net=front", "--net=name=back,alias=b", "bb")
    assert (done.stdout, done.stderr) == (ID + "\n", "")
    assert daemon.lines == ["POST /containers/create", "POST /networks/back/connect"]
    assert json.loads(daemon.bodies[1]) == {"Container": ID, "EndpointConfig": {"Aliases": ["b"]}}


def test_a_network_that_cannot_be_joined_leaves_no_container(tmp_path: Path) -> None:
    answers = {
        "POST /containers/create": reply({"Id": ID}, "201 Created"),
        "POST /networks/back/connect": failure(404, "network back not found"),
        f"DELETE /containers/{ID}": NO_CONTENT,
    }
    with Daemon(tmp_path, answers) as daemon:
        done = daemon.command("run", "-d", "--net=front", "--net=back", "--cidfile", str(tmp_path / "id"), "bb")
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == "pydocker: Error response from daemon: network back not found\n"
    assert daemon.lines[-1] == f"DELETE /containers/{ID}?v=1&force=1"
    assert not (tmp_path / "id").exists()


# network


def test_networks_are_listed_by_name(tmp_path: Path) -> None:
    with Daemon(tmp_path, {"GET /networks": reply([FRONT, BRIDGE])}) as daemon:
        assert daemon.command("network", "ls").stdout == (
            "NETWORK ID     NAME      DRIVER    SCOPE\n"
            "ffffffffffff   bridge    bridge    local\n"
            "0123456789ab   front     bridge    local\n"
        )
        assert daemon.command("network", "ls", "-q").stdout == "ffffffffffff\n0123456789ab\n"
        assert daemon.command("network", "ls", "-q", "--no-trunc").stdout == f"{'f' * 64}\n{ID}\n"
        fields = "{{.Name}} {{.IPv6}} {{.Internal}} {{.Labels}} {{.CreatedAt}}"
        done = daemon.command("network", "ls", "--format", fields, "-f", "name=r", "--filter", "type=custom")
    assert done.stdout == (
        "bridge false false  2023-11-14T22:13:20Z\nfront true false a=1,b=2 2023-11-14T22:13:20Z\n"
    )
    assert unquote_plus(daemon.asked[-1].target).endswith('filters={"name": ["r"], "type": ["custom"]}')


def test_a_network_is_created_with_what_belongs_to_each_subnet(tmp_path: Path) -> None:
    argv = (
        "network create -d bridge --internal --attachable --ipv6 --label a=b -o k=v --subnet 10.9.0.0/16 "
        "--subnet fd00::/64 --gateway fd00::1 --gateway 10.9.0.1 --ip-range 10.9.8.0/24 "
        "--aux-address printer=10.9.0.9 front"
    ).split()
    with Daemon(tmp_path, {"POST /networks/create": reply({"Id": ID, "Warning": ""}, "201 Created")}) as daemon:
        assert daemon.command(*argv).stdout == ID + "\n"
    assert json.loads(daemon.bodies[0]) == {
        "Name": "front", "CheckDuplicate": True, "Driver": "bridge", "Internal": True, "Attachable": True,
        "EnableIPv6": True, "Options": {"k": "v"}, "Labels": {"a": "b"},
        "IPAM": {
            "Driver": "default", "Options": {},
            "Config": [
                {"Subnet": "10.9.0.0/16", "IPRange": "10.9.8.0/24", "Gateway": "10.9.0.1",
                 "AuxiliaryAddresses": {"printer": "10.9.0.9"}},
                {"Subnet": "fd00::/64", "Gateway": "fd00::1"},
            ],
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--gateway", "10.9.0.1"], "no matching subnet for gateway 10.9.0.1"),
        (["--subnet", "10.9.0.0/16", "--ip-range", "10.8.0.0/24"], "no matching subnet for ip-range 10.8.0.0/24"),
        (["--subnet", "10.9.0.0/16", "--aux-address", "a=10.8.0.1"], "no matching subnet for aux-address 10.8.0.1"),
        (["--subnet", "10.9.0.0/16", "--subnet", "10.9.1.0/24"], "the subnet 10.9.1.0/24 overlaps with another one"),
        (["--subnet", "10.9.0.0/16", "--gateway", "10.9.0.1", "--gateway", "10.9.0.2"],
         "cannot configure two of --gateway (10.9.0.1, 10.9.0.2) on one subnet"),
        (["--subnet", "10.9.0.0"], "it must be ADDRESS/PREFIX"),
        (["--aux-address", "a"], "'' does not appear to be an IPv4 or IPv6 address"),
    ],
)  # fmt: skip
def test_addresses_that_lie_nowhere_are_refused(tmp_path: Path, argv: list[str], message: str) -> None:
    with Daemon(tmp_path, {}) as daemon:
        done = daemon.command("network", "create", *argv, "front")
    assert done.returncode == 2
    assert message in done.stderr
    assert daemon.lines == []


def test_networks_are_inspected_and_missing_ones_told(tmp_path: Path) -> None:
    answers = {"GET /networks/front": reply(FRONT), "GET /networks/none": failure(404, "network none not found")}
    with Daemon(tmp_path, answers) as daemon:
        done = daemon.command("network", "inspect", "front", "none")
        assert daemon.command("network", "inspect", "-f", "{{.Driver}}", "front").stdout == "bridge\n"
        assert daemon.command("inspect", "--type", "network", "front").stdout == json.dumps([FRONT], indent=4) + "\n"
    assert done.stdout == json.dumps([FRONT], indent=4) + "\n"
    assert (done.stderr, done.returncode) == ("pydocker: Error response from daemon: network none not found\n", 1)


def test_networks_are_removed_one_by_one(tmp_path: Path) -> None:
    answers = {
        "DELETE /networks/a": NO_CONTENT,
        "DELETE /networks/b": failure(403, "network b has active endpoints"),
        "DELETE /networks/c": failure(404, "network c not found"),
    }
    with Daemon(tmp_path, answers) as daemon:
        done = daemon.command("network", "rm", "a", "b", "c")
        forced = daemon.command("network", "rm", "-f", "c")
        assert "is no network's name or id" in daemon.command("network", "rm", "x/../y").stderr
    assert (done.stdout, done.returncode) == ("a\n", 1)
    assert "active endpoints" in done.stderr
    assert "network c not found" in done.stderr
    assert (forced.stdout, forced.returncode) == ("c\n", 0)


def test_a_container_is_connected_and_disconnected(tmp_path: Path) -> None:
    answers = {"POST /networks/front/connect": DONE, "POST /networks/front/disconnect": DONE}
    argv = "--alias a --ip 10.9.0.7 --ip6 fd00::7 --link db:d --link-local-ip 169.254.1.1 --driver-opt k=v".split()
    with Daemon(tmp_path, answers) as daemon:
        assert daemon.command("network", "connect", *argv, "front", "web").stdout == ""
        assert daemon.command("network", "disconnect", "-f", "front", "web").returncode == 0
    assert [json.loads(body) for body in daemon.bodies] == [
        {
            "Container": "web",
            "EndpointConfig": {
                "Aliases": ["a"], "Links": ["db:d"], "DriverOpts": {"k": "v"},
                "IPAMConfig": {"IPv4Address": "10.9.0.7", "IPv6Address": "fd00::7", "LinkLocalIPs": ["169.254.1.1"]},
            },
        },
        {"Container": "web", "Force": True},
    ]  # fmt: skip


def test_networks_are_pruned_after_a_question(tmp_path: Path) -> None:
    with Daemon(tmp_path, {"POST /networks/prune": reply({"NetworksDeleted": ["a", "b"]})}) as daemon:
        asked = daemon.command("network", "prune")
        done = daemon.command("network", "prune", "-f", "--filter", "label=x")
    assert (asked.returncode, asked.stdout) == (1, "")
    assert "This removes all networks that no container is on." in asked.stderr
    assert done.stdout == "Deleted Networks:\na\nb\n\n"
    assert daemon.lines == ["POST /networks/prune?filters=%7B%22label%22%3A+%5B%22x%22%5D%7D"]


# system prune


def test_system_prune_cleans_up_all_that_nothing_uses(tmp_path: Path) -> None:
    answers = {
        "POST /containers/prune": reply({"ContainersDeleted": [ID], "SpaceReclaimed": 1000}),
        "POST /networks/prune": reply({"NetworksDeleted": ["front"]}),
        "POST /volumes/prune": reply({"VolumesDeleted": ["v"], "SpaceReclaimed": 2000}),
        "POST /images/prune": reply({"ImagesDeleted": [{"Untagged": "i"}], "SpaceReclaimed": 3000}),
    }
    with Daemon(tmp_path, answers) as daemon:
        done = daemon.command("system", "prune", "-af", "--volumes", "--filter", "label=x")
        few = daemon.command("system", "prune", "-f")
        asked = daemon.command("system", "prune")
    assert done.stdout == (
        f"Deleted Containers:\n{ID}\n\nDeleted Networks:\nfront\n\nDeleted Volumes:\nv\n\n"
        "Deleted Images:\nuntagged: i\n\nTotal reclaimed space: 6kB\n"
    )
    paths = [line.partition("?")[0] for line in daemon.lines]
    assert paths[:4] == [f"POST /{kind}/prune" for kind in ("containers", "networks", "volumes", "images")]
    assert daemon.lines[3].endswith("%22dangling%22%3A+%5B%22false%22%5D%7D")
    assert all("label" in line for line in daemon.lines[:4])
    assert few.stdout.endswith("Total reclaimed space: 4kB\n")
    assert paths[4:] == [f"POST /{kind}/prune" for kind in ("containers", "networks", "images")]
    assert (asked.returncode, asked.stdout) == (1, "")


def test_volumes_have_no_age_to_be_pruned_by(tmp_path: Path) -> None:
    with Daemon(tmp_path, {}) as daemon:
        done = daemon.command("system", "prune", "-f", "--volumes", "--filter", "until=1h")
    assert (done.returncode, daemon.lines) == (2, [])
    assert "the filter until does not go with --volumes" in done.stderr
