"""What the name service knows of a container: frozen values, and their form in messages and files.

Addresses are texts in their canonical form.  Names are compared without regard to case.
"""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple


class EntryError(ValueError):
    """What was read is no entry."""


class NetworkNames(NamedTuple):
    """A container on one user-defined network."""

    id: str  # of the network
    name: str  # of the network: every name on it is known as NAME.NETWORK, too
    ipv4: str = ""
    ipv6: str = ""
    names: tuple[str, ...] = ()  # by which all on this network find it; reverse lookups answer with the first
    links: tuple[tuple[str, str], ...] = ()  # (alias, full id or name of the other): for this container's eyes only


class NameEntry(NamedTuple):
    """All that the name service needs for one running container."""

    container_id: str
    networks: tuple[NetworkNames, ...] = ()
    servers: tuple[str, ...] = ()  # upstream, in their order; asked from the host's network namespace
    own_loopback: bool = False  # whether 127.0.0.0/8 in them is the container's (as in its --dns), and not the host's
    forwards: bool = True  # False for who is on internal networks only: nothing of its questions leaves the host

    def to_json(self) -> dict[str, Any]:
        return {**self._asdict(), "networks": [each._asdict() for each in self.networks]}

    @classmethod
    def from_json(cls, value: Any) -> NameEntry:
        """Raises EntryError."""
        try:
            networks = tuple(
                NetworkNames(
                    id=str(each["id"]),
                    name=str(each["name"]),
                    ipv4=str(each["ipv4"]),
                    ipv6=str(each["ipv6"]),
                    names=tuple(map(str, each["names"])),
                    links=tuple((str(alias), str(target)) for alias, target in each["links"]),
                )
                for each in value["networks"]
            )
            return cls(
                str(value["container_id"]),
                networks,
                tuple(map(str, value["servers"])),
                bool(value["own_loopback"]),
                bool(value["forwards"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise EntryError(f"no entry of the name service: {error!r}") from error


def digest(entry: NameEntry) -> int:
    """By which daemon and service tell whether they have the same."""
    return zlib.crc32(repr(entry).encode("utf-8", "surrogateescape"))
