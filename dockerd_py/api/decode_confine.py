"""From the JSON of a HostConfig to what separates a container from its host: `engine.isolation`.

Only shapes are checked here.  What the values mean, and whether this host can do it, is the engine's to say.
"""

from __future__ import annotations

from typing import Any

from dockerd_py.api.fields import Fields, check_text
from dockerd_py.engine.isolation import Device, Namespaces, Resolver, Security, Tuning, Ulimit
from dockerd_py.errors import BadParameter


def namespaces(fields: Fields) -> Namespaces:
    return Namespaces(
        pid=fields.text("PidMode"),
        ipc=fields.text("IpcMode"),
        uts=fields.text("UTSMode"),
        cgroup=fields.text("CgroupnsMode"),
        user=fields.text("UsernsMode"),
    )


def security(fields: Fields) -> Security:
    return Security(
        privileged=fields.flag("Privileged"),
        cap_add=fields.texts("CapAdd"),
        cap_drop=fields.texts("CapDrop"),
        security_opt=fields.texts("SecurityOpt"),
        devices=tuple(_device(device) for device in fields.objects("Devices")),
        device_cgroup_rules=fields.texts("DeviceCgroupRules"),
        read_only_root=fields.flag("ReadonlyRootfs"),
        masked_paths=fields.optional_texts("MaskedPaths"),
        readonly_paths=fields.optional_texts("ReadonlyPaths"),
        group_add=_words(fields, "GroupAdd"),
    )


def tuning(fields: Fields) -> Tuning:
    return Tuning(
        init=None if fields.raw("Init") is None else fields.flag("Init"),
        sysctls=fields.text_map("Sysctls"),
        ulimits=tuple(_ulimit(limit) for limit in fields.objects("Ulimits")),
        oom_score_adj=fields.number("OomScoreAdj"),
        oom_kill_disable=fields.flag("OomKillDisable"),
    )


def resolver(fields: Fields, flat: Fields) -> Resolver:
    """``flat``: where the first year put the name servers, beside the container's configuration."""
    return Resolver(
        extra_hosts=fields.texts("ExtraHosts"),
        dns=fields.texts("Dns") or flat.texts("Dns"),
        search=fields.texts("DnsSearch"),
        options=fields.texts("DnsOptions"),
    )


def lxc_conf(fields: Fields) -> tuple[tuple[str, str], ...]:
    """A list of ``{"Key": ..., "Value": ...}``, or an object of keys and values: both are in Docker's documents."""
    if isinstance(fields.raw("LxcConf"), dict):
        return tuple(fields.text_map("LxcConf").items())
    return tuple((pair.text("Key"), pair.text("Value")) for pair in fields.objects("LxcConf"))


def _device(device: Fields) -> Device:
    on_host = device.text("PathOnHost")
    return Device(on_host, device.text("PathInContainer") or on_host, device.text("CgroupPermissions") or "rwm")


def _ulimit(limit: Fields) -> Ulimit:
    name = limit.text("Name")
    if not name:
        raise BadParameter(f"Bad parameter: {limit.name('Name')} must not be empty")
    return Ulimit(name, limit.number("Soft"), limit.number("Hard"))


def _words(fields: Fields, key: str) -> tuple[str, ...]:
    """A list of strings, in which docker-py lets numbers stand, too."""
    value: Any = fields.raw(key)
    if not isinstance(value, list):
        return fields.texts(key)
    where = fields.name(key)
    if not all(isinstance(item, (str, int)) and not isinstance(item, bool) for item in value):
        raise BadParameter(f"Bad parameter: {where} must be a list of strings")
    return tuple(check_text(str(item), where) for item in value)
