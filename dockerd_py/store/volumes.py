"""Volumes: a row and a directory each, which outlive the containers that use them.

``<root>/volumes/<name>/_data`` is what containers see.  A volume whose options name a device has something mounted
there while it is in use; that is the engine's to do.  Rows come before directories and go after them, so recovery
knows what was half made and what was half removed.  Which containers use a volume is recorded with the containers,
of all storage drivers: a hidden container keeps its volumes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dockerd_py.errors import Conflict
from dockerd_py.store import mounts
from dockerd_py.store.archive import copyup
from dockerd_py.store.db import Database
from dockerd_py.store.drivers.measure import bytes_in
from dockerd_py.store.files import make_directory, store_errors, sync_directory
from dockerd_py.store.tasks import uninterrupted
from dockerd_py.store.trash import Trash

log = logging.getLogger(__name__)

HOME = "volumes"
DATA = "_data"
TRASH = ".trash"


@dataclass(frozen=True)
class VolumeRow:
    name: str
    created: int  # nanoseconds
    labels: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_mounted_for_use(self) -> bool:
        return bool(self.options.get("device"))


class VolumeStore:
    """All volumes.  Names have been checked by whoever calls: each is one component of a path.

    Nobody may change one volume in two ways at once; the engine's locks see to that.  Methods whose name ends in
    ``_in`` belong inside ``Database.run``.
    """

    def __init__(self, db: Database, root: Path) -> None:
        self.home = root / HOME
        self.trash = Trash(self.home / TRASH)
        self._db = db
        self._rows: dict[str, VolumeRow] = {}
        self._users: dict[str, set[str]] = {}

    async def load(self) -> None:
        """Read the rows into memory."""
        rows, users = await self._db.run(_read)
        self._rows = {row.name: row for row in rows}
        self._users = {row.name: set() for row in rows}
        for container_id, name in users:
            self._users.setdefault(name, set()).add(container_id)

    def get(self, name: str) -> VolumeRow | None:
        return self._rows.get(name)

    def all(self) -> list[VolumeRow]:
        """Sorted by name."""
        return [self._rows[name] for name in sorted(self._rows)]

    def users(self, name: str) -> frozenset[str]:
        """The containers that have it, those of other storage drivers too."""
        return frozenset(self._users.get(name, ()))

    def directory(self, name: str) -> Path:
        """What belongs to a volume."""
        return self.home / name

    def data(self, name: str) -> Path:
        """What containers see of it."""
        return self.home / name / DATA

    async def size(self, name: str) -> int:
        """Bytes of the files in it.  Raises StoreError."""
        with store_errors(f"cannot measure the volume {name}"):
            return await asyncio.to_thread(bytes_in, self.data(name))

    async def create(self, row: VolumeRow) -> None:
        """Raises StoreError; nothing is left then."""
        await uninterrupted(self._create(row))

    async def remove(self, name: str) -> None:
        """Nothing happens if there is none.  Raises Conflict when a container has it, and StoreError."""
        await uninterrupted(self._remove(name))

    async def recover(self) -> None:
        """Take away what was half made or half removed and what no row knows, and finish what a killed daemon had
        begun to fill.  Idempotent.  Raises StoreError."""
        with store_errors(f"cannot prepare {self.home}"):
            await asyncio.to_thread(make_directory, self.home, 0o711)
            await asyncio.to_thread(self.trash.prepare)
        await self._db.run(_doom_half_made)
        await self.load()
        gone = 0
        with store_errors("cannot clean up the volumes"):
            for name in await asyncio.to_thread(os.listdir, self.home):
                if name == TRASH:
                    continue
                if name in self._rows:
                    await asyncio.to_thread(copyup.recover, self.directory(name), self.data(name))
                else:
                    await asyncio.to_thread(self._throw, name)
                    gone += 1
        await self._db.run(_forget_doomed)
        self.trash.empty_soon()
        if gone:
            log.info("volumes half done at the last stop, and gone now: %d", gone)

    # Parts of the making and the removal of a container

    def plan_in(self, connection: sqlite3.Connection, container_id: str, new: Sequence[VolumeRow],
                used: Iterable[str]) -> None:  # fmt: skip
        """Record new volumes as intended, and that a container, whose row is there, has these and ``used``."""
        for row in new:
            _insert(connection, row, "intended")
        names = {row.name for row in new} | set(used)
        connection.executemany(
            "INSERT INTO volume_users (container_id, volume) VALUES (?, ?)",
            [(container_id, name) for name in sorted(names)],
        )

    async def make(self, new: Sequence[VolumeRow]) -> None:
        """Make the directories of what was planned.  Raises StoreError."""
        if new:
            await asyncio.to_thread(self._make, [row.name for row in new])

    def confirm_in(self, connection: sqlite3.Connection, new: Sequence[VolumeRow]) -> None:
        for row in new:
            connection.execute("UPDATE volumes SET state = 'ready' WHERE name = ?", (row.name,))

    def confirmed(self, container_id: str, new: Sequence[VolumeRow], used: Iterable[str]) -> None:
        """The container is there, and so are its volumes: show it."""
        for row in new:
            self._rows[row.name] = row
        for name in {row.name for row in new} | set(used):
            self._users.setdefault(name, set()).add(container_id)

    def doom_in(self, connection: sqlite3.Connection, container_id: str, names: Iterable[str]) -> list[str]:
        """Record that those of ``names`` that no other container has are to go, and which these are."""
        doomed = []
        for name in names:
            done = connection.execute(
                "UPDATE volumes SET state = 'removing' WHERE name = :name AND NOT EXISTS"
                " (SELECT 1 FROM volume_users WHERE volume = :name AND container_id <> :container)",
                {"name": name, "container": container_id},
            )
            if done.rowcount:
                doomed.append(name)
        return doomed

    async def discard(self, doomed: Iterable[str]) -> None:
        """Take the directories of doomed volumes away.  Raises StoreError."""
        for name in doomed:
            await asyncio.to_thread(self._throw, name)
            self.trash.empty_soon()

    def forget_in(self, connection: sqlite3.Connection, container_id: str, doomed: Iterable[str]) -> None:
        connection.execute("DELETE FROM volume_users WHERE container_id = ?", (container_id,))
        connection.executemany("DELETE FROM volumes WHERE name = ?", [(name,) for name in doomed])

    def forgotten(self, container_id: str, doomed: Iterable[str]) -> None:
        """The container is gone, and so are these: show it."""
        for users in self._users.values():
            users.discard(container_id)
        for name in doomed:
            self._rows.pop(name, None)
            self._users.pop(name, None)

    # Below

    async def _create(self, row: VolumeRow) -> None:
        await self._db.run(lambda connection: _insert(connection, row, "intended"))
        try:
            await self.make([row])
            await self._db.run(lambda connection: self.confirm_in(connection, [row]))
        except BaseException:
            await self._remove(row.name)
            raise
        self.confirmed("", [row], ())
        self._users[row.name].clear()

    async def _remove(self, name: str) -> None:
        doomed = await self._db.run(lambda connection: self.doom_in(connection, "", [name]))
        if not doomed and self.users(name):
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(sorted(self.users(name)))}]")
        await self.discard(doomed)
        await self._db.run(lambda connection: self.forget_in(connection, "", doomed))
        self.forgotten("", doomed)

    def _make(self, names: list[str]) -> None:
        for name in names:
            with store_errors(f"cannot make the volume {name}"):
                directory = self.directory(name)
                make_directory(directory, 0o711)
                make_directory(self.data(name), 0o755)
                sync_directory(directory)
        with store_errors(f"cannot make volumes in {self.home}"):
            sync_directory(self.home)

    def _throw(self, name: str) -> None:
        directory = self.directory(name)
        with store_errors(f"cannot remove the volume {name}"):
            for point in mounts.mounts_below(directory):
                # What is mounted is somebody else's: it must be out of the way before anything is deleted.
                mounts.unmount(point.path, mounts.MNT_DETACH | mounts.UMOUNT_NOFOLLOW)
        self.trash.throw(directory)


def _read(connection: sqlite3.Connection) -> tuple[list[VolumeRow], list[tuple[str, str]]]:
    rows = connection.execute("SELECT name, created, labels, options FROM volumes WHERE state = 'ready'")
    found = [VolumeRow(row[0], row[1], json.loads(row[2]), json.loads(row[3])) for row in rows]
    users = connection.execute("SELECT container_id, volume FROM volume_users")
    return found, [(row[0], row[1]) for row in users]


def _insert(connection: sqlite3.Connection, row: VolumeRow, state: str) -> None:
    connection.execute(
        "INSERT INTO volumes (name, labels, options, created, state) VALUES (?, ?, ?, ?, ?)",
        (row.name, json.dumps(dict(row.labels)), json.dumps(dict(row.options)), row.created, state),
    )


def _doom_half_made(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE volumes SET state = 'removing' WHERE state <> 'ready'")


def _forget_doomed(connection: sqlite3.Connection) -> None:
    # A half-made container of another storage driver, which is not in use now, may name one of them.
    connection.execute(
        "DELETE FROM volume_users WHERE volume IN (SELECT name FROM volumes WHERE state = 'removing')"
    )
    connection.execute("DELETE FROM volumes WHERE state = 'removing'")
