"""The helper program: write a layer's archive to standard output as it once came in.

Joins the archive's skeleton with the contents of the files, inside the layer's directory as its root, and hashes what
it writes.  It fails at the end, if not before, when a file is not what it was; that what was written until then is
worth nothing is for the reader to see to.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from typing import Any

from dockerd_py.errors import StoreError
from dockerd_py.store.archive.program import begin, change_root, run, show
from dockerd_py.store.archive.skeleton import SKELETON, Contents, Raw, SkeletonReader, read_segments

_MANY = 5


def main(arguments: dict[str, Any]) -> None:
    """``target`` (the layer's directory), ``keep`` (where its skeleton is) and ``diff_id``."""
    run(lambda: _pack(arguments["target"], arguments["keep"], arguments["diff_id"]))


def _pack(target: str, keep: str, diff_id: str) -> None:
    directory = os.open(keep, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        skeleton = SkeletonReader(directory)
        finished = os.stat(SKELETON, dir_fd=directory).st_mtime_ns
    except FileNotFoundError:
        raise StoreError("nothing was kept of the archive that it came in") from None
    change_root(target)
    begin({})
    out = _Output()
    suspects: list[str] = []
    for record in skeleton.records():
        if isinstance(record, Raw):
            out.write(record.data)
        elif (kept := skeleton.replaced(record.number)) is not None:
            _copy(kept, record, out)
        else:
            _write_file(record, out, finished, suspects)
    if out.digest() != diff_id:
        raise StoreError(
            f"its contents are not what came in ({out.digest()} instead of {diff_id}): "
            + (f"{', '.join(suspects)} changed since" if suspects else "the disk, or what was kept, is damaged"),
        )


def _write_file(record: Contents, out: _Output, finished: int, suspects: list[str]) -> None:
    shown = show(record.path)
    try:
        fd = os.open(record.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise StoreError(f"{shown}, which came with it, cannot be read: {error.strerror}") from None
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise StoreError(f"{shown} was a file when it came in, and is none now")
        if info.st_ctime_ns > finished and len(suspects) < _MANY:
            suspects.append(shown)
        _copy(read_segments(fd, record.segments), record, out)
    finally:
        os.close(fd)


def _copy(pieces: Iterable[bytes], record: Contents, out: _Output) -> None:
    try:
        for piece in pieces:
            out.write(piece)
    except EOFError:
        raise StoreError(f"{show(record.path)} is shorter than when it came in") from None


class _Output:
    """Standard output, hashed, in pieces that are worth a system call."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._pending = bytearray()

    def write(self, data: bytes) -> None:
        self._pending += data
        if len(self._pending) >= 1 << 18:
            self._flush()

    def digest(self) -> str:
        self._flush()
        return f"sha256:{self._hash.hexdigest()}"

    def _flush(self) -> None:
        self._hash.update(self._pending)
        view = memoryview(self._pending)
        while view:
            view = view[os.write(1, view) :]
        self._pending = bytearray()
