"""One network namespace on one network, as one `Plug` value says it; jobs for a worker thread of `rtnl`.

The veth pair is made in one message: its inner end is born in the namespace with its name and address, its outer end
on the bridge and up.  So there is no moment in which a kill would leave a half of it; and it goes with the namespace.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import Any

from dockerd_py.errors import BadParameter, NetworkFailed
from dockerd_py.nat.bridges import address_arguments, check_is_bridge, hairpin_needed, module_missing, set_hairpin
from dockerd_py.nat.model import BRIDGE, IPVLAN, MACVLAN, Plug
from dockerd_py.nat.netns import want_sysctl
from dockerd_py.nat.rtnl import Kernel, delete, index_of, refused

_MAIN, _UNICAST = 254, 1  # rtnetlink(7)
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}

MACVLAN_MODES = ("bridge", "private", "vepa", "passthru")
IPVLAN_MODES = ("l2", "l3", "l3s")


def plug(kernel: Kernel, namespace: int, plug: Plug) -> None:
    """Raises NetworkFailed, BadParameter for a mode that there is not; then there is nothing of it."""
    parent = index_of(plug.parent)
    if not parent:
        what = "bridge" if plug.kind == BRIDGE else "parent interface"
        raise NetworkFailed(f"there is no {what} {plug.parent}")
    _make(kernel.ip, namespace, plug, parent)
    try:
        if plug.kind == BRIDGE and hairpin_needed():
            set_hairpin(kernel.ip, plug.host_interface)
        with kernel.inside(namespace) as ip:
            _configure(ip, plug)
    except BaseException:
        unplug_any(kernel, namespace, plug)
        raise


def lead_out(kernel: Kernel, namespace: int, plug: Plug) -> None:
    """Have a plug that is in place already lead to everywhere else, unless the container has seen to that itself."""
    with kernel.inside(namespace) as ip:
        index = index_of(plug.interface)
        for gateway in plug.gateways:
            version = 6 if ":" in gateway else 4
            if not any(_is_default(route) for route in ip.get_routes(family=_FAMILIES[version])):
                _route(ip, index, plug, gateway)


def _is_default(route: Any) -> bool:
    return not route["dst_len"] and route["table"] == _MAIN and route["type"] == _UNICAST


def unplug_any(kernel: Kernel, namespace: int, plug: Plug) -> None:
    """Undo `plug`."""
    if plug.kind == BRIDGE:
        delete(plug.host_interface)
    else:
        unplug_inside(kernel, namespace, plug.interface)


def unplug_inside(kernel: Kernel, namespace: int, interface: str) -> None:
    with kernel.home.inside(namespace):
        delete(interface)


def _make(ip: Any, namespace: int, plug: Plug, parent: int) -> None:
    mtu = {"mtu": plug.mtu} if plug.mtu else {}
    own: dict[str, object] = {"ifname": plug.interface, "net_ns_fd": namespace, **mtu}
    if plug.kind == BRIDGE:
        inner = {**own, "address": plug.mac}
        _add(ip, plug, kind="veth", ifname=plug.host_interface, master=parent, state="up", peer=inner, **mtu)
    elif plug.kind == MACVLAN:
        mode = _mode(plug, MACVLAN_MODES)
        _add(ip, plug, kind=MACVLAN, link=parent, macvlan_mode=mode, address=plug.mac, **own)
    elif plug.kind == IPVLAN:
        mode = _mode(plug, IPVLAN_MODES)
        _add(ip, plug, kind=IPVLAN, link=parent, ipvlan_mode=IPVLAN_MODES.index(mode), **own)
    else:
        raise BadParameter(f"unknown kind of network {plug.kind}")


def _mode(plug: Plug, known: tuple[str, ...]) -> str:
    mode = plug.mode or known[0]
    if mode not in known:
        raise BadParameter(f"unknown {plug.kind} mode {mode}: there are {', '.join(known)}")
    return mode


def _add(ip: Any, plug: Plug, **arguments: object) -> None:
    kind = str(arguments["kind"])
    if plug.host_interface and index_of(plug.host_interface):
        raise NetworkFailed(f"there is an interface {plug.host_interface} already")
    shared = f"{plug.parent} cannot be shared as {kind}: it is a port of a bridge, or shared in another way already"
    with (
        refused(errno.EOPNOTSUPP, text=lambda: _not_supported(ip, plug, kind)),
        refused(errno.EEXIST, text=f"the container has an interface {plug.interface} already"),
        refused(errno.EADDRNOTAVAIL, text=f"no interface can have the MAC address {plug.mac}"),
        refused(errno.EXFULL, text=f"bridge {plug.parent} has all the ports that it can have"),
        refused(errno.EBUSY, errno.EINVAL, text=shared) if kind != "veth" else contextlib.nullcontext(),
    ):
        ip.link("add", **arguments)


def _not_supported(ip: Any, plug: Plug, kind: str) -> str:
    if plug.kind == BRIDGE and (index := index_of(plug.parent)):
        check_is_bridge(ip, index, plug.parent)
    return module_missing(kind)


def _configure(ip: Any, plug: Plug) -> None:
    """In the namespace."""
    index = index_of(plug.interface)
    if any(":" in address for address in plug.addresses):
        below = f"net/ipv6/conf/{plug.interface}"
        want_sysctl(f"{below}/accept_dad", "0")
        want_sysctl(f"{below}/disable_ipv6", "0")
    for address in plug.addresses:
        with refused(errno.EINVAL, errno.EADDRNOTAVAIL, text=f"no interface can have the address {address}"):
            ip.addr("add", index=index, **address_arguments(address))
    ip.link("set", index=index, state="up")
    for gateway in plug.gateways:
        _route(ip, index, plug, gateway)


def _route(ip: Any, index: int, plug: Plug, gateway: str) -> None:
    everything = "::/0" if ":" in gateway else "0.0.0.0/0"
    # In the modes of layer 3 the parent does the routing, and there is nobody at the gateway's address.
    through = {} if plug.kind == IPVLAN and plug.mode.startswith("l3") else {"gateway": gateway}
    with (
        refused(
            errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL, text=f"the gateway {gateway} is in no subnet here"
        ),
        refused(errno.EEXIST, text="the container has a default route already"),
    ):
        ip.route("add", dst=everything, oif=index, **through)
