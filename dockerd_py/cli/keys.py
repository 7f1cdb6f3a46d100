"""``--detach-keys``: the keys that leave a container's terminal while it runs on."""

from __future__ import annotations

DEFAULT = "ctrl-p,ctrl-q"


def parse(text: str) -> bytes:
    """``a`` to ``z``, any other single character, or ``ctrl-X``, with commas between.  Raises ValueError."""
    return bytes(_key(part) for part in text.split(","))


def _key(part: str) -> int:
    if len(part) == 1 and part.isascii():
        return ord(part)
    name = part.removeprefix("ctrl-")
    if name != part and len(name) == 1:
        if "a" <= name <= "z":
            return ord(name) - ord("a") + 1
        index = "@[\\]^_".find(name)
        if index >= 0:
            return (0, 27, 28, 29, 30, 31)[index]
    raise ValueError(f'"{part}" is no key: it must be one character, or ctrl- and one of a-z @ [ \\ ] ^ _')


class Watcher:
    """Notices the keys in what is typed, in pieces of any size.  It changes nothing: the daemon acts on them."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._tail = b""
        self.seen = False

    def feed(self, data: bytes) -> None:
        window = self._tail + data
        if self._keys and self._keys in window:
            self.seen = True
        self._tail = window[-(len(self._keys) - 1) :] if len(self._keys) > 1 else b""
