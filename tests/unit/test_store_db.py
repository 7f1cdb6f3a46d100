"""The database: transactions are whole, durable, and clear about what stands in their way."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from store_house import needs_root, run

from dockerd_py.errors import StoreError
from dockerd_py.store.db import Database
from dockerd_py.store.files import write_durably
from dockerd_py.store.migrations import MIGRATIONS


async def put(db: Database, key: str, value: str) -> None:
    await db.run(lambda connection: connection.execute("INSERT INTO meta VALUES (?, ?)", (key, value)))


async def get(db: Database, key: str) -> str | None:
    row = await db.run(
        lambda connection: connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone(),
    )
    return row[0] if row else None


def test_a_transaction_returns_its_value_and_is_there_after_reopening(tmp_path: Path) -> None:
    async def steps() -> None:
        db = await Database.open(tmp_path / "db")
        await put(db, "a", "1")
        assert await get(db, "a") == "1"
        await db.close()
        db = await Database.open(tmp_path / "db")
        assert await get(db, "a") == "1"
        await db.close()

    run(steps())


def test_nothing_is_left_of_a_transaction_that_raises(tmp_path: Path) -> None:
    async def steps() -> None:
        db = await Database.open(tmp_path / "db")

        def half(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO meta VALUES ('a', '1')")
            raise KeyError("enough")

        with pytest.raises(KeyError, match="enough"):
            await db.run(half)
        assert await get(db, "a") is None
        await put(db, "a", "2")
        await db.close()

    run(steps())


def test_what_was_committed_survives_a_sigkill_at_once(tmp_path: Path) -> None:
    program = (
        "import asyncio, os, sys; from pathlib import Path; from dockerd_py.store.db import Database\n"
        "async def steps():\n"
        "    db = await Database.open(Path(sys.argv[1]))\n"
        "    await db.run(lambda connection: connection.execute(\"INSERT INTO meta VALUES ('a', '1')\"))\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(steps())\n"
    )
    assert subprocess.run([sys.executable, "-c", program, tmp_path / "db"], check=False).returncode == -9

    async def steps() -> None:
        db = await Database.open(tmp_path / "db")
        assert await get(db, "a") == "1"
        await db.close()

    run(steps())


def test_commits_are_durable_and_foreign_keys_hold(tmp_path: Path) -> None:
    async def steps() -> None:
        db = await Database.open(tmp_path / "db")

        def pragmas(connection: sqlite3.Connection) -> list[object]:
            names = ("journal_mode", "synchronous", "foreign_keys")
            return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

        assert await db.run(pragmas) == ["wal", 2, 1]
        with pytest.raises(sqlite3.IntegrityError):
            await db.run(lambda c: c.execute("INSERT INTO tags VALUES ('overlay', 'r', 't', 'nowhere')"))
        await db.close()

    run(steps())


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "db") as connection:
        connection.execute("PRAGMA user_version = 900")
    connection.close()
    with pytest.raises(StoreError, match=r"newer pydockerd \(schema 900, this one knows"):
        run(Database.open(tmp_path / "db"))


def test_migrations_are_applied_once_and_in_order(tmp_path: Path) -> None:
    async def steps() -> None:
        db = await Database.open(tmp_path / "db")
        await put(db, "kept", "yes")
        await db.close()
        more = (*MIGRATIONS, "CREATE TABLE later (x); INSERT INTO later VALUES (1);")
        for _ in range(2):
            db = await Database.open(tmp_path / "db", more)
            assert await get(db, "kept") == "yes"
            assert await db.run(lambda c: c.execute("SELECT count(*) FROM later").fetchone()[0]) == 1
            await db.close()

    run(steps())


def test_a_migration_that_fails_leaves_the_schema_before_it(tmp_path: Path) -> None:
    broken = (*MIGRATIONS, "CREATE TABLE later (x); INSERT INTO nowhere VALUES (1);")
    with pytest.raises(StoreError, match="nowhere"):
        run(Database.open(tmp_path / "db", broken))

    async def steps() -> None:
        db = await Database.open(tmp_path / "db")
        names = await db.run(lambda c: [row[0] for row in c.execute("SELECT name FROM sqlite_master")])
        assert "later" not in names
        await db.close()

    run(steps())


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"something else entirely\n" * 100)
    with pytest.raises(StoreError, match="is not a database"):
        run(Database.open(tmp_path / "db"))


@needs_root
def test_a_full_disk_is_an_error_and_the_database_goes_on_when_there_is_space(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=True)

    async def steps() -> None:
        db = await Database.open(small / "db")
        (small / "filler").write_bytes(b"x" * 400_000)
        with pytest.raises(StoreError, match="no space left on the disk"):
            await put(db, "big", "x" * 900_000)
        (small / "filler").unlink()
        await put(db, "small", "y")
        assert await get(db, "small") == "y"
        assert await get(db, "big") is None
        await db.close()

    try:
        run(steps())
    finally:
        subprocess.run(["umount", small], check=True)


def test_transactions_run_on_one_thread_of_their_own_in_the_order_of_the_calls(tmp_path: Path) -> None:
    async def steps() -> None:
        db = await Database.open(tmp_path / "db")
        seen: list[int] = []
        threads: set[int] = set()

        def step(number: int) -> None:
            seen.append(number)
            threads.add(threading.get_ident())

        await asyncio.gather(*(db.run(lambda _, n=number: step(n)) for number in range(50)))  # type: ignore[misc]
        assert seen == list(range(50))
        assert len(threads) == 1
        assert threading.get_ident() not in threads
        await db.close()

    run(steps())


def test_a_file_written_durably_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_durably(path, b"old")
    write_durably(path, b"new", mode=0o640)
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_room_for_changes_is_held_from_the_first_opening_on(tmp_path: Path) -> None:
    def blocks(name: str) -> int:
        return (tmp_path / name).stat().st_blocks * 512

    async def steps() -> None:
        for key in ("a", "b"):
            db = await Database.open(tmp_path / "db")
            assert blocks("db-wal") >= 5 << 20
            assert not (tmp_path / "db-room").exists()
            await put(db, key, "v")
            await db.close()
            assert blocks("db-room") >= 5 << 20
            assert sorted(os.listdir(tmp_path)) == ["db", "db-room"]

    run(steps())


def test_room_that_a_crash_left_beside_the_log_is_given_back(tmp_path: Path) -> None:
    (tmp_path / "db-room").write_bytes(b"x")
    (tmp_path / "db-wal").write_bytes(b"")

    async def steps() -> None:
        db = await Database.open(tmp_path / "db")
        assert sorted(os.listdir(tmp_path)) == ["db", "db-wal"]
        await db.close()

    run(steps())
