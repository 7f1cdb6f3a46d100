"""What counts as "not asked for": the values that a setting without an effect may hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dockerd_py.api.fields import Fields
from dockerd_py.errors import NotSupported

Benign = Callable[[Any], bool]


def refuse_others(fields: Fields, benign: Mapping[str, Benign]) -> None:
    for key, is_default in benign.items():
        value = fields.raw(key)
        if value is not None and not is_default(value):
            raise NotSupported(f"{fields.name(key)} is not supported by this version")


def empty(value: Any) -> bool:
    return not value


def says_nothing(value: Any) -> bool:
    """Whether ``value`` is null, false, 0, "", [], or an object of nothing but these."""
    if isinstance(value, dict):
        return all(says_nothing(item) for item in value.values())
    return not value


def one_of(*values: Any) -> Benign:
    def benign(value: Any) -> bool:
        return not isinstance(value, bool) and value in values

    return benign


def anything(_value: Any) -> bool:
    return True
