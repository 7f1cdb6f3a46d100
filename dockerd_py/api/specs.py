"""The little languages inside JSON bodies: ports ("80/tcp"), the size of a terminal ([24, 80])."""

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
