"""What the tests of the store share: archives made to order, and a store on a real file system."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import stat
import tarfile
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from dockerd_py.store.containers import ContainerRow
from dockerd_py.store.store import Store
from dockerd_py.store.trash import unmount_below

T = TypeVar("T")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts, makes devices and changes its root")


def run(steps: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(steps)


Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, type_: bytes = tarfile.REGTYPE, data: bytes = b"", **fields: Any) -> Member:
    info = tarfile.TarInfo(name)
    info.type = type_
    info.size = len(data)
    info.mode = 0o755 if type_ == tarfile.DIRTYPE else 0o644
    info.mtime = 1_600_000_000
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def directory(name: str, **fields: Any) -> Member:
    return member(name, tarfile.DIRTYPE, **fields)


def symlink(name: str, target: str) -> Member:
    return member(name, tarfile.SYMTYPE, linkname=target)


def hardlink(name: str, target: str) -> Member:
    return member(name, tarfile.LNKTYPE, linkname=target)


def tar(*members: Member, format_: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format_) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


SMALL = tar(directory("etc"), member("etc/motd", data=b"hello\n"))


async def stream(data: bytes, piece: int = 7000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), piece):
        yield data[start : start + piece]


@asynccontextmanager
async def opened(root: Path, driver: str = "overlay", *, recover: bool = True) -> AsyncIterator[Store]:
    """A store in ``root``, with the process in its working directory as the daemon is."""
    store = await Store.open(root, driver)
    before = os.getcwd()
    os.chdir(store.working_directory)
    try:
        if recover:
            await store.recover()
        yield store
    except BaseException:
        unmount_below(root)
        raise
    finally:
        os.chdir(before)
        await store.close()


def a_container(store: Store, image_id: str = "0" * 64, name: str = "", **fields: Any) -> ContainerRow:
    container_id = os.urandom(32).hex()
    return ContainerRow(
        **{
            "id": container_id,
            "name": name or f"test_{container_id[:8]}",
            "image_id": image_id,
            "created": time.time_ns(),
            "settings": "{}",
            "state": "{}",
            **fields,
        },
    )


def tree(path: Path) -> set[str]:
    """The relative names of everything below ``path``."""
    return {
        os.path.relpath(os.path.join(top, name), path) for top, dirs, files in os.walk(path) for name in (*dirs, *files)
    }


def facts(top: Path) -> dict[str, tuple[object, ...]]:
    """All that an archive should carry of a tree."""
    found: dict[str, tuple[object, ...]] = {}
    inodes: dict[int, str] = {}
    for base, directories, files in os.walk(top):
        for name in sorted((*directories, *files)):
            path = os.path.join(base, name)
            relative = os.path.relpath(path, top)
            info = os.lstat(path)
            if stat.S_ISREG(info.st_mode) and info.st_size < 1 << 25:
                content: object = hashlib.sha256(Path(path).read_bytes()).hexdigest()
            else:
                content = os.readlink(path) if stat.S_ISLNK(info.st_mode) else info.st_rdev
            first = inodes.setdefault(info.st_ino, relative)
            xattrs = {key: os.getxattr(path, key, follow_symlinks=False) for key in sorted(os.listxattr(
                path, follow_symlinks=False))}  # fmt: skip
            mode = info.st_mode
            size = 0 if stat.S_ISDIR(mode) else info.st_size
            found[relative] = (mode, info.st_uid, info.st_gid, size, info.st_mtime_ns, content, first, str(xattrs))
    return found


def layer_directories(store: Store) -> set[str]:
    return store.driver.cache_ids()


def helpers(target: Path) -> list[int]:
    """The process ids of the helpers that unpack at or below ``target``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if b"unpack" in command and os.fsencode(target) in command:
            found.append(int(process.name))
    return found


async def rows(store: Store, table: str) -> list[Any]:
    return await store.db.run(lambda connection: connection.execute(f"SELECT * FROM {table}").fetchall())
