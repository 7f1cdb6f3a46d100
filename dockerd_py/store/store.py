"""The store as a whole: one root directory, owned by one daemon at a time.

``Store.open`` takes the lock, the database and the driver; ``recover`` then makes rows and disk agree.  Containers
are made and removed here with two durable commits each, the first before anything is done, the second after.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from pathlib import Path

from dockerd_py.store.containers import READY, REMOVING, ContainerRow, ContainerTable
from dockerd_py.store.db import Database
from dockerd_py.store.drivers.base import Driver
from dockerd_py.store.drivers.choose import choose_driver
from dockerd_py.store.files import store_errors
from dockerd_py.store.images import ImageStore
from dockerd_py.store.layers import LayerStore, RwLayer
from dockerd_py.store.load import Loader
from dockerd_py.store.lock import take_root
from dockerd_py.store.recovery import TEMPORARY, Recovered, recover
from dockerd_py.store.save import Saver
from dockerd_py.store.tasks import uninterrupted

DATABASE_NAME = "pydockerd.db"


class Store:
    """Made by ``Store.open``; ended by ``close``."""

    def __init__(self, root: Path, lock_fd: int, db: Database, driver: Driver, unpack_limit: int) -> None:
        self.root = root
        self.db = db
        self.driver = driver
        self.layers = LayerStore(db, driver)
        self.images = ImageStore(db, self.layers, driver.name, unpack_limit)
        self.loader = Loader(self.layers, self.images, root / TEMPORARY, unpack_limit)
        self.saver = Saver(self.layers, self.images)
        self.containers = ContainerTable(db, driver.name)
        self._lock_fd = lock_fd

    @classmethod
    async def open(cls, root: Path, driver: str = "", unpack_limit: int = 0) -> Store:
        """Open or make the store in ``root`` with the storage driver named ``driver`` ("": the one used before,
        or the best that works).  ``unpack_limit``: bytes that one archive may have, uncompressed; 0 for no limit.

        The daemon has to change its working directory to ``working_directory`` afterwards, and call ``recover``.
        Raises ConfigError (in use by another daemon, driver unknown or unusable) and StoreError.
        """
        async with contextlib.AsyncExitStack() as undo:
            root, lock_fd = await asyncio.to_thread(take_root, root)
            undo.callback(os.close, lock_fd)
            db = await Database.open(root / DATABASE_NAME)
            undo.push_async_callback(db.close)
            remembered = await db.run(_remembered_driver)
            chosen = await asyncio.to_thread(choose_driver, root, driver, remembered)
            with store_errors(f"cannot prepare {chosen.home}"):
                await asyncio.to_thread(chosen.prepare)
            await db.run(lambda connection: _remember_driver(connection, chosen.name))
            store = cls(root, lock_fd, db, chosen, unpack_limit)
            await store.layers.load()
            await store.images.load()
            undo.pop_all()
        return store

    @property
    def working_directory(self) -> Path:
        """Where the process has to be for mounts to work."""
        return self.driver.home

    async def recover(self) -> Recovered:
        """Undo what was half made, finish what was half removed, and take away what no row knows.

        Call it before the store is used; repeating it changes nothing.  Containers may run meanwhile.
        Raises StoreError.
        """
        done = await recover(self.db, self.driver, self.layers, self.root)
        await self.layers.load()
        await self.images.load()
        return done

    async def create_container(self, row: ContainerRow, chain: str | None) -> None:
        """Record a container, make its layer on ``chain`` and set its phase to READY.

        Raises Conflict (the name is taken, the image is going away) and StoreError; nothing is left then.
        """
        await uninterrupted(self._create_container(row, chain))

    async def remove_container(self, container_id: str) -> None:
        """Unmount and remove the container's layer, then its row.  Nothing happens if there is none.

        The container must not run.  Raises StoreError; it may be repeated then.
        """
        await uninterrupted(self._remove_container(container_id))

    async def close(self) -> None:
        """Finish what is under way and let go of the root.  Mounts stay."""
        await self.driver.trash.close()
        await self.db.close()
        os.close(self._lock_fd)

    async def _create_container(self, row: ContainerRow, chain: str | None) -> None:
        def plan(connection: sqlite3.Connection) -> RwLayer:
            self.containers.insert_in(connection, row)
            return self.layers.plan_rw(connection, row.id, chain)

        def confirm(connection: sqlite3.Connection) -> None:
            self.layers.confirm_rw(connection, row.id)
            self.containers.set_phase_in(connection, row.id, READY)

        rw = await self.db.run(plan)
        try:
            await self.layers.make_rw(rw)
            await self.db.run(confirm)
        except BaseException:
            await self._remove_container(row.id)
            raise

    async def _remove_container(self, container_id: str) -> None:
        def doom(connection: sqlite3.Connection) -> bool:
            found = connection.execute(
                "UPDATE containers SET phase = ? WHERE id = ?", (REMOVING, container_id),
            )
            self.layers.doom_rw(connection, container_id)
            return found.rowcount > 0

        def forget(connection: sqlite3.Connection) -> list[str]:
            freed = self.layers.forget_rw(connection, container_id)
            self.containers.delete_in(connection, container_id)
            return freed

        if await self.db.run(doom):
            await self.layers.destroy_rw(container_id)
            await self.layers.drop(await self.db.run(forget))


def _remembered_driver(connection: sqlite3.Connection) -> str:
    row = connection.execute("SELECT value FROM meta WHERE key = 'driver'").fetchone()
    return row["value"] if row else ""


def _remember_driver(connection: sqlite3.Connection, name: str) -> None:
    if _remembered_driver(connection) != name:
        connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('driver', ?)", (name,))
