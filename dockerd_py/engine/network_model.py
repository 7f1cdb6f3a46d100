"""Networks, and what a container has on them: values that the front doors build and show."""

from __future__ import annotations

from dataclasses import dataclass, field

from dockerd_py.nat.model import BRIDGE, IPVLAN, MACVLAN, PROTOCOLS, Pool

__all__ = [
    "BRIDGE", "IPVLAN", "MACVLAN", "PROTOCOLS", "Attachment", "Endpoint", "EndpointRequest", "Link", "Network",
    "NetworkRequest", "Pool", "PortBinding", "PublishedPort",
]  # fmt: skip

HOST_DRIVER = "host"
NULL_DRIVER = "null"

DEFAULT = "default"  # network modes; another one is a network's name or id, or "container:<id>"
NONE = "none"
HOST = "host"


@dataclass(frozen=True)
class NetworkRequest:
    """A network that somebody wants."""

    name: str
    driver: str = BRIDGE
    internal: bool = False
    attachable: bool = False
    ipv6: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)  # of the driver: "com.docker.network.bridge.name"
    ipam_driver: str = "default"
    ipam_options: dict[str, str] = field(default_factory=dict)
    pools: tuple[Pool, ...] = ()


@dataclass(frozen=True)
class Network:
    """One network as it is now."""

    id: str
    name: str
    created: int
    driver: str  # BRIDGE, MACVLAN, IPVLAN, HOST_DRIVER or NULL_DRIVER
    internal: bool = False
    attachable: bool = False
    ipv6: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    ipam_driver: str = "default"
    ipam_options: dict[str, str] = field(default_factory=dict)
    pools: tuple[Pool, ...] = ()  # subnets and gateways are chosen
    bridge: str = ""  # the interface of a bridge network

    @property
    def has_ipv6(self) -> bool:
        return any(":" in pool.subnet for pool in self.pools)

    @property
    def predefined(self) -> bool:
        return self.name in (BRIDGE, HOST, NONE)


@dataclass(frozen=True)
class EndpointRequest:
    """What a container asks of one network that it is on."""

    network: str  # as asked: a name, an id or "default"; once the container is there, the network's id
    aliases: tuple[str, ...] = ()
    links: tuple[str, ...] = ()  # "container:alias", for the names that this container sees there
    ipv4: str = ""
    ipv6: str = ""
    link_local: tuple[str, ...] = ()
    mac: str = ""
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Endpoint:
    """What a container has on one network, or last had: it gets the same again."""

    network_id: str
    id: str  # 64 hex digits
    interface: str  # "eth0"
    host_interface: str  # the veth's other end; "" where there is none
    mac: str = ""
    ipv4: str = ""  # without the prefix
    ipv6: str = ""


@dataclass(frozen=True)
class Attachment:
    """A container on one network, as inspect shows it.  What only a running one has is empty otherwise."""

    network: str  # name
    network_id: str
    asked: EndpointRequest
    driver: str = BRIDGE
    bridge: str = ""
    names: tuple[str, ...] = ()  # by which others on this network find it; none on the default one
    endpoint_id: str = ""
    mac: str = ""
    ipv4: str = ""
    prefix4: int = 0
    gateway4: str = ""
    ipv6: str = ""
    prefix6: int = 0
    gateway6: str = ""


@dataclass(frozen=True)
class PortBinding:
    """One -p: a port of the container's that is published."""

    port: int
    protocol: str = "tcp"
    host_ip: str = ""  # "": the daemon's --ip
    first: int = 0  # on the host; one of first to last is taken.  0: any of the ephemeral ones
    last: int = 0


@dataclass(frozen=True)
class PublishedPort:
    """A port of a running container, and where on the host it is."""

    port: int
    protocol: str
    host_ip: str  # "0.0.0.0", "::", or an address
    host_port: int


@dataclass(frozen=True)
class Link:
    """The first year's --link."""

    container: str  # as asked; once the linking container is there, the other one's id
    alias: str
