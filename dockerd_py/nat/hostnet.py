"""What the host's own network is like, and forwarding in its kernel; jobs for a worker thread of `rtnl`."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from pathlib import Path

from dockerd_py.errors import NetworkFailed
from dockerd_py.nat.netns import read_sysctl, want_sysctl
from dockerd_py.nat.rtnl import Kernel, link_of

RESOLV_CONFS = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")  # the latter has what the stub asks

ETHERNET_MTU = 1500

_MAIN, _LOCAL = 254, 255  # rtnetlink(7): tables
_MULTICAST = 5
_FAMILIES = (socket.AF_INET, socket.AF_INET6)


def occupied(kernel: Kernel, but: str) -> tuple[str, ...]:
    """Subnets that the host has routes to or addresses in, and its name servers' addresses, each with its prefix; not
    those of the interface ``but``, if there is one of that name.

    Default routes are none, nor are the two halves that VPNs route in a default route's stead.
    """
    own = next(iter(kernel.ip.link_lookup(ifname=but)), 0) if but else 0
    found = set()
    for message in kernel.ip.get_routes():
        table = message.get_attr("RTA_TABLE") or message["table"]
        address = message.get_attr("RTA_DST")
        is_net = table != _LOCAL and message["type"] != _MULTICAST and message["dst_len"] > 1
        if address and is_net and (not own or message.get_attr("RTA_OIF") != own):
            found.add(ipaddress.ip_network(f"{address}/{message['dst_len']}", strict=False))
    for message in kernel.ip.get_addr():
        address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        if message["index"] == own:
            continue
        found.add(ipaddress.ip_network(f"{address}/{message['prefixlen']}", strict=False))
    found.update(_name_servers())
    return tuple(sorted(str(network) for network in found if not (network.is_link_local or network.is_loopback)))


def default_mtu(kernel: Kernel) -> int:
    """That of the interface of the host's default route; Ethernet's where there is none."""
    for family in _FAMILIES:
        routes = [
            message
            for message in kernel.ip.get_routes(family=family)
            if not message["dst_len"] and message["table"] == _MAIN and message.get_attr("RTA_OIF")
        ]
        if routes:
            best = min(routes, key=lambda message: message.get_attr("RTA_PRIORITY") or 0)
            mtu = link_of(kernel.ip, best.get_attr("RTA_OIF")).get_attr("IFLA_MTU")
            return int(mtu)
    return ETHERNET_MTU


def set_forwarding(kernel: Kernel, *, ipv6: bool) -> None:
    """Turn on what is off.  Raises NetworkFailed."""
    want_sysctl("net/ipv4/ip_forward", "1")
    if not ipv6:
        return
    if not os.path.isdir("/proc/sys/net/ipv6"):
        raise NetworkFailed("this kernel has no IPv6: turn it on, or leave out --ipv6")
    if read_sysctl("net/ipv6/conf/all/forwarding") != "1":
        _keep_router_advertisements()
    want_sysctl("net/ipv6/conf/all/forwarding", "1")
    want_sysctl("net/ipv6/conf/default/forwarding", "1")


def _keep_router_advertisements() -> None:
    """A host that forwards ignores them unless accept_ra is 2: it would lose its default route.

    Interfaces that come later follow the administrator's default.
    """
    for interface in os.listdir("/proc/sys/net/ipv6/conf"):
        if interface in ("all", "default", "lo"):
            continue
        below = f"net/ipv6/conf/{interface}"
        with contextlib.suppress(FileNotFoundError):  # it is just going
            if read_sysctl(f"{below}/accept_ra") == "1" and read_sysctl(f"{below}/forwarding") == "0":
                want_sysctl(f"{below}/accept_ra", "2")


def _name_servers() -> set[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    found = set()
    for path in RESOLV_CONFS:
        try:
            lines = Path(path).read_text(errors="replace").splitlines()
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if len(words) > 1 and words[0] == "nameserver":
                try:
                    found.add(ipaddress.ip_network(words[1].partition("%")[0]))
                except ValueError:
                    continue
    return found
