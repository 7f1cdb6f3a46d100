"""What a request may ask of networks: Docker's rules and its words, before anything is looked up.

The front doors ask here, with the settings as they came: what an image brings (ports that it exposes, for one) must not
make a request wrong.  Whether the networks exist and have the addresses free is the engine's to say.
"""

from __future__ import annotations

import ipaddress
import re

from dockerd_py.engine import isolation
from dockerd_py.engine.model import ContainerConfig, HostConfig
from dockerd_py.engine.network_model import BRIDGE, DEFAULT, HOST, NONE, EndpointRequest
from dockerd_py.errors import BadParameter, Denied, NotSupported

PREDEFINED = (DEFAULT, BRIDGE, HOST, NONE)
"""Modes that are no network of a user's."""

_UNDEFINED = "This would result in undefined behavior"
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}|[0-9a-f]{2}(-[0-9a-f]{2}){5}|[0-9a-f]{4}(\.[0-9a-f]{4}){2}")


def check_create(config: ContainerConfig, host: HostConfig) -> None:
    """Whether a container's settings go together with where its network comes from.  Raises BadParameter."""
    mode = host.network_mode
    if mode.startswith(isolation.CONTAINER):
        if not isolation.joined_container(mode):
            raise BadParameter("Invalid network mode: invalid container format container:<name|id>")
        _check_joined(config, host)
    if mode == HOST and host.links:
        raise BadParameter(f"conflicting options: host type networking can't be used with links. {_UNDEFINED}")
    if config.mac_address and (mode in (HOST, NONE) or mode.startswith(isolation.CONTAINER)):
        raise BadParameter("conflicting options: mac-address and the network mode")
    _check_networks(config, host)


def _check_joined(config: ContainerConfig, host: HostConfig) -> None:
    """What belongs to the other container, whose network it is."""
    resolver = host.resolver
    if config.hostname or config.domainname:
        raise BadParameter("conflicting options: hostname and the network mode")
    if host.links:
        raise BadParameter(f"conflicting options: container type network can't be used with links. {_UNDEFINED}")
    if resolver.dns or resolver.search or resolver.options:
        raise BadParameter("conflicting options: dns and the network mode")
    if resolver.extra_hosts:
        raise BadParameter("conflicting options: custom host-to-IP mapping and the network mode")
    if host.port_bindings or host.publish_all:
        raise BadParameter("conflicting options: port publishing and the container type network mode")
    if config.exposed_ports:
        raise BadParameter("conflicting options: port exposing and the container type network mode")


def _check_networks(config: ContainerConfig, host: HostConfig) -> None:
    mode = host.network_mode
    if len(host.networks) > 1:
        names = ", ".join(wanted.network for wanted in host.networks)
        raise BadParameter(f"Container cannot be connected to network endpoints: {names}")
    for wanted in host.networks:
        check_endpoint(wanted)
        if mode.startswith(isolation.CONTAINER):
            raise BadParameter(
                "container sharing network namespace with another container or host cannot be connected to any other "
                "network"
            )
        if mode == HOST != wanted.network:
            raise BadParameter("container cannot be disconnected from host network or connected to host network")
        if mode == NONE != wanted.network:
            raise BadParameter(
                "container cannot be connected to multiple networks with one of the networks in private (none) mode"
            )
        if config.mac_address and wanted.mac not in ("", config.mac_address):
            raise BadParameter(
                "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or "
                "be left empty"
            )


def check_endpoint(wanted: EndpointRequest) -> None:
    """Whether the network, where it is one of Docker's own, can do what is asked of it.  Raises BadParameter."""
    if wanted.options:
        raise NotSupported(f"the driver option {min(wanted.options)} of an endpoint is not supported: leave it out")
    if wanted.network not in PREDEFINED:
        return
    if wanted.ipv4 or wanted.ipv6:
        raise BadParameter("user specified IP address is supported on user defined networks only")
    if wanted.aliases:
        raise BadParameter("network-scoped alias is supported only for containers in user defined networks")
    if wanted.network in (HOST, NONE) and (wanted.mac or wanted.links or wanted.link_local):
        raise BadParameter(f'the network "{wanted.network}" has no interface that could be set up')


def check_name(name: str) -> str:
    """The name of a new network, which must be told from a network mode.  Raises BadParameter, Denied."""
    if not name.strip():
        raise BadParameter(f"invalid name: {name!r} is empty")
    if name in PREDEFINED:
        raise Denied(f"operation is not permitted on predefined {name} network ")
    if name.startswith(isolation.CONTAINER):
        raise BadParameter(f'invalid name: "{name}" means the network of a container')
    if "/" in name or not name.isprintable():
        raise BadParameter(f"invalid name: {name!r} has a slash, or what cannot be printed, in it")
    return name


def mac_address(text: str) -> str:
    """``text`` as 02:42:ac:11:00:02; IEEE 802's other spellings are understood.  "" stays.  Raises BadParameter."""
    if not text:
        return ""
    if not _MAC.fullmatch(text.lower()):
        raise BadParameter(f"invalid MAC address: {text}")
    digits = re.sub("[^0-9a-f]", "", text.lower())
    if int(digits[:2], 16) & 1:
        raise BadParameter(f"invalid MAC address: {text} is that of a group")
    if not int(digits, 16):
        raise BadParameter(f"invalid MAC address: {text} is that of nobody")
    return ":".join(digits[at : at + 2] for at in range(0, 12, 2))


def ipv4_address(text: str) -> str:
    """``text`` in its canonical form; "" stays.  Raises BadParameter."""
    return _address(text, 4)


def ipv6_address(text: str) -> str:
    return _address(text, 6)


def link_local(text: str) -> str:
    """An address that counts on its link only: 169.254.0.0/16, fe80::/10.  Raises BadParameter."""
    address = _parsed(text)
    if address is None or not address.is_link_local:
        raise BadParameter(f"invalid link-local IP address: {text}")
    return str(address)


def any_address(text: str, what: str) -> str:
    """Of either family; "" stays.  Raises BadParameter with ``what`` it was to be."""
    address = _parsed(text) if text else None
    if text and address is None:
        raise BadParameter(f"invalid {what}: {text}")
    return text and str(address)


def subnet(text: str, what: str) -> str:
    """A prefix in its canonical form; "" stays.  Raises BadParameter with ``what`` it was to be."""
    if not text:
        return ""
    try:
        if "/" not in text:
            raise ValueError
        found = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise BadParameter(f"invalid {what} {text}: invalid CIDR block notation") from None
    if str(found.network_address) != str(ipaddress.ip_interface(text).ip):
        raise BadParameter(f"invalid {what} {text}: it should be {found}")
    return str(found)


def _address(text: str, version: int) -> str:
    if not text:
        return ""
    address = _parsed(text)
    if address is None or address.version != version:
        raise BadParameter(f"invalid IPv{version} address: {text}")
    return str(address)


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return None if "%" in text else ipaddress.ip_address(text)
    except ValueError:
        return None
