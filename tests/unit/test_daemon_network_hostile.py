"""Networks in the hands of somebody clumsy, or worse: what one does to his own stays his own trouble."""

from __future__ import annotations

import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import execs
import pytest
from daemons import until
from net_house import HOST6, Namespace, NetDaemon, is_reached, tcp_answer, telling_who_asks
from store_house import needs_root
from test_daemon_network import at_once, network, of, on, published, running

pytestmark = needs_root

APART = {"Options": {"com.docker.network.bridge.enable_icc": "false"}}


@contextmanager
def unfiltered(host: Namespace) -> Iterator[None]:
    """What crosses a bridge passes the rules for IP only where that is turned on for it."""
    settings = [Path(f"/proc/sys/net/bridge/bridge-nf-call-{one}") for one in ("iptables", "ip6tables")]
    before = host.inside(lambda: [one.read_text() for one in settings])
    host.inside(lambda: [one.write_text("0") for one in settings])
    try:
        yield
    finally:
        host.inside(lambda: [one.write_text(text) for one, text in zip(settings, before, strict=True)])


def bridge_of(daemon: NetDaemon, name: str) -> str:
    return f"br-{daemon.get(f'/networks/{name}').json['Id'][:12]}"


@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 8192, reason="needs a descriptor for each port")
def test_thousands_of_ports_are_published(net_daemon: NetDaemon) -> None:
    ports: dict[str, Any] = published(*(f":{number}:{number}/tcp" for number in range(10000, 12500)))
    with running(net_daemon, **ports) as (container, inside), telling_who_asks(inside, 12499):
        assert net_daemon.port(container, "10000/tcp") == 10000
        assert tcp_answer(net_daemon.host, "127.0.0.1", 12499)


def test_a_bridge_without_icc_that_somebody_has_deleted_hinders_no_other_network(net_daemon: NetDaemon) -> None:
    with network(net_daemon, "apart", **APART):
        net_daemon.host.run("ip", "link", "delete", bridge_of(net_daemon, "apart"))
        with running(net_daemon, **published(":8080:80/tcp")) as (_, inside), telling_who_asks(inside, 80):
            assert tcp_answer(net_daemon.outside, "192.0.2.1", 8080)


def test_a_bridge_that_somebody_has_deleted_is_there_again_for_the_next_container(net_daemon: NetDaemon) -> None:
    with (
        network(net_daemon, "apart", **APART),
        unfiltered(net_daemon.host),
        running(net_daemon, **on("apart"), **published(":8080:80/tcp")) as (one, inside),
    ):
        net_daemon.host.run("ip", "link", "delete", bridge_of(net_daemon, "apart"))
        with running(net_daemon, **on("apart")) as (two, other), telling_who_asks(inside, 80):
            assert tcp_answer(net_daemon.outside, "192.0.2.1", 8080)
            assert tcp_answer(net_daemon.host, net_daemon.address(one, "apart"), 80)
            assert not is_reached(tcp_answer, other, net_daemon.address(one, "apart"), 80)
            gateway = net_daemon.get("/networks/apart").json["IPAM"]["Config"][0]["Gateway"].partition("/")[0]
            assert execs.run(net_daemon, two, "ping", "-c1", "-w2", gateway).exit_code == 0


def test_of_many_starts_on_a_deleted_bridge_each_finds_it_again(net_daemon: NetDaemon) -> None:
    with network(net_daemon, "made"):
        containers = [net_daemon.create("sleep", "1000", host=on("made")) for _ in range(8)]
        net_daemon.host.run("ip", "link", "delete", bridge_of(net_daemon, "made"))
        replies = at_once(net_daemon, [f"/containers/{one}/start" for one in containers], "POST")
        assert [reply.status for reply in replies] == [204] * 8, [reply.data for reply in replies]
        gateway = net_daemon.get("/networks/made").json["IPAM"]["Config"][0]["Gateway"].partition("/")[0]
        for one in containers:
            assert execs.run(net_daemon, one, "ping", "-c1", "-w2", gateway).exit_code == 0
            assert net_daemon.delete(f"/containers/{one}?force=1").status == 204


def test_a_bridge_without_icc_that_somebody_has_made_anew_keeps_containers_apart(net_daemon: NetDaemon) -> None:
    with network(net_daemon, "apart", **APART), unfiltered(net_daemon.host):
        bridge = bridge_of(net_daemon, "apart")
        (address,) = net_daemon.host.interfaces()[bridge]
        net_daemon.host.run("ip", "-batch", "-", data=f"""
            link delete {bridge}
            link add {bridge} type bridge
            address add {address} dev {bridge}
            link set {bridge} up
        """)  # fmt: skip
        with (
            running(net_daemon, **on("apart")) as (one, inside),
            running(net_daemon, **on("apart")) as (_, other),
            telling_who_asks(inside, 7777),
        ):
            assert tcp_answer(net_daemon.host, net_daemon.address(one, "apart"), 7777)
            assert not is_reached(tcp_answer, other, net_daemon.address(one, "apart"), 7777)


@pytest.mark.parametrize("flags", [(), ("--firewall-backend=iptables",)])
def test_an_internal_network_does_not_reach_another_through_the_relay(tmp_path: Path, flags: tuple[str, ...]) -> None:
    daemon = NetDaemon(tmp_path, *flags)
    daemon.start()
    try:
        daemon.import_busybox()
        with (
            network(daemon, "alone", Internal=True, EnableIPv6=True),
            running(daemon, **on("alone")) as (one, asker),
            running(daemon, **published(":8080:80/tcp")) as (other, inside),
            telling_who_asks(inside, 80),
            telling_who_asks(daemon.host, 7777),
        ):
            gateway = of(daemon, one, "alone")["IPv6Gateway"]
            assert tcp_answer(daemon.outside, HOST6, 8080)
            assert tcp_answer(asker, gateway, 7777)
            assert not is_reached(tcp_answer, asker, gateway, 8080)
            daemon.stop(signal.SIGKILL)
            daemon.start()
            assert not is_reached(tcp_answer, asker, gateway, 8080)
            assert daemon.post(f"/containers/{other}/stop?t=0").status == 204
            with telling_who_asks(daemon.host, 8080):
                assert tcp_answer(asker, gateway, 8080)
    finally:
        daemon.close()
        daemon.vanish()


def test_a_network_without_icc_is_refused_where_there_is_no_firewall_to_see_to_it(tmp_path: Path) -> None:
    daemon = NetDaemon(tmp_path, "--iptables=false")
    daemon.start()
    try:
        reply = daemon.post("/networks/create", {"Name": "apart", **APART})
        assert (reply.status, "--iptables=false" in reply.message) == (400, True), reply.message
        with network(daemon, "open", Options={"com.docker.network.bridge.enable_icc": "true"}):
            pass
        daemon.stop()
        daemon.start("--iptables=true")
        daemon.import_busybox()
        assert daemon.post("/networks/create", {"Name": "apart", **APART}).status == 201
        container = daemon.create("true", host={"NetworkMode": "apart"})
        daemon.stop()
        daemon.start()
        reply = daemon.post(f"/containers/{container}/start")
        assert (reply.status, "network apart is to keep" in reply.message) == (400, True), reply.message
        assert daemon.delete(f"/containers/{container}").status == 204
        assert daemon.delete("/networks/apart").status == 204
    finally:
        daemon.close()
        daemon.vanish()


def test_who_is_disconnected_is_off_the_network_though_the_firewall_cannot_be_changed(net_daemon: NetDaemon) -> None:
    with (
        network(net_daemon, "left"),
        running(net_daemon, **published(":8080:80/tcp")) as (one, inside),
    ):
        assert net_daemon.post("/networks/left/connect", {"Container": one}).status == 200
        assert "eth1" in inside.interfaces()
        with somebody_elses_table(net_daemon.host):
            reply = net_daemon.post("/networks/bridge/disconnect", {"Container": one})
            assert (reply.status, "nftables" in reply.message) == (500, True), reply.message
            assert set(inside.interfaces()) == {"lo", "eth1"}
            assert list(net_daemon.inspect(one)["NetworkSettings"]["Networks"]) == ["left"]
        with telling_who_asks(inside, 80):
            assert tcp_answer(net_daemon.host, "127.0.0.1", 8080)


@contextmanager
def somebody_elses_table(host: Namespace) -> Iterator[None]:
    """A table of the name of ours that belongs to another process (nft(8): flags owner)."""
    (table,) = (line.removeprefix("table ") for line in host.run("nft", "list", "tables", "ip").splitlines()
                if "pydockerd" in line)  # fmt: skip
    owner = host.inside(lambda: subprocess.Popen(["nft", "-i"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL))
    assert owner.stdin is not None
    try:
        owner.stdin.write(f"delete table {table}\nadd table {table} {{ flags owner; }}\n".encode())
        owner.stdin.flush()
        until(lambda: "flags owner" in host.run("nft", "list", "tables", "ip") + host.run("nft", "list", "ruleset"))
        yield
    finally:
        owner.stdin.close()
        owner.wait(10)
