"""From JSON to what is asked of networks: a new one, a container's place on one, the places of a new container.

Values come out in their canonical form, checked one by one; whether they fit each other and what there is, is the
engine's to say.  What clients send back of an endpoint's state (its id, the addresses that it has) is passed over, as
in Docker: it is not asked for.
"""

from __future__ import annotations

from dataclasses import replace

from dockerd_py.api.benign import Benign, empty, refuse_others
from dockerd_py.api.fields import Fields, JsonObject
from dockerd_py.engine import network_checks
from dockerd_py.engine.links import parse as parse_link
from dockerd_py.engine.network_model import BRIDGE, EndpointRequest, NetworkRequest, Pool
from dockerd_py.errors import BadParameter, NotSupported


def decode_networks(fields: Fields, network_mode: str) -> tuple[EndpointRequest, ...]:
    """The networks in a NetworkingConfig; () where it asks for nothing but the one of ``network_mode``.

    BadParameter, NotSupported.
    """
    endpoints = fields.object("EndpointsConfig")
    wanted = [(name, decode_endpoint(endpoints.object(name), name)) for name in endpoints.names()]
    if wanted == [(network_mode, EndpointRequest(network_mode))]:
        return ()
    return tuple(endpoint for _, endpoint in wanted)


def decode_endpoint(fields: Fields, network: str) -> EndpointRequest:
    """Docker's EndpointSettings for the network of that name.  BadParameter, NotSupported."""
    refuse_others(fields, _ENDPOINT_BENIGN)
    addresses = fields.object("IPAMConfig")
    identity = fields.text("NetworkID")
    return EndpointRequest(
        network=identity if identity and network not in network_checks.PREDEFINED else network,
        aliases=tuple(dict.fromkeys(fields.texts("Aliases"))),
        links=_links(fields.texts("Links")),
        ipv4=network_checks.ipv4_address(addresses.text("IPv4Address")),
        ipv6=network_checks.ipv6_address(addresses.text("IPv6Address")),
        link_local=tuple(network_checks.link_local(text) for text in addresses.texts("LinkLocalIPs")),
        mac=network_checks.mac_address(fields.text("MacAddress")),
        options=fields.text_map("DriverOpts"),
    )


def _links(texts: tuple[str, ...]) -> tuple[str, ...]:
    """As they are, once they are found to be links.  BadParameter."""
    for text in texts:
        parse_link(text)
    return texts


def decode_connect(body: JsonObject, network: str) -> tuple[str, EndpointRequest]:
    """The container, and what it asks of ``network``, in the body of connect.  BadParameter, NotSupported."""
    fields = Fields(body)
    wanted = decode_endpoint(fields.object("EndpointConfig"), network)
    return container_of(fields), replace(wanted, network=network)


def container_of(fields: Fields) -> str:
    container = fields.text("Container")
    if not container:
        raise BadParameter("Bad parameter: Container is missing: name the container")
    return container


def decode_network(body: JsonObject) -> NetworkRequest:
    """The body of POST /networks/create.  BadParameter, NotSupported."""
    fields = Fields(body)
    fields.flag("CheckDuplicate")  # there are never two of one name
    _refuse_swarm(fields)
    ipam = fields.object("IPAM")
    return NetworkRequest(
        name=fields.text("Name"),
        driver=fields.text("Driver") or BRIDGE,
        internal=fields.flag("Internal"),
        attachable=fields.flag("Attachable"),
        ipv6=fields.flag("EnableIPv6"),
        labels=fields.text_map("Labels"),
        options=fields.text_map("Options"),
        ipam_driver=ipam.text("Driver") or "default",
        ipam_options=ipam.text_map("Options"),
        pools=tuple(pool for pool in map(_pool, ipam.objects("Config")) if pool is not None),
    )


def _refuse_swarm(fields: Fields) -> None:
    if fields.text("Scope") not in ("", "local"):
        raise NotSupported(f'Scope "{fields.text("Scope")}" is not supported: there is no swarm')
    if fields.flag("Ingress"):
        raise NotSupported("Ingress is not supported: there is no swarm")
    if fields.flag("ConfigOnly") or fields.object("ConfigFrom").text("Network"):
        key = "ConfigOnly" if fields.flag("ConfigOnly") else "ConfigFrom"
        raise NotSupported(f"{key} is not supported: configurations of networks are for the nodes of a swarm")
    if fields.raw("EnableIPv4") is not None and not fields.flag("EnableIPv4"):
        raise NotSupported("EnableIPv4 cannot be false: every network has IPv4")


def _pool(fields: Fields) -> Pool | None:
    """None for one that says nothing, as some clients send."""
    pool = Pool(
        subnet=network_checks.subnet(fields.text("Subnet"), "subnet"),
        gateway=network_checks.any_address(fields.text("Gateway"), "gateway address"),
        ip_range=network_checks.subnet(fields.text("IPRange"), "ip-range"),
        aux={
            name: network_checks.any_address(address, f"auxiliary address {name}")
            for name, address in fields.text_map("AuxiliaryAddresses").items()
        },
    )
    if pool == Pool(""):
        return None
    if not pool.subnet:
        raise BadParameter(f"invalid network config: {fields.name('Subnet')} is missing: its other settings lie in it")
    return pool


_ENDPOINT_BENIGN: dict[str, Benign] = {
    "GwPriority": empty,  # of later versions of the API
}
