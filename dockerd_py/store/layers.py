"""Layers: read-only ones, shared and named by what is in them, and one writable one a container.

"Record, then acquire; release, then forget": a row in state *intended* is committed before a directory is made, and
*removing* before it goes; the row is deleted last.  What the two commits enclose, ``Store.recover`` can undo or
finish.  A read-only layer is *ready* once its bytes have been synced to the disk.

Functions that take a connection belong inside ``Database.run``; so a container's row and its layer's cost one commit.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from weakref import WeakValueDictionary

from dockerd_py.errors import BadParameter, PydockerdError, StoreError
from dockerd_py.store import mounts
from dockerd_py.store.archive import outgoing, skeleton
from dockerd_py.store.archive.client import Unpacked, unpack
from dockerd_py.store.below import Marks
from dockerd_py.store.budget import Budget
from dockerd_py.store.db import Database
from dockerd_py.store.drivers.base import Driver, Whiteouts, new_cache_id
from dockerd_py.store.files import store_errors
from dockerd_py.store.holds import Holds, check_ready
from dockerd_py.store.layer_ids import Layer, LayerIds, chain_id
from dockerd_py.store.tasks import uninterrupted

log = logging.getLogger(__name__)

T = TypeVar("T")

_MARKS = {Whiteouts.OVERLAY: Marks.OVERLAY, Whiteouts.AUFS: Marks.AUFS, Whiteouts.APPLY: Marks.NONE}


@dataclass(frozen=True)
class RwLayer:
    """A container's writable layer."""

    container_id: str
    cache_id: str
    parent_chain: str | None


@dataclass(frozen=True)
class RwView:
    """What a container's layer is made of, as directories in ``home``; of the read-only ones the topmost first."""

    home: Path
    upper: str
    lowers: tuple[str, ...]
    marks: Marks
    """How ``upper`` marks what is gone; NONE: it is the whole tree, and ``lowers`` is the one below, if any."""


class LayerStore:
    """All layers of one driver.  ``load`` has to run before anything else."""

    def __init__(self, db: Database, driver: Driver) -> None:
        self._db = db
        self._driver = driver
        self.ids = LayerIds()
        self._layers: dict[str, Layer] = {}  # by chain id
        self._rw: dict[str, RwLayer] = {}  # by container id
        self._unadopted: set[str] = set()
        self._holds: Counter[str] = Counter()  # containers whose root somebody reads just now
        self._borrowed: set[str] = set()  # those of them that are mounted for the readers alone
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def load(self) -> None:
        """Read what is ready into memory."""
        layers, rw = await self._db.run(self._read)
        self._layers = {layer.chain_id: layer for layer in layers}
        self.ids = LayerIds()
        for layer in layers:
            self.ids.add(layer, self._layers)
        self._rw = {layer.container_id: layer for layer in rw}

    # Read-only layers

    @asynccontextmanager
    async def unpacked(
        self,
        source: AsyncIterator[bytes],
        *,
        parent: str | None = None,
        progress: Callable[[int], None] | None = None,
        budget: Budget | None = None,
    ) -> AsyncIterator[Layer]:
        """Unpack a tar as a layer on the chain ``parent``, for the length of the block: to be kept, the layer has to
        be passed to ``adopt`` inside it.  Its bytes are on the disk when the block begins.

        ``budget`` pays for it; without one there is no limit.  Raises BadArchive, StoreError, BadParameter (too many
        layers), and whatever ``source`` raises; nothing is left then.
        """
        self.check_room_on(parent)
        parents = self._cache_ids(parent)
        cache_id = new_cache_id()
        self._unadopted.add(cache_id)
        try:
            result = await self._unpack(source, cache_id, parent, parents, progress, budget.limit if budget else 0)
            if budget:
                budget.spend(result.taken)
            with store_errors("cannot write the layer to the disk"):
                await asyncio.to_thread(mounts.sync_filesystem, self._driver.home)
            yield Layer(cache_id, chain_id(parent, result.diff_id), result.diff_id, parent, result.size)
        finally:
            if cache_id in self._unadopted:
                await uninterrupted(self._discard([cache_id]))

    async def adopt(self, layer: Layer, also: Callable[[sqlite3.Connection, Layer], T]) -> T:
        """Make an unpacked layer ready, or take the same one that is there already in its place.

        ``also`` gets whichever it is and runs in the same transaction: it records who needs the layer, so that
        nothing can take it away in between.  Returns its value.
        """
        return await uninterrupted(self._adopt(layer, also))

    @asynccontextmanager
    async def holding(self) -> AsyncIterator[Holds]:
        """A way to keep layers from being taken away that nothing stands on yet, for the length of the block.

        A hold is an intended layer on them that is never made: after a crash, recovery lets go of what it held.
        """
        holds = Holds(self._driver.name)
        try:
            yield holds
        finally:
            if holds.cache_ids:
                await uninterrupted(self._discard(holds.cache_ids))

    def check_depth(self, count: int) -> None:
        """Raises BadParameter if no image can have as many layers."""
        if count > self._driver.max_depth:
            raise BadParameter(
                f"max depth exceeded: an image can have {self._driver.max_depth} layers; export a container of it and "
                "import that to begin again with one"
            )

    async def hold(self, holds: Holds, chain: str) -> None:
        """Raises Conflict if the layers are being removed."""
        await self._db.run(lambda connection: holds.take(connection, chain))

    def get(self, chain: str) -> Layer | None:
        return self._layers.get(chain)

    def chain(self, chain: str | None) -> list[Layer]:
        """The layers of a chain, the topmost first.  Raises StoreError if one is missing."""
        layers: list[Layer] = []
        while chain is not None:
            layer = self._layers.get(chain)
            if layer is None:
                raise StoreError(f"layer {chain} is not in the store")
            layers.append(layer)
            chain = layer.parent_chain
        return layers

    async def root_size(self, chain: str | None) -> int:
        """Bytes of all files that the layers of ``chain`` bring."""
        return sum(layer.size for layer in self.chain(chain))

    def ready(self) -> tuple[Layer, ...]:
        """All read-only layers that are ready."""
        return tuple(self._layers.values())

    def check_room_on(self, parent: str | None) -> None:
        """Raises BadParameter when there can't be one more layer on the chain ``parent``."""
        self.check_depth(len(self.chain(parent)) + 1)

    async def tar_size(self, layer: Layer) -> int:
        """Bytes of the tar that the layer came in as.  Raises StoreError."""
        with store_errors(f"cannot write out layer {layer.diff_id}: what was kept of its archive cannot be read"):
            return await asyncio.to_thread(skeleton.archive_size, self._driver.directory(layer.cache_id))

    def tar(self, layer: Layer) -> AsyncGenerator[bytes, None]:
        """The tar that the layer came in as, byte for byte; to be closed.

        Raises StoreError, perhaps only at the end, when the layer's files are not what they were.
        """
        return outgoing.pack(
            self._driver.target(layer.cache_id), self._driver.directory(layer.cache_id), layer.diff_id,
        )  # fmt: skip

    def release(self, connection: sqlite3.Connection, chain: str | None) -> list[str]:
        """Mark the layers of ``chain`` that nothing needs any more; ``drop`` what comes back after the commit."""
        freed: list[str] = []
        name = self._driver.name
        while chain is not None:
            needed = connection.execute(
                "SELECT 1 FROM images WHERE driver = :driver AND chain_id = :chain"
                " UNION ALL SELECT 1 FROM rw_layers WHERE driver = :driver AND parent_chain = :chain"
                " UNION ALL SELECT 1 FROM layers WHERE driver = :driver AND parent_chain = :chain"
                " AND state <> 'removing' LIMIT 1",
                {"driver": name, "chain": chain},
            ).fetchone()
            row = connection.execute(
                "SELECT cache_id, parent_chain FROM layers WHERE driver = ? AND chain_id = ? AND state = 'ready'",
                (name, chain),
            ).fetchone()
            if needed or row is None:
                break
            connection.execute("UPDATE layers SET state = 'removing' WHERE cache_id = ?", (row["cache_id"],))
            freed.append(row["cache_id"])
            chain = row["parent_chain"]
        return freed

    async def drop(self, cache_ids: Iterable[str]) -> None:
        """Take away the bytes, then the rows, of layers that ``release`` has marked."""
        gone = set(cache_ids)
        if gone:
            for layer in [layer for layer in self._layers.values() if layer.cache_id in gone]:
                self.ids.remove(layer.chain_id)
            self._layers = {chain: layer for chain, layer in self._layers.items() if layer.cache_id not in gone}
            await self._discard(sorted(gone))

    # Writable layers

    def plan_rw(self, connection: sqlite3.Connection, container_id: str, chain: str | None) -> RwLayer:
        """Record a writable layer as intended; the container's row has to be there.  ``make_rw`` comes next.

        Raises Conflict if the image's layers are being removed at this moment.
        """
        name = self._driver.name
        if chain is not None:
            check_ready(connection, name, chain)
        rw = RwLayer(container_id, new_cache_id(), chain)
        connection.execute(
            "INSERT INTO rw_layers (container_id, driver, cache_id, parent_chain, state)"
            " VALUES (?, ?, ?, ?, 'intended')",
            (container_id, name, rw.cache_id, chain),
        )
        return rw

    async def make_rw(self, rw: RwLayer) -> None:
        """Make the directories of a planned layer.  ``confirm_rw`` comes next.  Raises StoreError."""
        self._rw[rw.container_id] = rw
        await self._driver.create_rw(rw.cache_id, self._cache_ids(rw.parent_chain))

    def confirm_rw(self, connection: sqlite3.Connection, container_id: str) -> None:
        """Record that the layer is made."""
        connection.execute("UPDATE rw_layers SET state = 'ready' WHERE container_id = ?", (container_id,))

    def doom_rw(self, connection: sqlite3.Connection, container_id: str) -> None:
        """Record that the layer is to go.  ``destroy_rw`` comes next."""
        connection.execute("UPDATE rw_layers SET state = 'removing' WHERE container_id = ?", (container_id,))

    async def destroy_rw(self, container_id: str) -> None:
        """Unmount a doomed layer and take its directory away.  ``forget_rw`` comes next.  Raises StoreError."""
        async with self._lock(container_id):
            rw = self._rw.get(container_id)
            if rw is not None:
                await self._driver.remove(rw.cache_id)
                del self._rw[container_id]

    def forget_rw(self, connection: sqlite3.Connection, container_id: str) -> list[str]:
        """Delete the layer's row.  Returns what to ``drop``: layers that were here for this container alone."""
        rows = connection.execute(
            "DELETE FROM rw_layers WHERE container_id = ? RETURNING parent_chain", (container_id,),
        ).fetchall()
        return [cache_id for (chain,) in rows for cache_id in self.release(connection, chain)]

    async def create_rw(self, container_id: str, chain: str | None) -> None:
        """All of it for a container whose row is there: two commits.  Raises StoreError, Conflict; undone then."""
        await uninterrupted(self._create_rw(container_id, chain))

    async def mount_rw(self, container_id: str) -> Path:
        """Mount the container's root filesystem (nothing happens if it is) and return where.  Raises StoreError."""
        return await uninterrupted(self._mount_rw(container_id))

    async def unmount_rw(self, container_id: str) -> None:
        """Unmount it; nothing happens if it is not mounted.  Raises StoreError."""
        await uninterrupted(self._unmount_rw(container_id))

    @asynccontextmanager
    async def held_rw(self, container_id: str) -> AsyncIterator[Path]:
        """The container's root filesystem, mounted for the length of the block whether the container runs or not.

        Raises StoreError.  Where the container is removed meanwhile, its files go under the reader's eyes.
        """
        root = await uninterrupted(self._hold_rw(container_id))
        try:
            yield root
        finally:
            await uninterrupted(self._let_go_rw(container_id))

    def view_rw(self, container_id: str) -> RwView:
        """Where the container's changes, and what they are changes of, lie on the disk."""
        rw = self._need_rw(container_id)
        home = self._driver.home
        marks = _MARKS[self._driver.whiteouts]
        parents = self._cache_ids(rw.parent_chain)
        lowers = tuple(os.path.relpath(self._driver.target(one), home) for one in parents)
        upper = os.path.relpath(self._driver.target(rw.cache_id), home)
        return RwView(home, upper, lowers[:1] if marks is Marks.NONE else lowers, marks)

    def parent_chain(self, container_id: str) -> str | None:
        """The chain of read-only layers that the container's layer lies on."""
        return self._need_rw(container_id).parent_chain

    async def remove_rw(self, container_id: str) -> None:
        """Remove the layer in two commits.  Nothing happens if there is none.  May be repeated after a failure."""
        await uninterrupted(self._remove_rw(container_id))

    async def rw_size(self, container_id: str) -> int:
        """Bytes of the files that the container has written or changed."""
        rw = self._need_rw(container_id)
        with store_errors("cannot measure the container's files"):
            return await self._driver.rw_size(rw.cache_id, self._cache_ids(rw.parent_chain))

    def is_mounted(self, container_id: str) -> bool:
        return self._driver.is_mounted(self._need_rw(container_id).cache_id)

    def root(self, container_id: str) -> Path:
        """Where the container's root filesystem is while it is mounted."""
        return self._driver.root(self._need_rw(container_id).cache_id)

    # Below

    def _read(self, connection: sqlite3.Connection) -> tuple[list[Layer], list[RwLayer]]:
        layers = connection.execute(
            "SELECT cache_id, chain_id, diff_id, parent_chain, size FROM layers WHERE driver = ? AND state = 'ready'",
            (self._driver.name,),
        )
        rw = connection.execute(
            "SELECT container_id, cache_id, parent_chain FROM rw_layers WHERE driver = ?", (self._driver.name,),
        )
        return [Layer(*row) for row in layers], [RwLayer(*row) for row in rw]

    async def _unpack(
        self,
        source: AsyncIterator[bytes],
        cache_id: str,
        parent: str | None,
        parents: tuple[str, ...],
        progress: Callable[[int], None] | None,
        limit: int,
    ) -> Unpacked:
        """Record and make a layer's directory while the helper that unpacks into it gets ready."""
        made = asyncio.Event()

        async def once_made() -> AsyncGenerator[bytes, None]:
            await made.wait()
            async for piece in source:
                yield piece

        unpacking = asyncio.create_task(
            unpack(
                once_made(),
                self._driver.target(cache_id),
                self._driver.whiteouts,
                progress,
                keep=self._driver.directory(cache_id),
                limit=limit,
            )
        )
        try:
            await self._db.run(lambda connection: self._intend(connection, cache_id, parent))
            await self._driver.create(cache_id, parents)
            made.set()
            return await unpacking
        finally:
            unpacking.cancel()
            await asyncio.gather(unpacking, return_exceptions=True)

    def _intend(self, connection: sqlite3.Connection, cache_id: str, parent: str | None) -> None:
        connection.execute(
            "INSERT INTO layers (cache_id, driver, parent_chain, state) VALUES (?, ?, ?, 'intended')",
            (cache_id, self._driver.name, parent),
        )

    async def _adopt(self, mine: Layer, also: Callable[[sqlite3.Connection, Layer], T]) -> T:
        def commit(connection: sqlite3.Connection) -> tuple[Layer, T]:
            row = connection.execute(
                "SELECT cache_id, chain_id, diff_id, parent_chain, size FROM layers"
                " WHERE driver = ? AND chain_id = ? AND state = 'ready'",
                (self._driver.name, mine.chain_id),
            ).fetchone()
            if row:
                layer = Layer(*row)
            else:
                layer = mine
                connection.execute(
                    "UPDATE layers SET state = 'ready', chain_id = ?, diff_id = ?, size = ? WHERE cache_id = ?",
                    (mine.chain_id, mine.diff_id, mine.size, mine.cache_id),
                )
            return layer, also(connection, layer)

        layer, value = await self._db.run(commit)
        self._layers[layer.chain_id] = layer
        self.ids.add(layer, self._layers)
        if layer is mine:
            self._unadopted.discard(mine.cache_id)
        return value

    async def _discard(self, cache_ids: list[str]) -> None:
        """Bytes first, then rows.  What fails stays recorded for ``recover``."""

        def forget(connection: sqlite3.Connection) -> list[str]:
            freed: list[str] = []
            for cache_id in cache_ids:
                rows = connection.execute(
                    "DELETE FROM layers WHERE cache_id = ? AND state <> 'ready' RETURNING parent_chain", (cache_id,),
                ).fetchall()
                # While it was being made, it kept the layers below it.
                for (parent,) in rows:
                    freed += self.release(connection, parent)
            return freed

        self._unadopted.difference_update(cache_ids)
        try:
            for cache_id in cache_ids:
                await self._driver.remove(cache_id)
            freed = await self._db.run(forget)
        except PydockerdError as error:
            log.error("a layer's remains stay until the next start: %s", error)
        else:
            await self.drop(freed)

    async def _create_rw(self, container_id: str, chain: str | None) -> None:
        rw = await self._db.run(lambda connection: self.plan_rw(connection, container_id, chain))
        try:
            await self.make_rw(rw)
            await self._db.run(lambda connection: self.confirm_rw(connection, container_id))
        except BaseException:
            await self._remove_rw(container_id)
            raise

    async def _mount_rw(self, container_id: str) -> Path:
        async with self._lock(container_id):
            rw = self._need_rw(container_id)
            self._borrowed.discard(container_id)
            return await self._driver.mount(rw.cache_id, self._cache_ids(rw.parent_chain))

    async def _unmount_rw(self, container_id: str) -> None:
        async with self._lock(container_id):
            rw = self._need_rw(container_id)
            if self._holds[container_id]:
                self._borrowed.add(container_id)
            else:
                await self._driver.unmount(rw.cache_id)

    async def _hold_rw(self, container_id: str) -> Path:
        async with self._lock(container_id):
            rw = self._need_rw(container_id)
            if not self._driver.is_mounted(rw.cache_id):
                self._borrowed.add(container_id)
            root = await self._driver.mount(rw.cache_id, self._cache_ids(rw.parent_chain))
            self._holds[container_id] += 1
            return root

    async def _let_go_rw(self, container_id: str) -> None:
        async with self._lock(container_id):
            self._holds[container_id] -= 1
            if self._holds[container_id]:
                return
            del self._holds[container_id]
            if container_id in self._borrowed:
                self._borrowed.discard(container_id)
                rw = self._rw.get(container_id)
                if rw is not None:
                    await self._driver.unmount(rw.cache_id)

    async def _remove_rw(self, container_id: str) -> None:
        await self._db.run(lambda connection: self.doom_rw(connection, container_id))
        await self.destroy_rw(container_id)
        await self.drop(await self._db.run(lambda connection: self.forget_rw(connection, container_id)))

    def _cache_ids(self, chain: str | None) -> tuple[str, ...]:
        return tuple(layer.cache_id for layer in self.chain(chain))

    def _need_rw(self, container_id: str) -> RwLayer:
        rw = self._rw.get(container_id)
        if rw is None:
            raise StoreError(f"container {container_id} has no layer in the store")
        return rw

    def _lock(self, container_id: str) -> asyncio.Lock:
        return self._locks.setdefault(container_id, asyncio.Lock())
