"""What a network can be asked for besides its addresses: the options of its driver."""

from __future__ import annotations

import ipaddress
import re

from dockerd_py.engine import network_checks
from dockerd_py.engine.network_model import BRIDGE, HOST_DRIVER, IPVLAN, MACVLAN, NULL_DRIVER, Network, NetworkRequest
from dockerd_py.errors import BadParameter, Denied, NotSupported

BRIDGE_NAME = "com.docker.network.bridge.name"
ICC = "com.docker.network.bridge.enable_icc"
MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
HOST_IP = "com.docker.network.bridge.host_binding_ipv4"
MTU = "com.docker.network.driver.mtu"
DEFAULT = "com.docker.network.bridge.default_bridge"
PARENT = "parent"

_OPTIONS = {
    BRIDGE: {BRIDGE_NAME, ICC, MASQUERADE, HOST_IP, MTU, DEFAULT},
    MACVLAN: {PARENT, "macvlan_mode", MTU},
    IPVLAN: {PARENT, "ipvlan_mode", MTU},
}
_MODES = {"macvlan_mode": ("bridge", "private", "vepa", "passthru"), "ipvlan_mode": ("l2", "l3", "l3s")}
_INTERFACE = re.compile(r"[a-zA-Z0-9_.-]{1,15}")
_TRUE, _FALSE = {"true", "1", "t"}, {"false", "0", "f"}


def own_bridge(instance: str) -> str:
    """The name of a daemon's own bridge; instance: what tells it from other daemons' of a host, "" for the main one."""
    return f"pydocker{instance or 0}"


def check(request: NetworkRequest) -> None:
    """Raises BadParameter, NotSupported, Denied."""
    network_checks.check_name(request.name)
    if request.driver in (HOST_DRIVER, NULL_DRIVER):
        raise Denied(f'only one instance of "{request.driver}" network is allowed')
    if request.driver not in _OPTIONS:
        raise NotSupported(
            f"the network driver {request.driver!r} is not supported: there are {', '.join(sorted(_OPTIONS))}"
        )
    if request.ipam_driver not in ("", "default"):
        raise NotSupported(f"the IPAM driver {request.ipam_driver!r} is not supported: leave it out")
    for key in request.ipam_options:
        raise NotSupported(f"the IPAM option {key} is not supported")
    for key, value in request.options.items():
        if key not in _OPTIONS[request.driver]:
            raise NotSupported(f"the option {key} of the driver {request.driver} is not supported")
        if key in (ICC, MASQUERADE) and value.lower() not in _TRUE | _FALSE:
            raise BadParameter(f"{key}={value}: it must be true or false")
        if key == HOST_IP:
            _address(key, value)
        if key == MTU and not (value.isdecimal() and 68 <= int(value) <= 65535):
            raise BadParameter(f"{key}={value}: it must be a number from 68 to 65535")
        if key in (BRIDGE_NAME, PARENT) and (not _INTERFACE.fullmatch(value) or value in (".", "..")):
            raise BadParameter(f"{key}={value}: it is no name of an interface")
        if key in _MODES and value not in _MODES[key]:
            raise BadParameter(f"{key}={value}: there are {', '.join(_MODES[key])}")
    if request.driver != BRIDGE and not request.options.get(PARENT):
        raise BadParameter(f"a network of the driver {request.driver} needs the option {PARENT}: an interface")
    of_ipv6 = sum(1 for pool in request.pools if ":" in pool.subnet)
    if of_ipv6 > 1 or len(request.pools) - of_ipv6 > 1:
        raise BadParameter("a network has one subnet of IPv4 and one of IPv6 at most")


def _address(key: str, value: str) -> None:
    try:
        ipaddress.ip_address(value)
    except ValueError as error:
        raise BadParameter(f"{key}: {error}") from None


def flag(network: Network | NetworkRequest, key: str, *, default: bool) -> bool:
    """Whether an option is on; ``default`` where it is not given."""
    value = network.options.get(key)
    return default if value is None else value.lower() in _TRUE
