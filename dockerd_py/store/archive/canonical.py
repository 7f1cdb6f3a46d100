"""The helper program: a tar of a directory, in the one form in which we make them.

The same tree always gives the same bytes: entries sorted, a directory before what is in it, numeric owners, times to
the nanosecond, the xattrs that an image can hold, later names of a file as hard links to the first, holes wherever a
large file holds zeros.  Whiteouts become ``.wh.`` names.  Sockets are left out.

Started by ``outgoing`` with the directory (its root from then on), the form ("plain": as it is; "overlay": a layer of
overlayfs's; "aufs": one of aufs's), "all" or "chosen", and the descriptor for the answer.  "chosen": standard input
names what is taken, each name ended by a zero byte and begun by "+" (that entry alone) or "-" (a whiteout of it).
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from dockerd_py.errors import StoreError
from dockerd_py.store.archive import header
from dockerd_py.store.archive.answer import give
from dockerd_py.store.archive.skeleton import Segments, read_segments

PLAIN = "plain"
OVERLAY = "overlay"
AUFS = "aufs"

_WHITEOUT = b".wh."
_META = b".wh..wh."
_OPAQUE = b".wh..wh..opq"
_OPAQUE_XATTR = b"trusted.overlay.opaque"
_KEPT_XATTRS = (b"user.", b"security.capability", b"security.ima", b"system.posix_acl_")
_HIDDEN_XATTRS = (b"user.overlay.",)

_SPARSE_FROM = 1 << 20  # bytes; smaller files are written whole
_HOLE = 64 * 1024  # a block of zeros at a multiple of this is a hole
_PIECE = 256 * 1024
_ZEROS = bytes(_HOLE)


def main(directory: str, form: str, choice: str, answer_fd: str) -> None:
    try:
        chosen = _read_choice() if choice == "chosen" else None
        os.chdir(os.fsencode(directory))
        os.chroot(b".")
        os.chdir(b"/")
        _Writer(form).write_all(chosen)
        answer: dict[str, Any] = {}
    except StoreError as error:
        answer = {"kind": "store", "error": str(error)}
    except OSError as error:
        where = f"{_shown(error.filename)}: " if error.filename else ""
        answer = {"kind": "store", "error": f"{where}{error.strerror or error}"}
    except BaseException:  # noqa: BLE001 - the daemon logs it; nobody reads our own stderr
        answer = {"kind": "store", "error": f"the helper failed:\n{traceback.format_exc()}"}
    give(answer, answer_fd)


def _read_choice() -> list[tuple[bytes, bool]]:
    """(name, whether it is a whiteout) in the archive's order."""
    found = []
    for item in sys.stdin.buffer.read().split(b"\0"):
        if item:
            found.append((item[1:].strip(b"/"), item[:1] == b"-"))
    return sorted(found, key=lambda entry: entry[0].split(b"/"))


class _Writer:
    def __init__(self, form: str) -> None:
        self._form = form
        self._first_names: dict[tuple[int, int], bytes] = {}
        self._pending = bytearray()

    def write_all(self, chosen: list[tuple[bytes, bool]] | None) -> None:
        if chosen is None:
            self._walk(b"")
        else:
            for name, removed in chosen:
                if removed:
                    self._white_out(name)
                else:
                    self._add(name or b".")
        self._put(header.END)
        self._flush()

    def _walk(self, top: bytes) -> None:
        pending = self._listed(top)
        while pending:
            name = pending.pop()
            if self._form == AUFS and name.rpartition(b"/")[2].startswith(_META):
                if name.endswith(_OPAQUE):
                    self._put(header.header(name))
                continue
            if self._add(name):
                pending += self._listed(name)

    def _listed(self, directory: bytes) -> list[bytes]:
        """The names in a directory, the last one first."""
        try:
            names = os.listdir(directory or b".")
        except FileNotFoundError:
            if self._form == PLAIN:
                return []
            raise
        return [_join(directory, name) for name in sorted(names, reverse=True)]

    def _add(self, name: bytes) -> bool:
        """Write one entry.  Whether it is a directory that has to be looked into."""
        try:
            info = os.lstat(name)
            if stat.S_ISREG(info.st_mode):
                self._add_file(name)
                return False
            if stat.S_ISLNK(info.st_mode):
                target = os.readlink(name)
        except FileNotFoundError:
            if self._form == PLAIN:  # a running container's file may go at any moment
                return False
            raise
        mode = info.st_mode
        if stat.S_ISDIR(mode):
            self._put(self._header(name + b"/", info, header.DIRECTORY, name))
            if self._form == OVERLAY and _xattr(name, _OPAQUE_XATTR) == b"y":
                self._put(header.header(_join(name, _OPAQUE)))
            # What is mounted there belongs to somebody else.
            return info.st_dev == os.lstat(_parent(name)).st_dev
        if self._form == OVERLAY and stat.S_ISCHR(mode) and info.st_rdev == 0:
            self._white_out(name)
        elif not self._add_link(name, info):
            if stat.S_ISLNK(mode):
                self._put(self._header(name, info, header.SYMBOLIC_LINK, name, link=target))
            elif stat.S_ISFIFO(mode):
                self._put(self._header(name, info, header.FIFO, name))
            elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                kind = header.CHARACTER_DEVICE if stat.S_ISCHR(mode) else header.BLOCK_DEVICE
                device = (os.major(info.st_rdev), os.minor(info.st_rdev))
                self._put(self._header(name, info, kind, name, device=device))
        return False

    def _white_out(self, name: bytes) -> None:
        directory, _, last = name.rpartition(b"/")
        self._put(header.header(_join(directory, _WHITEOUT + last)))

    def _add_link(self, name: bytes, info: os.stat_result) -> bool:
        """Write ``name`` as a hard link, if it is another name of what was written before."""
        if info.st_nlink == 1:
            return False
        key = (info.st_dev, info.st_ino)
        first = self._first_names.setdefault(key, name)
        if first == name:
            return False
        self._put(self._header(name, info, header.HARD_LINK, None, link=first))
        return True

    def _add_file(self, name: bytes) -> None:
        if self._form == OVERLAY and name.rpartition(b"/")[2].startswith(_WHITEOUT):
            raise StoreError(f"{_shown(name)} cannot be part of an image: in layers, such a name hides another file")
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise StoreError(f"{_shown(name)} became something else while it was read")
            if self._add_link(name, info):
                return
            size = info.st_size
            segments = list(_data(fd, size)) if size >= _SPARSE_FROM else [(0, size)]
            stored = sum(length for _, length in segments)
            if stored == size:
                self._put(self._header(name, info, header.FILE, fd, size=size))
                self._copy(fd, name, [(0, size)])
                self._put(header.padding(size))
                return
            records, table = header.sparse(name, size, [*segments, (size, 0)])
            stored += len(table)
            self._put(self._header(b"GNUSparseFile.0/file", info, header.FILE, fd, size=stored, more=records))
            self._put(table)
            self._copy(fd, name, segments)
            self._put(header.padding(stored))
        finally:
            os.close(fd)

    def _copy(self, fd: int, name: bytes, segments: Segments) -> None:
        missing = sum(length for _, length in segments)
        try:
            for piece in read_segments(fd, segments):
                self._put(piece)
                missing -= len(piece)
        except EOFError:
            if self._form != PLAIN:
                raise StoreError(f"{_shown(name)} became shorter while it was read") from None
        while missing:  # its header has promised as much
            self._put(_ZEROS[:missing])
            missing -= min(missing, _HOLE)

    def _header(
        self,
        name: bytes,
        info: os.stat_result,
        kind: bytes,
        xattrs_of: bytes | int | None,
        *,
        size: int = 0,
        link: bytes = b"",
        device: tuple[int, int] = (0, 0),
        more: dict[bytes, bytes] | None = None,
    ) -> bytes:
        records = dict(more or {})
        if xattrs_of is not None:
            records.update(_xattrs(xattrs_of))
        return header.header(
            name,
            kind,
            size=size,
            mode=0o777 if kind == header.SYMBOLIC_LINK else info.st_mode,
            uid=info.st_uid,
            gid=info.st_gid,
            mtime=info.st_mtime_ns,
            link=link,
            device=device,
            more=records,
        )

    def _put(self, data: bytes) -> None:
        self._pending += data
        if len(self._pending) >= _PIECE:
            self._flush()

    def _flush(self) -> None:
        with memoryview(self._pending) as view:
            done = 0
            while done < len(view):
                done += os.write(1, view[done:])
        self._pending.clear()


def _data(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a file has anything but zeros, in multiples of the hole's size."""
    begin = -1
    position = 0
    while position < size:
        try:
            found = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as error:  # no more data, or a file system that cannot tell
            found = size if error.errno == errno.ENXIO else position
        skipped = size if found >= size else found - found % _HOLE
        if skipped > position:
            if begin >= 0:
                yield begin, position - begin
                begin = -1
            position = skipped
            continue
        piece = os.pread(fd, _PIECE, position)
        if not piece:
            break
        for start in range(0, len(piece), _HOLE):
            block = piece[start : start + _HOLE]
            empty = block == _ZEROS[: len(block)]
            if empty and begin >= 0:
                yield begin, position + start - begin
                begin = -1
            elif not empty and begin < 0:
                begin = position + start
        position += len(piece)
    if begin >= 0:
        yield begin, min(position, size) - begin


def _xattrs(of: bytes | int) -> dict[bytes, bytes]:
    found = {}
    with suppress(OSError):  # a file system without them
        names = os.listxattr(of) if isinstance(of, int) else os.listxattr(of, follow_symlinks=False)
        for name in map(os.fsencode, names):
            if name.startswith(_KEPT_XATTRS) and not name.startswith(_HIDDEN_XATTRS):
                value = _xattr(of, name)
                if value is not None:
                    found[b"SCHILY.xattr." + name] = value
    return found


def _xattr(of: bytes | int, name: bytes) -> bytes | None:
    try:
        return os.getxattr(of, name) if isinstance(of, int) else os.getxattr(of, name, follow_symlinks=False)
    except OSError:
        return None


def _parent(name: bytes) -> bytes:
    return name.rpartition(b"/")[0] or b"."


def _join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name


def _shown(name: bytes | str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")
