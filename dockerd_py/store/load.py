"""Loading images from an archive: Docker's of today, an OCI layout, or the first year's.

All that the archive says about itself is checked first; then the layers that the store lacks are unpacked and held;
then all images and names are recorded at once.  Whatever fails, nothing of the archive stays.  Digests are verified:
an image's id is that of its configuration, and each layer has to have the diff id that the configuration names.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path

from dockerd_py.errors import BadArchive
from dockerd_py.store import layouts
from dockerd_py.store.archive.spooled import Spooled, spooled
from dockerd_py.store.budget import Budget
from dockerd_py.store.holds import Holds
from dockerd_py.store.image_index import StoredImage
from dockerd_py.store.images import ImageStore, NewImage
from dockerd_py.store.layer_ids import chain_id
from dockerd_py.store.layers import LayerStore

Progress = Callable[[str, int, int], None]
"""(diff id, or "" while the archive comes in; bytes done; bytes in all, 0 for unknown)."""


@dataclass(frozen=True)
class Loaded:
    image: StoredImage
    names: tuple[str, ...]  # "repository:tag", those that the archive gave it


class Loader:
    """unpack_limit: bytes that an archive may have, uncompressed, and all its layers together; 0: no limit."""

    def __init__(self, layers: LayerStore, images: ImageStore, temporary: Path, unpack_limit: int = 0) -> None:
        self._layers = layers
        self._images = images
        self._temporary = temporary
        self._limit = unpack_limit

    async def load(self, source: AsyncIterator[bytes], progress: Progress) -> list[Loaded]:
        """Raises BadArchive, BadParameter (too many layers), Conflict, StoreError, and what ``source`` raises."""
        async with (
            spooled(source, self._temporary, lambda done: progress("", done, 0), self._limit) as archive,
            self._layers.holding() as holds,
        ):
            wanted = await layouts.read(archive)
            for image in wanted:
                self._layers.check_depth(len(image.layers))
            new = []
            budget = Budget.of(self._limit)
            for image in wanted:
                chain, diff_ids = await self._layers_of(image, archive, holds, budget, progress)
                new.append(NewImage(image.configuration(diff_ids), chain, image.names))
            done = await self._images.add(new)
        return [
            Loaded(image, tuple(f"{repo}:{tag}" for repo, tag in each.names))
            for image, each in zip(done, wanted, strict=True)
        ]

    async def _layers_of(
        self, image: layouts.Wanted, archive: Spooled, holds: Holds, budget: Budget, progress: Progress
    ) -> tuple[str | None, list[str]]:
        """Bring an image's layers into the store.  Its topmost chain, and the diff ids from the lowest one on."""
        chain: str | None = None
        diff_ids: list[str] = []
        layers = list(image.layers)
        while layers and layers[0].diff_id and self._layers.get(chain_id(chain, layers[0].diff_id)):
            diff_ids.append(layers[0].diff_id)
            chain = chain_id(chain, layers.pop(0).diff_id)
        if chain is not None:
            await self._layers.hold(holds, chain)
        for layer in layers:
            chain = await self._unpack(layer, chain, archive, holds, budget, progress)
            found = self._layers.get(chain)
            assert found is not None
            diff_ids.append(found.diff_id)
        return chain, diff_ids

    async def _unpack(
        self,
        layer: layouts.WantedLayer,
        parent: str | None,
        archive: Spooled,
        holds: Holds,
        budget: Budget,
        progress: Progress,
    ) -> str:
        total = archive.size(layer.file)
        shown = layer.diff_id or f"sha256:{layer.file}"
        async with AsyncExitStack() as stack:
            content = await stack.enter_async_context(aclosing(archive.pieces(layer.file, layer.digest)))
            mine = await stack.enter_async_context(
                self._layers.unpacked(
                    content, parent=parent, progress=lambda done: progress(shown, done, total), budget=budget
                )
            )
            if layer.diff_id and mine.diff_id != layer.diff_id:
                raise BadArchive(
                    f"cannot load the archive: layer {layer.file} has the digest {mine.diff_id}, "
                    f"and its image wants {layer.diff_id}",
                )
            await self._layers.adopt(mine, lambda connection, ready: holds.take(connection, ready.chain_id))
        return mine.chain_id
