"""The ground on which the network is tested stands by itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import net_picture
import pytest
from net_house import (
    CABLE,
    HOST,
    HOST6,
    OUTSIDE,
    OUTSIDE6,
    Ground,
    NetDaemon,
    is_reached,
    tcp_answer,
    telling_who_asks,
    udp_answer,
)
from store_house import needs_root

pytestmark = needs_root


@pytest.fixture
def ground() -> Iterator[Ground]:
    one = Ground()
    yield one
    one.close()


@pytest.mark.parametrize("answer", [tcp_answer, udp_answer])
def test_host_and_outside_reach_each_other(ground: Ground, answer: Callable[..., bytes]) -> None:
    with telling_who_asks(ground.outside, 7777):
        assert answer(ground.host, OUTSIDE, 7777) == HOST.encode()
        assert answer(ground.host, OUTSIDE6, 7777) == HOST6.encode()
    assert not is_reached(answer, ground.host, OUTSIDE, 7777)
    with telling_who_asks(ground.host, 7777):
        assert answer(ground.outside, HOST, 7777) == OUTSIDE.encode()
        assert answer(ground.outside, HOST6, 7777) == OUTSIDE6.encode()
        assert answer(ground.host, "127.0.0.1", 7777) == b"127.0.0.1"


def test_the_outside_has_no_way_to_what_is_behind_the_host(ground: Ground) -> None:
    ground.host.run("ip", "address", "add", "10.1.1.1/24", "dev", "lo")
    with telling_who_asks(ground.host, 7777):
        assert tcp_answer(ground.host, "10.1.1.1", 7777) == b"10.1.1.1"
        with pytest.raises(OSError, match="unreachable"):
            tcp_answer(ground.outside, "10.1.1.1", 7777)


def test_they_have_nothing_but_the_cable_and_go_with_it(ground: Ground) -> None:
    loopback = {"127.0.0.1/8", "::1/128"}
    assert ground.host.interfaces() == {"lo": loopback, CABLE: {f"{HOST}/24", f"{HOST6}/64"}}
    assert ground.outside.interfaces() == {"lo": loopback, CABLE: {f"{OUTSIDE}/24", f"{OUTSIDE6}/64"}}
    inside = ground.host.inside(lambda: os.readlink("/proc/thread-self/ns/net"))
    assert inside != os.readlink("/proc/self/ns/net")
    assert ground.host.run("readlink", "/proc/self/ns/net").strip() == inside


def test_a_daemon_on_it_leaves_the_machines_own_network_alone(tmp_path: Path) -> None:
    def machine() -> str:
        return subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout

    before = machine()
    one = NetDaemon(tmp_path)
    try:
        one.start()
        pid = one.process.pid
        assert os.readlink(f"/proc/{pid}/ns/net") == one.host.run("readlink", "/proc/self/ns/net").strip()
        one.import_busybox()
    finally:
        one.stop()
        one.vanish()
    assert machine() == before


def _interface(daemon: NetDaemon) -> Callable[[], object]:
    daemon.host.run("ip", "link", "add", "veth0000001", "type", "veth", "peer", "name", "veth0000002")
    return lambda: daemon.host.run("ip", "link", "delete", "veth0000001")


def _rule(daemon: NetDaemon) -> Callable[[], object]:
    daemon.host.run("nft", "add", "table", "ip", "stray")
    return lambda: daemon.host.run("nft", "delete", "table", "ip", "stray")


def _held_port(daemon: NetDaemon) -> Callable[[], object]:
    one = daemon.host.socket()
    one.bind(("127.0.0.1", 50000))
    one.listen()
    return one.close


_HOLD = """
import ctypes, os, socket, time
before = os.open("/proc/self/ns/net", os.O_RDONLY)
assert ctypes.CDLL(None).unshare(0x40000000) == 0
one = socket.socket()
assert ctypes.CDLL(None).setns(before, 0x40000000) == 0
os.close(before)
print(flush=True)
time.sleep(1000)
"""


def _held_namespace(daemon: NetDaemon) -> Callable[[], object]:
    """By a socket of a process that is somewhere else by now."""
    process = subprocess.Popen([sys.executable, "-c", _HOLD, str(daemon.directory)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()

    def end() -> None:
        process.kill()
        process.communicate()

    return end


def test_rules_of_the_legacy_tables_are_seen(ground: Ground) -> None:
    assert net_picture.rules_of(ground.host) == ""
    if "can't initialize" in ground.host.complaints("iptables-legacy", "-t", "raw", "-A", "OUTPUT", "-d", HOST):
        pytest.skip("the kernel has no legacy tables")
    assert f"-A OUTPUT -d {HOST}/32" in net_picture.rules_of(ground.host)


@pytest.mark.parametrize("stray", [_interface, _rule, _held_port, _held_namespace])
def test_anything_that_is_left_over_in_the_network_shows(
    stray: Callable[[NetDaemon], Callable[[], object]], net_daemon: NetDaemon
) -> None:
    before = net_picture.of(net_daemon)
    remove = stray(net_daemon)
    try:
        assert net_picture.of(net_daemon) != before
    finally:
        remove()
    assert net_picture.of(net_daemon) == before
