"""The flags of `run` and `create` that say which networks a container is on, as settings for the API.

Up to API 1.43 a container is created with one network; those of further --network are connected before it is started.
"""

from __future__ import annotations

from dockerd_py.cli.errors import UsageError
from dockerd_py.flags import Flag, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_OWN = ("default", "bridge", "none", "host")  # modes that are no network of a user's
_LISTS = {"alias": "Aliases", "link-local-ip": "LinkLocalIPs"}
_TEXTS = {"ip": "IPv4Address", "ip6": "IPv6Address", "mac-address": "MacAddress"}


def _network(text: str) -> None:
    parse_network(text)


def _ipv4(text: str) -> None:
    _address(text, 4)


def _ipv6(text: str) -> None:
    _address(text, 6)


def _link_local(text: str) -> None:
    _address(text)


def mac(text: str) -> None:
    digits = text.lower().replace("-", ":").split(":")
    if len(digits) != 6 or not all(len(pair) == 2 and not set(pair) - set("0123456789abcdef") for pair in digits):
        raise ValueError("it must be six pairs of hexadecimal digits, such as 02:42:ac:11:00:02")


FLAGS = (
    Flag("--ip", help="Its IPv4 address on its network", check=_ipv4, metavar="ADDRESS"),
    Flag("--ip6", help="Its IPv6 address on its network", check=_ipv6, metavar="ADDRESS"),
    Flag("--link-local-ip", "list", help="A link-local address of it", check=_link_local, metavar="ADDRESS"),
    Flag("--mac-address", help="Its MAC address, such as 02:42:ac:11:00:02", check=mac, metavar="ADDRESS"),
    Flag(("--net", "--network"), "list", help="Network: bridge, none, host, container:NAME, a network's name",
         check=_network, metavar="NETWORK"),
    Flag(("--net-alias", "--network-alias"), "list", help="A name of it for others on its network", metavar="NAME"),
    Flag(("-n", "--networking"), "bool", True, "With a network; false is --network=none"),
)  # fmt: skip

CONNECT_FLAGS = (
    Flag("--alias", "list", help="A name of it for others on the network", metavar="NAME"),
    Flag("--driver-opt", "list", help="An option for the network's driver", metavar="KEY=value"),
    Flag("--ip", help="Its IPv4 address there", check=_ipv4, metavar="ADDRESS"),
    Flag("--ip6", help="Its IPv6 address there", check=_ipv6, metavar="ADDRESS"),
    Flag("--link", "list", help="A container that it sees there by another name", metavar="CONTAINER[:ALIAS]"),
    Flag("--link-local-ip", "list", help="A link-local address of it there", check=_link_local, metavar="ADDRESS"),
)


class Networks:
    """mode: HostConfig's NetworkMode.

    endpoints: by network, in the order given, what is asked of each (EndpointSettings).
    """

    def __init__(self, mode: str, endpoints: dict[str, dict[str, Any]], mac_address: str) -> None:
        self.mode = mode
        self.endpoints = endpoints
        self.mac_address = mac_address

    @property
    def settings(self) -> dict[str, Any]:
        """What create is told beside the mode."""
        body: dict[str, Any] = {}
        if endpoint := self.endpoints.get(self.mode):
            body["NetworkingConfig"] = {"EndpointsConfig": {self.mode: endpoint}}
        if self.mac_address:
            body["MacAddress"] = self.mac_address
        return body

    @property
    def more(self) -> dict[str, dict[str, Any]]:
        """The networks to connect once the container is there."""
        return {name: endpoint for name, endpoint in self.endpoints.items() if name != self.mode}


def networks(given: Parsed) -> Networks:
    """Raises UsageError for what contradicts itself."""
    wanted = [parse_network(text) for text in given.strings("network")]
    if not given.boolean("networking"):
        if wanted and [name for name, _ in wanted] != ["none"]:
            raise UsageError(f"Conflicting options: --networking=false and --network={given.strings('network')[0]}")
        wanted = [("none", {})]
    wanted = wanted or [("default", {})]
    names = [name for name, _ in wanted]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f'network "{name}" is specified multiple times')
    strangers = [name for name in names if name in _OWN or name.startswith("container:")]
    if len(names) > 1 and strangers:
        raise UsageError(f"Conflicting options: --network={strangers[0]} goes with no other network")
    mode, first = wanted[0]
    for key, flag in (("Aliases", "network-alias"), ("LinkLocalIPs", "link-local-ip")):
        if own := given.strings(flag):
            _refuse_twice(flag, key, first)
            first[key] = own
    for key, flag in (("IPv4Address", "ip"), ("IPv6Address", "ip6"), ("MacAddress", "mac-address")):
        if given.has(flag):
            _refuse_twice(flag, key, first)
            first[key] = given.string(flag)
    mac_address = str(first.pop("MacAddress", ""))
    return Networks(mode, {name: endpoint(asked) for name, asked in wanted if asked or name != mode}, mac_address)


def endpoint_of_connect(given: Parsed) -> dict[str, Any]:
    """The EndpointSettings that the flags of `network connect` make."""
    asked: dict[str, Any] = {
        "Aliases": given.strings("alias"),
        "DriverOpts": dict(text.partition("=")[::2] for text in given.strings("driver-opt")),
        "IPv4Address": given.string("ip"),
        "IPv6Address": given.string("ip6"),
        "Links": given.strings("link"),
        "LinkLocalIPs": given.strings("link-local-ip"),
    }
    return endpoint({key: value for key, value in asked.items() if value})


def parse_network(text: str) -> tuple[str, dict[str, Any]]:
    """A network's name, or ``name=NAME,alias=...,ip=...,...``, and what is asked of it.  Raises ValueError."""
    if "=" not in text:
        if not text or "," in text:
            raise ValueError("it must be a network's name, or name=NAME,alias=...,ip=...,mac-address=...")
        return text, {}
    name = ""
    asked: dict[str, Any] = {}
    for part in text.split(","):
        key, sign, value = part.partition("=")
        key = key.strip().lower()
        if not sign or not value:
            raise ValueError(f'"{part}" is no KEY=value')
        if key == "name":
            name = value
        elif key in _LISTS:
            asked.setdefault(_LISTS[key], []).append(value)
        elif key in _TEXTS:
            asked[_TEXTS[key]] = value
        elif key == "driver-opt":
            option, _, setting = value.partition("=")
            asked.setdefault("DriverOpts", {})[option] = setting
        else:
            known = ", ".join(("name", *_LISTS, *_TEXTS, "driver-opt"))
            raise ValueError(f'"{key}" is no key: there are {known}')
    if not name:
        raise ValueError("the network is missing: name=NAME")
    _check(asked)
    return name, asked


def _check(asked: dict[str, Any]) -> None:
    if "IPv4Address" in asked:
        _ipv4(asked["IPv4Address"])
    if "IPv6Address" in asked:
        _ipv6(asked["IPv6Address"])
    for address in asked.get("LinkLocalIPs", ()):
        _link_local(address)
    if "MacAddress" in asked:
        mac(asked["MacAddress"])


def endpoint(asked: dict[str, Any]) -> dict[str, Any]:
    """EndpointSettings, in which the addresses stand apart."""
    addresses = {key: asked[key] for key in ("IPv4Address", "IPv6Address", "LinkLocalIPs") if key in asked}
    rest = {key: value for key, value in asked.items() if key not in addresses}
    return {**rest, "IPAMConfig": addresses} if addresses else rest


def _refuse_twice(flag: str, key: str, asked: dict[str, Any]) -> None:
    if key in asked:
        raise UsageError(f"Conflicting options: --{flag} says what --network says, too")


def _address(text: str, version: int = 0) -> None:
    import ipaddress

    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f'"{text}" is no IP address') from None
    if version and address.version != version:
        raise ValueError(f'"{text}" is no address of IPv{version}')
