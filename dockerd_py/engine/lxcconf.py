"""``--lxc-conf``, the first year's way to settings that had no flag: "lxc.cgroup.cpu.shares = 512".

Containers have never been lxc's here.  A control group key that one of the engine's own settings stands for becomes
that setting, and so a property of the scope; every other key is refused by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from typing import Any

from dockerd_py.engine.model import HostConfig
from dockerd_py.errors import BadParameter, NotSupported

_PREFIX = "lxc.cgroup."


def _bytes(text: str) -> int:
    number, unit = (text[:-1], text[-1].lower()) if text[-1:].lower() in ("k", "m", "g") else (text, "")
    if not (number.isascii() and number.isdigit()):
        raise ValueError("it must be a number of bytes with an optional unit k, m or g")
    return int(number) << (10 * ("kmg".index(unit) + 1) if unit else 0)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError("it must be a number")
    return int(text)


def _processors(text: str) -> str:
    if not text or not all(c in "0123456789,-" for c in text):
        raise ValueError("it must be a list such as 0-2,4")
    return text


_SETTINGS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "memory.limit_in_bytes": ("memory", _bytes),
    "memory.memsw.limit_in_bytes": ("memory_swap", _bytes),
    "memory.soft_limit_in_bytes": ("memory_reservation", _bytes),
    "cpu.shares": ("cpu_shares", _number),
    "cpu.cfs_quota_us": ("cpu_quota", _number),
    "cpu.cfs_period_us": ("cpu_period", _number),
    "cpuset.cpus": ("cpuset_cpus", _processors),
    "cpuset.mems": ("cpuset_mems", _processors),
    "blkio.weight": ("blkio_weight", _number),
    "pids.max": ("pids_limit", _number),
}
"""The control group's file → the field of HostConfig and what reads its value."""




def apply(host: HostConfig) -> HostConfig:
    """``host`` with the settings that its lxc keys mean; a later key wins over an earlier one of its name.

    Raises NotSupported for a key that has none, BadParameter for a value that makes no sense.
    """
    changes = dict(_meaning(key, value, host) for key, value in _without_devices(host.lxc_conf))
    rules = tuple(value for key, value in host.lxc_conf if key == _PREFIX + "devices.allow")
    security = replace(host.security, device_cgroup_rules=(*host.security.device_cgroup_rules, *rules))
    return replace(host, security=security, **changes)


def _without_devices(pairs: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    return (pair for pair in pairs if pair[0] != _PREFIX + "devices.allow")


def _meaning(key: str, value: str, host: HostConfig) -> tuple[str, Any]:
    has = {each.name for each in fields(host)}
    known = {_PREFIX + name: (field, read) for name, (field, read) in _SETTINGS.items() if field in has}
    if key not in known:
        there_are = ", ".join((*known, _PREFIX + "devices.allow"))
        raise NotSupported(f"the lxc-conf key {key} is not supported: there are {there_are}")
    field, read = known[key]
    try:
        return field, read(value)
    except ValueError as error:
        raise BadParameter(f'invalid value "{value}" of the lxc-conf key {key}: {error}') from None
