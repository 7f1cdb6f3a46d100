"""Bridges, namespaces and what connects them, in the kernel that runs these tests."""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import os
import resource
import subprocess
import threading
from typing import Any

import pytest
from netns_house import BRIDGE, a_plug, call, closing, in_thread, ip, link, names, on_own_host, run_in, says, serving
from store_house import needs_root

from dockerd_py.errors import BadParameter, NetworkFailed
from dockerd_py.nat.links import Links
from dockerd_py.nat.model import IPVLAN, MACVLAN, Bridge
from dockerd_py.nat.netns import read_sysctl, write_sysctl

pytestmark = needs_root


async def gone(interface: str) -> None:
    for _ in range(1000):  # the kernel deletes it by itself, and tells nobody here
        if interface not in names():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{interface} is still there")


def test_two_namespaces_on_a_bridge_reach_each_other_at_once_in_both_families() -> None:
    async def test(links: Links) -> None:
        await links.ensure_bridge(BRIDGE)
        one, two = await links.new_namespace(), await links.new_namespace()
        with closing(one, two):
            await links.plug(one, a_plug(2))
            await links.plug(two, a_plug(3))
            for address in ("172.30.0.2", "fd30::2"):
                with serving(one, address, 80, "this is one"):
                    assert await in_thread(two, lambda a=address: says(a, 80)) == "this is one"

    on_own_host(test)


def test_a_container_reaches_the_host_by_its_gateways_as_the_first_one_on_the_bridge() -> None:
    async def test(links: Links) -> None:
        await links.ensure_bridge(BRIDGE)
        namespace = await links.new_namespace()
        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        with closing(namespace, here):
            await links.plug(namespace, a_plug(2))
            ip("address", "add", "10.77.0.1/32", "dev", "lo")
            ip("address", "add", "fd77::1/128", "dev", "lo", "nodad")
            for address in ("10.77.0.1", "fd77::1"):
                with serving(here, address, 80, "the host"):
                    assert await in_thread(namespace, lambda a=address: says(a, 80)) == "the host"

    on_own_host(test)


def test_a_bridges_ipv6_addresses_are_there_at_once_whatever_the_host_does_with_others() -> None:
    async def test(links: Links) -> None:
        write_sysctl("net/ipv6/conf/all/accept_dad", "1")
        await links.ensure_bridge(BRIDGE)
        assert "tentative" not in ip("-6", "address", "show", "dev", BRIDGE.name)[0]["addr_info"][0]
        assert read_sysctl(f"net/ipv6/conf/{BRIDGE.name}/accept_dad") == "0"

    on_own_host(test)


def test_the_interface_inside_is_as_the_plug_says() -> None:
    async def test(links: Links) -> None:
        await links.ensure_bridge(BRIDGE)
        namespace = await links.new_namespace()
        with closing(namespace):
            await links.plug(namespace, a_plug(9, mtu=1400))
            inside = run_in(namespace, lambda: ip("address", "show", "dev", "eth0")[0])
            routes = run_in(namespace, lambda: ip("route", "show", "default") + ip("-6", "route", "show", "default"))
            assert (inside["address"], inside["mtu"], inside["operstate"]) == ("02:42:ac:1e:00:09", 1400, "UP")
            own = {
                (entry["local"], entry["prefixlen"], entry.get("broadcast"))
                for entry in inside["addr_info"]
                if entry["scope"] == "global"
            }
            assert own == {("172.30.0.9", 16, "172.30.255.255"), ("fd30::9", 64, None)}
            assert {route["gateway"] for route in routes} == {"172.30.0.1", "fd30::1"}
            assert not any("tentative" in entry for entry in inside["addr_info"] if entry["scope"] == "global")
            assert run_in(namespace, lambda: read_sysctl("net/ipv6/conf/eth0/accept_dad")) == "0"
            assert run_in(namespace, lambda: link("lo"))["flags"] == ["LOOPBACK", "UP", "LOWER_UP"]
            outside = link("veth9")
            assert (outside["master"], outside["mtu"], outside["operstate"]) == (BRIDGE.name, 1400, "UP")

    on_own_host(test)


def test_without_an_ipv6_address_there_is_ipv6_on_the_loopback_interface_only() -> None:
    async def test(links: Links) -> None:
        await links.ensure_bridge(BRIDGE)
        namespace = await links.new_namespace()
        with closing(namespace):
            await links.plug(namespace, a_plug(2, addresses=("172.30.0.2/16",), gateways=("172.30.0.1",)))
            shown = run_in(namespace, lambda: ip("-6", "address", "show"))
            assert [(entry["ifname"], entry["addr_info"][0]["local"]) for entry in shown] == [("lo", "::1")]

    on_own_host(test)


def test_a_second_network_is_a_second_interface() -> None:
    async def test(links: Links) -> None:
        await links.ensure_bridge(BRIDGE)
        await links.ensure_bridge(Bridge("tbr1", ("172.31.0.1/24",)))
        namespace = await links.new_namespace()
        with closing(namespace):
            await links.plug(namespace, a_plug(2))
            second = a_plug(
                3, interface="eth1", addresses=("172.31.0.3/24",), gateways=(), parent="tbr1", host_interface="veth3"
            )
            await links.plug(namespace, second)
            assert run_in(namespace, names) == {"lo", "eth0", "eth1"}
            assert await links.ports_of("tbr1") == ("veth3",)
            await links.unplug_inside(namespace, "eth1")
            await links.unplug_inside(namespace, "eth1")
            assert run_in(namespace, names) == {"lo", "eth0"}
            assert await links.ports_of("tbr1") == ()

    on_own_host(test)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"gateways": ("10.9.9.9",)}, "the gateway 10.9.9.9 is in no subnet here"),
        ({"gateways": ("172.30.0.1", "172.30.0.5")}, "the container has a default route already"),
        ({"addresses": ("ff05::1/64",)}, "no interface can have the address ff05::1/64"),
        ({"mac": "01:00:5e:00:00:01"}, "no interface can have the MAC address 01:00:5e:00:00:01"),
        ({"interface": "lo"}, "the container has an interface lo already"),
        ({"host_interface": "tbr0"}, "there is an interface tbr0 already"),
        ({"parent": "tbr9"}, "there is no bridge tbr9"),
        ({"parent": "lo"}, "the interface lo is no bridge"),
    ],
)
def test_a_plug_that_fails_says_why_and_leaves_nothing(changes: dict[str, Any], sentence: str) -> None:
    async def test(links: Links) -> None:
        await links.ensure_bridge(BRIDGE)
        namespace = await links.new_namespace()
        with closing(namespace):
            with pytest.raises(NetworkFailed) as failure:
                await links.plug(namespace, a_plug(2, **changes))
            assert sentence in str(failure.value)
            assert run_in(namespace, names) == {"lo"}
            assert names() == {"lo", BRIDGE.name}
            await links.plug(namespace, a_plug(2))

    on_own_host(test)


def test_what_is_plugged_goes_with_the_namespace() -> None:
    async def test(links: Links) -> None:
        await links.ensure_bridge(BRIDGE)
        namespace = await links.new_namespace()
        await links.plug(namespace, a_plug(2))
        os.close(namespace)
        await gone("veth2")
        await links.unplug("veth2")

    on_own_host(test)


def test_unplugged_is_gone_inside_too() -> None:
    async def test(links: Links) -> None:
        await links.ensure_bridge(BRIDGE)
        namespace = await links.new_namespace()
        with closing(namespace):
            await links.plug(namespace, a_plug(2))
            await links.unplug("veth2")
            await links.unplug("veth2")
            assert run_in(namespace, names) == {"lo"}

    on_own_host(test)


def test_many_at_once_are_all_there_and_all_go() -> None:
    async def test(links: Links) -> None:
        await links.ensure_bridge(BRIDGE)

        async def one(number: int) -> int:
            namespace = await links.new_namespace()
            await links.plug(namespace, a_plug(number))
            return namespace

        numbers = range(2, 52)
        namespaces = await asyncio.gather(*map(one, numbers))
        with closing(*namespaces):
            assert set(await links.ports_of(BRIDGE.name)) == {f"veth{number}" for number in numbers}
            own = {
                run_in(namespace, lambda: ip("-4", "address")[1]["addr_info"][0]["local"]) for namespace in namespaces
            }
            assert own == {f"172.30.0.{number}" for number in numbers}
            await asyncio.gather(*(links.unplug(f"veth{number}") for number in numbers))
            assert await links.ports_of(BRIDGE.name) == ()

    on_own_host(test)


def test_a_cancelled_plug_leaves_nothing_even_if_its_caller_closes_the_namespace() -> None:
    async def test(links: Links) -> None:
        await links.ensure_bridge(BRIDGE)
        for _ in range(20):
            namespace = await links.new_namespace()
            plugging = asyncio.ensure_future(links.plug(namespace, a_plug(2)))
            await asyncio.sleep(0)
            plugging.cancel()
            with pytest.raises(asyncio.CancelledError):
                await plugging
            os.close(namespace)
            following = await links.new_namespace()  # its descriptor is likely to have the number of the one before
            await gone("veth2")
            assert run_in(following, names) == {"lo"}
            os.close(following)

    on_own_host(test)


def test_a_cancelled_namespace_leaves_no_descriptor() -> None:
    async def test(links: Links) -> None:
        before = set(os.listdir("/proc/self/fd"))
        making = asyncio.ensure_future(links.new_namespace())
        await asyncio.sleep(0)
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
        await links.default_mtu()  # the same thread's next job
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert set(os.listdir("/proc/self/fd")) == before

    on_own_host(test)


def test_closed_links_leave_no_thread_and_no_descriptor() -> None:
    async def use(links: Links) -> None:
        await links.ensure_bridge(BRIDGE)
        namespace = await links.new_namespace()
        await links.plug(namespace, a_plug(2))
        await links.unplug("veth2")
        os.close(namespace)

    on_own_host(use)
    before = set(os.listdir("/proc/self/fd")), threading.active_count()
    on_own_host(use)
    assert (set(os.listdir("/proc/self/fd")), threading.active_count()) == before


def test_without_a_free_descriptor_the_sentence_says_so_and_the_next_call_works() -> None:
    async def test(links: Links) -> None:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        other = Links()
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
            for one in (links, other):
                with pytest.raises(NetworkFailed, match="cannot make a network namespace: Too many open files"):
                    await one.new_namespace()
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            for one in (links, other):
                os.close(await one.new_namespace())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            await other.close()

    on_own_host(test)


def test_a_namespace_is_not_for_programs_that_the_daemon_starts() -> None:
    async def test(links: Links) -> None:
        namespace = await links.new_namespace()
        with closing(namespace):
            assert fcntl.fcntl(namespace, fcntl.F_GETFD) & fcntl.FD_CLOEXEC

    on_own_host(test)


def test_a_thread_that_cannot_get_home_does_nothing_until_it_can() -> None:
    async def test(links: Links) -> None:
        await links.ensure_bridge(BRIDGE)
        namespace = await links.new_namespace()
        homes: list[Any] = []
        await links._makers.run("", lambda kernel: homes.append(kernel.home))
        right, nothing = homes[0]._fd, os.open("/dev/null", os.O_RDONLY)
        with closing(namespace, nothing):
            homes[0]._fd = nothing
            with pytest.raises(NetworkFailed, match="cannot connect to tbr0"):
                await links.plug(namespace, a_plug(2))
            with pytest.raises(NetworkFailed):
                await links.ensure_bridge(Bridge("tbr1"))
            homes[0]._fd = right
            assert await links.ports_of(BRIDGE.name) == ("veth2",)
            assert run_in(namespace, names) == {"lo", "eth0"}
            assert names() == {"lo", BRIDGE.name, "veth2"}

    on_own_host(test)


def test_what_is_no_namespace_is_refused() -> None:
    async def test(links: Links) -> None:
        await links.ensure_bridge(BRIDGE)
        with closing(nothing := os.open("/dev/null", os.O_RDONLY)):
            with pytest.raises(NetworkFailed):
                await links.plug(nothing, a_plug(2))
            assert names() == {"lo", BRIDGE.name}

    on_own_host(test)


# --- bridges ---


def test_a_bridge_is_up_with_its_addresses_and_has_no_spanning_tree() -> None:
    async def test(links: Links) -> None:
        for _ in range(2):
            await links.ensure_bridge(dataclasses.replace(BRIDGE, mtu=1400))
            shown = link(BRIDGE.name)
            assert (shown["mtu"], "UP" in shown["flags"]) == (1400, True)
            data = shown["linkinfo"]["info_data"]
            assert (data["stp_state"], data["forward_delay"]) == (0, 0)
            assert await links.addresses_of(BRIDGE.name) == BRIDGE.addresses
            assert read_sysctl(f"net/ipv6/conf/{BRIDGE.name}/accept_ra") == "0"
            assert read_sysctl(f"net/ipv4/conf/{BRIDGE.name}/route_localnet") == "0"

    on_own_host(test)


def test_a_bridge_keeps_its_mac_address_whatever_is_plugged_in() -> None:
    async def test(links: Links) -> None:
        await links.ensure_bridge(BRIDGE)
        before = link(BRIDGE.name)["address"]
        assert before.startswith("02:42:")
        lowest = ("link", "add", "low0", "address", "00:00:00:00:00:01", "type", "veth", "peer", "name", "low1")
        ip(*lowest)
        ip("link", "set", "low0", "master", BRIDGE.name)
        await links.ensure_bridge(BRIDGE)
        assert link(BRIDGE.name)["address"] == before

    on_own_host(test)


def test_a_bridge_that_is_there_keeps_its_mac_address_from_then_on() -> None:
    async def test(links: Links) -> None:
        ip("link", "add", BRIDGE.name, "type", "bridge")
        before = link(BRIDGE.name)["address"]
        await links.ensure_bridge(BRIDGE)
        ip("link", "add", "low0", "address", "00:00:00:00:00:01", "type", "veth", "peer", "name", "low1")
        ip("link", "set", "low0", "master", BRIDGE.name)
        assert link(BRIDGE.name)["address"] == before

    on_own_host(test)


def test_a_bridge_is_brought_to_other_addresses_and_another_mtu() -> None:
    async def test(links: Links) -> None:
        await links.ensure_bridge(BRIDGE)
        ip("address", "add", "172.30.0.77/16", "dev", BRIDGE.name)
        new = Bridge(BRIDGE.name, ("10.7.0.1/24", "172.30.0.77/16", "fd31::1/64"), 1300)
        await links.ensure_bridge(new)
        assert set(await links.addresses_of(BRIDGE.name)) == set(new.addresses)
        assert link(BRIDGE.name)["mtu"] == 1300

    on_own_host(test)


def test_a_bridge_that_is_given_is_left_as_it_is() -> None:
    async def test(links: Links) -> None:
        with pytest.raises(NetworkFailed, match="there is no bridge mine"):
            await links.ensure_bridge(Bridge("mine", given=True))
        ip("link", "add", "mine", "type", "bridge", "stp_state", "1")
        ip("address", "add", "10.8.0.1/24", "dev", "mine")
        before = link("mine")
        await links.ensure_bridge(Bridge("mine", ("10.9.0.1/24",), 1400, given=True))
        assert link("mine") == before
        assert await links.addresses_of("mine") == ("10.8.0.1/24",)
        ip("link", "add", "low0", "type", "veth", "peer", "name", "low1")
        with pytest.raises(NetworkFailed, match="low0 is no bridge: it is veth"):
            await links.ensure_bridge(Bridge("low0", given=True))

    on_own_host(test)


def test_a_bridge_cannot_have_the_name_or_an_address_of_another_interface() -> None:
    async def test(links: Links) -> None:
        ip("link", "add", "low0", "type", "veth", "peer", "name", "low1")
        ip("address", "add", "172.30.0.1/24", "dev", "low0")
        with pytest.raises(NetworkFailed, match=r"cannot have the address 172\.30\.0\.1: low0 has it already"):
            await links.ensure_bridge(BRIDGE)
        assert BRIDGE.name not in names()
        with pytest.raises(NetworkFailed, match="the interface low1 is no bridge: it is veth"):
            await links.ensure_bridge(Bridge("low1"))

    on_own_host(test)


def test_a_bridge_whose_name_or_address_is_impossible_is_not_made() -> None:
    async def test(links: Links) -> None:
        for bridge, sentence in (
            (Bridge("a-name-too-long-for-it"), "no interface can be named a-name-too-long-for-it"),
            (Bridge("a/b"), "no interface can be named a/b"),
            (Bridge("tbr1", ("ff05::1/64",)), "no interface can have the address ff05::1/64"),
        ):
            with pytest.raises(NetworkFailed, match=sentence):
                await links.ensure_bridge(bridge)
            assert names() == {"lo"}

    on_own_host(test)


def test_only_bridges_are_removed_as_such() -> None:
    async def test(links: Links) -> None:
        await links.ensure_bridge(BRIDGE)
        namespace = await links.new_namespace()
        with closing(namespace):
            await links.plug(namespace, a_plug(2))
            with pytest.raises(NetworkFailed, match="veth2 is no bridge"):
                await links.remove_bridge("veth2")
            await links.remove_bridge(BRIDGE.name)
            await links.remove_bridge(BRIDGE.name)
            assert names() == {"lo", "veth2"}
            assert await links.ports_of(BRIDGE.name) == ()
            with pytest.raises(NetworkFailed, match="there is no interface tbr0"):
                await links.addresses_of(BRIDGE.name)

    on_own_host(test)


@pytest.mark.skipif(not os.path.isdir("/proc/sys/net/bridge"), reason="needs the kernel's module br_netfilter")
@pytest.mark.parametrize("filtered", ["0", "1"])
@pytest.mark.parametrize("later", [False, True])
def test_a_container_reaches_itself_by_a_translated_address(filtered: str, later: bool) -> None:
    rules = (
        ("PREROUTING", "-d", "172.30.0.1", "-p", "tcp", "--dport", "8080", "-j", "DNAT", "--to", "172.30.0.2:80"),
        ("POSTROUTING", "-s", "172.30.0.2", "-d", "172.30.0.2", "-j", "MASQUERADE"),
    )

    async def test(links: Links) -> None:
        for family in ("iptables", "ip6tables"):
            write_sysctl(f"net/bridge/bridge-nf-call-{family}", "0" if later else filtered)
        await links.ensure_bridge(BRIDGE)
        await links.set_forwarding(ipv6=False)
        for rule in rules:
            call("iptables", "-w", "-t", "nat", "-A", *rule)
        namespace = await links.new_namespace()
        with closing(namespace):
            await links.plug(namespace, a_plug(2))
            if later:
                write_sysctl("net/bridge/bridge-nf-call-iptables", filtered)
                await links.ensure_bridge(BRIDGE)
            assert link("veth2")["linkinfo"]["info_slave_data"]["hairpin"] is (filtered == "1")
            with serving(namespace, "172.30.0.2", 80, "myself"):
                assert await in_thread(namespace, lambda: says("172.30.0.1", 8080)) == "myself"

    on_own_host(test)


# --- interfaces of others, shared ---


def has(kind: str) -> bool:
    """Whether this kernel knows such interfaces."""
    outcome: list[bool] = []

    async def test(_: Links) -> None:
        ip("link", "add", "low0", "type", "veth", "peer", "name", "low1")
        try:
            ip("link", "add", "link", "low0", "name", "x0", "type", kind)
        except subprocess.CalledProcessError:
            outcome.append(False)
        else:
            outcome.append(True)

    on_own_host(test)
    return outcome[0]


@pytest.mark.parametrize(
    ("kind", "mode"),
    [(MACVLAN, ""), (MACVLAN, "bridge"), (IPVLAN, ""), (IPVLAN, "l3")],
)
def test_namespaces_that_share_an_interface_reach_each_other(kind: str, mode: str) -> None:
    async def test(links: Links) -> None:
        ip("link", "add", "low0", "type", "veth", "peer", "name", "low1")
        ip("link", "set", "low0", "up")
        ip("link", "set", "low1", "up")
        one, two = await links.new_namespace(), await links.new_namespace()
        shared = {"kind": kind, "mode": mode, "parent": "low0", "host_interface": ""}
        with closing(one, two):
            if not has(kind):
                with pytest.raises(NetworkFailed, match=f"the kernel has no {kind} interfaces: load its module"):
                    await links.plug(one, a_plug(2, **shared))
                return
            await links.plug(one, a_plug(2, **shared))
            await links.plug(two, a_plug(3, **shared))
            with serving(one, "172.30.0.2", 80, "shared"):
                assert await in_thread(two, lambda: says("172.30.0.2", 80)) == "shared"
            await links.unplug_inside(one, "eth0")
            assert run_in(one, names) == {"lo"}

    on_own_host(test)


def test_a_shared_interface_must_be_there_and_its_mode_one_of_the_kernels() -> None:
    async def test(links: Links) -> None:
        namespace = await links.new_namespace()
        with closing(namespace):
            with pytest.raises(NetworkFailed, match="there is no parent interface eth7"):
                await links.plug(namespace, a_plug(2, kind=MACVLAN, parent="eth7", host_interface=""))
            ip("link", "add", "low0", "type", "veth", "peer", "name", "low1")
            for kind, mode in ((MACVLAN, "l3"), (IPVLAN, "bridge"), ("vxlan", "")):
                with pytest.raises(BadParameter, match="unknown"):
                    await links.plug(namespace, a_plug(2, kind=kind, mode=mode, parent="low0", host_interface=""))
            assert run_in(namespace, names) == {"lo"}

    on_own_host(test)
