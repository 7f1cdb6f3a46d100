"""Containers, images, events and the system as Docker's JSON, API 1.24 to 1.43.

All keys that Docker's clients read are there, with Docker's own default where the engine has no such setting.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from dockerd_py.api import encode_first_year, encode_network, eras, mounts, ports
from dockerd_py.api.encode_confine import confinement
from dockerd_py.api.encode_state import state_object, status_text
from dockerd_py.api.fields import JsonObject
from dockerd_py.api.filters import matches_repository
from dockerd_py.api.routing import ApiVersion
from dockerd_py.api.specs import encode_port_bindings
from dockerd_py.api.times import SECOND, rfc3339
from dockerd_py.engine import health_model
from dockerd_py.engine.model import (
    Container,
    ContainerConfig,
    DeviceRate,
    Event,
    Exec,
    HistoryEntry,
    HostConfig,
    Image,
    ImageChange,
    Processes,
)
from dockerd_py.engine.mount_model import Volume

UNNAMED = "<none>:<none>"


def container_inspect(container: Container, version: ApiVersion) -> JsonObject:
    state = container.state
    result: JsonObject = {
        "Id": container.id,
        "Created": rfc3339(container.created),
        "Path": container.path,
        "Args": list(container.args),
        "State": state_object(state),
        "Image": eras.image_id(version, container.image_id),
        "ResolvConfPath": container.resolv_conf_path,
        "HostnamePath": container.hostname_path,
        "HostsPath": container.hosts_path,
        "LogPath": container.log_path,
        "Name": "/" + container.name,
        "RestartCount": state.restarts,
        "Driver": container.driver,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": container.apparmor,
        "ExecIDs": list(container.exec_ids) or None,
        "HostConfig": host_config(container),
        "GraphDriver": {"Data": None, "Name": container.driver},
        "Mounts": [mounts.mount(mount) for mount in container.mounts],
        "Config": config(container.config),
        "NetworkSettings": encode_network.settings(container, version),
    }
    _add_sizes(result, container)
    if eras.spells_containers_as_first_year(version):
        return encode_first_year.inspect(container, result, version)
    if eras.lists_volumes_by_target(version):
        shown = [mount for mount in container.mounts if mount.source]
        result["Volumes"] = {mount.target: mount.source for mount in shown}
        result["VolumesRW"] = {mount.target: not mount.read_only for mount in shown}
    return result


def volume(value: Volume) -> JsonObject:
    return {
        "CreatedAt": rfc3339(value.created // SECOND * SECOND),
        "Driver": value.driver,
        "Labels": value.labels or None,
        "Mountpoint": value.mountpoint,
        "Name": value.name,
        "Options": value.options or None,
        "Scope": "local",
    }


def container_summary(container: Container, version: ApiVersion, image: str) -> JsonObject:
    """One item of the list; ``image`` is the name or id to show."""
    result: JsonObject = {
        "Id": container.id,
        "Names": [f"/{name}" for name in (container.name, *container.link_names)],
        "Image": image,
        "ImageID": eras.image_id(version, container.image_id),
        "Command": _command_line(container, version),
        "Created": container.created // SECOND,
        "Ports": ports.todays_list(ports.ports_of(container)),
        "Labels": container.config.labels,
        "State": container.state.status.value,
        "Status": status_text(container.state, version),
        "HostConfig": {"NetworkMode": container.host.network_mode},
        "NetworkSettings": {"Networks": encode_network.endpoints(container)},
        "Mounts": [mounts.mount(mount) for mount in container.mounts],
    }
    _add_sizes(result, container)
    if eras.spells_containers_as_first_year(version):
        return encode_first_year.summary(container, result, version)
    return result


def image_inspect(image: Image, version: ApiVersion) -> JsonObject:
    result: JsonObject = {
        "Id": eras.image_id(version, image.id),
        "RepoTags": list(image.tags),
        "RepoDigests": list(image.digests),
        "Parent": eras.image_id(version, image.parent_id),
        "Comment": image.comment,
        "Created": rfc3339(image.created) if image.created else _EPOCH,
        "Container": image.container,
        "ContainerConfig": config(image.container_config),
        "DockerVersion": image.docker_version,
        "Author": image.author,
        "Config": config(image.config),
        "Architecture": image.architecture,
        "Os": image.os,
        "Size": image.size,
        "VirtualSize": image.size,
        "GraphDriver": {"Data": None, "Name": image.driver},
        "RootFS": {"Type": "layers", "Layers": list(image.diff_ids)},
        "Metadata": {"LastTagTime": rfc3339(0)},
    }
    if eras.layers_are_images(version):
        result["Size"] = image.own_size
    if eras.spells_images_in_lower_case(version):
        result = {spelling: result[key] for key, spelling in _FIRST_YEAR_KEYS.items()}
        if image.config == ContainerConfig():
            result["config"] = None
    return result


# Where nothing of its making may differ, an image says that it is of this time.
_EPOCH = "1970-01-01T00:00:00Z"

# All that inspect said of an image until 1.11.
_FIRST_YEAR_KEYS = {
    "Id": "id",
    "Parent": "parent",
    "Comment": "comment",
    "Created": "created",
    "Container": "container",
    "ContainerConfig": "container_config",
    "DockerVersion": "docker_version",
    "Author": "author",
    "Config": "config",
    "Architecture": "architecture",
    "Os": "os",
    "Size": "Size",
}


def image_summary(image: Image, version: ApiVersion, shared: int = -1) -> JsonObject:
    """One item of the list; ``shared``: bytes of the layers that other images have too, -1 for not asked."""
    tags, digests = list(image.tags), list(image.digests)
    if eras.names_untagged_images(version) and not tags:
        tags = [UNNAMED]
        digests = digests or ["<none>@<none>"]
    return {
        "Containers": -1,
        "Created": image.created // SECOND,
        "Id": eras.image_id(version, image.id),
        "Labels": image.config.labels or None,
        "ParentId": eras.image_id(version, image.parent_id),
        "RepoDigests": digests,
        "RepoTags": tags,
        "SharedSize": shared,
        "Size": image.own_size if eras.layers_are_images(version) else image.size,
        "VirtualSize": image.size,
    }


def first_year_images(image: Image, pattern: str, version: ApiVersion) -> list[JsonObject]:
    """The items of the list for one image; of its names, those whose repository matches ``pattern``."""
    names = [name for name in image.tags if not pattern or matches_repository(name, pattern)]
    common = {
        "Id": image.id,
        "ParentId": image.parent_id,
        "Created": image.created // SECOND,
        "Size": image.own_size,
        "VirtualSize": image.size,
    }
    if not eras.lists_images_by_tag(version):
        return [{"RepoTags": names or [UNNAMED], **common}]
    pairs = [name.rpartition(":") for name in names or [UNNAMED]]
    return [{"Repository": repository, "Tag": tag, **common} for repository, _, tag in pairs]


def image_changes(changes: Sequence[ImageChange], version: ApiVersion, removed: str = "") -> list[JsonObject]:
    """``removed`` is the id of the image that was named."""
    return [
        {"Untagged": change.untagged if eras.names_untagged(version) else removed}
        if change.untagged
        else {"Deleted": eras.image_id(version, change.deleted)}
        for change in changes
    ]


def history_entry(entry: HistoryEntry, version: ApiVersion) -> JsonObject:
    result: JsonObject = {
        "Id": eras.image_id(version, entry.id) if entry.id else "<missing>",
        "Created": entry.created // SECOND,
        "CreatedBy": entry.created_by,
        "Tags": list(entry.tags) or None,
        "Size": entry.size,
        "Comment": entry.comment,
    }
    if eras.is_first_year(version):
        del result["Comment"]
    return result


def event(value: Event, version: ApiVersion) -> JsonObject:
    identity = value.id
    if value.type == "image" and eras.layers_are_images(version):
        identity = identity.removeprefix("sha256:")
    result: JsonObject = {}
    if value.type in ("container", "image"):
        result["status"] = value.action
        result["id"] = identity
        if value.type == "container" and eras.has_image_in_events(version):
            result["from"] = value.attributes.get("image", "")
    result["time"] = value.time // SECOND
    if not eras.is_first_year(version):
        result |= {
            "Type": value.type,
            "Action": value.action,
            "Actor": {"ID": identity, "Attributes": value.attributes},
            "scope": "local",
            "timeNano": value.time,
        }
    return result


def exec_inspect(value: Exec, container: Container | None, version: ApiVersion) -> JsonObject:
    """``container`` is shown up to API 1.21, where it still exists."""
    wanted = value.config
    result: JsonObject = {
        "ID": value.id,
        "Running": value.running,
        "ExitCode": value.exit_code,
        "ProcessConfig": {
            "tty": wanted.tty,
            "entrypoint": wanted.cmd[0],
            "arguments": list(wanted.cmd[1:]),
            "privileged": wanted.privileged,
        },
        "OpenStdin": wanted.attach_stdin,
        "OpenStderr": wanted.attach_stderr,
        "OpenStdout": wanted.attach_stdout,
        "CanRemove": value.exit_code is not None,
        "ContainerID": value.container_id,
        "DetachKeys": base64.b64encode(wanted.detach_keys.encode()).decode(),
        "Pid": value.pid,
    }
    if wanted.user:
        result["ProcessConfig"]["user"] = wanted.user
    if container is not None and eras.exec_shows_container(version):
        result["Container"] = container_inspect(container, version)
    return result


def processes(value: Processes) -> JsonObject:
    return {"Titles": list(value.titles), "Processes": [list(row) for row in value.rows]}


def config(value: ContainerConfig) -> JsonObject:
    """Docker's ``Config``."""
    result: JsonObject = {
        "Hostname": value.hostname,
        "Domainname": value.domainname,
        "User": value.user,
        "AttachStdin": value.attach_stdin,
        "AttachStdout": value.attach_stdout,
        "AttachStderr": value.attach_stderr,
        "Tty": value.tty,
        "OpenStdin": value.open_stdin,
        "StdinOnce": value.stdin_once,
        "Env": list(value.env),
        "Cmd": list(value.cmd) or None,
        "Image": value.image,
        "Volumes": {path: {} for path in value.volumes} or None,
        "WorkingDir": value.working_dir,
        "Entrypoint": None if value.entrypoint is None else list(value.entrypoint),
        "OnBuild": list(value.on_build) or None,
        "Labels": value.labels,
    }
    if value.exposed_ports:
        result["ExposedPorts"] = {port: {} for port in value.exposed_ports}
    if value.network_disabled:
        result["NetworkDisabled"] = True
    if value.stop_signal:
        result["StopSignal"] = value.stop_signal
    if value.stop_timeout is not None:
        result["StopTimeout"] = value.stop_timeout
    if value.healthcheck is not None:
        result["Healthcheck"] = health_model.to_json(value.healthcheck)
    if value.mac_address:
        result["MacAddress"] = value.mac_address
    if value.shell:
        result["Shell"] = list(value.shell)
    return result


def _command_line(container: Container, version: ApiVersion) -> str:
    """The command in one line; since the first year, arguments with a blank in them are in quotes."""
    quotes = not eras.is_first_year(version)
    args = (f"'{arg}'" if quotes and " " in arg else arg for arg in container.args)
    return " ".join((container.path, *args))


def host_config(container: Container) -> JsonObject:
    """Docker's ``HostConfig``; what it says can be sent back to create."""
    host: HostConfig = container.host
    return {
        "Binds": [mounts.bind(bind) for bind in host.binds] or None,
        "ContainerIDFile": host.container_id_file,
        "LogConfig": {"Type": container.log_driver, "Config": host.log_options},
        "NetworkMode": host.network_mode,
        "PortBindings": encode_port_bindings(host.port_bindings),
        "PublishAllPorts": host.publish_all,
        "Links": [f"/{link.container}:/{container.name}/{link.alias}" for link in container.links] or None,
        "RestartPolicy": {"Name": host.restart.name, "MaximumRetryCount": host.restart.maximum_retries},
        "AutoRemove": host.auto_remove,
        "Memory": host.memory,
        "MemorySwap": host.memory_swap,
        "CpuShares": host.cpu_shares,
        "NanoCpus": host.nano_cpus,
        "CpuPeriod": host.cpu_period,
        "CpuQuota": host.cpu_quota,
        "PidsLimit": host.pids_limit or None,
        "MemoryReservation": host.memory_reservation,
        "MemorySwappiness": host.memory_swappiness,
        "CpusetCpus": host.cpuset_cpus,
        "CpusetMems": host.cpuset_mems,
        "BlkioWeight": host.blkio_weight,
        "BlkioWeightDevice": _rates(host.blkio_weight_devices, "Weight") or [],
        "BlkioDeviceReadBps": _rates(host.blkio_read_bps),
        "BlkioDeviceWriteBps": _rates(host.blkio_write_bps),
        "BlkioDeviceReadIOps": _rates(host.blkio_read_iops),
        "BlkioDeviceWriteIOps": _rates(host.blkio_write_iops),
        "Runtime": container.runtime,
        **confinement(host),
        "ConsoleSize": list(host.console_size),
        "VolumeDriver": host.volume_driver,
        "VolumesFrom": list(host.volumes_from) or None,
        "ShmSize": host.shm_size,
        **({"Mounts": [mounts.request(one) for one in host.mounts]} if host.mounts else {}),
        **({"Tmpfs": host.tmpfs} if host.tmpfs else {}),
        **_HOST_DEFAULTS,
    }


def _rates(rates: tuple[DeviceRate, ...], value: str = "Rate") -> list[JsonObject] | None:
    return [{"Path": one.path, value: one.rate} for one in rates] or None


# What the engine has no setting for yet, as Docker shows it when it is not set.
_HOST_DEFAULTS: dict[str, Any] = {
    "Cgroup": "",
    "Isolation": "",
    "CpuRealtimePeriod": 0,
    "CpuRealtimeRuntime": 0,
    "DeviceRequests": None,
    "KernelMemory": 0,
    "KernelMemoryTCP": 0,
    "CpuCount": 0,
    "CpuPercent": 0,
    "IOMaximumIOps": 0,
    "IOMaximumBandwidth": 0,
}


def _add_sizes(result: JsonObject, container: Container) -> None:
    if container.size_rw is not None:
        result["SizeRw"] = container.size_rw
    if container.size_root_fs is not None:
        result["SizeRootFs"] = container.size_root_fs
