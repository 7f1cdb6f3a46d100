"""Typed getters for JSON that a client sent.

Every getter returns a value of the type that it names, or raises BadParameter with the attribute's full name, so
that nothing unchecked gets past this module.  ``null`` and an absent key are the same, as in Docker.  Keys match
without regard to case when there is no exact match (Docker's own decoder does so, and clients rely on it).
"""

from __future__ import annotations

import json
from typing import Any

from dockerd_py.errors import BadParameter

JsonObject = dict[str, Any]

INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1


def parse_object(body: bytes, what: str = "the request body") -> JsonObject:
    """The JSON object in ``body``; an empty body is an empty object.  BadParameter naming ``what``."""
    if not body.strip():
        return {}
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadParameter(f"Bad parameter: {what} is not valid JSON: {error}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadParameter(f"Bad parameter: {what} must be a JSON object")
    return value


def check_text(value: str, where: str) -> str:
    """``value``, if it can be a C string in UTF-8 and so reach the kernel unchanged."""
    if "\0" in value:
        raise BadParameter(f"Bad parameter: {where} must not contain a NUL character")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadParameter(f"Bad parameter: {where} must be valid Unicode") from None
    return value


class Fields:
    """One JSON object, with the name under which its attributes appear in errors."""

    def __init__(self, value: object, where: str = "") -> None:
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise BadParameter(f"Bad parameter: {where} must be an object")
        self._where = where
        self._data: JsonObject = value
        self._folded: dict[str, str] | None = None

    def name(self, key: str) -> str:
        return f"{self._where}.{key}" if self._where else key

    def names(self) -> list[str]:
        return list(self._data)

    def raw(self, key: str) -> Any:
        """The value as it came; None when it is absent."""
        if key in self._data:
            return self._data[key]
        if self._folded is None:
            self._folded = {name.casefold(): name for name in self._data}
        found = self._folded.get(key.casefold())
        return None if found is None else self._data[found]

    def text(self, key: str, default: str = "") -> str:
        value = self.raw(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise BadParameter(f"Bad parameter: {self.name(key)} must be a string")
        return check_text(value, self.name(key))

    def flag(self, key: str) -> bool:
        value = self.raw(key)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise BadParameter(f"Bad parameter: {self.name(key)} must be true or false")
        return value

    def number(self, key: str, default: int = 0) -> int:
        value = self.optional_number(key)
        return default if value is None else value

    def optional_number(self, key: str) -> int | None:
        value = self.raw(key)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise BadParameter(f"Bad parameter: {self.name(key)} must be a number")
        if not INT64_MIN <= value <= INT64_MAX:
            raise BadParameter(f"Bad parameter: {self.name(key)} is out of range")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings; a bare string counts as a list of one."""
        return self.optional_texts(key) or ()

    def optional_texts(self, key: str) -> tuple[str, ...] | None:
        value = self.raw(key)
        if value is None:
            return None
        if isinstance(value, str):
            value = [value]
        where = self.name(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise BadParameter(f"Bad parameter: {where} must be a list of strings")
        return tuple(check_text(item, where) for item in value)

    def text_map(self, key: str) -> dict[str, str]:
        value = self.raw(key)
        if value is None:
            return {}
        where = self.name(key)
        if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
            raise BadParameter(f"Bad parameter: {where} must be an object of strings")
        return {check_text(name, where): check_text(item, where) for name, item in value.items()}

    def key_set(self, key: str) -> tuple[str, ...]:
        """The keys of an object whose values carry nothing: ``{"80/tcp": {}}``."""
        value = self.raw(key)
        if value is None:
            return ()
        where = self.name(key)
        if not isinstance(value, dict):
            raise BadParameter(f"Bad parameter: {where} must be an object")
        return tuple(check_text(name, where) for name in value)

    def object(self, key: str) -> Fields:
        return Fields(self.raw(key), self.name(key))

    def objects(self, key: str) -> list[Fields]:
        value = self.raw(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise BadParameter(f"Bad parameter: {self.name(key)} must be a list of objects")
        return [Fields(item, f"{self.name(key)}[{index}]") for index, item in enumerate(value)]
