"""The store as a whole: one root directory, owned by one daemon at a time.

``Store.open`` takes the lock, the database and the driver; ``recover`` then makes rows and disk agree.  Containers
are made and removed here with two durable commits each, the first before anything is done, the second after.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
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
from dockerd_py.store.networks import NetworkTable
from dockerd_py.store.recovery import TEMPORARY, Recovered, recover
from dockerd_py.store.save import Saver
from dockerd_py.store.tasks import uninterrupted
from dockerd_py.store.volume_mounts import VolumeMounts
from dockerd_py.store.volumes import VolumeRow, VolumeStore

DATABASE_NAME = "pydockerd.db"


async def _nothing() -> None:
    pass


@dataclass(frozen=True)
class VolumesOfContainer:
    """The volumes that a container is made with: those to be made with it, and the names of others.

    ``fill`` puts into them what the image has; it is called once the container's layer can be mounted.
    """

    new: tuple[VolumeRow, ...] = ()
    used: tuple[str, ...] = ()
    fill: Callable[[], Awaitable[None]] = _nothing


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
        self.networks = NetworkTable(db)
        self.volumes = VolumeStore(db, root)
        self.volume_mounts = VolumeMounts(self.volumes)
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
        await self.volumes.recover()
        return done

    async def create_container(
        self, row: ContainerRow, chain: str | None, volumes: VolumesOfContainer | None = None
    ) -> None:
        """Record a container, make its layer on ``chain`` and its volumes, and set its phase to READY.

        Raises Conflict (the name is taken, the image is going away), StoreError, and what filling the volumes raises;
        nothing is left then.
        """
        await uninterrupted(self._create_container(row, chain, volumes or VolumesOfContainer()))

    async def remove_container(self, container_id: str, volumes: Iterable[str] = ()) -> list[str]:
        """Unmount and remove the container's layer and those of ``volumes`` that no other container has, then the
        rows.  Nothing happens if there is none.  Returns the volumes that are gone.

        The container must not run.  Raises StoreError; it may be repeated then.
        """
        return await uninterrupted(self._remove_container(container_id, tuple(volumes)))

    async def close(self) -> None:
        """Finish what is under way and let go of the root.  Mounts stay."""
        await self.driver.trash.close()
        await self.volumes.trash.close()
        await self.db.close()
        os.close(self._lock_fd)

    async def _create_container(self, row: ContainerRow, chain: str | None, volumes: VolumesOfContainer) -> None:
        def plan(connection: sqlite3.Connection) -> RwLayer:
            self.containers.insert_in(connection, row)
            self.volumes.plan_in(connection, row.id, volumes.new, volumes.used)
            return self.layers.plan_rw(connection, row.id, chain)

        def confirm(connection: sqlite3.Connection) -> None:
            self.layers.confirm_rw(connection, row.id)
            self.volumes.confirm_in(connection, volumes.new)
            self.containers.set_phase_in(connection, row.id, READY)

        rw = await self.db.run(plan)
        try:
            await self.layers.make_rw(rw)
            await self.volumes.make(volumes.new)
            await volumes.fill()
            await self.db.run(confirm)
        except BaseException:
            await self._remove_container(row.id, tuple(one.name for one in volumes.new))
            raise
        self.volumes.confirmed(row.id, volumes.new, volumes.used)

    async def _remove_container(self, container_id: str, volumes: tuple[str, ...]) -> list[str]:
        def doom(connection: sqlite3.Connection) -> list[str] | None:
            found = connection.execute(
                "UPDATE containers SET phase = ? WHERE id = ?", (REMOVING, container_id),
            )
            self.layers.doom_rw(connection, container_id)
            return self.volumes.doom_in(connection, container_id, volumes) if found.rowcount else None

        def forget(connection: sqlite3.Connection) -> list[str]:
            freed = self.layers.forget_rw(connection, container_id)
            self.volumes.forget_in(connection, container_id, doomed or ())
            self.containers.delete_in(connection, container_id)
            return freed

        doomed = await self.db.run(doom)
        if doomed is None:
            return []
        await self.layers.destroy_rw(container_id)
        await self.volumes.discard(doomed)
        await self.layers.drop(await self.db.run(forget))
        self.volumes.forgotten(container_id, doomed)
        return doomed


def _remembered_driver(connection: sqlite3.Connection) -> str:
    row = connection.execute("SELECT value FROM meta WHERE key = 'driver'").fetchone()
    return row["value"] if row else ""


def _remember_driver(connection: sqlite3.Connection, name: str) -> None:
    if _remembered_driver(connection) != name:
        connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('driver', ?)", (name,))
