"""Keeping layers from being taken away while nothing stands on them yet.

A hold is an intended layer on the held ones, which is never made: so ``LayerStore.release`` sees that they are needed,
and after a crash recovery takes the hold away, and with it what it alone has held.
"""

from __future__ import annotations

import sqlite3

from dockerd_py.errors import Conflict
from dockerd_py.store.drivers.base import new_cache_id


class Holds:
    """Made by ``LayerStore.holding``."""

    def __init__(self, driver: str) -> None:
        self._driver = driver
        self.cache_ids: list[str] = []

    def take(self, connection: sqlite3.Connection, chain: str) -> None:
        """Hold a chain that is ready; inside ``Database.run``.  Raises Conflict if it is being removed."""
        check_ready(connection, self._driver, chain)
        self.cache_ids.append(new_cache_id())
        connection.execute(
            "INSERT INTO layers (cache_id, driver, parent_chain, state) VALUES (?, ?, ?, 'intended')",
            (self.cache_ids[-1], self._driver, chain),
        )


def check_ready(connection: sqlite3.Connection, driver: str, chain: str) -> None:
    """Raises Conflict."""
    ready = connection.execute(
        "SELECT 1 FROM layers WHERE driver = ? AND chain_id = ? AND state = 'ready'", (driver, chain),
    ).fetchone()
    if not ready:
        raise Conflict("conflict: the image is being removed")
