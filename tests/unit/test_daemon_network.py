"""Networks end to end: a daemon on a host of its own, containers on its networks, and packets between all of them."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import execs
import pytest
from daemons import until
from net_house import (
    CABLE,
    HOST,
    HOST6,
    OUTSIDE,
    Namespace,
    NetDaemon,
    is_reached,
    tcp_answer,
    telling_who_asks,
    udp_answer,
)
from store_house import needs_root
from wire import Reply

pytestmark = needs_root

GATEWAY = "172.17.42.1"


class Inside(Namespace):
    """A running container's network namespace."""

    def __init__(self, daemon: NetDaemon, container: str) -> None:
        self.fd = os.open(f"/proc/{daemon.inspect(container)['State']['Pid']}/ns/net", os.O_RDONLY)


def split(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of both kinds, as `Daemon.create` takes them."""
    own = {key: value for key, value in settings.items() if key in ("NetworkingConfig", "ExposedPorts", "Hostname")}
    host = {key: value for key, value in settings.items() if key not in own}
    return {"host": {"NetworkMode": "default", **host}, **own}


@contextmanager
def running(daemon: NetDaemon, *command: str, name: str = "", **host: Any) -> Iterator[tuple[str, Namespace]]:
    """A container on a network (the default one), and its inside; it is removed afterwards."""
    container = daemon.run_detached(*(command or ("sleep", "1000")), name=name, **split(host))
    inside = Inside(daemon, container)
    try:
        yield container, inside
    finally:
        inside.close()
        daemon.delete(f"/containers/{container}?force=1")


@contextmanager
def network(daemon: NetDaemon, name: str, **request: Any) -> Iterator[str]:
    reply = daemon.post("/networks/create", {"Name": name, **request})
    assert reply.status == 201, reply.data
    try:
        yield reply.json["Id"]
    finally:
        gone = daemon.delete(f"/networks/{name}")
    assert gone.status == 204, gone.data


def on(name: str, **settings: Any) -> dict[str, Any]:
    """What puts a container on a network."""
    return {"NetworkMode": name, "NetworkingConfig": {"EndpointsConfig": {name: settings}}}


def of(daemon: NetDaemon, container: str, name: str = "bridge") -> dict[str, Any]:
    found: dict[str, Any] = daemon.inspect(container)["NetworkSettings"]["Networks"][name]
    return found


def output(daemon: NetDaemon, container: str, *command: str, check: bool = True) -> str:
    """What a command in a container says."""
    done = execs.run(daemon, container, *command)
    assert done.exit_code == 0 or not check, done
    return done.text()


def check(daemon: NetDaemon, method: str, path: str, body: object = None) -> None:
    reply = daemon.call(method, path, body)
    assert reply.status in (200, 204), reply.data


def at_once(daemon: NetDaemon, paths: list[str], method: str = "POST") -> list[Reply]:
    with ThreadPoolExecutor(20) as pool:
        return list(pool.map(lambda path: daemon.call(method, path), paths))


# The default bridge


def test_a_container_has_an_address_a_way_out_and_its_name_in_hosts(net_daemon: NetDaemon) -> None:
    with running(net_daemon, Hostname="box") as (container, inside):
        settings = net_daemon.inspect(container)["NetworkSettings"]
        assert (settings["Gateway"], settings["IPPrefixLen"]) == (GATEWAY, 16)
        address = settings["IPAddress"]
        assert inside.interfaces()["eth0"] == {f"{address}/16"}
        assert f"default via {GATEWAY} dev eth0" in inside.run("ip", "route")
        assert f"link/ether {settings['MacAddress']}" in inside.run("ip", "link", "show", "eth0")
        with telling_who_asks(net_daemon.outside, 7777):  # which has no way back to the container's own address
            assert tcp_answer(inside, OUTSIDE, 7777) == HOST.encode()
            assert udp_answer(inside, OUTSIDE, 7777) == HOST.encode()
        with telling_who_asks(inside, 7777):
            assert tcp_answer(net_daemon.host, address, 7777) == GATEWAY.encode()
        assert output(net_daemon, container, "tail", "-n1", "/etc/hosts") == f"{address}\tbox\n"
        assert output(net_daemon, container, "hostname", "-i") == f"{address}\n"


def test_containers_on_the_bridge_reach_each_other_but_nobody_from_outside_does(net_daemon: NetDaemon) -> None:
    with running(net_daemon) as (one, inside), running(net_daemon) as (_, other):
        address = net_daemon.address(one)
        with telling_who_asks(inside, 7777):
            assert tcp_answer(other, address, 7777)
            net_daemon.outside.run("ip", "route", "add", address, "via", HOST)
            try:
                assert not is_reached(tcp_answer, net_daemon.outside, address, 7777)
            finally:
                net_daemon.outside.run("ip", "route", "del", address)


def test_a_container_does_not_reach_the_hosts_own_loopback(net_daemon: NetDaemon) -> None:
    with running(net_daemon) as (_, inside), telling_who_asks(net_daemon.host, 7777):
        assert tcp_answer(net_daemon.host, "127.0.0.5", 7777)
        assert tcp_answer(inside, GATEWAY, 7777)  # what listens everywhere is reached by the host's address
        inside.run("ip", "route", "add", "127.0.0.5", "via", GATEWAY, "dev", "eth0", check=False)
        assert not is_reached(tcp_answer, inside, "127.0.0.5", 7777)
        assert net_daemon.host.run("cat", "/proc/sys/net/ipv4/conf/all/route_localnet").strip() == "0"


def test_an_address_stays_with_its_container(net_daemon: NetDaemon) -> None:
    with running(net_daemon) as (container, _), running(net_daemon):
        before = of(net_daemon, container)
        net_daemon.post(f"/containers/{container}/stop?t=0")
        assert of(net_daemon, container)["IPAddress"] == ""
        with running(net_daemon):
            net_daemon.post(f"/containers/{container}/start")
            after = of(net_daemon, container)
        assert (after["IPAddress"], after["MacAddress"]) == (before["IPAddress"], before["MacAddress"])


def test_a_mac_address_is_given(net_daemon: NetDaemon) -> None:
    host = {"NetworkMode": "bridge"}
    container = net_daemon.run_detached("sleep", "1000", host=host, MacAddress="02:00:00:00:00:09")
    assert of(net_daemon, container)["MacAddress"] == "02:00:00:00:00:09"
    assert output(net_daemon, container, "cat", "/sys/class/net/eth0/address") == "02:00:00:00:00:09\n"
    net_daemon.delete(f"/containers/{container}?force=1")


def test_a_hundred_containers_at_once_have_a_hundred_addresses(net_daemon: NetDaemon) -> None:
    containers = [net_daemon.create("sleep", "1000", host={"NetworkMode": "bridge"}) for _ in range(100)]
    replies = at_once(net_daemon, [f"/containers/{one}/start" for one in containers])
    assert {reply.status for reply in replies} == {204}
    addresses = {net_daemon.address(one) for one in containers}
    assert len(addresses) == 100
    with running(net_daemon) as (last, _):
        script = f"for a in {' '.join(sorted(addresses))}; do ping -c1 -W2 $a >/dev/null || echo $a; done"
        assert output(net_daemon, last, "sh", "-c", script) == ""
    replies = at_once(net_daemon, [f"/containers/{one}?force=1" for one in containers], "DELETE")
    assert {reply.status for reply in replies} == {204}


# Published ports


def published(*bindings: str) -> dict[str, Any]:
    """Of "host_ip:host_port:port/protocol"."""
    found: dict[str, list[dict[str, str]]] = {}
    for text in bindings:
        host_ip, host_port, port = text.split(":")
        found.setdefault(port, []).append({"HostIp": host_ip, "HostPort": host_port})
    return {"PortBindings": found}


@pytest.mark.parametrize("answer", [tcp_answer, udp_answer])
def test_a_published_port_is_reached_from_everywhere(net_daemon: NetDaemon, answer: Any) -> None:
    protocol = answer.__name__[:3]
    with (
        running(net_daemon, **published(f":8080:80/{protocol}")) as (container, inside),
        running(net_daemon) as (_, other),
        telling_who_asks(inside, 80),
    ):
        assert net_daemon.port(container, f"80/{protocol}") == 8080
        assert answer(net_daemon.outside, HOST, 8080) == OUTSIDE.encode()  # it sees who asks
        assert answer(net_daemon.outside, HOST6, 8080)  # relayed, as it has no such address itself
        assert answer(net_daemon.host, HOST, 8080)
        assert answer(net_daemon.host, "127.0.0.1", 8080) == GATEWAY.encode()
        assert answer(net_daemon.host, "::1", 8080) == GATEWAY.encode()
        assert answer(other, HOST, 8080)
        assert answer(other, GATEWAY, 8080)
        assert answer(inside, HOST, 8080)
    assert not is_reached(answer, net_daemon.outside, HOST, 8080)


def test_a_port_at_one_address_is_at_no_other(net_daemon: NetDaemon) -> None:
    with running(net_daemon, **published("127.0.0.1::80/tcp")) as (container, inside), telling_who_asks(inside, 80):
        port = net_daemon.port(container)
        assert 49153 <= port <= 65535
        assert tcp_answer(net_daemon.host, "127.0.0.1", port)
        assert not is_reached(tcp_answer, net_daemon.outside, HOST, port)
        assert not is_reached(tcp_answer, net_daemon.host, HOST, port)


def test_nobody_else_can_take_a_published_port(net_daemon: NetDaemon) -> None:
    with running(net_daemon, **published(":8080:80/tcp", ":8081:81/udp")):
        with net_daemon.host.socket() as taker, pytest.raises(OSError, match="in use"):
            taker.bind(("0.0.0.0", 8080))
        other = net_daemon.create("true", host={"NetworkMode": "bridge", **published(":8080:80/tcp")})
        reply = net_daemon.post(f"/containers/{other}/start")
        assert (reply.status, "Bind for 0.0.0.0:8080 failed: port is already allocated" in reply.message) == (500, True)
        state = net_daemon.inspect(other)["State"]
        assert (state["Status"], state["ExitCode"]) == ("created", 128)
        assert "port is already allocated" in state["Error"]
    assert net_daemon.post(f"/containers/{other}/start").status == 204
    net_daemon.wait(other)
    net_daemon.delete(f"/containers/{other}")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_connections_and_ports_go_on_through_a_restart_of_the_daemon(own_net_daemon: NetDaemon, how: int) -> None:
    daemon = own_net_daemon
    with running(daemon, **published(":8080:80/tcp")) as (container, inside), telling_who_asks(inside, 80):
        before = of(daemon, container)
        daemon.stop(how)
        assert tcp_answer(daemon.outside, HOST, 8080)
        assert tcp_answer(daemon.host, "127.0.0.1", 8080)
        daemon.start()
        assert of(daemon, container) == before
        assert tcp_answer(daemon.outside, HOST, 8080)
        with running(daemon) as (_, other):
            assert tcp_answer(other, before["IPAddress"], 80)
            assert daemon.address(container) == before["IPAddress"]
        assert daemon.post(f"/containers/{container}/restart?t=0").status == 204
        assert daemon.port(container) == 8080


def test_a_flushed_firewall_is_repaired_by_a_reload(net_daemon: NetDaemon) -> None:
    with running(net_daemon, **published(":8080:80/tcp")) as (_, inside), telling_who_asks(inside, 80):
        net_daemon.host.run("nft", "flush", "ruleset")
        assert tcp_answer(net_daemon.outside, HOST, 8080) == GATEWAY.encode()  # relayed
        net_daemon.process.send_signal(signal.SIGHUP)
        until(lambda: tcp_answer(net_daemon.outside, HOST, 8080) == OUTSIDE.encode())


def test_without_a_firewall_ports_are_relayed_and_nothing_is_touched(tmp_path: Path) -> None:
    daemon = NetDaemon(tmp_path, "--iptables=false")
    daemon.start()
    daemon.import_busybox()
    with running(daemon, **published(":8080:80/tcp", ":8081:80/udp")) as (_, inside), telling_who_asks(inside, 80):
        for address in (HOST, HOST6):
            assert tcp_answer(daemon.outside, address, 8080)
            assert udp_answer(daemon.outside, address, 8081)
    assert daemon.host.run("nft", "list", "ruleset") == ""
    daemon.close()
    daemon.vanish()


# Networks that somebody made


def test_networks_are_apart_and_a_container_may_be_on_two(net_daemon: NetDaemon) -> None:
    with (
        network(net_daemon, "front"),
        network(net_daemon, "back"),
        running(net_daemon, **on("front")) as (one, of_front),
        running(net_daemon, **on("back")) as (_, of_back),
        telling_who_asks(of_front, 80),
    ):
        address = net_daemon.address(one, "front")
        assert not is_reached(tcp_answer, of_back, address, 80)
        check(net_daemon, "POST", "/networks/back/connect", {"Container": one})
        second = net_daemon.address(one, "back")
        assert tcp_answer(of_back, second, 80)
        assert not is_reached(tcp_answer, of_back, address, 80)
        assert of_front.interfaces().keys() >= {"eth0", "eth1"}
        hosts = output(net_daemon, one, "cat", "/etc/hosts")
        assert address in hosts
        assert second in hosts
        check(net_daemon, "POST", "/networks/back/disconnect", {"Container": one})
        assert not is_reached(tcp_answer, of_back, second, 80)
        assert second not in output(net_daemon, one, "cat", "/etc/hosts")
        assert "eth1" not in of_front.interfaces()


@contextmanager
def grabbing(space: Namespace, port: int) -> Iterator[list[bool]]:
    """Try to have a port all the time; what is in the list is a success."""
    grabbed: list[bool] = []
    ended = threading.Event()

    def grab() -> None:
        while not ended.is_set():
            with socket.socket() as sock, suppress(OSError):
                sock.bind(("", port))
                grabbed.append(True)

    thread = threading.Thread(target=lambda: space.inside(grab))
    thread.start()
    try:
        yield grabbed
    finally:
        ended.set()
        thread.join()


def test_ports_and_the_way_out_move_to_another_network_with_the_first_one_gone(net_daemon: NetDaemon) -> None:
    with (
        network(net_daemon, "front"),
        network(net_daemon, "back"),
        running(net_daemon, **on("front"), **published(":8080:80/tcp", "::81/udp")) as (one, inside),
        telling_who_asks(inside, 80),
        telling_who_asks(inside, 81),
        telling_who_asks(net_daemon.outside, 7777),
    ):
        udp = net_daemon.port(one, "81/udp")
        check(net_daemon, "POST", "/networks/back/connect", {"Container": one})
        with grabbing(net_daemon.host, 8080) as grabbed:
            check(net_daemon, "POST", "/networks/front/disconnect", {"Container": one})
        assert not grabbed
        assert tcp_answer(net_daemon.outside, HOST, 8080) == OUTSIDE.encode()
        assert tcp_answer(net_daemon.host, "127.0.0.1", 8080)
        assert udp_answer(net_daemon.outside, HOST, udp)
        assert tcp_answer(inside, OUTSIDE, 7777) == HOST.encode()
        check(net_daemon, "POST", "/networks/back/disconnect", {"Container": one})
        assert net_daemon.inspect(one)["NetworkSettings"]["Ports"] in ({}, {"80/tcp": None, "81/udp": None})
        assert not is_reached(tcp_answer, net_daemon.host, "127.0.0.1", 8080)
        check(net_daemon, "POST", "/networks/front/connect", {"Container": one})
        assert tcp_answer(net_daemon.outside, HOST, 8080) == OUTSIDE.encode()
        assert tcp_answer(inside, OUTSIDE, 7777) == HOST.encode()


def test_a_container_without_a_network_gets_one_when_it_is_off_none(net_daemon: NetDaemon) -> None:
    with network(net_daemon, "front"), running(net_daemon, NetworkMode="none") as (one, inside):
        reply = net_daemon.post("/networks/front/connect", {"Container": one})
        assert (reply.status, "private (none) mode" in reply.message) == (400, True)
        check(net_daemon, "POST", "/networks/none/disconnect", {"Container": one})
        check(net_daemon, "POST", "/networks/front/connect", {"Container": one})
        with telling_who_asks(net_daemon.outside, 7777):
            assert tcp_answer(inside, OUTSIDE, 7777) == HOST.encode()
        check(net_daemon, "POST", f"/containers/{one}/restart?t=0")
        assert net_daemon.address(one, "front")


def test_an_internal_network_has_no_way_out(net_daemon: NetDaemon) -> None:
    with (
        network(net_daemon, "cellar", Internal=True),
        running(net_daemon, **on("cellar")) as (one, inside),
        running(net_daemon, **on("cellar")) as (_, other),
        telling_who_asks(inside, 80),
        telling_who_asks(net_daemon.outside, 7777),
    ):
        assert tcp_answer(other, net_daemon.address(one, "cellar"), 80)
        assert not is_reached(tcp_answer, inside, OUTSIDE, 7777)


def test_names_and_aliases_are_found_on_the_network_and_nowhere_else(net_daemon: NetDaemon) -> None:
    refusing: dict[str, Any] = {"Dns": [HOST]}  # at once, as nobody listens there
    with (
        network(net_daemon, "front"),
        network(net_daemon, "back"),
        running(net_daemon, name="web", **on("front", Aliases=["www"])) as (web, _),
        running(net_daemon, name="asker", **on("front"), **refusing) as (asker, _),
        running(net_daemon, name="stranger", **on("back"), **refusing) as (stranger, _),
    ):
        address = net_daemon.address(web, "front")
        for name in ("web", "www", "WEB", web[:12], "web.front"):
            assert address in output(net_daemon, asker, "nslookup", name), name
        assert "web.front" in output(net_daemon, asker, "nslookup", address)
        assert address not in output(net_daemon, stranger, "nslookup", "web", check=False)
        check(net_daemon, "POST", f"/containers/{web}/rename?name=wide")
        assert address in output(net_daemon, asker, "nslookup", "wide")
        assert address not in output(net_daemon, asker, "nslookup", "web", check=False)
        check(net_daemon, "POST", "/networks/back/connect", {"Container": web, "EndpointConfig": {"Aliases": ["db"]}})
        assert net_daemon.address(web, "back") in output(net_daemon, stranger, "nslookup", "db")


def test_an_address_of_ones_own_choice(net_daemon: NetDaemon) -> None:
    with network(net_daemon, "own", IPAM={"Config": [{"Subnet": "10.77.0.0/24", "Gateway": "10.77.0.254"}]}):
        with running(net_daemon, **on("own", IPAMConfig={"IPv4Address": "10.77.0.9"})) as (one, inside):
            assert net_daemon.address(one, "own") == "10.77.0.9"
            assert "default via 10.77.0.254" in inside.run("ip", "route")
            other = net_daemon.create("true", host={"NetworkMode": "own"}, NetworkingConfig={
                "EndpointsConfig": {"own": {"IPAMConfig": {"IPv4Address": "10.77.0.9"}}}
            })  # fmt: skip
            reply = net_daemon.post(f"/containers/{other}/start")
            assert (reply.status, "Address already in use" in reply.message) == (409, True)
        net_daemon.delete(f"/containers/{other}")
        reply = net_daemon.post("/networks/create", {"Name": "x", "IPAM": {"Config": [{"Subnet": "10.77.0.128/25"}]}})
        assert (reply.status, "overlaps" in reply.message) == (403, True)


def test_a_network_without_a_free_address_says_so_and_one_that_has_ended_gives_up_its(net_daemon: NetDaemon) -> None:
    with network(net_daemon, "tiny", IPAM={"Config": [{"Subnet": "10.78.0.0/29"}]}), ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(running(net_daemon, **on("tiny")))
        ended = stack.enter_context(running(net_daemon, **on("tiny")))[0]
        late = net_daemon.create("sleep", "1000", host={"NetworkMode": "tiny"})
        stack.callback(net_daemon.delete, f"/containers/{late}?force=1")
        reply = net_daemon.post(f"/containers/{late}/start")
        assert (reply.status, "no available IPv4 addresses" in reply.message) == (500, True)
        check(net_daemon, "POST", f"/containers/{ended}/stop?t=0")
        assert net_daemon.post(f"/containers/{late}/start").status == 204
        reply = net_daemon.post(f"/containers/{ended}/start")
        assert (reply.status, "no available IPv4 addresses" in reply.message) == (500, True)


def test_addresses_that_count_on_their_link_only(net_daemon: NetDaemon) -> None:
    asked = {"LinkLocalIPs": ["169.254.7.7", "fe80::77"]}
    with network(net_daemon, "own"), running(net_daemon, **on("own", IPAMConfig=asked)) as (_, inside):
        shown = inside.run("ip", "address", "show", "eth0")
        assert "inet 169.254.7.7/16" in shown
        assert "inet6 fe80::77/64" in shown


def test_starts_that_fail_leave_no_open_files(net_daemon: NetDaemon) -> None:
    with network(net_daemon, "made"), running(net_daemon, **published(":8080:80/tcp")):
        early = net_daemon.create("true", host={"NetworkMode": "made", **published(":8080:80/tcp")})
        late = net_daemon.create("/no/such/program", host={"NetworkMode": "made", **published(":8081:80/tcp")})
        for container in (early, late):
            check(net_daemon, "POST", "/networks/bridge/connect", {"Container": container})
        paths = [f"/containers/{one}/start" for one in (early, late)]
        assert {reply.status for reply in at_once(net_daemon, paths)} == {400, 500}
        before = net_daemon.resting()[1]
        for _ in range(10):
            assert {reply.status for reply in at_once(net_daemon, paths)} == {400, 500}
        assert net_daemon.resting()[1] == before
        for container in (early, late):
            net_daemon.delete(f"/containers/{container}")


def test_an_address_is_not_lost_to_a_start_that_fails(net_daemon: NetDaemon) -> None:
    with network(net_daemon, "tiny", IPAM={"Config": [{"Subnet": "10.78.0.0/29"}]}), ExitStack() as stack:
        loser = stack.enter_context(running(net_daemon, **on("tiny"), **published(":8080:80/tcp")))[0]
        check(net_daemon, "POST", f"/containers/{loser}/stop?t=0")
        stack.enter_context(running(net_daemon, **published(":8080:80/tcp")))
        for _ in range(4):
            stack.enter_context(running(net_daemon, **on("tiny")))
        for _ in range(2):
            with running(net_daemon, **on("tiny")):
                pass  # its address was the loser's, and is free now
            reply = net_daemon.post(f"/containers/{loser}/start")
            assert (reply.status, "port is already allocated" in reply.message) == (500, True)


def test_ipv6_on_a_network_that_has_it(net_daemon: NetDaemon) -> None:
    with (
        network(net_daemon, "six", EnableIPv6=True, IPAM={"Config": [{"Subnet": "fd00:77::/64"}]}),
        running(net_daemon, **on("six"), **published(":8086:80/tcp")) as (one, inside),
        running(net_daemon, **on("six")) as (_, other),
        telling_who_asks(inside, 80),
        telling_who_asks(net_daemon.outside, 7777),
    ):
        address = of(net_daemon, one, "six")["GlobalIPv6Address"]
        assert address.startswith("fd00:77::")
        assert tcp_answer(other, address, 80)
        assert tcp_answer(inside, "2001:db8::2", 7777) == HOST6.encode()
        assert tcp_answer(net_daemon.outside, HOST6, 8086) == b"2001:db8::2"


def test_a_network_in_use_stays_and_predefined_ones_do(net_daemon: NetDaemon) -> None:
    with network(net_daemon, "front"), running(net_daemon, name="user", **on("front")):
        reply = net_daemon.delete("/networks/front")
        assert (reply.status, "has active endpoints" in reply.message, "user" in reply.message) == (403, True, True)
    reply = net_daemon.delete("/networks/bridge")
    assert (reply.status, reply.message) == (403, "bridge is a pre-defined network and cannot be removed")


@pytest.mark.parametrize("driver", ["macvlan", "ipvlan"])
def test_an_interface_of_the_host_is_shared(net_daemon: NetDaemon, driver: str) -> None:
    ipam = {"Config": [{"Subnet": "192.0.2.0/24", "Gateway": OUTSIDE}]}
    with network(net_daemon, "wire", Driver=driver, Options={"parent": CABLE}, IPAM=ipam), ExitStack() as stack:
        container = net_daemon.create("sleep", "1000", **split(on("wire", IPAMConfig={"IPv4Address": "192.0.2.77"})))
        stack.callback(net_daemon.delete, f"/containers/{container}?force=1")
        reply = net_daemon.post(f"/containers/{container}/start")
        if reply.data and f"modprobe {driver}" in reply.message:
            pytest.skip(reply.message)
        assert reply.status == 204, reply.data
        stack.enter_context(telling_who_asks(net_daemon.outside, 7777))
        assert tcp_answer(Inside(net_daemon, container), OUTSIDE, 7777) == b"192.0.2.77"


# Other modes


def test_a_container_has_anothers_network_and_its_files(net_daemon: NetDaemon) -> None:
    with (
        running(net_daemon, name="donor") as (donor, inside),
        running(net_daemon, NetworkMode="container:donor") as (guest, of_guest),
    ):
        assert of_guest.interfaces() == inside.interfaces()
        hosts = output(net_daemon, donor, "cat", "/etc/hosts")
        assert output(net_daemon, guest, "cat", "/etc/hosts") == hosts
        assert net_daemon.inspect(guest)["HostConfig"]["NetworkMode"] == f"container:{donor}"
        net_daemon.post(f"/containers/{donor}/stop?t=0")
        reply = net_daemon.post(f"/containers/{guest}/restart?t=0")
        assert (reply.status, "is not running" in reply.message) == (409, True)


def test_the_hosts_gateway_has_a_name(net_daemon: NetDaemon) -> None:
    with running(net_daemon, ExtraHosts=["up:host-gateway"]) as (container, _):
        assert f"{GATEWAY}\tup\n" in output(net_daemon, container, "cat", "/etc/hosts")


def test_nothing_is_left_of_a_start_that_fails(net_daemon: NetDaemon) -> None:
    until(lambda: not any(name.startswith("veth") for name in net_daemon.host.interfaces()))
    before = net_daemon.host.run("nft", "list", "ruleset")
    failing = net_daemon.create("/no/such/program", host={"NetworkMode": "bridge", **published(":8080:80/tcp")})
    assert net_daemon.post(f"/containers/{failing}/start").status == 400
    net_daemon.delete(f"/containers/{failing}")
    until(lambda: not any(name.startswith("veth") for name in net_daemon.host.interfaces()))
    assert net_daemon.host.run("nft", "list", "ruleset") == before
    with net_daemon.host.socket() as taker:
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # former connections may linger
        taker.bind(("0.0.0.0", 8080))
        taker.listen()
