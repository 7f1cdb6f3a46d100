"""A container's networks as the others need them: the kernel, the firewall, the name service, inspect.  Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from dockerd_py.engine.links import parse as parse_link
from dockerd_py.engine.nameservice import NameEntry, NetworkNames
from dockerd_py.engine.network_model import BRIDGE, IPVLAN, Attachment, Endpoint, EndpointRequest, Network
from dockerd_py.engine.network_options import PARENT
from dockerd_py.engine.networks import Networks
from dockerd_py.engine.record import Record
from dockerd_py.errors import NoSuchNetwork
from dockerd_py.nat.hostports import ANY6, HeldPort
from dockerd_py.nat.model import Mapping, Plug
from dockerd_py.runtime.monitors import Relayed

LINK_LOCAL_PREFIXES = {4: 16, 6: 64}  # RFC 3927; RFC 4291, section 2.5.6


def front_of(networks: Networks, endpoints: Sequence[Endpoint]) -> Endpoint | None:
    """The one by which published ports are reached: of the first bridge that packets from outside get to."""
    found = _that_are_there(networks, endpoints)
    return next((one for one, network in found if network.driver == BRIDGE and not network.internal), None)


def gateway_of(networks: Networks, endpoints: Sequence[Endpoint]) -> Endpoint | None:
    """The one by which packets to everywhere else leave: the first that is not of an internal network."""
    return next((one for one, network in _that_are_there(networks, endpoints) if not network.internal), None)


def _that_are_there(networks: Networks, endpoints: Iterable[Endpoint]) -> Iterator[tuple[Endpoint, Network]]:
    """The endpoints with their networks.  One may be gone while its container runs: the default one, by the daemon's
    settings."""
    for endpoint in endpoints:
        try:
            yield endpoint, networks.get(endpoint.network_id)
        except NoSuchNetwork:
            continue


def relays(networks: Networks, record: Record, held: Iterable[HeldPort]) -> list[Relayed]:
    """What the monitor is to do with the host's sockets."""
    front = front_of(networks, record.state.endpoints)
    if front is None:
        return []
    return [
        Relayed(one.socket.fileno(), one.protocol, front.ipv4 or front.ipv6, one.port)
        for one in held
        if one.socket is not None
    ]


def mappings(networks: Networks, record: Record) -> tuple[Mapping, ...]:
    """Where the firewall sends what comes to the published ports."""
    front = front_of(networks, record.state.endpoints)
    if front is None:
        return ()
    bridge = networks.get(front.network_id).bridge
    found = []
    for port in record.state.ports:
        address = front.ipv6 if ":" in port.host_ip else front.ipv4
        if address:  # else the monitor relays it
            found.append(Mapping(port.protocol, port.host_ip, port.host_port, bridge, address, port.port))
    return tuple(found)


def relayed(networks: Networks, record: Record) -> tuple[tuple[str, int], ...]:
    """Protocol and number of the ports at all addresses of the host that its monitor relays from wherever they are
    asked: those of IPv6 of a container that has none."""
    front = front_of(networks, record.state.endpoints)
    if front is None or front.ipv6:
        return ()
    return tuple((port.protocol, port.host_port) for port in record.state.ports if port.host_ip == ANY6)


def plug(networks: Networks, record: Record, endpoint: Endpoint) -> Plug:
    """How its namespace is plugged into one network."""
    network = networks.get(endpoint.network_id)
    is_gateway = gateway_of(networks, record.state.endpoints) is endpoint
    given = {4: endpoint.ipv4, 6: endpoint.ipv6}
    own, gateways = [], []
    for pool in network.pools:
        subnet = ipaddress.ip_network(pool.subnet)
        if given[subnet.version]:
            own.append(f"{given[subnet.version]}/{subnet.prefixlen}")
            if is_gateway and pool.gateway:
                gateways.append(pool.gateway)
    asked = next((one for one in record.host.networks if one.network == network.id), None)
    for address in asked.link_local if asked is not None else ():
        own.append(f"{address}/{LINK_LOCAL_PREFIXES[ipaddress.ip_address(address).version]}")
    return Plug(
        interface=endpoint.interface,
        mac="" if network.driver == IPVLAN else endpoint.mac,
        addresses=tuple(own),
        gateways=tuple(gateways),
        mtu=networks.mtu_of(network),
        kind=network.driver,
        parent=network.bridge or network.options[PARENT],
        host_interface=endpoint.host_interface,
        mode=network.options.get("ipvlan_mode" if network.driver == IPVLAN else "macvlan_mode", ""),
    )


def has_names(networks: Networks, record: Record) -> bool:
    """Whether the name service answers in it: it is on a network on which containers find each other by name, or the
    host's name servers are reached through the service alone."""
    there = _that_are_there(networks, record.state.endpoints)
    return record.state.forwards or any(network.name != BRIDGE for _, network in there)


def name_entry(networks: Networks, record: Record, servers: tuple[str, ...]) -> NameEntry:
    """What the name service knows of it.  servers: those of containers that name none."""
    found, inside = [], True
    asked = {one.network: one for one in record.host.networks}
    for endpoint, network in _that_are_there(networks, record.state.endpoints):
        inside = inside and network.internal
        if network.name != BRIDGE:
            one = asked[network.id]
            links = [(link.alias, link.container) for link in (*record.host.links, *map(parse_link, one.links))]
            names = names_of(record, one)
            found.append(NetworkNames(network.id, network.name, endpoint.ipv4, endpoint.ipv6, names, tuple(links)))
    return NameEntry(
        record.id,
        tuple(found),
        servers=record.host.resolver.dns or servers,
        own_loopback=bool(record.host.resolver.dns),
        forwards=not inside,
    )


def names_of(record: Record, asked: EndpointRequest) -> tuple[str, ...]:
    """By which others on the network find it."""
    own = (record.name, *asked.aliases, record.id[:12], record.config.hostname)
    return tuple(dict.fromkeys(name for name in own if name))


def attachments(networks: Networks, record: Record) -> tuple[Attachment, ...]:
    """For inspect."""
    found = []
    by_network = {endpoint.network_id: endpoint for endpoint in record.state.endpoints}
    for asked in record.host.networks:
        try:
            network = networks.get(asked.network)
        except NoSuchNetwork:
            continue  # it was removed meanwhile
        names = names_of(record, asked) if network.name != BRIDGE else ()
        bare = Attachment(network.name, network.id, asked, network.driver, network.bridge, names)
        endpoint = by_network.get(network.id)
        found.append(_shown(bare, network, endpoint) if endpoint and record.state.running else bare)
    return tuple(found)


def _shown(bare: Attachment, network: Network, endpoint: Endpoint) -> Attachment:
    prefixes, gateways = {4: 0, 6: 0}, {4: "", 6: ""}
    for pool in network.pools:
        subnet = ipaddress.ip_network(pool.subnet)
        prefixes[subnet.version], gateways[subnet.version] = subnet.prefixlen, pool.gateway
    return replace(
        bare,
        endpoint_id=endpoint.id,
        mac=endpoint.mac,
        ipv4=endpoint.ipv4,
        prefix4=prefixes[4] if endpoint.ipv4 else 0,
        gateway4=gateways[4] if endpoint.ipv4 else "",
        ipv6=endpoint.ipv6,
        prefix6=prefixes[6] if endpoint.ipv6 else 0,
        gateway6=gateways[6] if endpoint.ipv6 else "",
    )
