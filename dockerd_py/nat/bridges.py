"""Bridges, as one `Bridge` value says it; jobs for a worker thread of `rtnl`.

A bridge of ours has an address (MAC) that was set, since the kernel's own choice changes with the ports; no spanning
tree; and takes no router advertisements, which would come from containers.  Its IPv6 addresses are there at once:
duplicate address detection would wait for the first container, and then delay its packets by a second.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
from typing import Any

from dockerd_py.errors import NetworkFailed
from dockerd_py.nat.model import Bridge
from dockerd_py.nat.netns import read_sysctl, want_sysctl
from dockerd_py.nat.rtnl import Kernel, delete, delete_address, index_of, kind_of, link_of, refused

IFA_F_NODAD = 0x02  # if_addr.h
_SCOPE_LINK = 253  # rtnetlink(7)


def ensure(kernel: Kernel, bridge: Bridge) -> None:
    """Raises NetworkFailed."""
    index = index_of(bridge.name)
    if bridge.given:
        if not index:
            raise NetworkFailed(f"there is no bridge {bridge.name}: make it, or leave out --bridge")
        check_is_bridge(kernel.ip, index, bridge.name)
        return
    _check_addresses_are_free(kernel.ip, index, bridge)
    if index:
        check_is_bridge(kernel.ip, index, bridge.name)
        _adopt(kernel.ip, index, bridge)
        _bring_up(kernel.ip, index, bridge)
        return
    _make(kernel.ip, bridge)
    try:
        _bring_up(kernel.ip, index_of(bridge.name), bridge)
    except BaseException:
        delete(bridge.name)
        raise


def addresses(kernel: Kernel, interface: str) -> tuple[str, ...]:
    """With prefixes; without those of the link only (fe80::).  Raises NetworkFailed if there is no such interface."""
    index = index_of(interface)
    if not index:
        raise NetworkFailed(f"there is no interface {interface}")
    return tuple(text for text, scope in _addresses(kernel.ip, index) if scope != _SCOPE_LINK)


def remove(kernel: Kernel, name: str) -> None:
    """Raises NetworkFailed if it is no bridge."""
    index = index_of(name)
    if index:
        check_is_bridge(kernel.ip, index, name)
        delete(name)


def ports(kernel: Kernel, name: str) -> tuple[str, ...]:
    """() where there is no such bridge, too."""
    index = index_of(name)
    if not index:
        return ()
    return tuple(sorted(_ports(kernel.ip, index)))


def put_back(kernel: Kernel, name: str, interface: str) -> None:
    """Put an interface on a bridge that is on none: its bridge was deleted.  Fine when either is gone."""
    bridge, index = index_of(name), index_of(interface)
    if bridge and index and link_of(kernel.ip, index).get_attr("IFLA_MASTER") is None:
        kernel.ip.link("set", index=index, master=bridge)
        if hairpin_needed():
            set_hairpin(kernel.ip, interface)


def hairpin_needed() -> bool:
    """Whether bridged packets pass the IP firewall, which the module br_netfilter makes them do once it is loaded.

    If so, a container's packet to a published port of its own is translated while it is still in the bridge, and has to
    leave by the port that it came in from.  Otherwise it goes up to the host and comes back routed.
    """
    for family in ("iptables", "ip6tables"):
        with contextlib.suppress(FileNotFoundError):
            if read_sysctl(f"net/bridge/bridge-nf-call-{family}") == "1":
                return True
    return False


def set_hairpin(ip: Any, port: str) -> None:
    """Let a bridge send packets back through the port that they came from."""
    if index := index_of(port):
        ip.brport("set", index=index, mode=1)


def check_is_bridge(ip: Any, index: int, name: str) -> None:
    """Raises NetworkFailed."""
    if (kind := kind_of(link_of(ip, index))) != "bridge":
        raise NetworkFailed(f"the interface {name} is no bridge: it is {kind or 'hardware'}")


def module_missing(kind: str) -> str:
    return (
        f"the kernel has no {kind} interfaces: load its module ('modprobe {kind}'), "
        "or install the package with this kernel's modules"
    )


def address_arguments(text: str) -> dict[str, object]:
    """What IPRoute.addr takes for "172.17.0.2/16"."""
    address = ipaddress.ip_interface(text)
    arguments: dict[str, object] = {"address": str(address.ip), "prefixlen": address.network.prefixlen}
    if isinstance(address, ipaddress.IPv6Interface):
        arguments["flags"] = IFA_F_NODAD
    elif address.network.prefixlen < 31:  # RFC 3021: there is none above
        arguments["broadcast"] = str(address.network.broadcast_address)
    return arguments


def _make(ip: Any, bridge: Bridge) -> None:
    mac = "02:42:" + os.urandom(4).hex(":")  # a locally administered one
    mtu = {"mtu": bridge.mtu} if bridge.mtu else {}
    with (
        refused(errno.EOPNOTSUPP, text=module_missing("bridge")),
        refused(errno.EINVAL, errno.ERANGE, text=f"no interface can be named {bridge.name}"),
    ):
        ip.link("add", ifname=bridge.name, kind="bridge", address=mac, br_stp_state=0, br_forward_delay=0, **mtu)


def _adopt(ip: Any, index: int, bridge: Bridge) -> None:
    link = link_of(ip, index)
    # It stays as it is, and from now on does not follow the ports'.
    changes: dict[str, object] = {"address": link.get_attr("IFLA_ADDRESS")}
    if bridge.mtu and bridge.mtu != link.get_attr("IFLA_MTU"):
        changes["mtu"] = bridge.mtu
    ip.link("set", index=index, **changes)


def _bring_up(ip: Any, index: int, bridge: Bridge) -> None:
    _set_ipv6_up(bridge)
    _set_addresses(ip, index, bridge)
    ip.link("set", index=index, state="up")
    if hairpin_needed():
        for port in _ports(ip, index):
            set_hairpin(ip, port)


def _set_ipv6_up(bridge: Bridge) -> None:
    below = f"net/ipv6/conf/{bridge.name}"
    if os.path.isdir(f"/proc/sys/{below}"):
        want_sysctl(f"{below}/accept_ra", "0")
        want_sysctl(f"{below}/accept_dad", "0")
    if any(":" in address for address in bridge.addresses):
        want_sysctl(f"{below}/disable_ipv6", "0")


def _set_addresses(ip: Any, index: int, bridge: Bridge) -> None:
    wanted = [ipaddress.ip_interface(address).with_prefixlen for address in bridge.addresses]
    for text, scope in _addresses(ip, index):
        if text not in wanted and scope != _SCOPE_LINK:
            delete_address(index, text)  # those behind the first one of a subnet may go with it
    there = {text for text, _ in _addresses(ip, index)}
    for text in wanted:
        if text not in there:
            with refused(errno.EINVAL, errno.EADDRNOTAVAIL, text=f"no interface can have the address {text}"):
                ip.addr("add", index=index, **address_arguments(text))


def _check_addresses_are_free(ip: Any, index: int, bridge: Bridge) -> None:
    wanted = {str(ipaddress.ip_interface(address).ip) for address in bridge.addresses}
    for message in ip.get_addr() if wanted else ():
        address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        if address in wanted and message["index"] != index and message["scope"] != _SCOPE_LINK:
            holder = link_of(ip, message["index"]).get_attr("IFLA_IFNAME")
            raise NetworkFailed(f"bridge {bridge.name} cannot have the address {address}: {holder} has it already")


def _addresses(ip: Any, index: int) -> list[tuple[str, int]]:
    """Each with its scope."""
    return [
        (f"{message.get_attr('IFA_LOCAL') or message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}", message["scope"])
        for message in ip.get_addr()
        if message["index"] == index
    ]


def _ports(ip: Any, index: int) -> list[str]:
    return [link.get_attr("IFLA_IFNAME") for link in ip.get_links() if link.get_attr("IFLA_MASTER") == index]
