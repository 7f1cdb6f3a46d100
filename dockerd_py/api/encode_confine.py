"""What separates a container from its host, as the keys of Docker's HostConfig that inspect shows."""

from __future__ import annotations

from dockerd_py.api.fields import JsonObject
from dockerd_py.engine.confine import masked_paths, readonly_paths
from dockerd_py.engine.isolation import Namespaces, Resolver, Security, Tuning
from dockerd_py.engine.model import HostConfig


def confinement(host: HostConfig) -> JsonObject:
    result: JsonObject = {
        **_namespaces(host.namespaces),
        **_security(host.security),
        **_tuning(host.tuning),
        **_resolver(host.resolver),
        "CgroupParent": host.cgroup_parent,
    }
    if host.annotations:
        result["Annotations"] = host.annotations
    if host.lxc_conf:
        result["LxcConf"] = [{"Key": key, "Value": value} for key, value in host.lxc_conf]
    return result


def _namespaces(value: Namespaces) -> JsonObject:
    return {
        "PidMode": value.pid,
        "IpcMode": value.ipc or "private",
        "UTSMode": value.uts,
        "CgroupnsMode": value.cgroup or "private",
        "UsernsMode": value.user,
    }


def _security(value: Security) -> JsonObject:
    return {
        "Privileged": value.privileged,
        "CapAdd": list(value.cap_add) or None,
        "CapDrop": list(value.cap_drop) or None,
        "SecurityOpt": list(value.security_opt) or None,
        "Devices": [
            {
                "PathOnHost": device.path_on_host,
                "PathInContainer": device.path_in_container,
                "CgroupPermissions": device.permissions,
            }
            for device in value.devices
        ],
        "DeviceCgroupRules": list(value.device_cgroup_rules) or None,
        "ReadonlyRootfs": value.read_only_root,
        "MaskedPaths": None if value.privileged else list(masked_paths(value)),
        "ReadonlyPaths": None if value.privileged else list(readonly_paths(value)),
        "GroupAdd": list(value.group_add) or None,
    }


def _tuning(value: Tuning) -> JsonObject:
    result: JsonObject = {
        "Ulimits": [{"Name": limit.name, "Soft": limit.soft, "Hard": limit.hard} for limit in value.ulimits] or None,
        "OomScoreAdj": value.oom_score_adj,
        "OomKillDisable": value.oom_kill_disable,
    }
    if value.init is not None:
        result["Init"] = value.init
    if value.sysctls:
        result["Sysctls"] = value.sysctls
    return result


def _resolver(value: Resolver) -> JsonObject:
    return {
        "ExtraHosts": list(value.extra_hosts) or None,
        "Dns": list(value.dns),
        "DnsSearch": list(value.search),
        "DnsOptions": list(value.options),
    }
