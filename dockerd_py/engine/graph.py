"""The first year's view of the images: each of their layers is one, and names what it stands on.

It finds and shows images and layers alike; what changes them is the same for both, and takes the full ids that
`Graph.exact` makes of what a user has typed.
"""

from __future__ import annotations

from dataclasses import replace

from dockerd_py.engine.history import History, entry, padded_steps
from dockerd_py.engine.images import Changes, Images
from dockerd_py.engine.model import Image
from dockerd_py.store.image_index import StoredImage
from dockerd_py.store.removal import Rules
from dockerd_py.store.store import Store


class Graph:
    def __init__(self, store: Store, images: Images) -> None:
        self._store = store
        self._images = images

    def __len__(self) -> int:
        return len(self._store.images.graph.nodes(self._images.in_use()))

    def exact(self, ref: str) -> str:
        """What a user calls an image or a layer, so that it means the same to everything else: an id in full, a name
        as it is.  Raises AmbiguousId.
        """
        return self._store.images.graph.exact(ref, self._images.in_use())

    def list(self) -> list[Image]:
        """Images, and the layers below them, newest first; ``parent_id`` is what each stands on, and ``own_size``
        what it adds."""
        parents = self._store.images.graph.nodes(self._images.in_use())
        index = self._store.images.index
        found = {one: node for one in parents if (node := index.by_id(one)) is not None}
        nodes = [self._value(node, found.get(parents[one])) for one, node in found.items()]
        return sorted(nodes, key=lambda image: (-image.created, image.id))

    def get(self, ref: str) -> Image:
        """As in `list`.  Raises NoSuchImage, AmbiguousId."""
        stored = self._store.images.get(self.exact(ref))
        return self._value(stored, self._store.images.graph.parent(stored))

    def history(self, ref: str) -> History:
        """The steps of an image's making, the last one first, each with the id of the image or layer that it is
        part of: a step that brought no files belongs to the last one before it that did.  Raises NoSuchImage."""
        images = self._store.images
        stored = images.get(self.exact(ref))
        lineage = images.graph.lineage(stored)
        steps = padded_steps(stored)
        sizes = [layer.size for layer in self._store.layers.chain(stored.chain_id)]  # the topmost first
        entries: History = []
        at = 0
        for left in range(len(steps), 0, -1):
            step = steps[left - 1]
            if entries and at + 1 < len(lineage) and self._reaches(lineage[at + 1], left, len(sizes)):
                at += 1
            is_first = not entries or entries[-1].id != lineage[at].id
            entries.append(entry(step, lineage[at], sizes, lineage[at].tags if is_first else ()))
        return entries

    async def remove(self, ref: str, *, force: bool | None, prune: bool = True, first_year: bool = True) -> Changes:
        """Take names away, and with the last one the image and what nothing else stands on, telling of each layer.

        ``first_year``: by its rules, else by today's.  ``force`` is None for who cannot ask for it.
        Raises NoSuchImage, AmbiguousId, Conflict.
        """
        rules = Rules.FIRST_YEAR if first_year else Rules.LAYERS
        return await self._images.remove(self.exact(ref), force=force, prune=prune, rules=rules)

    def _reaches(self, node: StoredImage, steps: int, layers: int) -> bool:
        """Whether the first so many steps, with so many layers, are all that ``node`` consists of."""
        if self._store.images.index.is_layer(node):
            return layers <= len(node.diff_ids)
        return steps <= len(padded_steps(node))

    def _value(self, node: StoredImage, parent: StoredImage | None) -> Image:
        own_size = max(0, node.size - parent.size) if parent else node.size
        return replace(self._images.value(node), parent_id=parent.id if parent else "", own_size=own_size)
