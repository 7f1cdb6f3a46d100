"""An archive of images, laid out in a temporary directory: its files by their names in the archive."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from dockerd_py.errors import BadArchive
from dockerd_py.store.archive import helper, spool
from dockerd_py.store.archive.program import show
from dockerd_py.store.files import make_directory, store_errors

_MAX_JSON = 4 << 20
_MAX_ALL_JSON = 24 << 20
_MAX_VALUES = 100_000
_MAX_DEPTH = 50
_MAX_LINKS = 8
_SEPARATORS = (b",", b":", b"[", b"{")
_PIECE = 1 << 20
_RESERVE = 0.05  # of the file system's free space, which an archive never gets


class Spooled:
    """Names are those in the archive, "/" between their parts; links are followed inside the archive alone."""

    def __init__(self, directory: Path, index: dict[str, dict[str, Any]]) -> None:
        self._directory = directory
        self._files: dict[str, int] = index["files"]
        self._links: dict[str, str] = index["links"]
        self._read = 0

    def names(self) -> list[str]:
        return sorted((*self._files, *self._links))

    def has(self, name: str) -> bool:
        return self._find(name) is not None

    def size(self, name: str) -> int:
        """Raises BadArchive where there is no such file."""
        return self._path(name).stat().st_size

    async def read(self, name: str, limit: int = _MAX_JSON) -> bytes:
        """All of a small file.  Raises BadArchive."""
        path = self._path(name)
        size = path.stat().st_size
        self._read += size
        if size > limit:
            raise BadArchive(f"{show(name)} in the archive is longer than {limit} bytes")
        if self._read > _MAX_ALL_JSON:
            raise BadArchive(f"the archive's descriptions of its images are longer than {_MAX_ALL_JSON} bytes")
        return await asyncio.to_thread(path.read_bytes)

    async def json(self, name: str) -> Any:
        """Raises BadArchive for what is no JSON."""
        return parse(await self.read(name), name)

    async def pieces(self, name: str, digest: str = "") -> AsyncGenerator[bytes, None]:
        """A file's contents.  Raises BadArchive, at the end, if they are not those of ``digest`` ("": any)."""
        hasher = hashlib.sha256()
        fd = os.open(self._path(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            while piece := await asyncio.to_thread(_read, fd, hasher.update if digest else None):
                yield piece
        finally:
            os.close(fd)
        if digest and f"sha256:{hasher.hexdigest()}" != digest:
            raise BadArchive(f"{show(name)} in the archive is not what its digest {digest} says")

    def _find(self, name: str) -> int | None:
        for _ in range(_MAX_LINKS):
            if name in self._files:
                return self._files[name]
            if name not in self._links:
                break
            name = self._links[name]
        return None

    def _path(self, name: str) -> Path:
        number = self._find(name)
        if number is None:
            raise BadArchive(f"the archive has no {show(name)}, which it speaks of")
        return self._directory / str(number)


@asynccontextmanager
async def spooled(
    source: AsyncIterator[bytes], parent: Path, progress: helper.Progress | None = None, limit: int = 0
) -> AsyncIterator[Spooled]:
    """Lay the archive that ``source`` yields, plain or compressed, out below ``parent``; gone after the block.

    ``limit`` is the most bytes that it may have, uncompressed (0: as many as there is room for).
    Raises BadArchive, StoreError and what ``source`` raises.
    """
    directory = parent / f"load-{secrets.token_hex(8)}"
    try:
        with store_errors(f"cannot use {parent} for temporary files"):
            make_directory(parent)
            directory.mkdir(0o700)
            room = os.statvfs(directory)
        free = int(room.f_bavail * room.f_frsize * (1 - _RESERVE))
        arguments = {"directory": os.fspath(directory), "room": free, "limit": limit}
        await helper.answer("spool", arguments, source, doing="cannot load the archive", progress=progress)
        text = await asyncio.to_thread((directory / spool.INDEX).read_text)
        yield Spooled(directory, json.loads(text))
    finally:
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True))


def parse(data: bytes, name: str) -> Any:
    """JSON of a stranger's, if it is small and flat enough for whoever handles it.  Raises BadArchive."""
    if sum(map(data.count, _SEPARATORS)) > _MAX_VALUES:
        raise BadArchive(f"{show(name)} in the archive has too many values")
    try:
        # Decoded here: for bytes, json.loads guesses at UTF-16 and UTF-32, too, and takes surrogates.
        value = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise BadArchive(f"{show(name)} in the archive is no JSON") from None
    escapes = b"\\u" in data
    level = [value]
    for _ in range(_MAX_DEPTH):
        if escapes and not all(map(_is_text, level)):
            raise BadArchive(f"{show(name)} in the archive holds text that is not Unicode, or zero bytes")
        level = [inner for each in level for inner in _inside(each)]
        if not level:
            return value
    raise BadArchive(f"{show(name)} in the archive is nested too deeply")


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return (*value, *value.values())
    return value if isinstance(value, list) else ()


def _is_text(value: Any) -> bool:
    """Whether a text, if it is one, can be written out again and given to a program."""
    if not isinstance(value, str):
        return True
    return "\0" not in value and not any("\ud800" <= char <= "\udfff" for char in value)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _read(fd: int, update: Callable[[bytes], None] | None) -> bytes:
    piece = os.read(fd, _PIECE)
    if update is not None:
        update(piece)
    return piece
