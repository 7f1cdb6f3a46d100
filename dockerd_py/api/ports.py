"""A container's ports as each API version shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dockerd_py.api import eras
from dockerd_py.api.fields import JsonObject
from dockerd_py.api.routing import ApiVersion
from dockerd_py.engine.model import Container
from dockerd_py.engine.network_model import HOST, NONE
from dockerd_py.engine.ports import port_of


class Port(NamedTuple):
    """One port that the container exposes, and where on the host it is published (``public`` 0: nowhere)."""

    private: int
    protocol: str = "tcp"
    ip: str = ""
    public: int = 0


def ports_of(container: Container) -> list[Port]:
    """Those that mean something now, in order: of a container that runs and has a network of its own."""
    if not container.state.running or container.config.network_disabled:
        return []
    if container.host.network_mode in (NONE, HOST) or container.host.network_mode.startswith("container:"):
        return []
    published = [Port(one.port, one.protocol, one.host_ip, one.host_port) for one in container.state.ports]
    named = {(one.private, one.protocol) for one in published}
    exposed = {port_of(text) for text in container.config.exposed_ports} - named
    return sorted([*published, *(Port(*one) for one in exposed)])


def todays_list(ports: Sequence[Port]) -> list[JsonObject]:
    """The list's ``Ports``."""
    return [
        {"IP": one.ip, "PrivatePort": one.private, "PublicPort": one.public, "Type": one.protocol}
        if one.public
        else {"PrivatePort": one.private, "Type": one.protocol}
        for one in ports
    ]


def bindings(ports: Sequence[Port]) -> dict[str, list[JsonObject] | None]:
    """Inspect's ``Ports``: where each is published, null for one that only is exposed."""
    result: dict[str, list[JsonObject] | None] = {}
    for one in ports:
        key = f"{one.private}/{one.protocol}"
        if not one.public:
            result[key] = None
            continue
        result[key] = [*(result.get(key) or ()), {"HostIp": one.ip, "HostPort": str(one.public)}]
    return result


def first_year_list(ports: Sequence[Port], version: ApiVersion) -> list[JsonObject] | str:
    """The list's ``Ports``.  An exposed port that is not published stands as PublicPort, as it did then."""
    if eras.lists_ports(version):
        return [
            {"IP": one.ip, "PrivatePort": one.private, "PublicPort": one.public, "Type": one.protocol}
            if one.public
            else {"PublicPort": one.private, "Type": one.protocol}
            for one in _of_first_year(ports)
        ]
    return ", ".join(
        f"{one.ip}:{one.public}->{one.private}/{one.protocol}" if one.public else f"{one.private}/{one.protocol}"
        for one in _of_first_year(ports)
    )


def first_year_settings(ports: Sequence[Port], version: ApiVersion) -> JsonObject:
    """Inspect's ``Ports`` and ``PortMapping``; one of them is null by version."""
    shown = _of_first_year(ports)
    mapping: dict[str, dict[str, str]] = {"Tcp": {}, "Udp": {}}
    for one in shown:
        if one.public:
            mapping.setdefault(one.protocol.capitalize(), {})[str(one.private)] = str(one.public)
    return {"Ports": bindings(shown), "PortMapping": None if eras.lists_ports(version) else mapping}


def _of_first_year(ports: Sequence[Port]) -> list[Port]:
    """Without the IPv6 half of what is published at all addresses: all addresses were 0.0.0.0."""
    return [one for one in ports if not (one.ip == "::" and one._replace(ip="0.0.0.0") in ports)]  # noqa: S104
