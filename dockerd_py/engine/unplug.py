"""Taking away what a daemon that is stopped has made in the host's network: its bridges and its firewall rules.

Nothing of that is the daemon's memory: its next start makes all of it again, out of its database.
"""

from __future__ import annotations

from pathlib import Path

from dockerd_py.config import Config
from dockerd_py.engine import forms, host
from dockerd_py.engine.network_model import BRIDGE, Network
from dockerd_py.engine.network_options import own_bridge
from dockerd_py.errors import NetworkFailed, StoreError
from dockerd_py.nat.firewall.choose import IPTABLES, NFTABLES, open_firewall
from dockerd_py.nat.links import Links
from dockerd_py.store import fsck, lock, networks
from dockerd_py.store.store import DATABASE_NAME

_LEGACY_TABLES = ("ip_tables_names", "ip6_tables_names")  # in /proc/net: those that are in use


async def take_away(config: Config) -> list[str]:
    """One line for each thing that could not be taken away.  Containers that run are cut off.

    An administrator's own bridge stays, and so does forwarding in the kernel, which others may count on.

    Raises ConfigError while a daemon uses the root, and StoreError when its database cannot be read.
    """
    if not config.root.is_dir():
        raise StoreError(f"{config.root} is not a directory: name the root directory by -g")
    failures: list[str] = []
    with lock.held(config.root):
        with fsck.rows(config.root / DATABASE_NAME) as connection:
            rows = networks.read(connection) if connection is not None else []
        found = [forms.load_network(row.id, row.name, row.created, row.settings) for row in rows]
        instance = _instance(config, found)
        own = own_bridge(instance)
        bridges = {one.bridge for one in found if one.driver == BRIDGE and (one.name != BRIDGE or one.bridge == own)}
        for backend in (NFTABLES, IPTABLES):
            try:
                if backend == NFTABLES or _has_legacy_tables():
                    await _clear(backend, instance)
            except NetworkFailed as error:
                failures.append(str(error))
        links = Links()
        try:
            for name in sorted(bridges):
                try:
                    await links.remove_bridge(name)
                except NetworkFailed as error:
                    failures.append(str(error))
        finally:
            await links.close()
    return failures


def _instance(config: Config, found: list[Network]) -> str:
    """What tells its things apart: its own bridge has it in its name, also where --exec-root is not said as it was."""
    by_bridge = {own_bridge(digits): digits for digits in ("", host.digits_of(config.root))}
    named = (by_bridge[one.bridge] for one in found if one.name == BRIDGE and one.bridge in by_bridge)
    return next(named, host.instance_digits(config))


async def _clear(backend: str, instance: str) -> None:
    """Whichever it was that the daemon used.  Raises NetworkFailed."""
    try:
        firewall = await open_firewall(backend, instance, enabled=True)
    except NetworkFailed:
        return  # what does not work here has no rules of ours
    try:
        await firewall.clear()
    finally:
        await firewall.close()


def _has_legacy_tables() -> bool:
    """To ask for a table would be to make it."""
    for name in _LEGACY_TABLES:
        path = Path("/proc/net", name)
        if path.exists() and path.read_text():
            return True
    return False
