"""Which names there are, and who may see them: those of every network that the asking container is on."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from dockerd_py.nat.dns.model import NameEntry, NetworkNames


class Directory:
    """All entries, by container and by network."""

    def __init__(self) -> None:
        self._entries: dict[str, NameEntry] = {}
        self._networks: dict[str, _Network] = {}

    def put(self, entry: NameEntry) -> None:
        """In place of an earlier entry of this container.  Raises ValueError for an address that is none."""
        packed = [_pack(each) for each in entry.networks]
        self.remove(entry.container_id)
        self._entries[entry.container_id] = entry
        for each, addresses in zip(entry.networks, packed, strict=True):
            network = self._networks.setdefault(each.id, _Network(_fold(each.name)))
            network.add(entry.container_id, each, addresses)

    def remove(self, container_id: str) -> None:
        """Fine when there is none."""
        entry = self._entries.pop(container_id, None)
        for each in entry.networks if entry else ():
            network = self._networks[each.id]
            network.remove(container_id, each)
            if not network.members:
                del self._networks[each.id]

    def addresses(self, entry: NameEntry, name: bytes) -> list[bytes] | None:
        """What ``name`` (in lower case) is for the container of ``entry``, packed; None when there is no such name."""
        found: dict[bytes, None] = {}
        known = False
        for each in entry.networks:
            network = self._networks[each.id]
            for container_id in network.named(each, name):
                known = True
                found.update(dict.fromkeys(network.members[container_id]))
        return list(found) if known else None

    def names(self, entry: NameEntry, address: bytes) -> list[bytes]:
        """NAME.NETWORK of who has the packed address on a network of this container's."""
        found = []
        for each in entry.networks:
            network = self._networks[each.id]
            if address in network.reverse:
                found.append(network.reverse[address][1] + b"." + network.name)
        return found


class _Network:
    def __init__(self, name: bytes) -> None:
        self.name = name
        self.members: dict[str, tuple[bytes, ...]] = {}  # packed addresses, by the full id
        self.holders: dict[bytes, dict[str, None]] = {}  # full ids, by a name
        self.reverse: dict[bytes, tuple[str, bytes]] = {}  # full id and name, by the packed address

    def add(self, container_id: str, on: NetworkNames, addresses: tuple[bytes, ...]) -> None:
        self.members[container_id] = addresses
        for name in on.names:
            self.holders.setdefault(_fold(name), {})[container_id] = None
        if on.names:
            self.reverse.update(dict.fromkeys(addresses, (container_id, on.names[0].encode())))

    def remove(self, container_id: str, on: NetworkNames) -> None:
        for address in self.members.pop(container_id):
            if self.reverse.get(address, ("",))[0] == container_id:
                del self.reverse[address]
        for name in map(_fold, on.names):
            holders = self.holders.get(name, {})
            holders.pop(container_id, None)
            if not holders:
                self.holders.pop(name, None)

    def named(self, on: NetworkNames, name: bytes) -> Iterator[str]:
        """Full ids: what the asker's own links call so comes before what everybody calls so."""
        suffix = b"." + self.name
        for each in (name, name[: -len(suffix)]) if name.endswith(suffix) else (name,):
            linked = [target for alias, target in on.links if _fold(alias) == each]
            for target in linked:
                yield from [target] if target in self.members else self.holders.get(_fold(target), ())
            if not linked:
                yield from self.holders.get(each, ())


def _fold(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape").lower()


def _pack(on: NetworkNames) -> tuple[bytes, ...]:
    return tuple(ipaddress.ip_address(text).packed for text in (on.ipv4, on.ipv6) if text)
