"""What a container changed against its image: Docker's kinds, paths and order.

Two ways lead there.  A layer of overlayfs holds what was changed and nothing else, with marks for what is gone; a
driver that copies holds everything, and the two trees are compared.  Both give the same list, by Docker's rule: a
file is modified when its type, mode, owner, device number, size, time or extended attributes differ; a directory
when its mode, owner or attributes do, or when anything in it is listed; of what was added, everything is listed, of
what was deleted only the topmost.

The trees are walked by descriptors: a container that runs may swap a directory for a link, and gains nothing by it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

MODIFIED = 0
ADDED = 1
DELETED = 2
SAME = 3
"""Not changed at all, but in a directory whose old contents the layer hides: a layer has to bring it again."""

MADE_FOR_MOUNTS = frozenset(("proc", "dev", "sys", "etc/hostname", "etc/hosts", "etc/resolv.conf"))
"""What the runtime puts into a root filesystem so that something can be mounted there: no change of the user's."""

KEPT_XATTRS = ("user.", "security.capability", "system.posix_acl_")
OPAQUE_XATTR = "trusted.overlay.opaque"

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Change(NamedTuple):
    """``path`` relative to the root.  ``opaque``: a directory that hides what the image has in it."""

    path: str
    kind: int
    opaque: bool = False


def changes(upper: str, lower: str | None, *, layer: bool) -> list[Change]:
    """The changes in the directory ``upper`` against ``lower`` (None: an empty one), parents before children.

    layer: ``upper`` is a layer of overlayfs, else it is a whole tree.  Raises OSError.
    """
    upper_fd = os.open(upper, _DIRECTORY)
    lower_fd = None if lower is None else os.open(lower, _DIRECTORY)
    try:
        return list(_Walk(layer).directory(upper_fd, lower_fd, "", hides=not layer))
    finally:
        os.close(upper_fd)
        if lower_fd is not None:
            os.close(lower_fd)


class _Walk:
    def __init__(self, layer: bool) -> None:
        self._layer = layer

    def directory(self, upper: int, lower: int | None, path: str, *, hides: bool) -> Iterator[Change]:
        """What differs inside.  ``hides``: what is not in ``upper`` is gone, not shining through."""
        here = _entries(upper)
        there = {} if lower is None else _entries(lower)
        for name in sorted(here.keys() | there.keys()):
            below = f"{path}/{name}" if path else name
            new, old = here.get(name), there.get(name)
            if new is None or (self._layer and _is_whiteout(new)):
                if old is not None and (hides or new is not None):
                    yield Change(below, DELETED)
                continue
            if old is None and below in MADE_FOR_MOUNTS and _is_bare(upper, name, new):
                continue
            yield from self._entry(upper, lower, name, below, new, old, hides)

    def _entry(
        self,
        upper: int,
        lower: int | None,
        name: str,
        path: str,
        new: os.stat_result,
        old: os.stat_result | None,
        hides: bool,
    ) -> Iterator[Change]:
        is_directory = stat.S_ISDIR(new.st_mode)
        differs = old is None or _differ(new, old) or _xattrs(upper, name) != _xattrs(lower, name)
        kind = ADDED if old is None else MODIFIED if differs else SAME
        if not is_directory:
            if kind != SAME or (hides and self._layer):
                yield Change(path, kind)
            return
        opaque = self._layer and not hides and _is_opaque(upper, name)
        inside = self._inside(upper, lower, name, path, old, hides or opaque)
        if kind == SAME and any(change.kind != SAME for change in inside):
            kind = MODIFIED
        if path == "etc" and kind == ADDED and not inside and _made_for_mounts(upper, name):
            return
        if kind != SAME or inside or (hides and self._layer):
            yield Change(path, kind, opaque and old is not None and stat.S_ISDIR(old.st_mode))
            yield from inside

    def _inside(
        self, upper: int, lower: int | None, name: str, path: str, old: os.stat_result | None, hides: bool
    ) -> list[Change]:
        upper_fd = os.open(name, _DIRECTORY, dir_fd=upper)
        lower_fd = None
        try:
            if old is not None and stat.S_ISDIR(old.st_mode):
                lower_fd = os.open(name, _DIRECTORY, dir_fd=lower)
            return list(self.directory(upper_fd, lower_fd, path, hides=hides))
        finally:
            os.close(upper_fd)
            if lower_fd is not None:
                os.close(lower_fd)


def kept_xattrs(fd: int | None, name: str = "") -> dict[str, bytes]:
    """The extended attributes of ``name`` in the directory ``fd`` (of ``fd`` itself for "") that a layer carries."""
    # There is no listxattrat(2); what /proc shows of a directory's descriptor is that directory.
    path = f"/proc/self/fd/{fd}/{name}" if name else f"/proc/self/fd/{fd}"
    try:
        names = os.listxattr(path, follow_symlinks=not name)
        return {
            each: os.getxattr(path, each, follow_symlinks=not name)
            for each in sorted(names)
            if each.startswith(KEPT_XATTRS)
        }
    except OSError:
        return {}  # a file system without them, or a file that has just gone


_xattrs = kept_xattrs


def _entries(fd: int) -> dict[str, os.stat_result]:
    found = {}
    with os.scandir(fd) as entries:
        for entry in entries:
            try:
                found[entry.name] = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # gone since
    return found


def _differ(new: os.stat_result, old: os.stat_result) -> bool:
    if (new.st_mode, new.st_uid, new.st_gid, new.st_rdev) != (old.st_mode, old.st_uid, old.st_gid, old.st_rdev):
        return True
    # The time and size of a directory say how it is stored.
    return not stat.S_ISDIR(new.st_mode) and (new.st_size, new.st_mtime_ns) != (old.st_size, old.st_mtime_ns)


def _is_whiteout(info: os.stat_result) -> bool:
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def _is_opaque(parent: int, name: str) -> bool:
    try:
        return os.getxattr(f"/proc/self/fd/{parent}/{name}", OPAQUE_XATTR, follow_symlinks=False) == b"y"
    except OSError:
        return False


def _is_bare(parent: int, name: str, info: os.stat_result) -> bool:
    """An empty file, or a directory with nothing in it."""
    if not stat.S_ISDIR(info.st_mode):
        return stat.S_ISREG(info.st_mode) and info.st_size == 0
    return not _names(parent, name)


def _made_for_mounts(parent: int, name: str) -> bool:
    inside = _names(parent, name)
    return bool(inside) and all(f"{name}/{each}" in MADE_FOR_MOUNTS for each in inside)


def _names(parent: int, name: str) -> list[str]:
    fd = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        return os.listdir(fd)
    finally:
        os.close(fd)
