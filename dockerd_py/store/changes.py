"""What a container changed against its image: Docker's kinds, paths and order.

Two ways lead there.  A layer of overlayfs or aufs holds what was changed and nothing else, with marks for what is
gone (`below` tells how the layers under it look together); a driver that copies holds everything, and the two trees
are compared.  All give the same list, by Docker's rule: a file is modified when its type, mode, owner, device number,
size, time or extended attributes differ; a directory when its mode, owner or attributes do, or when anything in it is
listed; of what was added, everything is listed, of what was deleted only the topmost.

The container's tree is walked by descriptors: one that runs may swap a directory for a link, and gains nothing by it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dockerd_py.store.archive.treetar import kept_xattrs
from dockerd_py.store.below import Below, Marks, open_directory, read

__all__ = ["ADDED", "DELETED", "MODIFIED", "SAME", "Change", "Marks", "changes"]

MODIFIED = 0
ADDED = 1
DELETED = 2
SAME = 3
"""Not changed at all, but in a directory whose old contents the layer hides: a layer has to bring it again."""

MADE_FOR_MOUNTS = frozenset(("proc", "dev", "sys", "etc/hostname", "etc/hosts", "etc/resolv.conf"))
"""What the runtime puts into a root filesystem so that something can be mounted there: no change of the user's."""


class Change(NamedTuple):
    """``path`` relative to the root.  ``opaque``: a directory that hides what the image has in it."""

    path: str
    kind: int
    opaque: bool = False


def changes(upper: str, lowers: Sequence[str], marks: Marks) -> list[Change]:
    """The changes in the directory ``upper`` against ``lowers`` (the topmost first), parents before children.

    With Marks.NONE, ``upper`` is a whole tree, and so is each of ``lowers``.  Raises OSError.
    """
    upper_fd = open_directory(upper)
    lower_fds = [open_directory(lower) for lower in lowers]
    try:
        below = Below(tuple(lower_fds), "", marks) if lower_fds else None
        return list(_Walk(marks).directory(upper_fd, below, "", hides=marks is Marks.NONE))
    finally:
        for fd in (upper_fd, *lower_fds):
            os.close(fd)


class _Walk:
    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._layer = marks is not Marks.NONE

    def directory(self, upper: int, below: Below | None, path: str, *, hides: bool) -> Iterator[Change]:
        """What differs inside.  ``hides``: what is not in ``upper`` is gone, not shining through."""
        here = read(upper, self._marks)
        hides = hides or here.opaque
        there = below.entries() if below is not None and hides else None
        for name in sorted(here.entries.keys() | (here.gone if there is None else there.keys())):
            inner = f"{path}/{name}" if path else name
            new = here.entries.get(name)
            old = there.get(name) if there is not None else below.find(name) if below is not None else None
            if new is None:
                if old is not None:
                    yield Change(inner, DELETED)
                continue
            if old is None and inner in MADE_FOR_MOUNTS and _is_bare(upper, name, new):
                continue
            yield from self._entry(upper, below, name, inner, new, old, hides)

    def _entry(
        self,
        upper: int,
        below: Below | None,
        name: str,
        path: str,
        new: os.stat_result,
        old: os.stat_result | None,
        hides: bool,
    ) -> Iterator[Change]:
        kind = ADDED if old is None else MODIFIED if self._differs(upper, below, name, new, old) else SAME
        if not stat.S_ISDIR(new.st_mode):
            if kind != SAME or (hides and self._layer):
                yield Change(path, kind)
            return
        upper_fd = open_directory(name, upper)
        try:
            opaque = self._layer and not hides and self._marks.is_opaque(upper_fd)
            was_directory = below is not None and old is not None and stat.S_ISDIR(old.st_mode)
            inner = below.directory(name) if was_directory and below is not None else None
            inside = list(self.directory(upper_fd, inner, path, hides=hides or opaque))
        finally:
            os.close(upper_fd)
        if kind == SAME and any(change.kind != SAME for change in inside):
            kind = MODIFIED
        if path == "etc" and kind == ADDED and not inside and _made_for_mounts(upper, name):
            return
        if kind != SAME or inside or (hides and self._layer):
            yield Change(path, kind, opaque and was_directory)
            yield from inside

    def _differs(
        self, upper: int, below: Below | None, name: str, new: os.stat_result, old: os.stat_result
    ) -> bool:
        if (new.st_mode, new.st_uid, new.st_gid, new.st_rdev) != (old.st_mode, old.st_uid, old.st_gid, old.st_rdev):
            return True
        # The time and size of a directory say how it is stored.
        if not stat.S_ISDIR(new.st_mode) and (new.st_size, new.st_mtime_ns) != (old.st_size, old.st_mtime_ns):
            return True
        # In a snapshot, what nobody touched has the very inode that it had; no two files of copies do.
        if not self._layer and (new.st_ino, new.st_ctime_ns) == (old.st_ino, old.st_ctime_ns):
            return False
        return below is not None and kept_xattrs(upper, name) != below.xattrs(name)


def _is_bare(parent: int, name: str, info: os.stat_result) -> bool:
    """An empty file, or a directory with nothing in it."""
    if not stat.S_ISDIR(info.st_mode):
        return stat.S_ISREG(info.st_mode) and info.st_size == 0
    return not _names(parent, name)


def _made_for_mounts(parent: int, name: str) -> bool:
    inside = _names(parent, name)
    return bool(inside) and all(f"{name}/{each}" in MADE_FOR_MOUNTS for each in inside)


def _names(parent: int, name: str) -> list[str]:
    fd = open_directory(name, parent)
    try:
        return os.listdir(fd)
    finally:
        os.close(fd)
