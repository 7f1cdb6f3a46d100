"""Networks by way of the clients, each unmodified: docker's command lines, docker-py, and our own command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from clients import DOCKERS, is_older
from docker.types import IPAMConfig, IPAMPool
from net_house import NetDaemon

OURS = [
    sys.executable,
    "-c",
    "import sys; sys.argv[0] = 'pydocker'\nfrom dockerd_py.cli.main import main\nsys.exit(main())",
]
PROGRAMS = [OURS, *DOCKERS]
MAC = "02:42:00:00:00:07"

each_program = pytest.mark.parametrize("program", PROGRAMS)


@pytest.fixture
def daemon(dual_net_daemon: NetDaemon) -> Iterator[NetDaemon]:
    yield dual_net_daemon
    dual_net_daemon.clear()


@pytest.fixture
def client(daemon: NetDaemon) -> Iterator[docker.DockerClient]:
    one = docker.DockerClient(base_url=f"unix://{daemon.socket}", version="1.43")
    yield one
    one.close()


def call(daemon: NetDaemon, program: list[str], *argv: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ, "DOCKER_HOST": f"unix://{daemon.socket}", "PYTHONPATH": str(Path(__file__).parents[2])
    }  # fmt: skip
    return subprocess.run(
        [*program, *argv], capture_output=True, text=True, timeout=60, env=environment, check=False, input=""
    )


def ok(daemon: NetDaemon, program: list[str], *argv: str) -> str:
    done = call(daemon, program, *argv)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def networks_of(daemon: NetDaemon, container: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = daemon.inspect(container)["NetworkSettings"]["Networks"]
    return found


# Networks


@each_program
def test_a_network_is_made_listed_shown_and_removed(daemon: NetDaemon, program: list[str]) -> None:
    identity = ok(
        daemon, program, "network", "create", "--subnet", "10.77.0.0/16", "--ip-range", "10.77.8.0/24", "--gateway",
        "10.77.0.1", "--aux-address", "printer=10.77.8.9", "--label", "a=b", "--internal", "--attachable", "front",
    )  # fmt: skip
    assert len(identity) == 64
    rows = [line.split() for line in ok(daemon, program, "network", "ls").splitlines()]
    assert rows[0] == ["NETWORK", "ID", "NAME", "DRIVER", "SCOPE"]
    assert [row[1:] for row in rows[1:]] == [
        ["bridge", "bridge", "local"], ["front", "bridge", "local"], ["host", "host", "local"],
        ["none", "null", "local"],
    ]  # fmt: skip
    assert ok(daemon, program, "network", "ls", "-q", "--no-trunc", "-f", "type=custom") == identity
    chosen = ("-f", "driver=bridge", "-f", "label=a=b")
    assert ok(daemon, program, "network", "ls", "--format", "{{.Name}}", *chosen) == "front"
    (shown,) = json.loads(ok(daemon, program, "network", "inspect", "front"))
    assert (shown["Id"], shown["Internal"], shown["Attachable"], shown["Labels"]) == (identity, True, True, {"a": "b"})
    assert shown["IPAM"]["Config"] == [
        {"Subnet": "10.77.0.0/16", "IPRange": "10.77.8.0/24", "Gateway": "10.77.0.1",
         "AuxiliaryAddresses": {"printer": "10.77.8.9"}}
    ]  # fmt: skip
    assert ok(daemon, program, "network", "inspect", "-f", "{{.Driver}}", identity[:12]) == "bridge"
    assert ok(daemon, program, "network", "rm", "front") == "front"
    assert ok(daemon, program, "network", "ls", "-qf", "type=custom") == ""


@each_program
def test_what_cannot_be_is_told_in_dockers_words(daemon: NetDaemon, program: list[str]) -> None:
    ok(daemon, program, "network", "create", "front")
    for argv, message in (
        (("create", "front"), "network with name front already exists"),
        (("create", "bridge"), "operation is not permitted on predefined bridge network"),
        (("create", "-d", "overlay", "over"), "overlay"),
        (("rm", "bridge"), "bridge is a pre-defined network and cannot be removed"),
        (("disconnect", "nosuch", "x"), "network nosuch not found"),
        (("connect", "front", "nosuch"), "No such container: nosuch"),
        (("connect", "host", "nosuch"), "No such container: nosuch"),
    ):
        done = call(daemon, program, "network", *argv)
        assert done.returncode != 0
        assert message in done.stderr


@each_program
def test_a_network_in_use_stays(daemon: NetDaemon, program: list[str]) -> None:
    ok(daemon, program, "network", "create", "front")
    ok(daemon, program, "network", "create", "idle")
    container = ok(daemon, program, "run", "-d", "--network", "front", "--name", "web", "busybox", "sleep", "1000")
    assert "has active endpoints" in call(daemon, program, "network", "rm", "front").stderr
    assert ok(daemon, program, "network", "ls", "-f", "dangling=true", "--format", "{{.Name}}") == "idle"
    assert ok(daemon, program, "network", "prune", "-f") == "Deleted Networks:\nidle"
    members = daemon.get("/networks/front").json["Containers"]
    assert (list(members), members[container]["Name"]) == ([container], "web")
    assert members[container]["IPv4Address"].partition("/")[0] == daemon.address(container, "front")
    assert daemon.get("/networks").json[-1]["Containers"] == {}
    old = {one["Name"]: one["Containers"] for one in daemon.get("/networks", version="1.27").json}
    assert list(old["front"]) == [container]


# Containers on them


@each_program
def test_a_container_has_the_addresses_and_names_that_were_asked_for(daemon: NetDaemon, program: list[str]) -> None:
    ok(daemon, program, "network", "create", "--ipv6", "--subnet=10.77.0.0/16", "--subnet=fd00:77::/64", "front")
    # docker's own from 25 on asks API 1.44 for a MAC address, and no other
    mac = ("--mac-address", MAC) if program == OURS or is_older(program, 25) else ()
    container = ok(
        daemon, program, "run", "-d", "--network", "front", "--ip", "10.77.3.4", "--ip6", "fd00:77::34",
        "--network-alias", "db", *mac, "busybox", "sleep", "1000",
    )  # fmt: skip
    shown = networks_of(daemon, container)["front"]
    assert (shown["IPAddress"], shown["IPPrefixLen"], shown["Gateway"]) == ("10.77.3.4", 16, "10.77.0.1")
    assert (shown["GlobalIPv6Address"], shown["GlobalIPv6PrefixLen"]) == ("fd00:77::34", 64)
    assert shown["IPAMConfig"] == {"IPv4Address": "10.77.3.4", "IPv6Address": "fd00:77::34"}
    assert {"db", container[:12]} <= set(shown["Aliases"])
    if mac:
        assert (shown["MacAddress"], daemon.inspect(container)["Config"]["MacAddress"]) == (MAC, MAC)
    interface = ok(daemon, program, "exec", container, "ip", "address", "show", "eth0")
    for part in ("10.77.3.4/16", "fd00:77::34/64", shown["MacAddress"]):
        assert part in interface


@each_program
def test_the_same_can_be_asked_in_one_argument(daemon: NetDaemon, program: list[str]) -> None:
    ok(daemon, program, "network", "create", "--subnet=10.77.0.0/16", "front")
    wanted = "name=front,alias=db,alias=store,ip=10.77.3.4"
    container = ok(daemon, program, "create", "--network", wanted, "busybox", "true")
    shown = networks_of(daemon, container)["front"]
    assert shown["IPAMConfig"] == {"IPv4Address": "10.77.3.4"}
    assert {"db", "store"} <= set(shown["Aliases"])


@each_program
def test_a_container_comes_onto_a_network_and_off_it_while_it_runs(daemon: NetDaemon, program: list[str]) -> None:
    ok(daemon, program, "network", "create", "--subnet=10.77.0.0/16", "front")
    begun = time.time()
    container = ok(daemon, program, "run", "-d", "--name", "web", "busybox", "sleep", "1000")
    assert list(networks_of(daemon, container)) == ["bridge"]
    assert ok(daemon, program, "network", "connect", "--alias", "db", "--ip", "10.77.3.4", "front", "web") == ""
    assert networks_of(daemon, container)["front"]["IPAddress"] == "10.77.3.4"
    assert "10.77.3.4/16" in ok(daemon, program, "exec", "web", "ip", "address")
    listed = ok(daemon, program, "ps", "-f", "network=front", "--format", "{{.Names}} {{.Networks}}")
    name, _, networks = listed.partition(" ")
    assert (name, sorted(networks.split(","))) == ("web", ["bridge", "front"])  # docker shows them in no order
    assert "already exists in network front" in call(daemon, program, "network", "connect", "front", "web").stderr
    assert ok(daemon, program, "network", "disconnect", "front", "web") == ""
    assert "10.77.3.4" not in ok(daemon, program, "exec", "web", "ip", "address")
    assert list(networks_of(daemon, container)) == ["bridge"]
    assert "is not connected to" in call(daemon, program, "network", "disconnect", "front", "web").stderr
    query = json.dumps({"type": ["network"], "network": ["front"]})
    events = daemon.get(f"/events?since={begun:.9f}&until={time.time():.9f}&filters={query}".replace(" ", "")).data
    told = [json.loads(line) for line in events.splitlines()]
    assert [event["Action"] for event in told] == ["connect", "disconnect"]
    assert {event["Actor"]["Attributes"]["container"] for event in told} == {container}


@each_program
def test_networks_that_cannot_be_leave_no_container(daemon: NetDaemon, program: list[str]) -> None:
    for flag, message in (
        (("--network", "bridge", "--ip", "172.17.0.9"), "user specified IP address is supported on user defined"),
        (("--network", "container:nosuch"), "No such container: nosuch"),
        (("--network", "nosuch"), "network nosuch not found"),
        (("--network", "host", "--ip", "10.0.0.1"), "user specified IP address is supported on user defined"),
    ):
        done = call(daemon, program, "create", *flag, "busybox", "true")
        assert done.returncode != 0
        assert message in done.stderr
    assert daemon.get("/containers/json?all=1").json == []


@each_program
def test_modes_are_networks_too(daemon: NetDaemon, program: list[str]) -> None:
    for mode in ("none", "host"):
        container = ok(daemon, program, "run", "-d", "--network", mode, "busybox", "sleep", "1000")
        assert list(networks_of(daemon, container)) == [mode]
        assert daemon.inspect(container)["HostConfig"]["NetworkMode"] == mode
    donor = ok(daemon, program, "run", "-d", "busybox", "sleep", "1000")
    joined = ok(daemon, program, "run", "-d", "--network", f"container:{donor[:12]}", "busybox", "sleep", "1000")
    assert daemon.inspect(joined)["HostConfig"]["NetworkMode"] == f"container:{donor}"
    assert networks_of(daemon, joined) == {}
    assert daemon.address(donor) in ok(daemon, program, "exec", joined, "ip", "address")


def test_several_networks_are_one_command_with_ours(daemon: NetDaemon) -> None:
    for name in ("front", "back"):
        ok(daemon, OURS, "network", "create", name)
    flags = ("--network", "front", "--network", "name=back,alias=b")
    container = ok(daemon, OURS, "run", "-d", *flags, "busybox", "sleep", "1000")
    shown = networks_of(daemon, container)
    assert list(shown) == ["front", "back"]
    assert "b" in shown["back"]["Aliases"]
    links = ok(daemon, OURS, "exec", container, "ip", "-o", "link")
    assert [name in links for name in ("eth0", "eth1", "eth2")] == [True, True, False]
    done = call(daemon, OURS, "run", "-d", "--network=front", "--network=nosuch", "--name=xx", "busybox", "true")
    assert done.returncode == 125
    assert "network nosuch not found" in done.stderr
    assert [one["Id"] for one in daemon.get("/containers/json?all=1").json] == [container]


@each_program
def test_system_prune_cleans_up_networks_too(daemon: NetDaemon, program: list[str]) -> None:
    ok(daemon, program, "network", "create", "idle")
    ended = ok(daemon, program, "create", "--network", "idle", "busybox", "true")
    shown = ok(daemon, program, "system", "prune", "-f")
    for part in (f"Deleted Containers:\n{ended}", "Deleted Networks:\nidle", "Total reclaimed space: "):
        assert part in shown


@pytest.mark.parametrize("program", DOCKERS)
def test_info_tells_of_the_network(daemon: NetDaemon, program: list[str]) -> None:
    shown = json.loads(ok(daemon, program, "info", "--format", "{{json .}}"))
    assert shown["Plugins"]["Network"] == ["bridge", "host", "ipvlan", "macvlan", "null"]
    forwards = daemon.host.run("cat", "/proc/sys/net/ipv4/ip_forward").strip()
    assert shown["IPv4Forwarding"] is (forwards == "1")


# docker-py


def test_docker_py_makes_lists_and_removes_networks(client: docker.DockerClient) -> None:
    pool = IPAMPool(subnet="10.77.0.0/16", gateway="10.77.0.1")
    network = client.networks.create("front", driver="bridge", ipam=IPAMConfig(pool_configs=[pool]), labels={"a": ""})
    assert client.networks.list(names=["front"]) == [network]
    assert client.networks.list(ids=[network.id], filters={"label": "a"}) == [network]
    assert {one.name for one in client.networks.list()} == {"bridge", "front", "host", "none"}
    assert network.attrs["IPAM"]["Config"][0]["Gateway"] == "10.77.0.1"
    with pytest.raises(docker.errors.APIError) as caught:
        client.networks.create("front", check_duplicate=True)
    assert caught.value.status_code == 409
    network.remove()
    with pytest.raises(docker.errors.NotFound):
        client.networks.get("front")
    assert client.networks.prune() == {"NetworksDeleted": None}


def test_docker_py_runs_connects_and_disconnects(client: docker.DockerClient) -> None:
    front, back = client.networks.create("front"), client.networks.create("back", internal=True)
    web = client.containers.run("busybox", ["sleep", "1000"], network="front", detach=True, name="web")
    back.connect(web, aliases=["db"])
    web.reload()
    assert sorted(web.attrs["NetworkSettings"]["Networks"]) == ["back", "front"]
    back.reload()
    assert back.containers == [web]
    assert client.containers.list(filters={"network": front.id}) == [web]
    front.disconnect(web)
    web.reload()
    assert list(web.attrs["NetworkSettings"]["Networks"]) == ["back"]


def test_docker_pys_plain_client_says_more_at_create(client: docker.DockerClient, daemon: NetDaemon) -> None:
    api = client.api
    api.create_network("front", ipam=IPAMConfig(pool_configs=[IPAMPool(subnet="10.77.0.0/16")]))
    endpoint = api.create_endpoint_config(aliases=["db"], ipv4_address="10.77.3.4")
    for host_config in (None, api.create_host_config(network_mode="front")):
        made = api.create_container(
            "busybox", ["sleep", "1000"], host_config=host_config, mac_address=MAC,
            networking_config=api.create_networking_config({"front": endpoint}),
        )["Id"]  # fmt: skip
        api.start(made)
        shown = networks_of(daemon, made)
        assert {name: (one["IPAddress"], one["MacAddress"]) for name, one in shown.items()} == {
            "front": ("10.77.3.4", MAC)
        }
        api.remove_container(made, force=True)
    two = api.create_networking_config({"front": endpoint, "bridge": api.create_endpoint_config()})
    with pytest.raises(docker.errors.APIError) as caught:
        api.create_container("busybox", "true", networking_config=two)
    assert caught.value.status_code == 400
    assert "Container cannot be connected to network endpoints: front, bridge" in str(caught.value)


# Older versions of the API


def test_before_1_21_there_are_no_networks_and_one_address(daemon: NetDaemon) -> None:
    container = daemon.post("/containers/create", {"Image": "busybox", "Cmd": ["sleep", "1000"]}).json["Id"]
    daemon.post(f"/containers/{container}/start")
    today = networks_of(daemon, container)["bridge"]
    for version in ("1.9", "1.18"):
        shown = daemon.get(f"/containers/{container}/json", version=version).json["NetworkSettings"]
        assert (shown["IPAddress"], shown["IPPrefixLen"]) == (today["IPAddress"], today["IPPrefixLen"])
        assert shown["Gateway"] == today["Gateway"]
        assert shown["Bridge"].startswith("pydocker")
        assert daemon.get("/networks", version=version).status == 404


def test_a_start_with_settings_stays_on_its_network(daemon: NetDaemon) -> None:
    daemon.post("/networks/create", {"Name": "front", "IPAM": {"Config": [{"Subnet": "10.77.0.0/16"}]}})
    body = {
        "Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "front"},
        "NetworkingConfig": {"EndpointsConfig": {"front": {"IPAMConfig": {"IPv4Address": "10.77.3.4"}}}},
    }  # fmt: skip
    container = daemon.post("/containers/create", body).json["Id"]
    assert daemon.post(f"/containers/{container}/start", {"NetworkMode": "front"}, version="1.20").status == 204
    assert daemon.address(container, "front") == "10.77.3.4"


def test_events_of_networks_are_not_told_to_clients_that_do_not_know_them(daemon: NetDaemon) -> None:
    begun = time.time()
    daemon.post("/networks/create", {"Name": "front"})
    daemon.post("/volumes/create", {"Name": "data"})
    query = f"/events?since={begun:.9f}&until={time.time():.9f}"
    told = daemon.get(query, version="1.22").data.splitlines()
    assert [json.loads(line)["Type"] for line in told] == ["network", "volume"]
    for version in ("1.9", "1.21"):
        assert daemon.get(query, version=version).data == b""


def test_there_is_no_build_cache_to_prune(daemon: NetDaemon) -> None:
    assert daemon.post("/build/prune?all=1").json == {"CachesDeleted": None, "SpaceReclaimed": 0}
    assert daemon.post("/build/prune", version="1.30").status == 404
