"""How a read-only layer is named: by its chain id; and by its first-year id, where every layer is an image.

The latter is the digest of the least configuration that an image of the layers up to this one can have.  So it
depends on nothing but them and the machine's architecture, whatever else is made of them; and a layer that is given a
name becomes an image whose id, in every version of the API, is the very same.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dockerd_py.store import image_config

if TYPE_CHECKING:
    from hashlib import _Hash

CREATED = "1970-01-01T00:00:00Z"
"""A layer belongs to many images: nothing may be said of it that differs between them."""


@dataclass(frozen=True)
class Layer:
    """A read-only layer that is ready.  ``size``: bytes of the files that it brings."""

    cache_id: str
    chain_id: str
    diff_id: str
    parent_chain: str | None
    size: int


def chain_id(parent: str | None, diff_id: str) -> str:
    """The OCI image specification's ChainID: names a layer together with all that lie below it."""
    if parent is None:
        return diff_id
    return "sha256:" + hashlib.sha256(f"{parent} {diff_id}".encode()).hexdigest()


def settings(diff_ids: Sequence[str]) -> dict[str, Any]:
    """The image of these layers, the lowest first, with no settings at all.  Never to be changed: see below."""
    return {
        "architecture": image_config.architecture()[0],
        "config": {},
        "created": CREATED,
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
    }


def configuration(diff_ids: Sequence[str]) -> bytes:
    """The bytes of these settings, whose digest is the topmost layer's id."""
    return image_config.encode(settings(diff_ids))


class LayerIds:
    """The ids of the layers that are there, in memory: found by chain id, and by the beginning of the id."""

    def __init__(self) -> None:
        self._by_chain: dict[str, str] = {}
        self._chains: dict[str, str] = {}
        self._order: list[str] = []
        self._in_order = True
        # Digests of the configurations up to a layer's own diff id: each layer on it goes on from there.
        self._begun: dict[str, _Hash] = {}
        self._head, _, self._tail = configuration(["|"]).partition(b'"|"')

    def add(self, layer: Layer, layers: Mapping[str, Layer]) -> None:
        """Take in a layer and those below it, which ``layers`` has by chain id.  Above a lost one, there are no ids."""
        unknown: list[Layer] = []
        at: Layer | None = layer
        while at is not None and at.chain_id not in self._by_chain:
            unknown.append(at)
            at = layers.get(at.parent_chain) if at.parent_chain is not None else None
        for each in reversed(unknown):
            if each.parent_chain is None or each.parent_chain in self._begun:
                self._add(each)

    def remove(self, chain: str) -> None:
        identity = self._by_chain.pop(chain, None)
        if identity is not None:
            del self._chains[identity], self._begun[chain]
            self._sort()
            del self._order[bisect_left(self._order, identity)]

    def of_chain(self, chain: str) -> str | None:
        """The id of the layer with this chain id; None where it is not there."""
        return self._by_chain.get(chain)

    def chain(self, identity: str) -> str | None:
        """The chain id of the layer with this full id; None where it is not there."""
        return self._chains.get(identity)

    def beginning(self, prefix: str) -> list[str]:
        """The ids that begin with some hex digits."""
        self._sort()
        return self._order[bisect_left(self._order, prefix) : bisect_left(self._order, prefix + "g")]

    def _add(self, layer: Layer) -> None:
        parent = layer.parent_chain
        begun = hashlib.sha256(self._head) if parent is None else self._begun[parent].copy()
        begun.update((b"," if parent is not None else b"") + json.dumps(layer.diff_id).encode())
        self._begun[layer.chain_id] = begun
        whole = begun.copy()
        whole.update(self._tail)
        identity = whole.hexdigest()
        self._by_chain[layer.chain_id] = identity
        self._chains[identity] = layer.chain_id
        self._order.append(identity)
        self._in_order = False

    def _sort(self) -> None:
        if not self._in_order:
            self._order.sort()
            self._in_order = True
