"""From the JSON of a HostConfig to the engine's settings: what belongs to one container on one host.

Every key that Docker's schema knows is either carried into the settings or must hold its default: what has no effect
here is refused by name (NotSupported), never ignored.  Keys that Docker does not know are ignored, as Docker does.
"""

from __future__ import annotations

from dockerd_py.api.benign import Benign, anything, empty, one_of, refuse_others
from dockerd_py.api.fields import Fields
from dockerd_py.api.specs import check_port_bindings, parse_bind, parse_mount
from dockerd_py.engine.model import Bind, HostConfig, RestartPolicy
from dockerd_py.errors import BadParameter, NotSupported

NETWORK_MODES = ("default", "bridge", "none", "host")
DEFAULT_SHM_SIZE = 64 << 20


def decode_host(fields: Fields, flat: Fields | None = None) -> tuple[HostConfig, tuple[str, ...]]:
    """A HostConfig, and the host paths in it that have to exist.

    ``flat`` is where API versions up to 1.17 put the limits: beside the container's configuration.
    """
    refuse_others(fields, _HOST_BENIGN)
    limits = Fields({}) if flat is None else flat
    network_mode = fields.text("NetworkMode") or "default"
    if network_mode not in NETWORK_MODES:
        raise NotSupported(
            f'HostConfig.NetworkMode "{network_mode}" is not supported by this version; '
            f"use one of {', '.join(NETWORK_MODES)}"
        )
    log_fields = fields.object("LogConfig")
    check_port_bindings(fields)
    binds, must_exist = _binds(fields)
    host = HostConfig(
        binds=binds,
        memory=_limit(fields, limits, "Memory"),
        memory_swap=_limit(fields, limits, "MemorySwap"),
        cpu_shares=_limit(fields, limits, "CpuShares"),
        nano_cpus=fields.number("NanoCpus"),
        cpu_quota=max(0, fields.number("CpuQuota")),  # -1 lifts a limit, which a new container has none of
        cpu_period=fields.number("CpuPeriod"),
        pids_limit=max(0, fields.number("PidsLimit")),  # likewise
        network_mode=network_mode,
        auto_remove=fields.flag("AutoRemove"),
        restart=_restart(fields.object("RestartPolicy")),
        log_driver=log_fields.text("Type"),
        log_options=log_fields.text_map("Config"),
        container_id_file=fields.text("ContainerIDFile"),
    )
    return host, must_exist


def _limit(fields: Fields, flat: Fields, key: str) -> int:
    value = fields.number(key)
    return value if value else flat.number(key)


def _restart(fields: Fields) -> RestartPolicy:
    return RestartPolicy(fields.text("Name"), fields.number("MaximumRetryCount"))


def _binds(fields: Fields) -> tuple[tuple[Bind, ...], tuple[str, ...]]:
    binds = [parse_bind(text) for text in fields.texts("Binds")]
    mounts = [parse_mount(mount) for mount in fields.objects("Mounts")]
    must_exist = tuple(bind.source for bind, created in mounts if not created)
    binds += [bind for bind, _ in mounts]
    targets: set[str] = set()
    for bind in binds:
        if bind.target in targets:
            raise BadParameter(f"Duplicate mount point: {bind.target}")
        targets.add(bind.target)
    return tuple(binds), must_exist


# Settings that have no effect here, each with what counts as "not asked for".
_HOST_BENIGN: dict[str, Benign] = {
    "Annotations": empty,
    "BlkioDeviceReadBps": empty,
    "BlkioDeviceReadIOps": empty,
    "BlkioDeviceWriteBps": empty,
    "BlkioDeviceWriteIOps": empty,
    "BlkioWeight": empty,
    "BlkioWeightDevice": empty,
    "CapAdd": empty,
    "CapDrop": empty,
    "Capabilities": empty,
    "Cgroup": empty,
    "CgroupParent": empty,
    "CgroupnsMode": one_of("", "private"),
    "ConsoleSize": anything,  # the client sets the size of its terminal when it attaches, too
    "CpuCount": empty,
    "CpuPercent": empty,
    "CpuRealtimePeriod": empty,
    "CpuRealtimeRuntime": empty,
    "CpusetCpus": empty,
    "CpusetMems": empty,
    "DeviceCgroupRules": empty,
    "DeviceRequests": empty,
    "Devices": empty,
    "Dns": empty,
    "DnsOptions": empty,
    "DnsSearch": empty,
    "ExtraHosts": empty,
    "GroupAdd": empty,
    "IOMaximumBandwidth": empty,
    "IOMaximumIOps": empty,
    "Init": empty,
    "IpcMode": one_of("", "private"),
    "Isolation": one_of("", "default"),
    "KernelMemory": empty,
    "KernelMemoryTCP": empty,
    "Links": empty,
    "LxcConf": empty,
    "MaskedPaths": lambda value: value is None,  # an empty list would lift the masks
    "MemoryReservation": empty,
    "MemorySwappiness": one_of(-1),
    "OomKillDisable": empty,
    "OomScoreAdj": empty,
    "PidMode": empty,
    "Privileged": empty,
    "ReadonlyPaths": lambda value: value is None,
    "ReadonlyRootfs": empty,
    "Runtime": one_of("", "crun"),
    "SecurityOpt": empty,
    "ShmSize": one_of(0, DEFAULT_SHM_SIZE),
    "StorageOpt": empty,
    "Sysctls": empty,
    "Tmpfs": empty,
    "UTSMode": empty,
    "Ulimits": empty,
    "UsernsMode": empty,
    "VolumeDriver": empty,
    "VolumesFrom": empty,
}
