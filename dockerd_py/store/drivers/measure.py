"""How many bytes a container has written, from the files alone.

The container may run meanwhile, and be up to anything: what vanishes under our eyes, and what lies deeper than a path
can say (path_resolution(7)), is not counted, and spoils nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_OUT_OF_SIGHT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


def bytes_in(directory: Path, ignore: str = "") -> int:
    """Sum of the sizes of the regular files, each inode once; ``ignore`` begins the names that are not counted.

    What is removed while it is counted does not count.
    """
    total = 0
    seen: set[tuple[int, int]] = set()
    pending = [os.fspath(directory)]
    while pending:
        with _what_is_there(), os.scandir(pending.pop()) as entries:
            for entry in entries:
                if ignore and entry.name.startswith(ignore):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    with _what_is_there():
                        total += _once(entry.stat(follow_symlinks=False), seen)
    return total


def bytes_changed(directory: Path, below: Path | None) -> int:
    """Sum of the sizes of the regular files that ``below`` does not have in the same size and time."""
    total = 0
    seen: set[tuple[int, int]] = set()
    pending = [""]
    while pending:
        relative = pending.pop()
        with _what_is_there(), os.scandir(directory / relative) as entries:
            for entry in entries:
                name = os.path.join(relative, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(name)
                elif entry.is_file(follow_symlinks=False):
                    with _what_is_there():
                        info = entry.stat(follow_symlinks=False)
                        if below is None or not _same(info, below / name):
                            total += _once(info, seen)
    return total


@contextlib.contextmanager
def _what_is_there() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _OUT_OF_SIGHT:
            raise


def _once(info: os.stat_result, seen: set[tuple[int, int]]) -> int:
    if info.st_nlink > 1:
        inode = (info.st_dev, info.st_ino)
        if inode in seen:
            return 0
        seen.add(inode)
    return info.st_size


def _same(info: os.stat_result, other: Path) -> bool:
    try:
        there = os.lstat(other)
    except OSError as error:
        if error.errno not in _OUT_OF_SIGHT:
            raise
        return False
    return (
        stat.S_ISREG(there.st_mode)
        and (there.st_size, there.st_mtime_ns) == (info.st_size, info.st_mtime_ns)
    )
