"""The networks' rows.  Settings are JSON of the engine's, opaque here.

A row comes before what the kernel has of its network, and goes after it: what is not READY is taken away by recovery.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from dockerd_py.errors import Conflict
from dockerd_py.store.db import Database

INTENDED = "intended"
READY = "ready"
REMOVING = "removing"


@dataclass(frozen=True)
class NetworkRow:
    id: str  # 64 hex digits
    name: str
    created: int  # nanoseconds
    settings: str  # JSON
    state: str = INTENDED


class NetworkTable:
    """All networks; they belong to no storage driver."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def all(self) -> list[NetworkRow]:
        """Every row, the oldest first."""
        return await self._db.run(read)

    async def insert(self, row: NetworkRow) -> None:
        """Raises Conflict if the name is taken."""

        def insert(connection: sqlite3.Connection) -> None:
            try:
                connection.execute(
                    "INSERT INTO networks (id, name, created, settings, state) VALUES (?, ?, ?, ?, ?)",
                    (row.id, row.name, row.created, row.settings, row.state),
                )
            except sqlite3.IntegrityError as error:
                raise Conflict(f"network with name {row.name} already exists") from error

        await self._db.run(insert)

    async def set_state(self, network_id: str, state: str) -> None:
        await self._execute("UPDATE networks SET state = ? WHERE id = ?", state, network_id)

    async def set_settings(self, network_id: str, settings: str) -> None:
        await self._execute("UPDATE networks SET settings = ? WHERE id = ?", settings, network_id)

    async def delete(self, network_id: str) -> None:
        await self._execute("DELETE FROM networks WHERE id = ?", network_id)

    async def _execute(self, statement: str, *values: str) -> None:
        await self._db.run(lambda connection: connection.execute(statement, values))


def read(connection: sqlite3.Connection) -> list[NetworkRow]:
    """Every row of a database, the oldest first."""
    rows = connection.execute("SELECT id, name, created, settings, state FROM networks ORDER BY created, id")
    return [NetworkRow(*row) for row in rows]
