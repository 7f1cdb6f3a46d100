"""The flags of `run` and `create` about ports, as settings for the API; and ports as the tables show them."""

from __future__ import annotations

from dockerd_py.flags import Flag, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, NamedTuple

    class Published(NamedTuple):
        address: str  # "": the daemon's choice
        outer: str  # "8080", "8000-8010", or "": any
        inner: str  # "80/tcp"
else:
    from collections import namedtuple

    Published = namedtuple("Published", "address outer inner")

_PROTOCOLS = ("tcp", "udp", "sctp")
_FORM = "[[ADDRESS:]PORT:]PORT[/PROTOCOL]"
_LONG_KEYS = ("published", "target", "protocol")


def _publish(text: str) -> None:
    parse_publish(text)


def _expose(text: str) -> None:
    parse_expose(text)


FLAGS = (
    Flag("--expose", "list", help="A port, or a range of them, that the container listens on", check=_expose,
         metavar="PORT[/PROTOCOL]"),
    Flag(("-p", "--publish"), "list", help="Publish a port, or a range of them", check=_publish, metavar=_FORM),
    Flag(("-P", "--publish-all"), "bool", help="Publish all ports that it exposes"),
)  # fmt: skip


def host_settings(given: Parsed) -> dict[str, Any]:
    """HostConfig's part of them."""
    bindings: dict[str, list[dict[str, str]]] = {}
    for one in _published(given):
        bindings.setdefault(one.inner, []).append({"HostIp": one.address, "HostPort": one.outer})
    return {"PortBindings": bindings, "PublishAllPorts": given.boolean("publish-all")}


def exposed(given: Parsed) -> dict[str, dict[str, object]]:
    """ExposedPorts: those of --expose, and those that are published."""
    ports = [port for text in given.strings("expose") for port in parse_expose(text)]
    return {port: {} for port in (*ports, *(one.inner for one in _published(given)))}


def _published(given: Parsed) -> Iterable[Published]:
    return (one for text in given.strings("publish") for one in parse_publish(text))


def parse_expose(text: str) -> list[str]:
    """``80``, ``80/udp`` or ``80-90`` as ["80/tcp", ...].  Raises ValueError."""
    if ":" in text:
        raise ValueError("it must be PORT[/PROTOCOL], without ':'")
    numbers, protocol = _inner(text)
    return [f"{number}/{protocol}" for number in numbers]


def parse_publish(text: str) -> list[Published]:
    """``[[address:]port:]port[/protocol]``, one entry a port of the container's.

    Each port may be a range: as many of the host's as of the container's, or of several of the host's one for the
    container's only one.  The address of IPv6 stands in brackets.  ``published=8080,target=80,protocol=udp`` is the
    same in words.  Raises ValueError.
    """
    address, outer, inner = _split(_in_short(text) if "=" in text else text)
    numbers, protocol = _inner(inner)
    if not outer or outer == "0":
        return [Published(address, "", f"{number}/{protocol}") for number in numbers]
    outside = _range(outer)
    if len(numbers) == 1:
        chosen = f"{outside[0]}-{outside[-1]}" if len(outside) > 1 else str(outside[0])
        return [Published(address, chosen, f"{numbers[0]}/{protocol}")]
    if len(numbers) != len(outside):
        raise ValueError(f"{outer} are {len(outside)} ports of the host's for the container's {len(numbers)}")
    pairs = zip(outside, numbers, strict=True)
    return [Published(address, str(host), f"{number}/{protocol}") for host, number in pairs]


def _in_short(text: str) -> str:
    parts: dict[str, str] = {}
    for pair in text.split(","):
        key, sign, value = pair.partition("=")
        if not sign or key.lower() not in _LONG_KEYS:
            raise ValueError(f'"{pair}" is none of {", ".join(f"{each}=..." for each in _LONG_KEYS)}')
        parts[key.lower()] = value
    if not parts.get("target"):
        raise ValueError("the container's port (target=) is missing")
    return f"{parts.get('published', '')}:{parts['target']}/{parts.get('protocol') or 'tcp'}"


def _split(text: str) -> tuple[str, str, str]:
    """Address, the host's ports and the container's, "" for what is not given."""
    rest, slash, protocol = text.partition("/")
    address = ""
    if rest.startswith("["):
        address, bracket, rest = rest[1:].partition("]:")
        if not bracket:
            raise ValueError("an IPv6 address must be followed by ']:' and ports")
    elif rest.count(":") == 2:
        address, _, rest = rest.partition(":")
    elif rest.count(":") > 2:
        raise ValueError(f"it must be {_FORM}, with an IPv6 address in brackets")
    outer, colon, inner = rest.rpartition(":")
    if address:
        import ipaddress

        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise ValueError(f'"{address}" is no IP address') from None
        if not colon:
            raise ValueError("between an address and the container's port a colon is missing")
    return address, outer, inner + slash + protocol


def _inner(text: str) -> tuple[range, str]:
    numbers, slash, protocol = text.partition("/")
    if slash and protocol.lower() not in _PROTOCOLS:
        raise ValueError(f'"{protocol}" is no protocol: it must be tcp, udp or sctp')
    return _range(numbers), protocol.lower() or "tcp"


def _range(text: str) -> range:
    first, dash, last = text.partition("-")
    numbers = range(_number(first), _number(last if dash else first) + 1)
    if not numbers:
        raise ValueError(f'"{text}" is no range: its end comes before its beginning')
    return numbers


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 0 < int(text) < 65536:
        raise ValueError(f'"{text}" is no port: it must be a number from 1 to 65535')
    return int(text)


def column(ports: list[dict[str, Any]]) -> str:
    """A container's ports in one line: ``0.0.0.0:8080->80/tcp, :::8080->80/tcp``.

    Neighbours whose numbers are the same outside are one entry: ``0.0.0.0:80-82->80-82/tcp``.
    """
    runs: list[tuple[str, str, list[int]]] = []  # address, protocol, first and last
    open_runs: dict[tuple[str, str], list[int]] = {}
    others = []
    for port in sorted(ports, key=_order):
        address, number, protocol = port.get("IP") or "", port["PrivatePort"], port.get("Type") or "tcp"
        outer = port.get("PublicPort") or 0
        if outer and outer != number:
            others.append(f"{address}:{outer}->{number}/{protocol}")
            continue
        place = (address if outer else "", protocol)
        run = open_runs.get(place)
        if run is not None and number in (run[1], run[1] + 1):
            run[1] = number
        else:
            open_runs[place] = run = [number, number]
            runs.append((*place, run))
    return ", ".join([*(_run(*each) for each in runs), *others])


def _run(address: str, protocol: str, run: list[int]) -> str:
    numbers = str(run[0]) if run[0] == run[1] else f"{run[0]}-{run[1]}"
    return f"{address}:{numbers}->{numbers}/{protocol}" if address else f"{numbers}/{protocol}"


def _order(port: dict[str, Any]) -> tuple[int, str, str, int]:
    return port["PrivatePort"], port.get("IP") or "", port.get("Type") or "tcp", port.get("PublicPort") or 0
