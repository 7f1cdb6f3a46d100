"""Lets the firewall see what the containers of one bridge send to each other, where that is to be filtered.

Frames that stay on a bridge do not pass the rules for IP packets. The kernel's br_netfilter makes them, bridge by
bridge (IFLA_BR_NF_CALL_IPTABLES): it is turned on where icc is off, and nowhere else.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress

from dockerd_py import subprocesses
from dockerd_py.errors import NetworkFailed
from dockerd_py.nat.firewall.rules import Plans

MODULE = "br_netfilter"
_THERE = "/proc/sys/net/bridge/bridge-nf-call-iptables"


def _closed(plans: Plans) -> tuple[str, ...]:
    return plans[0].closed if plans else ()


def identities(plans: Plans) -> dict[str, int]:
    """The indexes of the bridges that are to be filtered: one that was made anew has another, and is not filtered."""
    found = {}
    for name in _closed(plans):
        with suppress(OSError):
            found[name] = socket.if_nametoindex(name)
    return found


async def ensure_module(plans: Plans) -> None:
    """Load br_netfilter if a bridge needs it. Raises NetworkFailed if there is none."""
    if not _closed(plans) or await asyncio.to_thread(os.path.exists, _THERE):
        return
    try:
        await subprocesses.run(["modprobe", MODULE])
    except subprocesses.ProgramFailed as error:
        raise NetworkFailed(
            f"icc=false needs the kernel's module {MODULE}, which cannot be loaded: {error.stderr or error}"
        ) from None


def turn_on(plans: Plans) -> None:
    """Blocking. Raises NetworkFailed, also if a bridge is not there."""
    if not _closed(plans):
        return
    from pyroute2 import IPRoute, NetlinkError  # noqa: PLC0415 - a tenth of a second, for the few who need it

    with IPRoute() as route:
        for name in _closed(plans):
            indexes = route.link_lookup(ifname=name)
            if not indexes:
                raise NetworkFailed(f"there is no bridge {name} on which containers are to be kept apart")
            try:
                route.link("set", index=indexes[0], kind="bridge", br_nf_call_iptables=1, br_nf_call_ip6tables=1)
            except NetlinkError as error:
                raise NetworkFailed(f"containers on {name} cannot be kept apart: {error}") from None
