"""How read-only layers look when they lie on each other, told from their directories alone, without a mount.

A layer of overlayfs marks what is gone by character devices 0:0 and an opaque directory by an extended attribute
(Documentation/filesystems/overlayfs in Linux); one of aufs by files (aufs(5)).  Both are made and mounted without
redirections and metadata copies, so that a name means the same in each layer.  Nobody writes to layers below a
container, so they are walked by path.
"""

from __future__ import annotations

import enum
import errno
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from dockerd_py.store.archive.treetar import kept_xattrs

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OVERLAY_OPAQUE = "trusted.overlay.opaque"
_AUFS_WHITEOUT = ".wh."
_AUFS_OWN = ".wh..wh."  # its bookkeeping: pseudo-links, orphans, the mark of a branch
_AUFS_OPAQUE = ".wh..wh..opq"


class Marks(str, enum.Enum):
    """How a layer says what it hides."""

    OVERLAY = "overlay"
    AUFS = "aufs"
    NONE = "none"
    """It holds the whole tree, and needs no marks."""

    def is_opaque(self, directory: int) -> bool:
        """Whether an open directory hides what the layers below have in it."""
        try:
            if self is Marks.OVERLAY:
                return os.getxattr(directory, _OVERLAY_OPAQUE) == b"y"
            if self is Marks.AUFS:
                return stat.S_ISREG(os.stat(_AUFS_OPAQUE, dir_fd=directory, follow_symlinks=False).st_mode)
        except OSError:
            return False
        return False


class Read(NamedTuple):
    """One layer's directory: what is in it, and what it takes away from those below."""

    entries: dict[str, os.stat_result]
    gone: set[str]
    opaque: bool


def open_directory(name: str, parent: int | None = None) -> int:
    """Raises OSError; NotADirectoryError for a link."""
    return os.open(name, _DIRECTORY, dir_fd=parent)


def read(directory: int, marks: Marks) -> Read:
    """What is in an open directory.  ``opaque`` is told of aufs alone, where it is seen on the way."""
    entries: dict[str, os.stat_result] = {}
    gone: set[str] = set()
    opaque = False
    with os.scandir(directory) as found:
        for entry in found:
            name = entry.name
            if marks is Marks.AUFS and name.startswith(_AUFS_WHITEOUT):
                if not name.startswith(_AUFS_OWN):
                    gone.add(name[len(_AUFS_WHITEOUT) :])
                opaque = opaque or name == _AUFS_OPAQUE
                continue
            try:
                info = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # gone since
            if marks is Marks.OVERLAY and _is_device_0(info):
                gone.add(name)
            else:
                entries[name] = info
    return Read(entries, gone - entries.keys(), opaque)


class Below:
    """One directory of the layers ``tops`` (open directories, the topmost first), all of which have it."""

    def __init__(self, tops: tuple[int, ...], path: str, marks: Marks) -> None:
        self._tops = tops
        self._path = path
        self._marks = marks

    def find(self, name: str) -> os.stat_result | None:
        """The stat of ``name``; None when there is nothing to be seen under it."""
        for _, info in self._each(name):
            return info
        return None

    def directory(self, name: str) -> Below | None:
        """The directory ``name``; None when there is none."""
        tops = []
        for top, info in self._each(name):
            if not stat.S_ISDIR(info.st_mode):
                break
            tops.append(top)
            fd = open_directory(self._join(name), top)
            try:
                if self._marks.is_opaque(fd):
                    break
            finally:
                os.close(fd)
        return Below(tuple(tops), self._join(name), self._marks) if tops else None

    def entries(self) -> dict[str, os.stat_result]:
        """All that is to be seen in the directory."""
        found: dict[str, os.stat_result] = {}
        hidden: set[str] = set()
        for top in self._tops:
            fd = open_directory(self._path or ".", top)
            try:
                layer = read(fd, self._marks)
            finally:
                os.close(fd)
            for name, info in layer.entries.items():
                if name not in hidden:
                    found.setdefault(name, info)
            hidden |= layer.gone
        return found

    def xattrs(self, name: str) -> dict[str, bytes]:
        """Those of ``name`` that a layer carries."""
        for top, _ in self._each(name):
            return kept_xattrs(top, self._join(name))
        return {}

    def _each(self, name: str) -> Iterator[tuple[int, os.stat_result]]:
        """The layers that have ``name``, down to one that hides it from those below."""
        path = self._join(name)
        for top in self._tops:
            info = _lstat(path, top)
            if info is None:
                if self._marks is Marks.AUFS and _lstat(self._join(_AUFS_WHITEOUT + name), top):
                    return
            elif self._marks is Marks.OVERLAY and _is_device_0(info):
                return
            else:
                yield top, info

    def _join(self, name: str) -> str:
        return f"{self._path}/{name}" if self._path else name


def _lstat(path: str, top: int) -> os.stat_result | None:
    try:
        return os.stat(path, dir_fd=top, follow_symlinks=False)
    except OSError as error:
        # No layer holds a name or a path that is too long for it.
        if error.errno in (errno.ENOENT, errno.ENAMETOOLONG):
            return None
        raise


def _is_device_0(info: os.stat_result) -> bool:
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0
