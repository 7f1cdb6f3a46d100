"""Files to a tar, in the one form in which we make archives: layers, exports and copies alike.

The same files always give the same bytes: numeric owners, times to the nanosecond, the xattrs that an image can hold,
later names of a file as hard links to its first, a pax header where a value does not fit into the old one and nowhere
else.  Sockets are left out, and so is what is gone when its turn comes.

A file whose holes make up ``SPARSE_FROM`` bytes or more goes out as a sparse entry (pax 1.0), which GNU tar, bsdtar,
Go's archive/tar and with it Docker's clients read; its holes are never read.  Smaller ones are written out with their
zeros, since busybox's tar knows no sparse entries, and today's dockerd, which records a layer by tar-split, can load a
layer with one but not save or push it again (the OCI image specification advises against them for that).

Files are opened by descriptors, never by a path that a container could bend, and devices and fifos not at all.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress

from dockerd_py.store.archive import header
from dockerd_py.store.archive.skeleton import Segments, read_segments

SPARSE_FROM = 16 << 20

KEPT_XATTRS = ("user.", "security.capability", "security.ima", "system.posix_acl_")
"""Beginnings of the extended attributes that a layer carries."""

HIDDEN_XATTRS = ("user.overlay.", "trusted.overlay.")
"""What steers overlayfs, and is none of a file's own."""

_KINDS = {
    stat.S_IFREG: header.FILE,
    stat.S_IFLNK: header.SYMBOLIC_LINK,
    stat.S_IFCHR: header.CHARACTER_DEVICE,
    stat.S_IFBLK: header.BLOCK_DEVICE,
    stat.S_IFDIR: header.DIRECTORY,
    stat.S_IFIFO: header.FIFO,
}
_SPARSE_NAME = b"GNUSparseFile.0/file"  # for readers that know nothing of holes
_MAX_SEGMENTS = 10_000  # their list stays below the megabyte that Go reads of one
_ZEROS = bytes(1 << 16)
_ENTRY = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CONTENTS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

Write = Callable[[bytes], object]


class TreeWriter:
    """Writes entries to ``write``; ``finish`` ends the archive.  Raises OSError for what cannot be read."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._first_names: dict[tuple[int, int], bytes] = {}

    def add(self, parent: int, name: str | bytes, entry_name: bytes) -> os.stat_result | None:
        """What is called ``name`` in the directory ``parent``, itself alone.  Its stat; None when it is gone."""
        try:
            fd = os.open(name, _ENTRY, dir_fd=parent)
        except FileNotFoundError:
            return None
        try:
            info = os.fstat(fd)
            kind = _KINDS.get(stat.S_IFMT(info.st_mode))
            if kind is not None:
                self._add(fd, entry_name, info, kind)
            return info
        finally:
            os.close(fd)

    def add_tree(self, parent: int, name: str | bytes, entry_name: bytes, *, one_file_system: bool = False) -> None:
        """What is called ``name``, and what is in it when it is a directory, in the order of the names."""
        info = self.add(parent, name, entry_name)
        if info is None or not stat.S_ISDIR(info.st_mode):
            return
        if one_file_system and info.st_dev != os.fstat(parent).st_dev:
            return
        try:
            fd = os.open(name, _DIRECTORY, dir_fd=parent)
        except (FileNotFoundError, NotADirectoryError):
            return  # it is something else by now
        try:
            self.add_inside(fd, entry_name, one_file_system=one_file_system)
        finally:
            os.close(fd)

    def add_inside(self, directory: int, entry_name: bytes, *, one_file_system: bool = False) -> None:
        """What is in a directory, and not the directory itself.  Its entries' names begin with ``entry_name``."""
        prefix = entry_name.rstrip(b"/") + b"/" if entry_name else b""
        for each in sorted(map(os.fsencode, os.listdir(directory))):
            self.add_tree(directory, each, prefix + each, one_file_system=one_file_system)

    def add_marker(self, entry_name: bytes) -> None:
        """An empty file with nothing of its own: a whiteout."""
        self._write(header.header(entry_name, mode=0))

    def finish(self) -> None:
        self._write(header.END)

    def _add(self, fd: int, name: bytes, info: os.stat_result, kind: bytes) -> None:
        if kind == header.DIRECTORY:
            name = name.rstrip(b"/") + b"/"
        elif info.st_nlink > 1:
            first = self._first_names.setdefault((info.st_dev, info.st_ino), name)
            if first != name:
                self._header(name, info, header.HARD_LINK, link=first)
                return
        xattrs = {b"SCHILY.xattr." + os.fsencode(key): value for key, value in kept_xattrs(fd).items()}
        if kind == header.FILE:
            self._add_file(fd, name, info, xattrs)
        elif kind == header.SYMBOLIC_LINK:
            self._header(name, info, kind, link=os.fsencode(os.readlink("", dir_fd=fd)), more=xattrs)
        elif kind in (header.CHARACTER_DEVICE, header.BLOCK_DEVICE):
            self._header(name, info, kind, device=(os.major(info.st_rdev), os.minor(info.st_rdev)), more=xattrs)
        else:
            self._header(name, info, kind, more=xattrs)

    def _add_file(self, path_fd: int, name: bytes, info: os.stat_result, xattrs: dict[bytes, bytes]) -> None:
        size = info.st_size
        if not size:
            self._header(name, info, header.FILE, more=xattrs)
            return
        fd = os.open(f"/proc/self/fd/{path_fd}", _CONTENTS)
        try:
            segments = data_segments(fd, size) if size >= SPARSE_FROM else [(0, size)]
            stored = sum(length for _, length in segments)
            if size - stored < SPARSE_FROM:
                self._header(name, info, header.FILE, size=size, more=xattrs)
                self._copy(fd, [(0, size)])
                self._write(header.padding(size))
                return
            records, table = header.sparse(name, size, [*segments, (size, 0)])
            stored += len(table)
            self._header(_SPARSE_NAME, info, header.FILE, size=stored, more={**xattrs, **records})
            self._write(table)
            self._copy(fd, segments)
            self._write(header.padding(stored))
        finally:
            os.close(fd)

    def _copy(self, fd: int, segments: Segments) -> None:
        missing = sum(length for _, length in segments)
        with suppress(EOFError):
            for piece in read_segments(fd, segments):
                self._write(piece)
                missing -= len(piece)
        while missing:  # it became shorter while it was read, and its header has promised as much
            self._write(_ZEROS[:missing])
            missing -= min(missing, len(_ZEROS))

    def _header(
        self,
        name: bytes,
        info: os.stat_result,
        kind: bytes,
        *,
        size: int = 0,
        link: bytes = b"",
        device: tuple[int, int] = (0, 0),
        more: dict[bytes, bytes] | None = None,
    ) -> None:
        self._write(
            header.header(
                name,
                kind,
                size=size,
                mode=0o777 if kind == header.SYMBOLIC_LINK else info.st_mode,
                uid=info.st_uid,
                gid=info.st_gid,
                mtime=info.st_mtime_ns,
                link=link,
                device=device,
                more=more,
            )
        )


def data_segments(fd: int, size: int) -> Segments:
    """Where a file holds anything but holes: (offset, length), in order.  All of it where that cannot be told.

    lseek(2), SEEK_DATA.  Of a file with very many holes the small ones count as data.
    """
    found: Segments = []
    position = 0
    while position < size:
        try:
            begin = os.lseek(fd, position, os.SEEK_DATA)
            end = os.lseek(fd, begin, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                break
            return [(0, size)]
        found.append((begin, min(end, size) - begin))
        position = end
    found = [segment for segment in found if segment[1] > 0]
    smallest = 1 << 16
    while len(found) > _MAX_SEGMENTS:
        found = _without_holes_below(smallest, found)
        smallest *= 2
    return found


def kept_xattrs(fd: int | None, name: str = "") -> dict[str, bytes]:
    """The extended attributes of ``name`` in the directory ``fd`` (of ``fd`` itself for "") that a layer carries."""
    # There is no listxattrat(2); what /proc shows of a directory's descriptor is that directory.
    path = f"/proc/self/fd/{fd}/{name}" if name else f"/proc/self/fd/{fd}"
    try:
        names = os.listxattr(path, follow_symlinks=not name)
        return {
            each: os.getxattr(path, each, follow_symlinks=not name)
            for each in sorted(names)
            if each.startswith(KEPT_XATTRS) and not each.startswith(HIDDEN_XATTRS)
        }
    except OSError:
        return {}  # a file system without them, or a file that has just gone


def _without_holes_below(smallest: int, segments: Segments) -> Segments:
    joined: Segments = []
    for offset, length in segments:
        if joined and offset - sum(joined[-1]) < smallest:
            joined[-1] = (joined[-1][0], offset + length - joined[-1][0])
        else:
            joined.append((offset, length))
    return joined
