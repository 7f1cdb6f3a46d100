"""Networks, and what containers have on them, as Docker's JSON."""

from __future__ import annotations

from collections.abc import Sequence

from dockerd_py.api import eras, ports
from dockerd_py.api.fields import JsonObject
from dockerd_py.api.routing import ApiVersion
from dockerd_py.api.times import rfc3339
from dockerd_py.engine.isolation import joined_container
from dockerd_py.engine.model import Container
from dockerd_py.engine.network_checks import PREDEFINED
from dockerd_py.engine.network_model import BRIDGE, Attachment, EndpointRequest, Network, Pool


def network(value: Network, attached: Sequence[Container] = ()) -> JsonObject:
    """One network; ``attached``: the running containers on it, as far as they are to be shown."""
    return {
        "Name": value.name,
        "Id": value.id,
        "Created": rfc3339(value.created),
        "Scope": "local",
        "Driver": value.driver,
        "EnableIPv6": value.ipv6,
        "IPAM": {
            "Driver": value.ipam_driver,
            "Options": value.ipam_options or (None if value.predefined else {}),
            "Config": [_pool(pool) for pool in value.pools],
        },
        "Internal": value.internal,
        "Attachable": value.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {
            container.id: _member(container, attachment)
            for container in attached
            for attachment in container.attachments
            if attachment.network_id == value.id
        },
        "Options": value.options,
        "Labels": value.labels,
    }


def settings(container: Container, version: ApiVersion) -> JsonObject:
    """Docker's ``NetworkSettings``.

    Beside the networks it has the addresses of one: the default bridge's; before networks had names, of the only one.
    """
    shown = [one for one in container.attachments if one.driver == BRIDGE and one.network == BRIDGE]
    if not eras.has_networks(version):
        shown = [one for one in container.attachments if one.ipv4 or one.ipv6][:1] or shown
    main = shown[0] if shown else Attachment("", "", asked=EndpointRequest(""))
    running = container.state.running and bool(container.state.pid)
    has_own = running and not joined_container(container.host.network_mode)
    result: JsonObject = {
        "Bridge": main.bridge if running and not eras.has_networks(version) else "",
        "SandboxID": container.id if has_own else "",
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "Ports": ports.bindings(ports.ports_of(container)),
        "SandboxKey": f"/proc/{container.state.pid}/ns/net" if running else "",
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": main.endpoint_id,
        "Gateway": main.gateway4,
        "GlobalIPv6Address": main.ipv6,
        "GlobalIPv6PrefixLen": main.prefix6,
        "IPAddress": main.ipv4,
        "IPPrefixLen": main.prefix4,
        "IPv6Gateway": main.gateway6,
        "MacAddress": main.mac,
    }
    if eras.has_networks(version):
        result["Networks"] = endpoints(container)
    return result


def endpoints(container: Container) -> JsonObject:
    """Its networks by name, each with Docker's ``EndpointSettings``."""
    return {one.network: _endpoint(container, one) for one in container.attachments}


def _endpoint(container: Container, attachment: Attachment) -> JsonObject:
    asked = attachment.asked
    addresses: JsonObject = {
        "IPv4Address": asked.ipv4,
        "IPv6Address": asked.ipv6,
        "LinkLocalIPs": list(asked.link_local),
    }
    return {
        "IPAMConfig": {key: value for key, value in addresses.items() if value} or None,
        "Links": list(asked.links) or None,
        "Aliases": _aliases(container, attachment) or None,
        "NetworkID": attachment.network_id,
        "EndpointID": attachment.endpoint_id,
        "Gateway": attachment.gateway4,
        "IPAddress": attachment.ipv4,
        "IPPrefixLen": attachment.prefix4,
        "IPv6Gateway": attachment.gateway6,
        "GlobalIPv6Address": attachment.ipv6,
        "GlobalIPv6PrefixLen": attachment.prefix6,
        "MacAddress": attachment.mac,
        "DriverOpts": asked.options or None,
        "DNSNames": list(attachment.names) or None,
    }


def _aliases(container: Container, attachment: Attachment) -> list[str]:
    """Those asked for, and where names are resolved also the short id and the host name.

    compose takes a container whose short id is missing here for one that it has not put there.
    """
    if attachment.network in PREDEFINED:
        return list(attachment.asked.aliases)
    names = (*attachment.asked.aliases, container.short_id, container.config.hostname)
    return list(dict.fromkeys(name for name in names if name))


def _pool(pool: Pool) -> JsonObject:
    given: JsonObject = {"IPRange": pool.ip_range, "Gateway": pool.gateway, "AuxiliaryAddresses": pool.aux}
    return {"Subnet": pool.subnet, **{key: value for key, value in given.items() if value}}


def _member(container: Container, attachment: Attachment) -> JsonObject:
    """One of a network's ``Containers``."""
    return {
        "Name": container.name,
        "EndpointID": attachment.endpoint_id,
        "MacAddress": attachment.mac,
        "IPv4Address": f"{attachment.ipv4}/{attachment.prefix4}" if attachment.ipv4 else "",
        "IPv6Address": f"{attachment.ipv6}/{attachment.prefix6}" if attachment.ipv6 else "",
    }
