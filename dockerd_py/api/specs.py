"""The little languages inside create's JSON: ports ("80/tcp"), binds ("/src:/dst:ro") and mounts."""

from __future__ import annotations

import posixpath
import re

from dockerd_py.api.fields import Fields
from dockerd_py.engine.model import Bind
from dockerd_py.errors import BadParameter, NotSupported

_NUMBER = re.compile(r"[0-9]{1,5}")
_PROTOCOLS = ("tcp", "udp", "sctp")
_READ_MODES = {"rw": False, "ro": True}
_IGNORED_MODES = frozenset(
    # SELinux labels (no effect where it is off, as here), hints for file sharing on other systems, and the default
    ("z", "Z", "consistent", "cached", "delegated", "rprivate")
)
_INVALID_BIND = "invalid volume specification: '{}': invalid mount config for type \"bind\""
_PROPAGATIONS = frozenset(("shared", "rshared", "slave", "rslave", "private"))


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


def parse_bind(text: str) -> Bind:
    """One item of HostConfig.Binds: ``source:target[:mode,mode...]``."""
    parts = text.split(":")
    if not all(parts) or len(parts) > 3:
        raise BadParameter(f"invalid volume specification: '{text}'")
    if len(parts) == 1:
        _check_target(text, parts[0])
        raise NotSupported(f"the anonymous volume '{text}' in HostConfig.Binds is not supported by this version")
    source, target = parts[:2]
    read_only = _read_only(parts[2]) if len(parts) == 3 else False
    target = _check_target(text, target)
    if not source.startswith("/"):
        if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", source):
            raise BadParameter(
                f"invalid volume specification: '{text}': \"{source}\" is neither an absolute path nor a volume's name"
            )
        raise NotSupported(f"the named volume '{source}' in HostConfig.Binds is not supported by this version")
    return Bind(_normal(source), target, read_only)


def parse_mount(mount: Fields) -> tuple[Bind, bool]:
    """One item of HostConfig.Mounts, and whether its source is made when it is missing."""
    kind = mount.text("Type")
    if kind not in ("bind", "volume", "tmpfs", "npipe", "cluster"):
        raise BadParameter(f'invalid mount config: mount type unknown: "{kind}"')
    if kind != "bind":
        raise NotSupported(f'{mount.name("Type")} "{kind}" is not supported by this version')
    source, target = mount.text("Source"), mount.text("Target")
    invalid = 'invalid mount config for type "bind"'
    if not target:
        raise BadParameter(f"{invalid}: field Target must not be empty")
    if not source:
        raise BadParameter(f"{invalid}: field Source must not be empty")
    if not source.startswith("/"):
        raise BadParameter(f"{invalid}: invalid mount path: '{source}' mount path must be absolute")
    options = mount.object("BindOptions")
    for key in options.names():
        value = options.raw(key)
        if key == "CreateMountpoint" or not value or (key == "Propagation" and value == "rprivate"):
            continue
        raise NotSupported(f"{options.name(key)} is not supported by this version")
    for key in ("VolumeOptions", "TmpfsOptions", "ClusterOptions"):
        if mount.raw(key):
            raise BadParameter(f"{invalid}: {key} does not belong to it")
    target = _check_target(target, target)
    return Bind(_normal(source), target, mount.flag("ReadOnly")), options.flag("CreateMountpoint")


def _read_only(modes: str) -> bool:
    read_only: bool | None = None
    for mode in modes.split(","):
        if mode in _READ_MODES and read_only is None:
            read_only = _READ_MODES[mode]
        elif mode in _PROPAGATIONS:
            raise NotSupported(f"the bind propagation '{mode}' in HostConfig.Binds is not supported by this version")
        elif mode not in _IGNORED_MODES:
            raise BadParameter(f"invalid mode: {modes}")
    return bool(read_only)


def _check_target(text: str, target: str) -> str:
    if not target.startswith("/"):
        raise BadParameter(f"{_INVALID_BIND.format(text)}: invalid mount path: '{target}' mount path must be absolute")
    normal = _normal(target)
    if normal == "/":
        raise BadParameter(f"{_INVALID_BIND.format(text)}: invalid specification: destination can't be '/'")
    return normal


def _normal(path: str) -> str:
    return posixpath.normpath("/" + path.lstrip("/"))
