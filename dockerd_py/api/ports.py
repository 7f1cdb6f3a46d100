"""A container's ports as each API version shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dockerd_py.api import eras
from dockerd_py.api.fields import JsonObject
from dockerd_py.api.routing import ApiVersion
from dockerd_py.engine.model import Container


class Port(NamedTuple):
    """One port that the container exposes, and where on the host it is published (``public`` 0: nowhere)."""

    private: int
    protocol: str = "tcp"
    ip: str = ""
    public: int = 0


def ports_of(container: Container) -> list[Port]:
    """Those that mean something now: of a container that runs and has a network of its own."""
    if not container.state.running or container.config.network_disabled:
        return []
    if container.host.network_mode in ("none", "host"):
        return []
    pairs = (text.partition("/") for text in container.config.exposed_ports)
    return sorted(Port(int(number), protocol or "tcp") for number, _, protocol in pairs)


def first_year_list(ports: Sequence[Port], version: ApiVersion) -> list[JsonObject] | str:
    """The list's ``Ports``.  An exposed port that is not published stands as PublicPort, as it did then."""
    if eras.lists_ports(version):
        return [
            {"IP": one.ip, "PrivatePort": one.private, "PublicPort": one.public, "Type": one.protocol}
            if one.public
            else {"PublicPort": one.private, "Type": one.protocol}
            for one in ports
        ]
    return ", ".join(
        f"{one.ip}:{one.public}->{one.private}/{one.protocol}" if one.public else f"{one.private}/{one.protocol}"
        for one in ports
    )


def first_year_settings(ports: Sequence[Port], version: ApiVersion) -> JsonObject:
    """Inspect's ``Ports`` and ``PortMapping``; one of them is null by version."""
    bindings: dict[str, list[JsonObject] | None] = {}
    mapping: dict[str, dict[str, str]] = {"Tcp": {}, "Udp": {}}
    for one in ports:
        binding = bindings.setdefault(f"{one.private}/{one.protocol}", None)
        if one.public:
            published = binding or []
            published.append({"HostIp": one.ip, "HostPort": str(one.public)})
            bindings[f"{one.private}/{one.protocol}"] = published
            mapping.setdefault(one.protocol.capitalize(), {})[str(one.private)] = str(one.public)
    return {"Ports": bindings, "PortMapping": None if eras.lists_ports(version) else mapping}
