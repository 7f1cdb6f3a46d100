"""Images: the store's, as values of the engine's."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from typing import Any

from dockerd_py.engine import download
from dockerd_py.engine.events import EventLog
from dockerd_py.engine.forms import config_from_image
from dockerd_py.engine.history import History, entry, padded_steps
from dockerd_py.engine.model import ContainerConfig, Image, ImageChange, Progress, ProgressSink
from dockerd_py.errors import NoSuchImage
from dockerd_py.store.image_index import StoredImage
from dockerd_py.store.removal import Rules
from dockerd_py.store.store import Store

Changes = list[ImageChange]
LoadedImages = list[tuple[str, tuple[str, ...]]]
Users = list[tuple[str, bool]]
"""Containers of an image: (id, whether it runs)."""


class Images:
    def __init__(self, store: Store, events: EventLog) -> None:
        self._store = store
        self._events = events
        self.users: Callable[[str], Users] = lambda image_id: []
        """The containers made from an image: (id, whether it runs).  Set by the engine."""
        self.in_use: Callable[[], Collection[str]] = tuple
        """The ids of the images and layers that containers were made from.  Set by the engine."""

    def list(self) -> list[Image]:
        """Newest first."""
        return sorted((self.value(image) for image in self._store.images.list()), key=lambda image: -image.created)

    def get(self, ref: str) -> Image:
        """By name, digest, id or unique prefix of an id.  Raises NoSuchImage, AmbiguousId."""
        return self.value(self._store.images.get(ref))

    def history(self, ref: str) -> History:
        """The steps of an image's making, the last one first; with the ids of the images that are here.

        Raises NoSuchImage, AmbiguousId.
        """
        images = self._store.images.index.images
        stored = self._store.images.get(ref)
        sizes = [layer.size for layer in self._store.layers.chain(stored.chain_id)]  # the topmost first
        entries = []
        at: StoredImage | None = stored
        for step in reversed(padded_steps(stored)):
            entries.append(entry(step, at, sizes, at.tags if at else ()))
            at = images.get(at.parent_id) if at else None
        return entries

    def size(self, image_id: str) -> int:
        """Bytes of all its layers; 0 for an image that was removed by force under its containers."""
        try:
            return self._store.images.get(image_id).size
        except NoSuchImage:
            return 0

    def chain_id(self, image_id: str) -> str | None:
        return self._store.images.get(image_id).chain_id

    def __len__(self) -> int:
        return len(self._store.images.list())

    async def import_(
        self,
        source: AsyncIterator[bytes],
        *,
        repo: str = "",
        tag: str = "",
        message: str = "",
        author: str = "",
        changes: tuple[str, ...] = (),
        origin: str = "-",
        progress: ProgressSink | None = None,
    ) -> str:
        """Make an image of a tar of a root filesystem; returns its id.

        Raises BadArchive for the tar, BadParameter for the name or the changes.
        """

        def report(current: int) -> None:
            if progress is not None:
                progress(Progress("Importing", current=current))

        image = await self._store.images.import_(
            source,
            repo=repo,
            tag=tag,
            message=message,
            author=author,
            changes=changes,
            origin=origin,
            progress=report,
        )
        self._publish("import", image.id)
        return image.id

    def fetch(self, url: str, progress: ProgressSink | None = None) -> AsyncGenerator[bytes, None]:
        """What an http or https URL holds, as a source for `import_`.

        Raises BadParameter for what is no such URL, and, while it is read, when its content can't be had.
        """
        return download.download(download.check(url), progress)

    async def save(self, refs: Sequence[str]) -> AsyncGenerator[bytes, None]:
        """One archive of images with the names that ``refs`` ask for: a name, all of a repository, or an id's none.

        Returned once it can begin; to be closed.  Raises NoSuchImage, AmbiguousId, BadParameter, and, while it is
        read, StoreError.
        """
        chosen = [found for ref in refs for found in self._store.images.named(ref)]
        for image in dict.fromkeys(image.id for image, _ in chosen):
            self._publish("save", image)
        return self._store.saver.save(chosen)

    async def load(self, source: AsyncIterator[bytes], progress: ProgressSink | None = None) -> LoadedImages:
        """The images of an archive, as `save` or others make it: (id, names that it gave), in its order.

        Raises BadArchive and StoreError; nothing of it stays then.
        """

        def report(layer: str, done: int, total: int) -> None:
            if progress is not None and layer:
                progress(Progress("Loading layer", layer.removeprefix("sha256:")[:12], done, total))

        loaded = await self._store.loader.load(source, report)
        for each in loaded:
            self._publish("load", each.image.id)
            for _ in each.names:
                self._publish("tag", each.image.id)
        return [(each.image.id, each.names) for each in loaded]

    async def remove(
        self, ref: str, *, force: bool | None = False, prune: bool = True, rules: Rules = Rules.TODAY
    ) -> Changes:
        """Take a name away, or an image with all its names.  Raises NoSuchImage, Conflict."""
        image_id = self.get(ref).id
        changes = await self._store.images.remove(ref, self.users, force=force, prune=prune, rules=rules)
        for change in changes:
            identity = "sha256:" + (change.deleted or image_id)
            name = change.untagged or (ref if change.deleted == image_id else identity)
            self._events.publish("image", "delete" if change.deleted else "untag", identity, {"name": name})
        return [ImageChange(change.untagged, change.deleted) for change in changes]

    async def tag(self, ref: str, repo: str, tag: str, force: bool = False) -> None:
        """Give an image one more name.  Raises NoSuchImage, BadParameter."""
        image = await self._store.images.tag(ref, repo, tag, force=force)
        self._publish("tag", image.id)

    def _publish(self, action: str, image_id: str) -> None:
        tags: tuple[str, ...] = ()
        with contextlib.suppress(NoSuchImage):  # removed by somebody else in the meantime
            tags = self._store.images.get(image_id).tags
        name = tags[0] if tags else "sha256:" + image_id
        self._events.publish("image", action, "sha256:" + image_id, {"name": name})

    def value(self, image: StoredImage) -> Image:
        """An image of the store's; its parent where that is an image, too."""
        config = image.raw
        return Image(
            id=image.id,
            parent_id=image.parent_id if image.parent_id in self._store.images.index.images else "",
            created=image.created,
            size=image.size,
            own_size=image.size,
            tags=image.tags,
            digests=(),
            diff_ids=image.diff_ids,
            config=_settings(config.get("config")),
            author=config.get("author") or "",
            comment=config.get("comment") or "",
            architecture=config.get("architecture") or "",
            os=config.get("os") or "",
            docker_version=config.get("docker_version") or "",
            driver=image.driver,
            container_count=len(self.users(image.id)),
            container=config.get("container") or "",
            container_config=_settings(config.get("container_config")),
        )


def _settings(given: dict[str, Any] | None) -> ContainerConfig:
    return config_from_image(given) if given else ContainerConfig()  # a layer has none, and there may be many of them
