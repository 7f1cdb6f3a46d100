"""After a crash: make the database, the directories and the mounts agree again.

The rows are right, the rest follows: what is *intended* was half made and goes, what is *removing* was half removed
and goes, what no row knows goes.  What is *ready* is never touched, so containers may run on it meanwhile.  Rows and
directories of other drivers are left as they are.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from dockerd_py.store import mounts
from dockerd_py.store.db import Database
from dockerd_py.store.drivers.base import Driver
from dockerd_py.store.drivers.choose import PROBE_PREFIX, remove_probe
from dockerd_py.store.files import store_errors
from dockerd_py.store.layers import LayerStore

TEMPORARY = "tmp"

_ATTEMPTS = 5
_PAUSE_SECONDS = 0.2

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recovered:
    """What was found and taken away: all zero after a clean stop."""

    containers: int
    layers: int
    directories: int
    mounts: int

    def __bool__(self) -> bool:
        return any((self.containers, self.layers, self.directories, self.mounts))


@dataclass(frozen=True)
class _Plan:
    doomed: set[str]  # cache ids whose rows go once their directories are gone
    known: set[str]  # cache ids of what is ready
    containers: int


async def recover(db: Database, driver: Driver, layers: LayerStore, root: Path) -> Recovered:
    """Raises StoreError when something cannot be taken away; it may be repeated."""
    plan = await db.run(lambda connection: _mark(connection, driver.name))
    with store_errors("cannot clean up after the last run"):
        unmounted = await asyncio.to_thread(_unmount_strangers, driver, plan.known)
        directories = await asyncio.to_thread(driver.cache_ids) - plan.known
        for cache_id in sorted(directories):
            await driver.remove(cache_id)
        await asyncio.to_thread(_remove_probes, root)
    await _empty(root / TEMPORARY)
    await layers.drop(await db.run(lambda connection: _forget(connection, driver.name, layers)))
    driver.trash.empty_soon()
    done = Recovered(plan.containers, len(plan.doomed), len(directories), unmounted)
    if done:
        log.info(
            "half done at the last stop, and gone now: %d containers, %d layers, %d directories, %d mounts",
            done.containers, done.layers, done.directories, done.mounts,
        )  # fmt: skip
    return done


def _mark(connection: sqlite3.Connection, driver: str) -> _Plan:
    """Mark everything that has to go."""
    half = connection.execute(
        "UPDATE containers SET phase = 'removing' WHERE driver = ? AND phase <> 'ready'", (driver,),
    )
    connection.execute(
        "UPDATE rw_layers SET state = 'removing' WHERE driver = ? AND (state <> 'ready' OR container_id IN"
        " (SELECT id FROM containers WHERE phase = 'removing'))",
        (driver,),
    )
    connection.execute("UPDATE layers SET state = 'removing' WHERE driver = ? AND state = 'intended'", (driver,))
    doomed: set[str] = set()
    known: set[str] = set()
    for cache_id, state in connection.execute(
        "SELECT cache_id, state FROM layers WHERE driver = :driver"
        " UNION ALL SELECT cache_id, state FROM rw_layers WHERE driver = :driver",
        {"driver": driver},
    ):
        (known if state == "ready" else doomed).add(cache_id)
    return _Plan(doomed, known, half.rowcount)


def _forget(connection: sqlite3.Connection, driver: str, layers: LayerStore) -> list[str]:
    """Delete the rows of what is gone.  Returns the layers that nothing needs any more because of that."""
    chains = connection.execute(
        "SELECT parent_chain FROM rw_layers WHERE driver = :driver AND state = 'removing'"
        " UNION SELECT parent_chain FROM layers WHERE driver = :driver AND state = 'removing'",
        {"driver": driver},
    ).fetchall()
    connection.execute("DELETE FROM rw_layers WHERE driver = ? AND state = 'removing'", (driver,))
    connection.execute("DELETE FROM containers WHERE driver = ? AND phase = 'removing'", (driver,))
    connection.execute("DELETE FROM layers WHERE driver = ? AND state = 'removing'", (driver,))
    return [cache_id for (chain,) in chains for cache_id in layers.release(connection, chain)]


def _unmount_strangers(driver: Driver, known: set[str]) -> int:
    """Take away the mounts that no ready layer owns."""
    count = 0
    for point in mounts.mounts_below(driver.home):
        cache_id = Path(point.path).relative_to(driver.home.resolve()).parts[0]
        if cache_id not in known:
            log.info("unmounting %s, which no container owns", point.path)
            mounts.unmount(point.path, mounts.MNT_DETACH | mounts.UMOUNT_NOFOLLOW)
            count += 1
    return count


async def _empty(directory: Path) -> None:
    """Delete what is in a directory of temporary files.  What cannot go is logged, and left to the next start."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            await asyncio.to_thread(_delete_contents, directory)
            return
        except OSError as error:
            # A helper of a daemon that was killed may still be writing there for a moment.
            if attempt == _ATTEMPTS:
                log.warning("emptying %s: %s", directory, error)
            else:
                await asyncio.sleep(_PAUSE_SECONDS)


def _delete_contents(directory: Path) -> None:
    for entry in list(directory.iterdir()) if directory.is_dir() else ():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)


def _remove_probes(root: Path) -> None:
    """A start that was killed while it tried a driver leaves the directory in which it did."""
    for probe in root.glob(PROBE_PREFIX + "*"):
        remove_probe(probe)
