"""Which backend: the one that the host's own tools use, so that an administrator sees our rules where he looks."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from dockerd_py.errors import NetworkFailed
from dockerd_py.nat.firewall.base import Backend, Firewall, KernelFirewall, NoFirewall
from dockerd_py.nat.firewall.beside import OtherTables, legacy_filter_in_use, legacy_in_use

if TYPE_CHECKING:
    from dockerd_py.nat.firewall.iptables import IptablesBackend
    from dockerd_py.nat.firewall.nftables import NftablesBackend

log = logging.getLogger(__name__)

AUTO = "auto"
IPTABLES = "iptables"
NFTABLES = "nftables"

_WHERE = "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin"
_INSTANCE = re.compile(r"[0-9a-z]{0,12}")

_NETLINK_NETFILTER = 12
_NFT_MSG_GETGEN = (10 << 8) | 16  # nfnetlink's subsystem of nf_tables


async def open_firewall(backend: str, instance: str, *, enabled: bool) -> Firewall:
    """The firewall of one daemon; nothing is changed yet.

    ``backend`` is "auto", "iptables" or "nftables". ``instance`` is in the names of all that is made: "" for the
    host's own daemon, up to 12 lower-case letters and digits for another one beside it. Raises NetworkFailed if the
    one that is asked for (with "auto": each) does not work here.
    """
    if not enabled:
        return NoFirewall()
    if not _INSTANCE.fullmatch(instance):
        raise NetworkFailed(f"{instance!r} cannot be part of a chain's name")
    worker = ThreadPoolExecutor(1, "firewall")
    loop = asyncio.get_running_loop()
    try:
        chosen = await loop.run_in_executor(worker, lambda: _open(backend, instance))
    except BaseException:
        worker.shutdown(wait=False)
        raise
    log.info("firewall: %s", chosen.name)
    firewall = KernelFirewall(chosen, _others(chosen.name, instance), _families(), worker)
    await firewall.live_beside_firewalld()
    return firewall


def preferred() -> tuple[str, ...]:
    """What "auto" tries, in order."""
    path = shutil.which("iptables", path=_WHERE)
    program = os.path.basename(os.path.realpath(path)) if path else ""
    if "legacy" in program:
        return (IPTABLES, NFTABLES)
    if "nft" in program or has_nf_tables():
        return (NFTABLES, IPTABLES)
    return (IPTABLES, NFTABLES)


def has_nf_tables() -> bool:
    """Whether the kernel has nf_tables (and loads it, if it is a module): it is asked for its generation."""
    request = struct.pack("=IHHIIBBH", 20, _NFT_MSG_GETGEN, 1, 1, 0, 0, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as link:
        link.settimeout(10)
        link.send(request)
        kind = struct.unpack_from("=IH", link.recv(4096))[1]
    return bool(kind >> 8 == 10)


def _open(backend: str, instance: str) -> Backend:
    if backend != AUTO:
        return _make(backend, instance)
    failures = []
    for name in preferred():
        try:
            return _make(name, instance)
        except NetworkFailed as error:
            log.warning("firewall: %s", error)
            failures.append(str(error))
    raise NetworkFailed("; ".join(failures) + " (--iptables=false does without a firewall)")


def _make(name: str, instance: str) -> NftablesBackend | IptablesBackend:
    try:
        if name == NFTABLES:
            from dockerd_py.nat.firewall import nftables  # noqa: PLC0415 - only one of the two need be installed

            return nftables.NftablesBackend(instance)
        if name == IPTABLES:
            from dockerd_py.nat.firewall import iptables  # noqa: PLC0415

            return iptables.IptablesBackend(instance)
    except ImportError as error:
        raise NetworkFailed(f"{name} cannot be used: {error} (package python3-{name})") from None
    raise NetworkFailed(f"{name!r} is no firewall: {AUTO}, {IPTABLES} and {NFTABLES} are")


def _others(chosen: str, instance: str) -> OtherTables:
    if chosen == NFTABLES:
        return OtherTables(legacy_filter_in_use, legacy_in_use, lambda: _make(IPTABLES, instance))
    return OtherTables(has_nf_tables, has_nf_tables, lambda: _make(NFTABLES, instance))


def _families() -> tuple[int, ...]:
    return (4, 6) if os.path.exists("/proc/net/if_inet6") else (4,)
