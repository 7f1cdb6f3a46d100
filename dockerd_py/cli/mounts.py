"""What `-v`, `--mount` and `--tmpfs` say, as the API wants it.  All functions raise ValueError with what is wrong."""

from __future__ import annotations

import os

from dockerd_py.flags import parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PROPAGATIONS = ("shared", "rshared", "slave", "rslave", "private", "rprivate")
_MODES = ("ro", "rw", "z", "Z", "nocopy", "consistent", "cached", "delegated", *_PROPAGATIONS)
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")

_KEYS = {
    "src": "source",
    "dst": "target",
    "destination": "target",
    "ro": "readonly",
}
_FLAGS = ("readonly", "bind-nonrecursive", "bind-create-src", "volume-nocopy")
_TYPES = ("bind", "volume", "tmpfs")


def parse_volume(text: str) -> tuple[str, str, str]:
    """``[source:]target[:mode]`` as (source, target, mode); the source is an absolute path, a volume's name, or ""."""
    parts = text.split(":")
    if len(parts) > 3:
        raise ValueError("it must be HOST:CONTAINER[:MODE], NAME:CONTAINER[:MODE] or CONTAINER")
    source, target, mode = ("", parts[0], "") if len(parts) == 1 else (*parts, "")[:3]
    if len(parts) > 1 and not source:
        raise ValueError("the part before the colon is empty")
    if len(parts) == 3:
        for each in mode.split(","):
            if each not in _MODES:
                raise ValueError(f'"{each}" is no mode: it must be ro, rw, nocopy, z, Z or how it propagates')
    if source in (".", "..") or source.startswith(("./", "../")):
        source = os.path.abspath(source)
    if source and not source.startswith("/") and not _NAME.issuperset(source):
        raise ValueError(f'"{source}" is neither an absolute path nor a volume\'s name')
    return source, _target(target), mode


def parse_tmpfs(text: str) -> tuple[str, str]:
    """``target[:options]`` as both."""
    target, _, options = text.partition(":")
    return _target(target), options


def parse_mount(text: str) -> dict[str, Any]:
    """``type=bind,source=...,target=...``: fields as CSV, as one mount of the API."""
    import csv

    rows = list(csv.reader([text], strict=True)) if text else []
    if len(rows) != 1 or "\n" in text:
        raise ValueError("it must be key=value,key=value,...")
    given: dict[str, str] = {}
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    for field in rows[0]:
        key, equals, value = field.partition("=")
        key = _KEYS.get(key.strip().lower(), key.strip().lower())
        if key in _FLAGS:
            given[key] = _boolean(key, value) if equals else "true"
        elif not equals:
            raise ValueError(f'"{field}" must be key=value')
        elif key in ("volume-label", "volume-opt"):
            name, _, rest = value.partition("=")
            (labels if key == "volume-label" else options)[name] = rest
        elif key in _VALUES:
            given[key] = value
        else:
            known = ", ".join((*_VALUES, *_FLAGS, "volume-label", "volume-opt"))
            raise ValueError(f'"{key}" is no key: there are {known}')
    return _mount(given, labels, options)


_VALUES = (
    "type", "source", "target", "consistency", "bind-propagation", "volume-driver", "tmpfs-size", "tmpfs-mode",
)  # fmt: skip


def _mount(given: dict[str, str], labels: dict[str, str], options: dict[str, str]) -> dict[str, Any]:
    kind = given.get("type", "volume")
    if kind not in _TYPES:
        raise ValueError(f'"{kind}" is no type: it must be bind, volume or tmpfs')
    strangers = [key for key in given if "-" in key and not key.startswith(f"{kind}-")]
    if (labels or options) and kind != "volume":
        strangers.append("volume-label" if labels else "volume-opt")
    if strangers:
        raise ValueError(f'"{strangers[0]}" does not belong to a mount of type {kind}')
    if "target" not in given:
        raise ValueError("a target is missing: target=/in/the/container")
    source = given.get("source", "")
    if kind == "bind":
        if not source:
            raise ValueError("a bind needs a source: source=/on/the/host")
        source = os.path.abspath(source) if source.startswith(".") else source
    mount: dict[str, Any] = {"Type": kind, "Target": _target(given["target"])}
    if source:
        mount["Source"] = source
    if given.get("readonly") == "true":
        mount["ReadOnly"] = True
    if "consistency" in given:
        mount["Consistency"] = given["consistency"]
    if kind == "bind":
        own: dict[str, Any] = {
            "Propagation": given.get("bind-propagation"),
            "NonRecursive": given.get("bind-nonrecursive") == "true",
            "CreateMountpoint": given.get("bind-create-src") == "true",
        }
        if own["Propagation"] and own["Propagation"] not in _PROPAGATIONS:
            raise ValueError(f'"{own["Propagation"]}" is no propagation: it must be {", ".join(_PROPAGATIONS)}')
    elif kind == "volume":
        driver = {"Name": given.get("volume-driver"), "Options": options}
        own = {
            "NoCopy": given.get("volume-nocopy") == "true",
            "Labels": labels,
            "DriverConfig": {key: value for key, value in driver.items() if value},
        }
    else:
        own = {"SizeBytes": parse_size(given.get("tmpfs-size", "0")), "Mode": _octal(given.get("tmpfs-mode", "0"))}
    if own := {key: value for key, value in own.items() if value}:
        mount[f"{kind.capitalize()}Options"] = own
    return mount


def _target(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f'"{path}" is no absolute path in the container')
    if os.path.normpath(path).strip("/") == "":
        raise ValueError("nothing can be mounted on the container's root itself")
    return path


def _boolean(key: str, value: str) -> str:
    if value.lower() not in ("true", "false", "1", "0"):
        raise ValueError(f'"{value}" is no value of {key}: it must be true or false')
    return "true" if value.lower() in ("true", "1") else "false"


def _octal(text: str) -> int:
    try:
        return int(text, 8)
    except ValueError:
        raise ValueError(f'"{text}" are no permissions in octal digits') from None
