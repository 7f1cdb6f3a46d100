"""What the host's own network is like, and forwarding."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import socket
import struct
from pathlib import Path

import pytest
from netns_house import BRIDGE, a_plug, closing, in_thread, ip, on_own_host, run_in
from store_house import needs_root

from dockerd_py.errors import NetworkFailed
from dockerd_py.nat import hostnet
from dockerd_py.nat.links import Links
from dockerd_py.nat.netns import read_sysctl, write_sysctl

pytestmark = needs_root


# --- the host ---


def test_occupied_is_what_the_host_routes_and_has_but_no_default_route(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "resolv.conf").write_text("search x\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\nnameserver bad\n")
    monkeypatch.setattr(hostnet, "RESOLV_CONFS", (str(tmp_path / "resolv.conf"), str(tmp_path / "missing")))

    async def test(links: Links) -> None:
        ip("link", "add", "low0", "type", "veth", "peer", "name", "low1")
        for words in ("address add 10.5.6.7/24 dev low0", "address add 10.6.0.1/32 dev low0"):
            ip(*words.split())
        ip("address", "add", "fd05::7/64", "dev", "low0", "nodad")
        for name in ("low0", "low1"):
            ip("link", "set", name, "up")
        for words in (
            "default via 10.5.6.1",
            "0.0.0.0/1 via 10.5.6.1",
            "128.0.0.0/1 via 10.5.6.1",
            "172.16.0.0/12 via 10.5.6.1",
            "10.99.0.0/16 via 10.5.6.1 table 77",
            "unreachable 10.98.0.0/16",
        ):
            ip("route", "add", *words.split())
        assert set(await links.occupied()) == {
            "10.5.6.0/24",
            "10.6.0.1/32",
            "172.16.0.0/12",
            "10.98.0.0/16",
            "10.99.0.0/16",
            "192.0.2.53/32",
            "fd05::/64",
        }
        ip("address", "add", "10.5.6.8/24", "dev", "low1")
        assert set(await links.occupied(but="low0")) == {
            "10.5.6.0/24", "10.98.0.0/16", "192.0.2.53/32",
        }  # fmt: skip
        assert "172.16.0.0/12" in await links.occupied(but="nobody")

    on_own_host(test)


def test_the_default_mtu_is_that_of_the_default_routes_interface() -> None:
    async def test(links: Links) -> None:
        assert await links.default_mtu() == 1500
        for number, mtu in (("0", "1280"), ("2", "1390")):
            ip("link", "add", f"low{number}", "mtu", mtu, "type", "veth", "peer", "name", f"far{number}")
            ip("address", "add", f"10.{number}.0.2/24", "dev", f"low{number}")
            ip("link", "set", f"low{number}", "up")
        ip("route", "add", "default", "via", "10.2.0.1", "metric", "50")
        ip("route", "add", "default", "via", "10.0.0.1", "metric", "100")
        assert await links.default_mtu() == 1390

    on_own_host(test)


def test_forwarding_is_turned_on_for_the_families_asked_for() -> None:
    async def test(links: Links) -> None:
        write_sysctl("net/ipv4/ip_forward", "0")
        await links.set_forwarding(ipv6=False)
        assert read_sysctl("net/ipv4/ip_forward") == "1"
        assert read_sysctl("net/ipv6/conf/all/forwarding") == "0"
        await links.set_forwarding(ipv6=True)
        assert read_sysctl("net/ipv6/conf/all/forwarding") == "1"

    on_own_host(test)


def advertise(interface: str) -> None:
    """A router's advertisement (RFC 4861, 4.2) to all nodes; it is a default router for half an hour."""
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as router:
        router.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        index = socket.if_nametoindex(interface)
        router.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        router.sendto(struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0), ("ff02::1", 0, 0, index))


def test_a_host_that_has_its_default_route_by_advertisement_keeps_it_and_learns_it_again() -> None:
    async def test(links: Links) -> None:
        there = await links.new_namespace()
        with closing(there):
            for name in ("low0", "far0"):
                if name == "low0":
                    ip("link", "add", "low0", "type", "veth", "peer", "name", "far0")
                write_sysctl(f"net/ipv6/conf/{name}/accept_dad", "0")
                ip("link", "set", name, "up")
            ip("link", "set", "far0", "netns", f"/proc/{os.getpid()}/fd/{there}")
            run_in(there, lambda: write_sysctl("net/ipv6/conf/far0/accept_dad", "0"))
            run_in(there, lambda: write_sysctl("net/ipv6/conf/far0/disable_ipv6", "0"))
            run_in(there, lambda: ip("link", "set", "far0", "up"))

            async def learnt() -> None:
                for _ in range(200):
                    with contextlib.suppress(OSError):  # its own address is not there yet
                        await in_thread(there, lambda: advertise("far0"))
                    if ip("-6", "route", "show", "default"):
                        return
                    await asyncio.sleep(0.02)
                raise AssertionError("the host has taken no advertisement")

            await learnt()
            await links.set_forwarding(ipv6=True)
            assert ip("-6", "route", "show", "default")
            ip("-6", "route", "flush", "default")
            await learnt()

    on_own_host(test)


def test_nothing_here_changes_the_namespace_of_the_caller() -> None:
    async def test(links: Links) -> None:
        here = os.readlink("/proc/thread-self/ns/net")
        await links.ensure_bridge(BRIDGE)
        namespace = await links.new_namespace()
        with closing(namespace):
            await links.plug(namespace, a_plug(2))
            assert os.readlink("/proc/thread-self/ns/net") == here
            assert os.readlink(f"/proc/self/fd/{namespace}") != here

    on_own_host(test)


def test_without_the_capability_the_sentence_names_it() -> None:
    def drop() -> None:
        # capset(2) for the calling thread: nothing effective, all else kept as it is.
        header, data = struct.pack("=Ii", 0x20080522, 0), ctypes.create_string_buffer(24)
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.capget(header, data) == 0
        words = list(struct.unpack("=6I", data.raw))
        words[0] = words[3] = 0
        assert libc.capset(header, struct.pack("=6I", *words)) == 0, errno.errorcode[ctypes.get_errno()]

    async def test(links: Links) -> None:
        poor = Links()
        try:
            await poor._makers.run("", lambda _: drop())
            with pytest.raises(NetworkFailed, match="CAP_NET_ADMIN"):
                await poor.ensure_bridge(BRIDGE)
            with pytest.raises(NetworkFailed, match="cannot make a network namespace: not permitted"):
                await poor.new_namespace()
        finally:
            await poor.close()

    on_own_host(test)
