"""The database: SQLite in one file, used by one thread, with durable transactions.

``await db.run(fn)`` runs ``fn(connection)`` inside BEGIN IMMEDIATE .. COMMIT on the database's own thread.  When it
returns, the transaction survives a power loss (write-ahead log, synchronous=FULL); when ``fn`` raises, nothing of it
is left.  Transactions run one after the other in the order of the calls, so ``fn`` may read, decide and write.  A
caller that is cancelled stops waiting; its transaction still ends by itself, either way.

Room for the log of changes is taken from the disk when the database is first opened and kept from then on, so that on
a full disk what removes things can still be recorded.  No other process may use the file meanwhile; the root's lock
sees to that.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from dockerd_py.errors import StoreError
from dockerd_py.store.migrations import MIGRATIONS

log = logging.getLogger(__name__)

T = TypeVar("T")

_BUSY_SECONDS = 10

# SQLite writes its log anew from the beginning every 1000 pages of 4 KiB (and 24 bytes); some more, as one
# transaction may go beyond.
_LOG_ROOM = 5 << 20
_KEEP_SIZE = 1  # fallocate(2)
_NEARLY_NOTHING = 1 << 20

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class Database:
    """Made by ``Database.open``; ended by ``close``."""

    def __init__(self, path: Path, connection: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        self.path = path
        self._connection = connection
        self._thread = thread

    @classmethod
    async def open(cls, path: Path, migrations: tuple[str, ...] = MIGRATIONS) -> Database:
        """Open or make the database at ``path`` and bring its schema up to ``migrations``.

        Raises StoreError for a file that is no database, a schema newer than ours, or a disk that fails.
        """
        thread = ThreadPoolExecutor(1, thread_name_prefix="store-db")
        loop = asyncio.get_running_loop()
        try:
            connection = await loop.run_in_executor(thread, _connect, path, migrations)
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return cls(path, connection, thread)

    async def run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``function`` in a transaction and return its value.

        Raises what ``function`` raises; StoreError when the disk is full or the database cannot be used.
        sqlite3.IntegrityError passes through, for callers that let a constraint decide.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._transact, function)

    async def close(self) -> None:
        """Wait for the transactions under way and close the file.  The object can't be used afterwards."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    def _close(self) -> None:
        self._connection.close()
        # SQLite has deleted the log, if it could finish its work.
        if not os.path.exists(_log(self.path)):
            _take_room(_room(self.path))

    def _transact(self, function: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return transact(self._connection, function)
        except sqlite3.IntegrityError:
            raise
        except sqlite3.DatabaseError as error:
            raise _store_error(self.path, error) from error


def transact(connection: sqlite3.Connection, function: Callable[[sqlite3.Connection], T]) -> T:
    """``function(connection)`` between BEGIN IMMEDIATE and COMMIT, or ROLLBACK when it raises."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        value = function(connection)
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back by itself after some errors (a full disk is one), and then refuses to do it again.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return value


def _connect(path: Path, migrations: tuple[str, ...]) -> sqlite3.Connection:
    _bring_room(path)
    try:
        connection = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_SECONDS)
    except sqlite3.Error as error:
        raise _store_error(path, error) from error
    try:
        connection.row_factory = sqlite3.Row
        # Alone with the file: the index of the log is kept in memory, and not in a file that a full disk could refuse.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        _migrate(path, connection, migrations)
        _take_room(_log(path))
    except sqlite3.Error as error:
        connection.close()
        raise _store_error(path, error) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _log(path: Path) -> str:
    return f"{path}-wal"  # SQLite's name for it


def _room(path: Path) -> str:
    """The file that keeps the log's blocks while the database is closed."""
    return f"{path}-room"


def _bring_room(path: Path) -> None:
    """Let the blocks that were kept be those of the log, which is empty, or there after a crash."""
    with contextlib.suppress(FileNotFoundError):
        if os.path.exists(_log(path)):
            os.unlink(_room(path))
        else:
            os.rename(_room(path), _log(path))


def _take_room(name: str) -> None:
    """Give a file the blocks that the log needs, as far as the disk has them and the file system can."""
    try:
        # Never the database's own file: closing any descriptor of that would drop SQLite's locks on it.
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if _libc.fallocate(fd, _KEEP_SIZE, 0, _LOG_ROOM) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        finally:
            os.close(fd)
    except OSError as error:
        log.warning("no room is kept for changes on a full disk: %s", error)


def _migrate(path: Path, connection: sqlite3.Connection, migrations: tuple[str, ...]) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(migrations):
        raise StoreError(
            f"{path} was written by a newer pydockerd (schema {version}, this one knows {len(migrations)}): "
            "install that version again, or choose another root directory",
        )
    for number, script in enumerate(migrations[version:], start=version + 1):

        def step(connection: sqlite3.Connection, script: str = script, number: int = number) -> None:
            for statement in _statements(script):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")

        transact(connection, step)


def _statements(script: str) -> list[str]:
    """The statements of a script, one by one: ``executescript`` would commit the transaction around it."""
    statements: list[str] = []
    pending = ""
    for piece in script.split(";"):
        pending += piece + ";"
        if sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    return statements


def _is_full(path: Path) -> bool:
    try:
        space = os.statvfs(path.parent)
    except OSError:
        return False
    return space.f_bavail * space.f_frsize < _NEARLY_NOTHING


def _store_error(path: Path, error: sqlite3.Error) -> StoreError:
    if "disk is full" in str(error) or ("disk I/O error" in str(error) and _is_full(path)):
        return StoreError(f"{path}: no space left on the disk; free some and try again")
    if isinstance(error, sqlite3.DatabaseError) and "not a database" in str(error):
        return StoreError(f"{path} is not a database of pydockerd's: move it away, or choose another root directory")
    return StoreError(f"{path}: {error}")
