"""Whether a root directory is in order: rows, directories and mounts of all storage drivers, compared and not changed.

Each finding is one line that says what is wrong with what.  The rows are read from a copy, as even reading SQLite's
log of changes would write beside it.  The caller holds the root (``lock.held``).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path

from dockerd_py.errors import StoreError
from dockerd_py.store import fsck_volumes, mounts
from dockerd_py.store.archive.outgoing import pack
from dockerd_py.store.archive.skeleton import SKELETON
from dockerd_py.store.containers import READY
from dockerd_py.store.drivers.base import TRASH, Driver
from dockerd_py.store.drivers.choose import DRIVERS, PROBE_PREFIX
from dockerd_py.store.files import shown, store_errors
from dockerd_py.store.layer_ids import chain_id
from dockerd_py.store.migrations import MIGRATIONS
from dockerd_py.store.recovery import TEMPORARY

Report = Callable[[str], None]

_STATES = {"intended": "half made", "creating": "half made", "removing": "half removed"}


def check(root: Path, database: str, report: Report, *, deep: bool = False) -> set[str]:
    """Report what is wrong below ``root``, whose rows are in the file named ``database``.

    deep: each layer is read, and its digest compared with that of the archive that it came in.

    Returns the ids of all containers, for whoever looks further.  Raises StoreError when it cannot be looked at.
    """
    with rows(root / database) as connection:
        if connection is not None:
            _check_database(connection, report)
        used = {name: DRIVERS[name](root / name) for name in sorted(DRIVERS) if (root / name).is_dir()}
        containers: set[str] = set()
        owners: set[Path] = set()
        if connection is not None:
            fsck_volumes.check(connection, root, report)
            containers = {row["id"] for row in connection.execute("SELECT id FROM containers")}
            for name in _drivers_in(connection):
                if name in DRIVERS:
                    driver = used.get(name) or DRIVERS[name](root / name)
                    _check_images(connection, driver, report)
                    sound = _check_layers(connection, driver, report)
                    if deep:
                        asyncio.run(_check_contents(sound, driver, report))
                    owners |= _check_containers(connection, driver, report)
                else:
                    report(f"the database has rows of the storage driver {name!r}, which this version does not have")
        else:
            fsck_volumes.check(None, root, report)
        for driver in used.values():
            _check_directories(connection, driver, report)
    for path in sorted(root.glob(PROBE_PREFIX + "*")):
        report(f"{shown(path)}: left by the trial of a storage driver")
    with store_errors(f"cannot read {root / TEMPORARY}"):
        for path in sorted((root / TEMPORARY).iterdir()) if (root / TEMPORARY).is_dir() else ():
            report(f"{shown(path)}: a temporary file of a daemon that was killed")
    for point in mounts.mounts_below(root):
        path = Path(point.path)
        inside = path.relative_to(root.resolve()).parts
        # A driver's whole directory may be a file system of the administrator's.
        if inside[0] in DRIVERS and len(inside) > 1 and path not in owners:
            report(f"{shown(path)}: a mount that belongs to no container")
    return containers


@contextlib.contextmanager
def rows(path: Path) -> Iterator[sqlite3.Connection | None]:
    """A copy of the database, or None where there is none."""
    with tempfile.TemporaryDirectory(prefix="pydockerd-fsck-") as directory:
        with store_errors(f"cannot read {path}"):
            if not path.exists():
                yield None
                return
            copy = Path(directory) / "db"
            shutil.copyfile(path, copy)
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(f"{path}-wal", f"{copy}-wal")
        try:
            with contextlib.closing(sqlite3.connect(copy)) as connection:
                connection.row_factory = sqlite3.Row
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                if version != len(MIGRATIONS):
                    older = "an older" if version < len(MIGRATIONS) else "a newer"
                    raise StoreError(f"{path} was written by {older} pydockerd: let that one's fsck look at it")
                yield connection
        except sqlite3.Error as error:
            raise StoreError(f"{path} cannot be read: {error}") from error


def _check_database(connection: sqlite3.Connection, report: Report) -> None:
    for (line,) in connection.execute("PRAGMA integrity_check"):
        if line != "ok":
            report(f"the database is damaged: {line}")
    dangling = connection.execute(
        "SELECT driver, repo, tag, image_id FROM tags WHERE NOT EXISTS"
        " (SELECT 1 FROM images WHERE images.driver = tags.driver AND images.id = tags.image_id)"
        " ORDER BY driver, repo, tag",
    )
    for driver, repo, tag, image in dangling:
        report(f"tag {repo}:{tag} ({driver}): its image {image} is not there")


def _drivers_in(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute(
        "SELECT driver FROM layers UNION SELECT driver FROM images UNION SELECT driver FROM containers"
        " UNION SELECT driver FROM rw_layers UNION SELECT driver FROM tags",
    )
    return sorted(name for (name,) in rows)


def _check_images(connection: sqlite3.Connection, driver: Driver, report: Report) -> None:
    chains = _chains(connection, driver)
    rows = connection.execute(
        "SELECT id, CAST(config AS BLOB) AS config, chain_id FROM images WHERE driver = ? ORDER BY id", (driver.name,),
    )
    for row in rows:
        what = f"image {row['id']} ({driver.name})"
        if hashlib.sha256(row["config"]).hexdigest() != row["id"]:
            report(f"{what}: its configuration is not the one that its id names")
            continue
        expected: str | None = None
        for diff_id in json.loads(row["config"])["rootfs"]["diff_ids"]:
            expected = chain_id(expected, diff_id)
        if expected != row["chain_id"]:
            report(f"{what}: its layers are not those of its configuration")
        if missing := _missing(chains, row["chain_id"]):
            report(f"{what}: layer {missing} is not there")


def _check_layers(connection: sqlite3.Connection, driver: Driver, report: Report) -> dict[str, str]:
    """Returns those whose files are there: cache id -> diff id."""
    sound: dict[str, str] = {}
    chains = _chains(connection, driver)
    needed = {
        chain
        for (chain,) in connection.execute(
            "SELECT chain_id FROM images WHERE driver = :driver UNION SELECT parent_chain FROM rw_layers"
            " WHERE driver = :driver UNION SELECT parent_chain FROM layers WHERE driver = :driver",
            {"driver": driver.name},
        )
    }
    for row in connection.execute("SELECT * FROM layers WHERE driver = ? ORDER BY cache_id", (driver.name,)):
        what = f"layer {row['cache_id']} ({driver.name})"
        if row["state"] != "ready":
            report(f"{what}: {_STATES[row['state']]}")
            continue
        if not driver.target(row["cache_id"]).is_dir():
            report(f"{what}: its directory is not there")
        elif not (driver.directory(row["cache_id"]) / SKELETON).is_file():
            report(f"{what}: what was kept of its archive is not there, so it cannot be saved")
        else:
            sound[row["cache_id"]] = row["diff_id"]
        if chain_id(row["parent_chain"], row["diff_id"]) != row["chain_id"]:
            report(f"{what}: its chain id is not that of its diff id")
        if row["parent_chain"] is not None and row["parent_chain"] not in chains:
            report(f"{what}: layer {row['parent_chain']} below it is not there")
        if row["chain_id"] not in needed:
            report(f"{what}: no image, layer or container needs it")
    return sound


async def _check_contents(layers: dict[str, str], driver: Driver, report: Report) -> None:
    for cache_id, diff_id in layers.items():
        try:
            async with aclosing(pack(driver.target(cache_id), driver.directory(cache_id), diff_id)) as pieces:
                async for _ in pieces:
                    pass
        except StoreError as error:
            _, _, reason = str(error).partition(": ")
            report(f"layer {cache_id} ({driver.name}): {reason}")


def _check_containers(connection: sqlite3.Connection, driver: Driver, report: Report) -> set[Path]:
    """Returns where root filesystems may be mounted."""
    chains = _chains(connection, driver)
    rows = connection.execute("SELECT id, name, phase FROM containers WHERE driver = ? ORDER BY id", (driver.name,))
    containers = {row["id"]: row for row in rows}
    layers = {
        row["container_id"]: row
        for row in connection.execute("SELECT * FROM rw_layers WHERE driver = ?", (driver.name,))
    }
    for container_id, container in containers.items():
        what = f"container {container_id} ({driver.name})"
        if container["phase"] != READY:
            report(f"{what}: {_STATES[container['phase']]}")
        if container_id not in layers:
            report(f"{what}: it has no layer")
    for container_id, row in sorted(layers.items()):
        what = f"container {container_id} ({driver.name})"
        if container_id not in containers:
            report(f"layer {row['cache_id']} ({driver.name}): its container {container_id} is not there")
        if row["state"] != "ready":
            report(f"{what}: its layer is {_STATES[row['state']]}")
        elif not driver.target(row["cache_id"]).is_dir():
            report(f"{what}: the directory of its layer {row['cache_id']} is not there")
        # Its image may be gone, removed by force; the image's layers stay as long as it needs them.
        if missing := _missing(chains, row["parent_chain"]):
            report(f"{what}: layer {missing} of its image is not there")
    home = driver.home.resolve()
    return {home / driver.root(row["cache_id"]).relative_to(driver.home) for row in layers.values()}


def _check_directories(connection: sqlite3.Connection | None, driver: Driver, report: Report) -> None:
    known: set[str] = set()
    if connection is not None:
        rows = connection.execute(
            "SELECT cache_id FROM layers WHERE driver = :driver UNION"
            " SELECT cache_id FROM rw_layers WHERE driver = :driver",
            {"driver": driver.name},
        )
        known = {cache_id for (cache_id,) in rows}
    with store_errors(f"cannot read {driver.home}"):
        for name in sorted(driver.cache_ids() - known):
            report(f"{shown(driver.directory(name))}: no layer or container is recorded for it")
        trash = driver.home / TRASH
        for name in sorted(os.listdir(trash)) if trash.is_dir() else ():
            report(f"{shown(trash / name)}: removed, and not deleted yet")


def _chains(connection: sqlite3.Connection, driver: Driver) -> dict[str, str | None]:
    """From each ready layer's chain id to that of the layer below."""
    rows = connection.execute(
        "SELECT chain_id, parent_chain FROM layers WHERE driver = ? AND state = 'ready'", (driver.name,),
    )
    return dict(rows.fetchall())


def _missing(chains: dict[str, str | None], chain: str | None) -> str | None:
    """The first layer from the top of ``chain`` that is not there; None when all are."""
    while chain is not None:
        if chain not in chains:
            return chain
        chain = chains[chain]
    return None
