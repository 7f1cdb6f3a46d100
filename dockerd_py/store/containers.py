"""The containers' rows.  Settings and state are JSON of the engine's, opaque here."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from dockerd_py.errors import Conflict, NoSuchContainer
from dockerd_py.store.db import Database

CREATING = "creating"
READY = "ready"
REMOVING = "removing"


@dataclass(frozen=True)
class ContainerRow:
    id: str  # 64 hex digits
    name: str  # without the leading slash
    image_id: str
    created: int  # nanoseconds
    settings: str  # JSON
    state: str  # JSON
    phase: str = CREATING


class ContainerTable:
    """The containers of one storage driver.

    Methods whose name ends in ``_in`` take a connection and belong inside ``Database.run``; the others are
    transactions of their own.
    """

    def __init__(self, db: Database, driver: str) -> None:
        self._db = db
        self._driver = driver

    async def all(self) -> list[ContainerRow]:
        """Every row, the oldest first."""
        return await self._db.run(self.all_in)

    async def hidden(self) -> list[ContainerRow]:
        """The rows of all other drivers' containers."""
        return await self._db.run(self._hidden_in)

    async def ids_of_all_drivers(self) -> set[str]:
        """The containers of every driver: those of others are hidden, and what is theirs must not be touched."""
        rows = await self._db.run(lambda connection: connection.execute("SELECT id FROM containers").fetchall())
        return {row["id"] for row in rows}

    async def update_state(self, container_id: str, state: str) -> None:
        """Raises NoSuchContainer."""
        await self._db.run(lambda connection: self.update_state_in(connection, container_id, state))

    async def update_settings(self, container_id: str, settings: str) -> None:
        """Raises NoSuchContainer."""
        await self._db.run(lambda connection: self.update_settings_in(connection, container_id, settings))

    async def update(self, container_id: str, settings: str, state: str) -> None:
        """Both at once.  Raises NoSuchContainer."""

        def update(connection: sqlite3.Connection) -> None:
            self.update_settings_in(connection, container_id, settings)
            self.update_state_in(connection, container_id, state)

        await self._db.run(update)

    async def rename(self, container_id: str, name: str) -> None:
        """Raises NoSuchContainer, Conflict."""
        await self._db.run(lambda connection: self.rename_in(connection, container_id, name))

    def all_in(self, connection: sqlite3.Connection) -> list[ContainerRow]:
        return self._read(connection, "driver = ?")

    def _hidden_in(self, connection: sqlite3.Connection) -> list[ContainerRow]:
        return self._read(connection, "driver != ?")

    def _read(self, connection: sqlite3.Connection, which: str) -> list[ContainerRow]:
        # The condition is one of our own two, never a caller's.
        rows = connection.execute(
            f"SELECT id, name, image_id, created, settings, state, phase FROM containers WHERE {which}"  # noqa: S608
            " ORDER BY created, id",
            (self._driver,),
        )
        return [ContainerRow(*row) for row in rows]

    def insert_in(self, connection: sqlite3.Connection, row: ContainerRow) -> None:
        """Raises Conflict with Docker's words if the name is taken."""
        try:
            connection.execute(
                "INSERT INTO containers (id, driver, name, image_id, created, settings, state, phase)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (row.id, self._driver, row.name, row.image_id, row.created, row.settings, row.state, row.phase),
            )
        except sqlite3.IntegrityError as error:
            raise self._taken(connection, row.name, error) from error

    def update_state_in(self, connection: sqlite3.Connection, container_id: str, state: str) -> None:
        self._update(connection, container_id, "state", state)

    def update_settings_in(self, connection: sqlite3.Connection, container_id: str, settings: str) -> None:
        self._update(connection, container_id, "settings", settings)

    def set_phase_in(self, connection: sqlite3.Connection, container_id: str, phase: str) -> None:
        self._update(connection, container_id, "phase", phase)

    def rename_in(self, connection: sqlite3.Connection, container_id: str, name: str) -> None:
        try:
            self._update(connection, container_id, "name", name)
        except sqlite3.IntegrityError as error:
            raise self._taken(connection, name, error) from error

    def delete_in(self, connection: sqlite3.Connection, container_id: str) -> None:
        connection.execute("DELETE FROM containers WHERE id = ?", (container_id,))

    def _update(self, connection: sqlite3.Connection, container_id: str, column: str, value: str) -> None:
        # The column is one of our own words, never a caller's.
        done = connection.execute(f"UPDATE containers SET {column} = ? WHERE id = ?", (value, container_id))  # noqa: S608
        if done.rowcount == 0:
            raise NoSuchContainer(container_id)

    def _taken(self, connection: sqlite3.Connection, name: str, error: sqlite3.IntegrityError) -> Exception:
        owner = connection.execute(
            "SELECT id FROM containers WHERE driver = ? AND name = ?", (self._driver, name),
        ).fetchone()
        if owner is None:
            return error
        return Conflict(
            f'Conflict. The container name "/{name}" is already in use by container "{owner["id"]}". '
            "You have to remove (or rename) that container to be able to reuse that name.",
        )
