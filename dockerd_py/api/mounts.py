"""Mounts in JSON: Binds ("/src:/dst:ro", "name:/dst"), Mounts, VolumesFrom and Tmpfs, from the client and back to it.

What is syntax is checked here; what depends on other mounts, containers and the host is the engine's.
"""

from __future__ import annotations

import posixpath
from typing import Any

from dockerd_py.api.benign import says_nothing
from dockerd_py.api.fields import Fields, JsonObject
from dockerd_py.engine.mount_model import BIND, TMPFS, VOLUME, Bind, Mount, MountRequest
from dockerd_py.engine.mounts import HINTS, LABEL_MODES, PROPAGATIONS, READ_MODES, check_target
from dockerd_py.errors import BadParameter, NotSupported

_OPTIONS = {BIND: "BindOptions", VOLUME: "VolumeOptions", TMPFS: "TmpfsOptions"}


def parse_bind(text: str) -> Bind:
    """One item of HostConfig.Binds: ``[source:]target[:mode,mode...]``.  Raises BadParameter."""
    parts = text.split(":")
    if not all(parts) or len(parts) > 3:
        raise BadParameter(f"invalid volume specification: '{text}'")
    if len(parts) == 1:
        parts = ["", *parts]
    source, target = parts[:2]
    modes = parts[2] if len(parts) == 3 else ""
    is_volume = not source.startswith("/")
    try:
        target = check_target(target, VOLUME if is_volume else BIND)
        read_only, propagation, no_copy = _modes(modes)
        if propagation and is_volume:
            raise BadParameter('invalid mount config for type "volume": field BindOptions must not be specified')
        if no_copy and not is_volume:
            raise BadParameter('invalid mount config for type "bind": field VolumeOptions must not be specified')
    except BadParameter as error:
        invalid_mode = str(error).startswith("invalid mode")
        raise error if invalid_mode else BadParameter(f"invalid volume specification: '{text}': {error}") from None
    source = source if is_volume else posixpath.normpath("/" + source.lstrip("/"))
    return Bind(source, target, read_only, modes, propagation, no_copy)


def parse_mount(mount: Fields) -> MountRequest:
    """One item of HostConfig.Mounts.  Raises BadParameter, NotSupported."""
    kind = mount.text("Type")
    if kind not in ("bind", "volume", "tmpfs", "npipe", "cluster"):
        raise BadParameter(f'invalid mount config: mount type unknown: "{kind}"')
    if kind not in _OPTIONS:
        raise NotSupported(f'{mount.name("Type")} "{kind}" is not supported by this version')
    invalid = f'invalid mount config for type "{kind}"'
    source, target = mount.text("Source"), mount.text("Target")
    if not target:
        raise BadParameter(f"{invalid}: field Target must not be empty")
    for other, options in (*_OPTIONS.items(), ("cluster", "ClusterOptions")):
        if other != kind and mount.raw(options) is not None:
            raise BadParameter(f"{invalid}: field {options} must not be specified")
    read_only = mount.flag("ReadOnly")
    if kind == BIND and not source:
        raise BadParameter(f"{invalid}: field Source must not be empty")
    if kind == BIND and not source.startswith("/"):
        raise BadParameter(f"{invalid}: invalid mount path: '{source}' mount path must be absolute")
    if kind == TMPFS and source:
        raise BadParameter(f"{invalid}: field Source must not be specified")
    if kind == VOLUME and not source and read_only:
        raise BadParameter(f"{invalid}: must not set ReadOnly mode when using anonymous volumes")
    consistency = mount.text("Consistency")
    if consistency not in ("", "default", *HINTS):
        raise BadParameter(f"{invalid}: invalid consistency: {consistency}")
    return MountRequest(
        kind, check_target(target, kind), source, read_only, consistency,
        **_mount_options(kind, mount.object(_OPTIONS[kind]), invalid),
    )  # fmt: skip


def parse_volumes_from(host: Fields, flat: Fields) -> tuple[str, ...]:
    """HostConfig.VolumesFrom; in the first year it stood in Config, as one text with commas."""
    if given := host.texts("VolumesFrom"):
        return given
    return tuple(part.strip() for text in flat.texts("VolumesFrom") for part in text.split(",") if part.strip())


def bind(value: Bind) -> str:
    mode = value.mode or ("ro" if value.read_only else "")
    return ":".join(part for part in (value.source, value.target, mode) if part)


def request(value: MountRequest) -> JsonObject:
    """One item of HostConfig.Mounts as Docker gives it back: without what was not asked for."""
    options: dict[str, Any] = {
        BIND: {
            "Propagation": value.propagation,
            "NonRecursive": value.non_recursive,
            "CreateMountpoint": value.create_source,
        },
        VOLUME: {
            "NoCopy": value.no_copy,
            "Labels": value.labels,
            "DriverConfig": _without_nothing({"Name": value.driver, "Options": value.driver_options}),
        },
        TMPFS: {"SizeBytes": value.size, "Mode": value.mode},
    }
    return {
        "Type": value.type,
        **_without_nothing({"Source": value.source}),
        "Target": value.target,
        **_without_nothing(
            {
                "ReadOnly": value.read_only,
                "Consistency": value.consistency,
                _OPTIONS[value.type]: _without_nothing(options[value.type]),
            }
        ),
    }


def mount(value: Mount) -> JsonObject:
    """One item of Mounts."""
    result: JsonObject = {"Type": value.type}
    if value.type == VOLUME:
        result["Name"] = value.name
    result |= {"Source": value.source, "Destination": value.target}
    if value.type == VOLUME:
        result["Driver"] = value.driver
    return {**result, "Mode": value.mode, "RW": not value.read_only, "Propagation": value.propagation}


def _mount_options(kind: str, options: Fields, invalid: str) -> dict[str, Any]:
    if kind == BIND:
        propagation = options.text("Propagation")
        if propagation not in ("", *PROPAGATIONS):
            raise BadParameter(f"{invalid}: invalid propagation mode: {propagation}")
        _refuse(options, "ReadOnlyForceRecursive")
        return {
            "propagation": propagation,
            "non_recursive": options.flag("NonRecursive"),
            "create_source": options.flag("CreateMountpoint"),
        }
    if kind == VOLUME:
        _refuse(options, "Subpath")
        driver = options.object("DriverConfig")
        return {
            "no_copy": options.flag("NoCopy"),
            "labels": options.text_map("Labels"),
            "driver": driver.text("Name"),
            "driver_options": driver.text_map("Options"),
        }
    _refuse(options, "Options")
    size, mode = options.number("SizeBytes"), options.number("Mode")
    if size < 0:
        raise BadParameter(f"{invalid}: {options.name('SizeBytes')} must not be negative")
    if not 0 <= mode <= 0o7777:
        raise BadParameter(f"{invalid}: {options.name('Mode')} must be permissions, not {mode:o}")
    return {"size": size, "mode": mode}


def _modes(text: str) -> tuple[bool, str, bool]:
    """(read-only, propagation, no copy)."""
    read_only: bool | None = None
    propagation = ""
    seen: set[str] = set()
    no_copy = False
    for mode in text.split(",") if text else ():
        kind = next((kind for kind, modes in _MODES.items() if mode in modes), "")
        if not kind or kind in seen:
            raise BadParameter(f"invalid mode: {text}")
        seen.add(kind)
        if kind == "read":
            read_only = READ_MODES[mode]
        elif kind == "propagation":
            propagation = mode
        elif kind == "copy":
            no_copy = True
    return bool(read_only), propagation, no_copy


_MODES: dict[str, tuple[str, ...]] = {
    "read": tuple(READ_MODES),
    "label": LABEL_MODES,
    "propagation": PROPAGATIONS,
    "copy": ("nocopy",),
    "consistency": HINTS,
}


def _refuse(options: Fields, key: str) -> None:
    if not says_nothing(options.raw(key)):
        raise NotSupported(f"{options.name(key)} is not supported by this version")


def _without_nothing(values: JsonObject) -> JsonObject:
    return {key: value for key, value in values.items() if value}
