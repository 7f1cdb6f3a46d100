"""Images as the first year saw them: every layer is one, and stands on the one below it.

An image is its topmost layer with its settings.  Below it is the image that it was made from, where that is here, or
else the next layer, which has an id of its own (``layer_ids``), and neither name nor settings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from dockerd_py.errors import AmbiguousId
from dockerd_py.store import reference
from dockerd_py.store.image_index import ImageIndex, StoredImage
from dockerd_py.store.layers import LayerStore

_Node = tuple[str, "str | None"]
"""(id, the chain of its topmost layer)"""


class Graph:
    def __init__(self, index: ImageIndex, layers: LayerStore) -> None:
        self._index = index
        self._layers = layers

    def exact(self, ref: str, in_use: Iterable[str]) -> str:
        """The full id where ``ref`` is one or the beginning of one, else ``ref`` as it is: whoever looks that up
        tells what is wrong with it.

        Of several with the same beginning, those that nobody can see do not count.  Raises AmbiguousId.
        ``in_use``: see `nodes`.
        """
        prefix = reference.id_prefix(ref)
        if not prefix or self._index.is_name(ref):
            return ref
        found = self._index.beginning(prefix)
        if len(found) > 1:
            found &= self.nodes(in_use).keys()
        if len(found) > 1:
            raise AmbiguousId(ref)
        return next(iter(found), ref)

    def nodes(self, in_use: Iterable[str] = ()) -> dict[str, str]:
        """All that there is to see: ids with their parents' ids, "" for none.

        A layer is seen when something stands on it: an image, or one of the containers that were made from the
        images and layers ``in_use``.
        """
        found: dict[str, str] = {}
        starts: list[_Node] = [(image.id, image.chain_id) for image in self._index.images.values()]
        starts += [(one, chain) for one in in_use if (chain := self._layers.ids.chain(one)) is not None]
        for start in starts:
            at: _Node | None = start
            while at is not None and at[0] not in found:
                below = self._below(*at)
                found[at[0]] = below[0] if below else ""
                at = below
        return found

    def children(self) -> Counter[str]:
        """How many images or layers stand on each."""
        return Counter(parent for parent in self.nodes().values() if parent)

    def parent(self, image: StoredImage) -> StoredImage | None:
        below = self._below(image.id, image.chain_id)
        return self._index.by_id(below[0]) if below else None

    def lineage(self, image: StoredImage) -> list[StoredImage]:
        """The image and all that it stands on, down to the lowest layer."""
        found = [image]
        while (parent := self.parent(found[-1])) is not None:
            found.append(parent)
        return found

    def _below(self, image_id: str, chain: str | None) -> _Node | None:
        image = self._index.images.get(image_id)
        if image is not None and image.parent_id:
            if (parent := self._index.images.get(image.parent_id)) is not None:
                return parent.id, parent.chain_id
            if (known := self._layers.ids.chain(image.parent_id)) is not None:
                return image.parent_id, known
        layer = self._layers.get(chain) if chain is not None else None
        if layer is None or layer.parent_chain is None:
            return None
        below = self._layers.ids.of_chain(layer.parent_chain)
        return (below, layer.parent_chain) if below is not None else None
