"""The little languages inside JSON bodies: ports ("80/tcp"), the size of a terminal ([24, 80])."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from dockerd_py.api.fields import Fields, JsonObject
from dockerd_py.engine.network_model import PROTOCOLS, PortBinding
from dockerd_py.errors import BadParameter

_NUMBER = re.compile(r"[0-9]{1,5}")


def check_port(text: str) -> str:
    """``text`` as "port/protocol"."""
    number, _, protocol = text.partition("/")
    if not _NUMBER.fullmatch(number) or not 1 <= int(number) <= 65535:
        raise BadParameter(f'invalid port specification: "{number}"')
    protocol = protocol.lower() or "tcp"
    if protocol not in PROTOCOLS:
        raise BadParameter(f'invalid protocol: "{protocol}" in port specification "{text}"')
    return f"{int(number)}/{protocol}"


def port_bindings(host: Fields) -> tuple[PortBinding, ...]:
    """HostConfig.PortBindings: {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}.  Raises BadParameter.

    HostPort is a number, a range of which one is taken, or "" or "0" for any that is free.
    """
    bindings = host.object("PortBindings")
    found = []
    for key in bindings.names():
        number, _, protocol = check_port(key).partition("/")
        for binding in bindings.objects(key):
            first, last = _host_ports(binding.text("HostPort"))
            found.append(PortBinding(int(number), protocol, _host_ip(binding.text("HostIp")), first, last))
    return tuple(found)


def encode_port_bindings(bindings: Sequence[PortBinding]) -> JsonObject:
    """The opposite of `port_bindings`."""
    result: dict[str, list[JsonObject]] = {}
    for one in bindings:
        text = f"{one.first}-{one.last}" if one.first != one.last else str(one.first or "")
        result.setdefault(f"{one.port}/{one.protocol}", []).append({"HostIp": one.host_ip, "HostPort": text})
    return result


def _host_ports(text: str) -> tuple[int, int]:
    if text in ("", "0"):
        return 0, 0
    first, dash, last = text.partition("-")
    if not dash:
        last = first
    if not all(_NUMBER.fullmatch(bound) for bound in (first, last)) or not 0 < int(first) <= int(last) < 65536:
        raise BadParameter(f'invalid port specification: "{text}"')
    return int(first), int(last)


def _host_ip(text: str) -> str:
    if not text:
        return ""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise BadParameter(f"invalid IP address: {text}") from None


def console_size(fields: Fields) -> tuple[int, int]:
    """Rows and columns; (0, 0) where they are not said.  Raises BadParameter."""
    size = fields.raw("ConsoleSize")
    if size is None:
        return 0, 0
    if not (
        isinstance(size, list)
        and len(size) == 2
        and all(isinstance(one, int) and not isinstance(one, bool) and 0 <= one <= 65535 for one in size)
    ):
        raise BadParameter(f"Bad parameter: {fields.name('ConsoleSize')} must be two numbers from 0 to 65535")
    return size[0], size[1]
