"""From the JSON of a HostConfig to the engine's settings: what belongs to one container on one host.

Every key that Docker's schema knows is either carried into the settings or must hold its default: what has no effect
here is refused by name (NotSupported), never ignored.  Keys that Docker does not know are ignored, as Docker does.
"""

from __future__ import annotations

from dockerd_py.api import decode_confine
from dockerd_py.api.benign import Benign, empty, one_of, refuse_others, says_nothing
from dockerd_py.api.fields import Fields, JsonObject
from dockerd_py.api.mounts import parse_bind, parse_mount, parse_volumes_from
from dockerd_py.api.specs import console_size, port_bindings
from dockerd_py.engine.links import parse as parse_link
from dockerd_py.engine.model import DeviceRate, HostConfig, RestartPolicy
from dockerd_py.engine.mount_model import DEFAULT_SHM_SIZE
from dockerd_py.engine.network_model import DEFAULT
from dockerd_py.errors import NotSupported


def decode_host(fields: Fields, flat: Fields | None = None) -> HostConfig:
    """A HostConfig.  BadParameter, NotSupported.

    ``flat`` is where API versions up to 1.17 put the limits: beside the container's configuration.
    """
    refuse_others(fields, _HOST_BENIGN)
    limits = Fields({}) if flat is None else flat
    log_fields = fields.object("LogConfig")
    return HostConfig(
        binds=tuple(parse_bind(text) for text in fields.texts("Binds")),
        mounts=tuple(parse_mount(mount) for mount in fields.objects("Mounts")),
        volumes_from=parse_volumes_from(fields, limits),
        volume_driver=fields.text("VolumeDriver") or limits.text("VolumeDriver"),
        tmpfs=fields.text_map("Tmpfs"),
        shm_size=fields.number("ShmSize") or DEFAULT_SHM_SIZE,
        memory=_limit(fields, limits, "Memory"),
        memory_swap=_limit(fields, limits, "MemorySwap"),
        cpu_shares=_limit(fields, limits, "CpuShares"),
        nano_cpus=fields.number("NanoCpus"),
        cpu_quota=fields.number("CpuQuota"),
        cpu_period=fields.number("CpuPeriod"),
        pids_limit=fields.number("PidsLimit"),
        memory_reservation=fields.number("MemoryReservation"),
        memory_swappiness=_swappiness(fields),
        cpuset_cpus=fields.text("CpusetCpus") or limits.text("Cpuset"),
        cpuset_mems=fields.text("CpusetMems"),
        blkio_weight=fields.number("BlkioWeight"),
        blkio_weight_devices=_rates(fields, "BlkioWeightDevice", "Weight"),
        blkio_read_bps=_rates(fields, "BlkioDeviceReadBps"),
        blkio_write_bps=_rates(fields, "BlkioDeviceWriteBps"),
        blkio_read_iops=_rates(fields, "BlkioDeviceReadIOps"),
        blkio_write_iops=_rates(fields, "BlkioDeviceWriteIOps"),
        network_mode=fields.text("NetworkMode") or DEFAULT,
        port_bindings=port_bindings(fields),
        publish_all=fields.flag("PublishAllPorts"),
        links=tuple(map(parse_link, fields.texts("Links"))),
        auto_remove=fields.flag("AutoRemove"),
        restart=_restart(fields.object("RestartPolicy")),
        log_driver=log_fields.text("Type"),
        log_options=log_fields.text_map("Config"),
        container_id_file=fields.text("ContainerIDFile"),
        namespaces=decode_confine.namespaces(fields),
        security=decode_confine.security(fields),
        tuning=decode_confine.tuning(fields),
        resolver=decode_confine.resolver(fields, limits),
        runtime=fields.text("Runtime"),
        cgroup_parent=fields.text("CgroupParent"),
        annotations=fields.text_map("Annotations"),
        lxc_conf=decode_confine.lxc_conf(fields),
        console_size=console_size(fields),
    )


def _limit(fields: Fields, flat: Fields, key: str) -> int:
    value = fields.number(key)
    return value if value else flat.number(key)


def decode_update(body: JsonObject) -> HostConfig:
    """The change in the body of POST /containers/{id}/update.  BadParameter, NotSupported."""
    fields = Fields(body)
    known = {name.casefold() for name in _UPDATE}
    for key in fields.names():
        if key.casefold() not in known and not says_nothing(fields.raw(key)):
            raise NotSupported(f"{key} cannot be updated")
    given = {key: value for key, value in body.items() if key.casefold() in known}
    return decode_host(Fields(given))


def _restart(fields: Fields) -> RestartPolicy:
    return RestartPolicy(fields.text("Name"), fields.number("MaximumRetryCount"))


def _swappiness(fields: Fields) -> int | None:
    value = fields.optional_number("MemorySwappiness")
    return None if value == -1 else value


def _rates(fields: Fields, key: str, value: str = "Rate") -> tuple[DeviceRate, ...]:
    return tuple(DeviceRate(one.text("Path"), one.number(value)) for one in fields.objects(key))


# Settings that have no effect here, each with what counts as "not asked for".
_HOST_BENIGN: dict[str, Benign] = {
    "Capabilities": empty,
    "Cgroup": empty,
    "CpuCount": empty,
    "CpuPercent": empty,
    "CpuRealtimePeriod": empty,
    "CpuRealtimeRuntime": empty,
    "DeviceRequests": empty,
    "IOMaximumBandwidth": empty,
    "IOMaximumIOps": empty,
    "Isolation": one_of("", "default"),
    "KernelMemory": empty,
    "KernelMemoryTCP": empty,
    "StorageOpt": empty,
}

_UPDATE = frozenset((
    "BlkioWeight", "BlkioWeightDevice", "BlkioDeviceReadBps", "BlkioDeviceReadIOps", "BlkioDeviceWriteBps",
    "BlkioDeviceWriteIOps", "CpuShares", "CpuPeriod", "CpuQuota", "CpusetCpus", "CpusetMems", "NanoCpus", "Memory",
    "MemorySwap", "MemoryReservation", "PidsLimit", "RestartPolicy",
))  # fmt: skip
"""What `update` can change; anything else must say nothing."""
