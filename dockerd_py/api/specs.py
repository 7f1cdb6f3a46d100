"""The little language of ports inside create's JSON: "80/tcp"."""

from __future__ import annotations

import re

from dockerd_py.api.fields import Fields
from dockerd_py.errors import BadParameter, NotSupported

_NUMBER = re.compile(r"[0-9]{1,5}")
_PROTOCOLS = ("tcp", "udp", "sctp")


def check_port(text: str) -> str:
    """``text`` as "port/protocol"."""
    number, _, protocol = text.partition("/")
    if not _NUMBER.fullmatch(number) or not 1 <= int(number) <= 65535:
        raise BadParameter(f'invalid port specification: "{number}"')
    protocol = protocol.lower() or "tcp"
    if protocol not in _PROTOCOLS:
        raise BadParameter(f'invalid protocol: "{protocol}" in port specification "{text}"')
    return f"{int(number)}/{protocol}"


def check_port_bindings(host: Fields) -> None:
    """Check the syntax of HostConfig.PortBindings, then refuse what is left, as nothing can be published yet."""
    bindings = host.object("PortBindings")
    wanted = host.flag("PublishAllPorts")
    for port in bindings.names():
        check_port(port)
        wanted = True
        for binding in bindings.objects(port):
            _check_host_port(binding.text("HostPort"))
    if wanted:
        key = "PublishAllPorts" if host.flag("PublishAllPorts") else "PortBindings"
        raise NotSupported(f"{host.name(key)} is not supported by this version: ports cannot be published yet")


def _check_host_port(text: str) -> None:
    if not text:
        return
    bounds = text.split("-", 1)
    if not all(_NUMBER.fullmatch(bound) and int(bound) <= 65535 for bound in bounds):
        raise BadParameter(f'invalid port specification: "{text}"')
    if int(bounds[0]) > int(bounds[-1]):
        raise BadParameter(f'invalid port specification: "{text}"')
