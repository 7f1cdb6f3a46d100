"""Networks through restarts of the daemon with other settings, while containers run."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import execs
import pytest
from daemons import until
from net_house import CABLE, HOST, OUTSIDE, Namespace, NetDaemon, is_reached, tcp_answer, telling_who_asks
from store_house import needs_root

pytestmark = needs_root

ON_DEFAULT = {"NetworkMode": "default"}


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[NetDaemon]:
    """One with an image, on a host of its own."""
    one = NetDaemon(tmp_path)
    one.start()
    one.import_busybox()
    yield one
    one.close()
    one.vanish()
    assert one.leftovers() == []


def again(daemon: NetDaemon, *flags: str) -> None:
    """Start another daemon in the place of this one."""
    daemon.stop()
    daemon.start(*flags)


def given_bridge(host: Namespace) -> None:
    """What an administrator has made, with something of his own on it."""
    host.run("ip", "-batch", "-", data="""
        link add br0 type bridge
        address add 10.44.0.1/24 dev br0
        link set br0 up
        link add vethABC type veth peer name his
        link set vethABC master br0 up
    """)  # fmt: skip


def networks_of(daemon: NetDaemon, container: str) -> dict[str, Any]:
    found: dict[str, Any] = daemon.inspect(container)["NetworkSettings"]["Networks"]
    return found


def test_containers_outlive_a_daemon_without_a_default_network_and_are_on_it_again_later(daemon: NetDaemon) -> None:
    runs = daemon.run_detached("sleep", "1000", host=ON_DEFAULT)
    stopped = daemon.run_detached("true", host=ON_DEFAULT)
    daemon.wait(stopped)
    had = networks_of(daemon, runs)["bridge"]["NetworkID"]
    again(daemon, "-b", "none")
    assert daemon.inspect(runs)["State"]["Running"]
    assert networks_of(daemon, runs) == {}
    assert "pydocker" not in " ".join(daemon.host.interfaces())
    assert daemon.post(f"/containers/{stopped}/start").status == 204  # with its loopback interface only
    daemon.wait(stopped)
    again(daemon)
    for container in (runs, stopped):
        assert daemon.post(f"/containers/{container}/restart?t=0").status == 204
        assert networks_of(daemon, container)["bridge"]["NetworkID"] == had
    assert daemon.address(runs)


def test_an_administrators_bridge_and_what_he_has_on_it_stays(daemon: NetDaemon) -> None:
    given_bridge(daemon.host)
    again(daemon, "-b", "br0")
    container = daemon.run_detached("sleep", "1000", host=ON_DEFAULT)
    assert daemon.address(container).startswith("10.44.0.")
    for flags in (("-b", "br0"), ("-b", "none"), ("-b", "br0"), ()):
        again(daemon, *flags)
        assert daemon.host.interfaces()["br0"] == {"10.44.0.1/24"}, flags
        assert "master br0" in daemon.host.run("ip", "link", "show", "vethABC"), flags


def test_the_first_network_of_a_daemon_without_a_default_one_leads_out(tmp_path: Path) -> None:
    daemon = NetDaemon(tmp_path, "-b", "none")
    daemon.host.run("sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward; ip link set eth0 mtu 1400")
    daemon.start()
    daemon.import_busybox()
    assert daemon.post("/networks/create", {"Name": "made"}).status == 201
    container = daemon.run_detached("sleep", "1000", host={"NetworkMode": "made"})
    with daemon.within(container) as inside, telling_who_asks(daemon.outside, 7777):
        assert is_reached(tcp_answer, inside, OUTSIDE, 7777)
        assert "mtu 1400" in inside.run("ip", "link", "show", "eth0")
    daemon.close()
    daemon.vanish()


def test_a_network_without_a_bridge_gives_addresses_after_a_restart(tmp_path: Path) -> None:
    daemon = NetDaemon(tmp_path, "-b", "none")
    daemon.start()
    daemon.import_busybox()
    ipam = {"Config": [{"Subnet": "192.0.2.0/24"}]}
    request = {"Name": "wire", "Driver": "macvlan", "Options": {"parent": "eth0"}, "IPAM": ipam}
    assert daemon.post("/networks/create", request).status == 201
    again(daemon)
    container = daemon.create("true", host={"NetworkMode": "wire"})
    reply = daemon.post(f"/containers/{container}/start")  # whether or not the kernel has macvlan
    assert reply.status != 404, reply.message
    daemon.close()
    daemon.vanish()


def test_there_is_one_subnet_of_each_family(daemon: NetDaemon) -> None:
    config = [{"Subnet": "fd00:1::/64"}, {"Subnet": "fd00:2::/64"}]
    reply = daemon.post("/networks/create", {"Name": "six", "EnableIPv6": True, "IPAM": {"Config": config}})
    assert (reply.status, "one of IPv6 at most" in reply.message) == (400, True)


def test_no_two_networks_have_one_bridge(daemon: NetDaemon) -> None:
    name = {"com.docker.network.bridge.name": "mine"}
    assert daemon.post("/networks/create", {"Name": "a", "Options": name}).status == 201
    daemon.host.run("ip", "link", "del", "mine")
    assert daemon.post("/networks/create", {"Name": "b", "Options": name}).status == 409


def test_a_container_that_ran_through_a_change_of_its_subnet_gets_an_address_of_the_new_one(daemon: NetDaemon) -> None:
    container = daemon.run_detached("sleep", "1000", host=ON_DEFAULT)
    again(daemon, "--bip", "172.30.0.1/16")
    assert daemon.inspect(container)["State"]["Running"]
    assert daemon.post(f"/containers/{container}/restart?t=0").status == 204
    assert daemon.address(container).startswith("172.30.0.")


@pytest.mark.parametrize("runs", [True, False])
def test_nobody_keeps_an_address_that_has_become_the_gateways(daemon: NetDaemon, runs: bool) -> None:
    container = daemon.run_detached("sleep", "1000", host=ON_DEFAULT)
    address = daemon.address(container)
    if not runs:
        daemon.post(f"/containers/{container}/stop?t=0")
    again(daemon, "--bip", f"{address}/16")
    assert daemon.post(f"/containers/{container}/restart?t=0").status == 204
    assert daemon.address(container) != address


def test_the_default_bridge_moves_out_of_the_way_of_a_route_but_not_under_those_that_run(daemon: NetDaemon) -> None:
    container = daemon.run_detached("sleep", "1000", host=ON_DEFAULT)
    address = daemon.address(container)
    daemon.host.run("ip", "route", "add", "172.16.0.0/12", "via", OUTSIDE)
    again(daemon)
    with daemon.within(container) as inside, telling_who_asks(daemon.outside, 7777):
        assert is_reached(tcp_answer, inside, OUTSIDE, 7777)
    assert daemon.post(f"/containers/{container}/restart?t=0").status == 204
    assert daemon.address(container) == address
    daemon.delete(f"/containers/{container}?force=1")
    again(daemon)
    other = daemon.run_detached("sleep", "1000", host=ON_DEFAULT)
    assert daemon.address(other).startswith("10.0.")


def test_the_default_bridge_does_not_lie_over_a_network_that_somebody_made(daemon: NetDaemon) -> None:
    subnet = {"IPAM": {"Config": [{"Subnet": "172.30.0.0/16"}]}}
    assert daemon.post("/networks/create", {"Name": "made", **subnet}).status == 201
    again(daemon, "--bip", "172.30.9.1/16")
    reply = daemon.post(f"/containers/{daemon.create('true', host=ON_DEFAULT)}/start")
    assert (reply.status, "overlaps" in reply.message) == (403, True)
    assert daemon.address(daemon.run_detached("sleep", "1000", host={"NetworkMode": "made"}), "made")
    again(daemon)
    assert daemon.address(daemon.run_detached("sleep", "1000", host=ON_DEFAULT)).startswith("172.17.")


def test_containers_of_another_storage_driver_keep_what_they_have_on_their_networks(daemon: NetDaemon) -> None:
    assert daemon.post("/networks/create", {"Name": "made"}).status == 201
    port = {"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}}
    runs = daemon.run_detached("sleep", "1000", name="hidden", host={"NetworkMode": "made", **port})
    stopped = daemon.run_detached("true", host={"NetworkMode": "made"})
    daemon.wait(stopped)
    had = [daemon.address(runs, "made")]
    of_hidden = Namespace.of(daemon.inspect(runs)["State"]["Pid"])
    again(daemon, "-s", "vfs")
    daemon.import_busybox()
    reply = daemon.delete("/networks/made")
    assert (reply.status, "hidden" in reply.message) == (403, True)
    others = [daemon.run_detached("sleep", "1000", host={"NetworkMode": "made"}) for _ in range(3)]
    had += [daemon.address(other, "made") for other in others]
    assert len(set(had)) == len(had)
    with daemon.within(others[0]) as inside, telling_who_asks(of_hidden, 80):
        assert tcp_answer(inside, had[0], 80)
        assert tcp_answer(daemon.outside, HOST, 8080)
    assert had[0] in execs.run(daemon, others[0], "nslookup", "hidden").text()
    for other in others:
        daemon.delete(f"/containers/{other}?force=1")
    again(daemon, "-s", "overlay")
    assert daemon.address(runs, "made") == had[0]
    with telling_who_asks(of_hidden, 80):
        assert tcp_answer(daemon.outside, HOST, 8080) == OUTSIDE.encode()
    of_hidden.close()


@pytest.mark.parametrize("how", ["reload", "restart"])
def test_a_bridge_that_was_deleted_is_back_with_all_that_were_on_it(daemon: NetDaemon, how: str) -> None:
    assert daemon.post("/networks/create", {"Name": "made"}).status == 201
    container = daemon.run_detached("sleep", "1000", host=ON_DEFAULT)
    assert daemon.post("/networks/made/connect", {"Container": container}).status == 200
    for name in [name for name in daemon.host.interfaces() if name.startswith(("pydocker", "br-"))]:
        daemon.host.run("ip", "link", "del", name)
    if how == "reload":
        daemon.process.send_signal(signal.SIGHUP)
    else:
        again(daemon)
    with daemon.within(container) as inside, telling_who_asks(inside, 80):
        for network in ("bridge", "made"):
            address = daemon.address(container, network)
            until(lambda address=address: is_reached(tcp_answer, daemon.host, address, 80))


def test_the_default_bridge_gives_way_to_the_host_even_on_just_its_own_subnet(daemon: NetDaemon) -> None:
    def subnet() -> str:
        found: str = daemon.get("/networks/bridge").json["IPAM"]["Config"][0]["Subnet"]
        return found

    before = subnet()
    again(daemon)
    assert subnet() == before
    network = ipaddress.ip_network(before)
    daemon.stop()
    daemon.host.run("ip", "address", "add", f"{network[77]}/{network.prefixlen}", "dev", CABLE)
    daemon.start()
    assert not ipaddress.ip_network(subnet()).overlaps(network)
    code, said = daemon.run_to_end("ping", "-c1", "-w2", HOST, host=ON_DEFAULT)
    assert code == 0, said


def rewrite(daemon: NetDaemon, container: str, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Have the row of a container, in the database of a daemon that was killed, say something else."""
    with contextlib.closing(sqlite3.connect(daemon.root / "pydockerd.db")) as connection, connection:
        row = connection.execute("SELECT settings, state FROM containers WHERE id = ?", (container,)).fetchone()
        configured, state = map(json.loads, row)
        change(configured, state)
        values = json.dumps(configured), json.dumps(state), container
        connection.execute("UPDATE containers SET settings = ?, state = ? WHERE id = ?", values)


def make(daemon: NetDaemon, driver: str) -> None:
    """A network called "made"; the test is skipped where the kernel has none of that kind."""
    link = ("link", CABLE) if driver == "macvlan" else ()
    if daemon.host.complaints("ip", "link", "add", "name", "probe", *link, "type", driver):
        pytest.skip(f"the kernel has no {driver}")
    daemon.host.run("ip", "link", "del", "probe")
    options = {"parent": CABLE} if driver == "macvlan" else {}
    assert daemon.post("/networks/create", {"Name": "made", "Driver": driver, "Options": options}).status == 201


@pytest.mark.parametrize("driver", ["bridge", "macvlan"])
def test_who_was_half_put_on_a_network_by_a_daemon_that_was_killed_is_on_it(daemon: NetDaemon, driver: str) -> None:
    make(daemon, driver)
    container = daemon.run_detached("sleep", "1000", host=ON_DEFAULT)
    assert daemon.post("/networks/made/connect", {"Container": container}).status == 200
    inside = Namespace.of(daemon.inspect(container)["State"]["Pid"])
    daemon.stop(signal.SIGKILL)
    rewrite(daemon, container, lambda _, state: state.update(phase="plugging"))
    with contextlib.closing(inside):
        had = inside.interfaces()["eth1"]
        inside.run("ip", "address", "flush", "dev", "eth1")
        daemon.start()
        assert inside.interfaces()["eth1"] == had


@pytest.mark.parametrize("driver", ["bridge", "macvlan"])
def test_who_was_half_taken_off_a_network_by_a_daemon_that_was_killed_is_off_it(
    daemon: NetDaemon, driver: str
) -> None:
    make(daemon, driver)
    container = daemon.run_detached("sleep", "1000", host={"NetworkMode": "made"})
    assert daemon.post("/networks/bridge/connect", {"Container": container}).status == 200
    with daemon.within(container) as inside:
        daemon.stop(signal.SIGKILL)

        def taken_off(configured: dict[str, Any], state: dict[str, Any]) -> None:
            state.update(phase="unplugging", before=state["endpoints"], endpoints=state["endpoints"][1:])
            configured["host"]["networks"] = configured["host"]["networks"][1:]

        rewrite(daemon, container, taken_off)
        daemon.start()
        assert inside.interfaces().keys() == {"lo", "eth1"}
        with telling_who_asks(daemon.outside, 7777):
            assert is_reached(tcp_answer, inside, OUTSIDE, 7777)
    assert daemon.delete("/networks/made").status == 204
