"""Which of a container's ports want one of the host's."""

from __future__ import annotations

from collections.abc import Sequence

from dockerd_py.engine.model import HostConfig
from dockerd_py.engine.network_model import HOST, NONE, PROTOCOLS, PortBinding
from dockerd_py.errors import BadParameter
from dockerd_py.nat.hostports import PortWanted


def wanted(exposed: Sequence[str], bindings: Sequence[PortBinding], publish_all: bool) -> list[PortWanted]:
    """What is to be held for a container that starts: its bindings, and with ``publish_all`` one of the ephemeral
    ports for each that is exposed ("80/tcp") and that no binding names."""
    found = [PortWanted(one.port, one.protocol, one.host_ip, one.first, one.last) for one in bindings]
    if publish_all:
        named = {(one.port, one.protocol) for one in bindings}
        rest = {port_of(text) for text in exposed} - named
        found += [PortWanted(number, protocol) for number, protocol in sorted(rest)]
    return found


def port_of(text: str) -> tuple[int, str]:
    """Number and protocol of "80/tcp", or of "80"."""
    number, _, protocol = text.partition("/")
    return int(number), protocol or "tcp"


def check(host: HostConfig) -> list[str]:
    """Warnings for the user.  Raises BadParameter for a binding that cannot be, or with another container's network."""
    for one in host.port_bindings:
        if one.protocol not in PROTOCOLS:
            raise BadParameter(f'invalid protocol: "{one.protocol}" of port {one.port}')
        if not 0 < one.port < 65536:
            raise BadParameter(f'invalid port specification: "{one.port}"')
        if not (one.first == one.last == 0 or 0 < one.first <= one.last < 65536):
            raise BadParameter(f'invalid port specification: "{one.first}-{one.last}"')
        if "%" in one.host_ip:
            raise BadParameter(f"invalid IP address: {one.host_ip}: a port is published at an address without a zone")
    if not host.port_bindings and not host.publish_all:
        return []
    if host.network_mode.startswith("container:"):
        raise BadParameter("conflicting options: port publishing and the container type network mode")
    if host.network_mode == HOST:
        return ["Published ports are discarded when using host network mode"]
    return ["Published ports are discarded without a network"] if host.network_mode == NONE else []
