"""What everything takes on the disk, and cleaning up; and the first year's ``insert``."""

from __future__ import annotations

import asyncio
import io
import posixpath
import tarfile
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import IO

from dockerd_py.config import Config
from dockerd_py.engine.containers import Containers
from dockerd_py.engine.contents import Contents
from dockerd_py.engine.events import EventLog
from dockerd_py.engine.images import Images
from dockerd_py.engine.model import (
    CommitOptions,
    Container,
    ContainerConfig,
    HostConfig,
    Image,
    ImageChange,
    ProgressSink,
    Pruned,
)
from dockerd_py.errors import BadParameter, Conflict, NoSuchContainer, NoSuchImage, NotFound
from dockerd_py.store.store import Store

_CHUNK = 1 << 18


class Upkeep:
    def __init__(
        self, config: Config, store: Store, containers: Containers, images: Images, contents: Contents, events: EventLog
    ) -> None:
        self._root = config.root
        self._unpack_limit = config.unpack_limit
        self._store = store
        self._containers = containers
        self._images = images
        self._contents = contents
        self._events = events

    def shared_sizes(self) -> dict[str, int]:
        """For each image the bytes of those of its layers that another image has, too."""
        images = self._store.images.list()
        chains = {image.id: self._store.layers.chain(image.chain_id) for image in images}
        users = Counter(layer.chain_id for chain in chains.values() for layer in chain)
        return {
            image: sum(layer.size for layer in chain if users[layer.chain_id] > 1) for image, chain in chains.items()
        }

    def layers_size(self) -> int:
        """Bytes of all read-only layers, each counted once."""
        return sum(layer.size for layer in self._store.layers.ready())

    async def prune_containers(self, passes: Callable[[Container], bool]) -> Pruned:
        """Remove the containers that do not run and pass."""
        removed: list[str] = []
        reclaimed = 0
        for container in self._containers.list(all=True):
            if container.state.active or not passes(container):
                continue
            try:
                size = (await self._containers.sizes(container.id)).size_rw or 0
                await self._containers.remove(container.id)
            except (NoSuchContainer, Conflict):
                continue  # removed, or started, by somebody else
            removed.append(container.id)
            reclaimed += size
        self._events.publish("container", "prune", "", {"reclaimed": str(reclaimed)})
        return Pruned(containers=tuple(removed), reclaimed=reclaimed)

    async def prune_images(self, passes: Callable[[Image], bool], *, dangling: bool) -> Pruned:
        """Remove the images that no container uses and that pass; with ``dangling`` only those without a name, which
        are no other's parent either."""
        before = self.layers_size()
        changes: list[ImageChange] = []
        for image in self._images.list():
            if (dangling and image.tags) or image.container_count or not passes(image):
                continue
            for ref in image.tags or (image.id,):
                try:
                    changes += await self._images.remove(ref)
                except (NoSuchImage, Conflict):
                    continue  # gone with a child of its, or needed after all
        reclaimed = max(0, before - self.layers_size())
        self._events.publish("image", "prune", "", {"reclaimed": str(reclaimed)})
        return Pruned(images=tuple(changes), reclaimed=reclaimed)

    async def insert(self, ref: str, url: str, path: str, progress: ProgressSink | None = None) -> str:
        """Make an image of another one and a file from a URL; returns its id.

        Raises NoSuchImage, and BadParameter when the URL can't be read or there is something at ``path``.
        """
        image = self._images.get(ref)
        target = posixpath.normpath("/" + path)
        if target in ("/", "//"):
            raise BadParameter("Bad parameter: path must name a file")
        size = 0
        with tempfile.TemporaryFile(dir=self._root) as spool:
            async with aclosing(self._images.fetch(url, progress)) as content:
                async for piece in content:
                    size += len(piece)
                    if self._unpack_limit and size > self._unpack_limit:
                        raise BadParameter(f"{url} holds more than the {self._unpack_limit} bytes of --unpack-limit")
                    await asyncio.to_thread(spool.write, piece)
            # Made only to be committed: what runs in it does not matter.
            config = ContainerConfig(image=image.id, cmd=("echo", "insert", url, path))
            made = await self._containers.create(config, HostConfig(network_mode="none"))
            try:
                await self._refuse_existing(made.id, target)
                async with aclosing(_one_file(spool, target)) as tar:
                    await self._contents.extract(made.id, "/", tar)
                options = CommitOptions(comment=image.comment, author=image.author, config=image.config, merge=False)
                return await self._contents.commit(made.id, options)
            finally:
                await self._containers.remove(made.id, force=True, volumes=True)

    async def _refuse_existing(self, container_id: str, path: str) -> None:
        try:
            await self._contents.stat(container_id, path)
        except NotFound:
            return
        raise BadParameter(f"{path} exists")


async def _one_file(spool: IO[bytes], path: str) -> AsyncGenerator[bytes, None]:
    """A tar with the file that ``spool`` holds."""
    size = await asyncio.to_thread(spool.seek, 0, io.SEEK_END)
    await asyncio.to_thread(spool.seek, 0)
    info = tarfile.TarInfo(path.lstrip("/"))
    info.size = size
    yield info.tobuf(tarfile.PAX_FORMAT)
    while piece := await asyncio.to_thread(spool.read, _CHUNK):
        yield piece
    yield bytes(-size % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE)
