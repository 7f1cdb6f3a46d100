"""From the JSON of a create request to the engine's settings.

Every key that Docker's schema knows is either carried into the settings or must hold its default: what has no effect
here is refused by name (NotSupported), never ignored.  Keys that Docker does not know are ignored, as Docker does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dockerd_py.api.fields import Fields, JsonObject
from dockerd_py.api.specs import check_port, check_port_bindings, parse_bind, parse_mount
from dockerd_py.engine.model import Bind, ContainerConfig, HostConfig
from dockerd_py.errors import BadParameter, NotSupported

NETWORK_MODES = ("default", "bridge", "none", "host")
DEFAULT_SHM_SIZE = 64 << 20

Benign = Callable[[Any], bool]


@dataclass(frozen=True)
class CreateRequest:
    config: ContainerConfig
    host: HostConfig
    must_exist: tuple[str, ...]  # host paths that have to be there; other missing sources of binds are made


def decode_create(body: JsonObject) -> CreateRequest:
    """The settings in the body of POST /containers/create, of any API version.  BadParameter, NotSupported."""
    fields = Fields(body)
    _refuse_others(fields, _CONFIG_BENIGN)
    _check_networking(fields.object("NetworkingConfig"))
    host_fields = fields.object("HostConfig")
    host, must_exist = decode_host(host_fields, flat=fields)
    return CreateRequest(_config(fields), host, must_exist)


def decode_commit(body: JsonObject) -> ContainerConfig:
    """The settings in the body of POST /commit.  BadParameter, NotSupported."""
    fields = Fields(body)
    volumes = fields.key_set("Volumes")
    ports = fields.texts("PortSpecs")  # the first year's: "22", or "2222:22"
    rest = {key: value for key, value in body.items() if key.casefold() not in ("volumes", "portspecs")}
    _refuse_others(Fields(rest), _CONFIG_BENIGN)
    config = _config(Fields(rest))
    exposed = (*config.exposed_ports, *(check_port(port.rpartition(":")[2]) for port in ports))
    return replace(config, volumes=volumes, exposed_ports=tuple(dict.fromkeys(exposed)))


def decode_host(fields: Fields, flat: Fields | None = None) -> tuple[HostConfig, tuple[str, ...]]:
    """A HostConfig, and the host paths in it that have to exist.

    ``flat`` is where API versions up to 1.17 put the limits: beside the container's configuration.
    """
    _refuse_others(fields, _HOST_BENIGN)
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
        log_driver=log_fields.text("Type"),
        log_options=log_fields.text_map("Config"),
        container_id_file=fields.text("ContainerIDFile"),
    )
    return host, must_exist


def _config(fields: Fields) -> ContainerConfig:
    entrypoint = fields.optional_texts("Entrypoint")
    if entrypoint == ("",):
        entrypoint = ()  # how the docker command line spells "none at all"
    working_dir = fields.text("WorkingDir")
    if working_dir and not working_dir.startswith("/"):
        raise BadParameter(f"the working directory '{working_dir}' is invalid, it needs to be an absolute path")
    return ContainerConfig(
        image=fields.text("Image"),
        cmd=fields.texts("Cmd"),
        entrypoint=entrypoint,
        env=_environment(fields),
        working_dir=working_dir,
        user=fields.text("User"),
        hostname=fields.text("Hostname"),
        domainname=fields.text("Domainname"),
        tty=fields.flag("Tty"),
        open_stdin=fields.flag("OpenStdin"),
        stdin_once=fields.flag("StdinOnce"),
        attach_stdin=fields.flag("AttachStdin"),
        attach_stdout=fields.flag("AttachStdout"),
        attach_stderr=fields.flag("AttachStderr"),
        labels=fields.text_map("Labels"),
        exposed_ports=tuple(check_port(port) for port in fields.key_set("ExposedPorts")),
        stop_signal=fields.text("StopSignal"),
        stop_timeout=fields.optional_number("StopTimeout"),
        network_disabled=fields.flag("NetworkDisabled"),
        on_build=fields.texts("OnBuild"),
    )


def _environment(fields: Fields) -> tuple[str, ...]:
    variables = fields.texts("Env")
    for variable in variables:
        if not variable or variable.startswith("="):
            raise BadParameter(f"invalid environment variable: {variable}")
    return variables


def _limit(fields: Fields, flat: Fields, key: str) -> int:
    value = fields.number(key)
    return value if value else flat.number(key)


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


def _check_networking(fields: Fields) -> None:
    endpoints = fields.object("EndpointsConfig")
    for network in endpoints.names():
        endpoint = endpoints.object(network)
        if network not in NETWORK_MODES:
            raise NotSupported(f'the network "{network}" in {endpoints.name(network)} is not supported by this version')
        for key in endpoint.names():
            if not _says_nothing(endpoint.raw(key)):
                raise NotSupported(f"{endpoint.name(key)} is not supported by this version")


def _refuse_others(fields: Fields, benign: Mapping[str, Benign]) -> None:
    for key, is_default in benign.items():
        value = fields.raw(key)
        if value is not None and not is_default(value):
            raise NotSupported(f"{fields.name(key)} is not supported by this version")


def _empty(value: Any) -> bool:
    return not value


def _says_nothing(value: Any) -> bool:
    """Whether ``value`` is null, false, 0, "", [], or an object of nothing but these."""
    if isinstance(value, dict):
        return all(_says_nothing(item) for item in value.values())
    return not value


def _one_of(*values: Any) -> Benign:
    def benign(value: Any) -> bool:
        return not isinstance(value, bool) and value in values

    return benign


def _no_restart(value: Any) -> bool:
    return isinstance(value, dict) and value.get("Name") in ("", "no", None)


def _no_healthcheck(value: Any) -> bool:
    return isinstance(value, dict) and value.get("Test") in ([], None, ["NONE"])


def _anything(_value: Any) -> bool:
    return True


# Settings of Docker's that have no effect here, each with what counts as "not asked for".
_CONFIG_BENIGN: dict[str, Benign] = {
    "ArgsEscaped": _empty,  # Windows
    "Cpuset": _empty,
    "Dns": _empty,
    "Healthcheck": _no_healthcheck,
    "MacAddress": _empty,
    "PortSpecs": _empty,
    "Shell": _anything,  # only a build's RUN reads it
    "Volumes": _empty,
    "VolumesFrom": _empty,
    "VolumeDriver": _empty,
}

_HOST_BENIGN: dict[str, Benign] = {
    "Annotations": _empty,
    "BlkioDeviceReadBps": _empty,
    "BlkioDeviceReadIOps": _empty,
    "BlkioDeviceWriteBps": _empty,
    "BlkioDeviceWriteIOps": _empty,
    "BlkioWeight": _empty,
    "BlkioWeightDevice": _empty,
    "CapAdd": _empty,
    "CapDrop": _empty,
    "Capabilities": _empty,
    "Cgroup": _empty,
    "CgroupParent": _empty,
    "CgroupnsMode": _one_of("", "private"),
    "ConsoleSize": _anything,  # the client sets the size of its terminal when it attaches, too
    "CpuCount": _empty,
    "CpuPercent": _empty,
    "CpuRealtimePeriod": _empty,
    "CpuRealtimeRuntime": _empty,
    "CpusetCpus": _empty,
    "CpusetMems": _empty,
    "DeviceCgroupRules": _empty,
    "DeviceRequests": _empty,
    "Devices": _empty,
    "Dns": _empty,
    "DnsOptions": _empty,
    "DnsSearch": _empty,
    "ExtraHosts": _empty,
    "GroupAdd": _empty,
    "IOMaximumBandwidth": _empty,
    "IOMaximumIOps": _empty,
    "Init": _empty,
    "IpcMode": _one_of("", "private"),
    "Isolation": _one_of("", "default"),
    "KernelMemory": _empty,
    "KernelMemoryTCP": _empty,
    "Links": _empty,
    "LxcConf": _empty,
    "MaskedPaths": lambda value: value is None,  # an empty list would lift the masks
    "MemoryReservation": _empty,
    "MemorySwappiness": _one_of(-1),
    "OomKillDisable": _empty,
    "OomScoreAdj": _empty,
    "PidMode": _empty,
    "Privileged": _empty,
    "ReadonlyPaths": lambda value: value is None,
    "ReadonlyRootfs": _empty,
    "RestartPolicy": _no_restart,
    "Runtime": _one_of("", "crun"),
    "SecurityOpt": _empty,
    "ShmSize": _one_of(0, DEFAULT_SHM_SIZE),
    "StorageOpt": _empty,
    "Sysctls": _empty,
    "Tmpfs": _empty,
    "UTSMode": _empty,
    "Ulimits": _empty,
    "UsernsMode": _empty,
    "VolumeDriver": _empty,
    "VolumesFrom": _empty,
}
