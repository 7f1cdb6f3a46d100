"""Tar archives of this machine's files, and back: what `pydocker cp` sends and what it writes.

What comes out of a container is a stranger's: everything is made in directories that are opened one below the other,
without following a link, so nothing lands outside the place that the user named.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from typing import cast

from dockerd_py.cli.command import warn
from dockerd_py.cli.errors import CliError
from dockerd_py.cli.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import IO

    Pieces = Generator[bytes, None, None]

_PIECE = 256 * 1024
_SPARSE_FROM = 16 << 20  # holes of less than this in all go out as zeros, as the daemon's do
_MAX_SEGMENTS = 10_000
_SUBDIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def pack(path: str, name: str, *, owners: bool) -> Pieces:
    """A tar of what is at ``path``, whose topmost entry is called ``name``.  owners: with theirs, else root's."""
    links: dict[tuple[int, int], str] = {}
    try:
        yield from _pack(path, name, owners, links)
    except OSError as error:
        raise CliError(f"{error.filename or path}: {error.strerror}") from None
    yield bytes(2 * tarfile.BLOCKSIZE)


def unpack(pieces: Iterator[bytes], top: str, target: str, *, owners: bool) -> None:
    """Put the archive's topmost entry, which is called ``top``, at ``target``, whose directory has to be there.

    owners: give the files to whom they belonged in the container, which takes root.  Raises CliError.
    """
    directory, name = os.path.split(os.path.abspath(target))
    try:
        parent = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            source = cast("IO[bytes]", _Reader(pieces))  # only ever read
            with tarfile.open(fileobj=source, mode="r|", errors="surrogateescape") as archive:
                _Unpacker(parent, name, top, owners).all(archive)
        finally:
            os.close(parent)
    except tarfile.TarError as error:
        raise CliError(f"what the daemon sent is no tar archive: {error}") from None
    except OSError as error:
        raise CliError(f"{error.filename or target}: {error.strerror}") from None


def _pack(path: str, name: str, owners: bool, links: dict[tuple[int, int], str]) -> Pieces:
    found = os.lstat(path)
    entry = tarfile.TarInfo(name)
    entry.mode = stat.S_IMODE(found.st_mode)
    entry.uid, entry.gid = (found.st_uid, found.st_gid) if owners else (0, 0)
    entry.mtime = found.st_mtime_ns // 10**9
    entry.pax_headers = {"mtime": f"{found.st_mtime_ns / 10**9:.9f}"} if found.st_mtime_ns % 10**9 else {}
    kind = stat.S_IFMT(found.st_mode)
    if kind == stat.S_IFDIR:
        entry.type = tarfile.DIRTYPE
        yield _header(entry)
        for each in sorted(os.listdir(path)):
            yield from _pack(os.path.join(path, each), f"{name}/{each}", owners, links)
        return
    first = links.setdefault((found.st_dev, found.st_ino), name) if found.st_nlink > 1 else name
    if first != name:
        entry.type, entry.linkname = tarfile.LNKTYPE, first
    elif kind == stat.S_IFLNK:
        entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(path)
    elif kind == stat.S_IFREG:
        entry.size = found.st_size
        yield from _file(path, entry)
        return
    elif kind == stat.S_IFIFO:
        entry.type = tarfile.FIFOTYPE
    else:
        warn(f"{printable(path)}: a device or socket is not copied")
        return
    yield _header(entry)


def _file(path: str, entry: tarfile.TarInfo) -> Pieces:
    with open(path, "rb", buffering=0) as file:
        size = entry.size
        segments = _data(file.fileno(), size)
        left = sum(length for _, length in segments)
        if size - left < _SPARSE_FROM:
            segments, left = [(0, size)], size
            yield _header(entry)
        else:
            table = _sparse(entry, [*segments, (size, 0)])
            left += len(table)
            entry.size = left
            yield _header(entry)
            yield table
        for offset, length in segments:
            file.seek(offset)
            while length:
                piece = file.read(min(length, _PIECE))
                if not piece:
                    raise CliError(f"{path}: became shorter while it was read")
                length -= len(piece)
                yield piece
        yield bytes(-left % tarfile.BLOCKSIZE)


def _data(fd: int, size: int) -> list[tuple[int, int]]:
    """Where a file holds anything but holes: (offset, length), as lseek(2) tells it; all of it where it cannot."""
    found: list[tuple[int, int]] = []
    position = 0
    while position < size and size >= _SPARSE_FROM:
        try:
            begin = os.lseek(fd, position, os.SEEK_DATA)
            position = os.lseek(fd, begin, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                return found
            break
        found.append((begin, min(position, size) - begin))
        if len(found) > _MAX_SEGMENTS:
            break
    return found if position >= size else [(0, size)]


def _sparse(entry: tarfile.TarInfo, segments: list[tuple[int, int]]) -> bytes:
    """Make ``entry`` one of GNU tar's sparse format 1.0, and return the table that stands before its data."""
    entry.pax_headers = {
        **entry.pax_headers, "GNU.sparse.major": "1", "GNU.sparse.minor": "0",
        "GNU.sparse.name": entry.name, "GNU.sparse.realsize": str(entry.size),
    }  # fmt: skip
    entry.name = "GNUSparseFile.0/file"
    table = b"".join(b"%d\n" % number for number in (len(segments), *(each for pair in segments for each in pair)))
    return table + bytes(-len(table) % tarfile.BLOCKSIZE)


def _header(entry: tarfile.TarInfo) -> bytes:
    return entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


class _Reader:
    """Pieces as a file that is only read forward."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int) -> bytes:
        while len(self._rest) < size:
            piece = next(self._pieces, b"")
            if not piece:
                break
            self._rest += piece
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken


class _Unpacker:
    def __init__(self, parent: int, name: str, top: str, owners: bool) -> None:
        self._parent = parent
        self._name = name
        self._top = top.strip("/")
        self._owners = owners
        self._late: list[tuple[list[str], tarfile.TarInfo]] = []

    def all(self, archive: tarfile.TarFile) -> None:
        for entry in archive:
            parts = self._parts(entry.name)
            directory = self._open(parts[:-1])
            try:
                self._add(archive, entry, parts, directory)
            finally:
                os.close(directory)
        # When all is written: writing changes the times, and a directory's mode may forbid it.
        for parts, entry in reversed(self._late):
            directory = self._open(parts)
            try:
                self._finish(directory, entry)
            finally:
                os.close(directory)

    def _parts(self, name: str) -> list[str]:
        """Where an entry belongs, from ``parent`` on."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        top = [part for part in self._top.split("/") if part not in ("", ".")]
        if ".." in parts or parts[: len(top)] != top:
            raise CliError(f"what the daemon sent has a name that does not belong there: {printable(name)}")
        return [self._name, *parts[len(top) :]]

    def _open(self, parts: list[str]) -> int:
        fd = os.dup(self._parent)
        for part in parts:
            below = os.open(part, _SUBDIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = below
        return fd

    def _add(self, archive: tarfile.TarFile, entry: tarfile.TarInfo, parts: list[str], directory: int) -> None:
        name = parts[-1]
        if self._make_room(directory, name, entry):
            self._late.append((parts, entry))
        elif entry.isdir():
            os.mkdir(name, 0o700, dir_fd=directory)
            self._late.append((parts, entry))
        elif entry.isreg():
            fd = os.open(name, _NEW_FILE, 0o600, dir_fd=directory)
            try:
                _write_contents(fd, archive, entry)
                self._finish(fd, entry)
            finally:
                os.close(fd)
        elif entry.issym():
            os.symlink(entry.linkname, name, dir_fd=directory)
        elif entry.islnk():
            *above, last = self._parts(entry.linkname)
            source_fd = self._open(above)
            try:
                os.link(last, name, src_dir_fd=source_fd, dst_dir_fd=directory, follow_symlinks=False)
            finally:
                os.close(source_fd)
        elif entry.isfifo():
            os.mkfifo(name, entry.mode & 0o777, dir_fd=directory)
        else:
            warn(f"{printable(entry.name)}: a device is not copied")

    def _make_room(self, directory: int, name: str, entry: tarfile.TarInfo) -> bool:
        """Take away a file that is in the way.  True when there is a directory that the entry's goes into."""
        try:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if stat.S_ISDIR(found.st_mode):
            if not entry.isdir():
                raise CliError(f'cannot overwrite directory "{printable(name)}" with what is none')
            return True
        if entry.isdir():
            raise CliError(f'cannot overwrite "{printable(name)}", which is no directory, with a directory')
        os.unlink(name, dir_fd=directory)
        return False

    def _finish(self, fd: int, entry: tarfile.TarInfo) -> None:
        if self._owners:
            os.fchown(fd, entry.uid, entry.gid)
        os.fchmod(fd, entry.mode & (0o7777 if self._owners else 0o777))
        os.utime(fd, (entry.mtime, entry.mtime))


def _write_contents(fd: int, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> None:
    # Read from below tarfile, whose own reader of an entry makes zeros of its holes.
    source = archive.fileobj
    assert source is not None
    source.seek(entry.offset_data)
    holes = cast("list[tuple[int, int]] | None", entry.sparse)
    for offset, length in [(0, entry.size)] if holes is None else holes:
        os.lseek(fd, offset, os.SEEK_SET)
        while length:
            piece = source.read(min(length, _PIECE))
            if not piece:
                raise tarfile.ReadError("it ends inside a file")
            _write(fd, piece)
            length -= len(piece)
    if holes is not None:
        os.ftruncate(fd, entry.size)


def _write(fd: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(fd, view) :]
