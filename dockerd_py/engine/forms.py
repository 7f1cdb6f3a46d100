"""The engine's values as JSON: in the rows of the database, and as an image's configuration.

A key that is not known is left alone and one that is missing has its default, so that a row outlives a change of
version in either direction.
"""

from __future__ import annotations

import enum
import json
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from dockerd_py.engine import health_model
from dockerd_py.engine.health_model import Health
from dockerd_py.engine.model import ContainerConfig, ExecConfig, HostConfig, State
from dockerd_py.engine.mount_model import Mount
from dockerd_py.engine.network_model import Endpoint, Network


def dump_settings(
    config: ContainerConfig, host: HostConfig, mounts: Sequence[Mount], **more: str
) -> str:
    mounted = [asdict(mount) for mount in mounts]
    return json.dumps({"config": asdict(config), "host": asdict(host), "mounts": mounted, **more})


def load_settings(text: str) -> tuple[ContainerConfig, HostConfig, tuple[Mount, ...] | None, dict[str, str]]:
    """The mounts are None in a row from before they were recorded."""
    data = json.loads(text)
    config, host, mounts = data.pop("config"), data.pop("host"), data.pop("mounts", None)
    mounted = None if mounts is None else tuple(_load(Mount, mount) for mount in mounts)
    return _load(ContainerConfig, config), _load(HostConfig, host), mounted, data


def dump_state(state: State, **more: Any) -> str:
    return json.dumps({**asdict(state), **more})


def load_state(text: str) -> tuple[State, dict[str, Any]]:
    data = json.loads(text)
    state = {field.name: data.pop(field.name) for field in fields(State) if field.name in data}
    return _load(State, state), data


def load_endpoints(data: Sequence[Mapping[str, Any]]) -> tuple[Endpoint, ...]:
    return tuple(_load(Endpoint, each) for each in data)


def load_health(data: Mapping[str, Any]) -> Health:
    health: Health = _load(Health, data)
    return health


def dump_exec(exec_id: str, config: ExecConfig) -> str:
    return json.dumps({"id": exec_id, "config": asdict(config)})


def load_exec(text: str) -> tuple[str, ExecConfig]:
    data = json.loads(text)
    return data["id"], _load(ExecConfig, data["config"])


def dump_network(network: Network) -> str:
    return json.dumps(asdict(network))


def load_network(network_id: str, name: str, created: int, settings: str) -> Network:
    network: Network = _load(Network, {**json.loads(settings), "id": network_id, "name": name, "created": created})
    return network


def config_from_image(config: Mapping[str, Any]) -> ContainerConfig:
    """The ``config`` object of an image (OCI image-spec, config.md; Docker writes a few keys more)."""

    def texts(key: str) -> tuple[str, ...]:
        return tuple(config.get(key) or ())

    entrypoint = config.get("Entrypoint")
    healthcheck = config.get("Healthcheck")
    return ContainerConfig(
        cmd=texts("Cmd"),
        entrypoint=None if entrypoint is None else tuple(entrypoint),
        env=texts("Env"),
        working_dir=config.get("WorkingDir") or "",
        user=config.get("User") or "",
        labels=dict(config.get("Labels") or {}),
        exposed_ports=texts("ExposedPorts"),
        volumes=texts("Volumes"),
        stop_signal=config.get("StopSignal") or "",
        on_build=texts("OnBuild"),
        image=config.get("Image") or "",
        hostname=config.get("Hostname") or "",
        domainname=config.get("Domainname") or "",
        tty=bool(config.get("Tty")),
        open_stdin=bool(config.get("OpenStdin")),
        stdin_once=bool(config.get("StdinOnce")),
        attach_stdin=bool(config.get("AttachStdin")),
        attach_stdout=bool(config.get("AttachStdout")),
        attach_stderr=bool(config.get("AttachStderr")),
        healthcheck=health_model.from_json(healthcheck) if isinstance(healthcheck, dict) else None,
        shell=texts("Shell"),
    )


def config_to_image(config: ContainerConfig) -> dict[str, Any]:
    """The opposite of `config_from_image`; what is not set is left out."""
    values: dict[str, Any] = {
        "Cmd": list(config.cmd),
        "Env": list(config.env),
        "WorkingDir": config.working_dir,
        "User": config.user,
        "Labels": dict(config.labels),
        "ExposedPorts": {port: {} for port in config.exposed_ports},
        "Volumes": {path: {} for path in config.volumes},
        "StopSignal": config.stop_signal,
        "OnBuild": list(config.on_build),
        "Image": config.image,
        "Hostname": config.hostname,
        "Domainname": config.domainname,
        "Tty": config.tty,
        "OpenStdin": config.open_stdin,
        "StdinOnce": config.stdin_once,
        "AttachStdin": config.attach_stdin,
        "AttachStdout": config.attach_stdout,
        "AttachStderr": config.attach_stderr,
        "Healthcheck": health_model.to_json(config.healthcheck) if config.healthcheck else None,
        "Shell": list(config.shell),
    }
    found = {key: value for key, value in values.items() if value}
    if config.entrypoint is not None:
        found["Entrypoint"] = list(config.entrypoint)
    return found


def _load(kind: type[Any], data: Mapping[str, Any]) -> Any:
    """A dataclass from its JSON form, in which tuples have become lists and dataclasses objects."""
    loaders = _loaders(kind)
    return kind(**{name: loaders[name](value) for name, value in data.items() if name in loaders})


def _loaders(kind: type[Any]) -> dict[str, Callable[[Any], Any]]:
    """How each field of a dataclass is made."""
    if kind not in _known:
        hints = get_type_hints(kind)
        _known[kind] = {field.name: _loader(hints[field.name]) for field in fields(kind)}
    return _known[kind]


def _loader(hint: Any) -> Callable[[Any], Any]:
    """What makes a value of the type ``hint`` from its JSON form."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        of_items = [_loader(argument) for argument in arguments if argument is not Ellipsis]
        if Ellipsis in arguments:
            return lambda value: tuple(map(of_items[0], value))
        return lambda value: tuple(load(item) for load, item in zip(of_items, value, strict=True))
    if origin in (Union, types.UnionType):
        of_value = _loader(next(argument for argument in arguments if argument is not type(None)))
        return lambda value: None if value is None else of_value(value)
    if isinstance(hint, type) and is_dataclass(hint):
        return lambda value: _load(hint, value)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint
    return lambda value: value


_known: dict[type[Any], dict[str, Callable[[Any], Any]]] = {}
