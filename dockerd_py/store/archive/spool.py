"""The helper program: lay an archive of images out in a directory, flat, whatever names are in it.

The directory is its root from then on.  Each file becomes ``<number>``; ``index`` (JSON) says which name it has in the
archive, and what symbolic and hard links there are.  No name of the archive's ever becomes a name on the disk.
"""

from __future__ import annotations

import json
import os
import resource
from typing import Any

from dockerd_py.errors import BadArchive
from dockerd_py.store.archive.allowance import Allowance
from dockerd_py.store.archive.entries import Entry, entries
from dockerd_py.store.archive.program import ARCHIVE, begin, change_root, run
from dockerd_py.store.archive.stream import RawInput, TarStream, open_decompressed

INDEX = "index"

_MEMORY = 1 << 30
_MAX_ENTRIES = 50_000
_MAX_NAMES = 8 << 20  # bytes of all names together


def main(arguments: dict[str, Any]) -> None:
    """``directory``, ``room`` (the most bytes that may be written there) and ``limit`` (the most that the archive may
    have, uncompressed; 0: no limit)."""
    run(lambda: _spool(**arguments), ARCHIVE)


def _spool(directory: str, room: int, limit: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    os.umask(0o077)
    source = open_decompressed(RawInput(0))
    change_root(directory)
    stream = TarStream(source, None, Allowance(limit, "."))
    files: dict[str, int] = {}
    links: dict[str, str] = {}
    count = names = written = 0
    for entry in entries(stream):
        count += 1
        names += len(entry.name) + len(entry.linkname)
        if count > _MAX_ENTRIES or names > _MAX_NAMES:
            raise BadArchive("the archive has too many entries for one of images")
        if entry.isdir():
            continue
        name = normal(entry.name, entry)
        files.pop(name, None)
        links.pop(name, None)
        if entry.isreg() and entry.sparse is None:
            written += entry.size
            if written > room:
                raise BadArchive(f"its files take more than the {room} bytes that are free for them")
            _write(str(count), entry, stream)
            files[name] = count
        elif entry.islnk():
            links[name] = normal(entry.linkname, entry)
        elif entry.issym():
            if entry.linkname.startswith("/"):
                raise BadArchive(f"{entry.shown}: a symbolic link that leads out of the archive")
            links[name] = normal(f"{name.rpartition('/')[0]}/{entry.linkname}".lstrip("/"), entry, climbs=True)
        else:
            raise BadArchive(f"{entry.shown}: an archive of images holds files and links only")
    stream.finish()
    with open(INDEX, "w", encoding="utf-8", errors="surrogateescape") as file:
        json.dump({"files": files, "links": links}, file, ensure_ascii=True)
    begin({"taken": stream.tell()})


def normal(name: str, entry: Entry, *, climbs: bool = False) -> str:
    """``name`` without what changes nothing in it; BadArchive for one that leads out."""
    if name.startswith("/"):
        raise BadArchive(f"{entry.shown}: an absolute name; names in an archive of images are relative")
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            if not climbs or not parts:
                raise BadArchive(f'{entry.shown}: ".." in a name leads out of the archive')
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _write(path: str, entry: Entry, stream: TarStream) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:

        def put(piece: memoryview) -> None:
            while piece:
                piece = piece[os.write(fd, piece) :]

        if not stream.copy(entry.size, put):
            raise BadArchive(f"the archive is truncated: it ends inside {entry.shown}")
    finally:
        os.close(fd)
