"""What of an archive is not payload, kept in order, so that the archive can be written out again byte for byte.

Headers, padding, trailer and whatever follows it are kept as they came; each file's contents are replaced by its name
and by the places in it from which they come.  Contents that a later entry of the same name has replaced on the disk
are kept whole, in a file of their own, since they are nowhere else.

The file is: magic, the archive's length (u64), and a zlib stream of records, all numbers big-endian:
``R`` u32 length, bytes: raw; ``F`` u32 length, name, u32 count, count times (u64 offset, u64 length): contents;
``E``: end.
The file of replaced contents is a sequence of u64 number of the ``F`` record (from 0), u64 length, bytes.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from dockerd_py.errors import StoreError

SKELETON = "skeleton"
REPLACED = "replaced"

_MAGIC = b"pydskel1"
_HEAD = struct.Struct(">8sQ")
_COUNT = struct.Struct(">I")
_PAIR = struct.Struct(">QQ")
_PIECE = 256 * 1024

Segments = list[tuple[int, int]]
"""(offset, length) of each part of a file that an archive holds, in order."""


class Raw(NamedTuple):
    data: bytes


class Contents(NamedTuple):
    """Of the file at ``path``, unless the record's ``number`` is among the replaced ones."""

    path: bytes
    number: int
    segments: Segments


class SkeletonWriter:
    """Writes into the directory ``directory_fd``, also after the process has changed its root."""

    def __init__(self, directory_fd: int) -> None:
        self._directory = directory_fd
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._fd = os.open(SKELETON, flags, 0o600, dir_fd=directory_fd)
        self._replaced_fd = -1
        self._compressor = zlib.compressobj(1)
        self._raw = bytearray()
        self._pending = bytearray()  # records, to be compressed in pieces that are worth it
        self._size = 0
        self._count = 0
        # Where each file's contents stand: path: (number of the record, segments if it is sparse).
        self._written: dict[str, tuple[int, Segments | None]] = {}
        os.lseek(self._fd, _HEAD.size, os.SEEK_SET)

    def raw(self, data: bytes | memoryview) -> None:
        self._raw += data
        if len(self._raw) >= _PIECE:
            self._flush()

    def contents(self, path: str, segments: Segments, *, sparse: bool) -> None:
        """The contents of ``path`` stand here in the archive."""
        length = sum(length for _, length in segments)
        if not length:
            return
        self._flush()
        name = os.fsencode(path)
        self._pending += b"F%b%b%b" % (_COUNT.pack(len(name)), name, _COUNT.pack(len(segments)))
        for segment in segments:
            self._pending += _PAIR.pack(*segment)
        self._written[path] = (self._count, segments if sparse else None)
        self._count += 1
        self._size += length

    def replaced(self, path: str) -> None:
        """Whatever is at ``path``, a directory perhaps, is about to be deleted."""
        if path in self._written:
            self._keep(path)
        elif stat.S_ISDIR(os.lstat(path).st_mode):
            for top, _, names in os.walk(path):
                for name in names:
                    inside = f"{top}/{name}"
                    if inside in self._written:
                        self._keep(inside)

    def finish(self) -> None:
        self._flush()
        self._pending += b"E"
        self._compress()
        _write(self._fd, self._compressor.flush())
        os.pwrite(self._fd, _HEAD.pack(_MAGIC, self._size), 0)
        os.close(self._fd)
        if self._replaced_fd >= 0:
            os.close(self._replaced_fd)

    def _keep(self, path: str) -> None:
        number, segments = self._written.pop(path)
        if self._replaced_fd < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            self._replaced_fd = os.open(REPLACED, flags, 0o600, dir_fd=self._directory)
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            segments = segments or [(0, os.fstat(fd).st_size)]
            _write(self._replaced_fd, _PAIR.pack(number, sum(length for _, length in segments)))
            for piece in read_segments(fd, segments):
                _write(self._replaced_fd, piece)
        finally:
            os.close(fd)

    def _flush(self) -> None:
        if self._raw:
            self._size += len(self._raw)
            self._pending += b"R"
            self._pending += _COUNT.pack(len(self._raw))
            self._pending += self._raw
            self._raw.clear()
            if len(self._pending) >= _PIECE:
                self._compress()

    def _compress(self) -> None:
        _write(self._fd, self._compressor.compress(self._pending))
        self._pending.clear()


class SkeletonReader:
    """Reads what a SkeletonWriter has left in the directory ``directory_fd``.  Raises StoreError."""

    def __init__(self, directory_fd: int) -> None:
        self._file = _open(SKELETON, directory_fd)
        self.size = _read_size(self._file)
        self._decompressor = zlib.decompressobj()
        self._ahead = b""
        self._replaced: dict[int, tuple[int, int]] = {}
        try:
            self._replaced_file: BinaryIO | None = _open(REPLACED, directory_fd)
        except FileNotFoundError:
            self._replaced_file = None
        else:
            self._index(self._replaced_file)

    def records(self) -> Iterator[Raw | Contents]:
        """In the archive's order."""
        number = 0
        try:
            while (kind := self._take(1)) != b"E":
                length = self._number()
                if kind == b"R":
                    while length:
                        data = self._take(min(length, _PIECE))
                        length -= len(data)
                        yield Raw(data)
                elif kind == b"F":
                    path = self._take(length)
                    pairs = self._take(self._number() * _PAIR.size)
                    yield Contents(path, number, list(_PAIR.iter_unpack(pairs)))
                    number += 1
                else:
                    raise _damaged()
        except zlib.error:
            raise _damaged() from None

    def replaced(self, number: int) -> Iterator[bytes] | None:
        """The contents of the record ``number`` if they have been replaced on the disk."""
        found = self._replaced.get(number)
        if found is None:
            return None
        assert self._replaced_file is not None
        return read_segments(self._replaced_file.fileno(), [found])

    def _index(self, file: BinaryIO) -> None:
        while len(head := file.read(_PAIR.size)) == _PAIR.size:
            number, length = _PAIR.unpack(head)
            self._replaced[number] = (file.tell(), length)
            file.seek(length, os.SEEK_CUR)

    def _number(self) -> int:
        number: int = _COUNT.unpack(self._take(_COUNT.size))[0]
        return number

    def _take(self, size: int) -> bytes:
        parts = []
        while size > len(self._ahead):
            parts.append(self._ahead)
            size -= len(self._ahead)
            data = self._decompressor.unconsumed_tail or self._file.read(_PIECE)
            self._ahead = self._decompressor.decompress(data, _PIECE)
            if not data and not self._ahead:
                raise _damaged()
        parts.append(self._ahead[:size])
        self._ahead = self._ahead[size:]
        return b"".join(parts)


def archive_size(directory: str | os.PathLike[str]) -> int:
    """The length in bytes of the archive whose skeleton is in ``directory``.  Raises FileNotFoundError, StoreError."""
    with open(os.path.join(directory, SKELETON), "rb") as file:
        return _read_size(file)


def read_segments(fd: int, segments: Segments) -> Iterator[bytes]:
    """The bytes of a file's segments, in order.  Raises EOFError when it is too short."""
    for offset, length in segments:
        while length:
            piece = os.pread(fd, min(length, _PIECE), offset)
            if not piece:
                raise EOFError
            offset += len(piece)
            length -= len(piece)
            yield piece


def _open(name: str, directory_fd: int) -> BinaryIO:
    return os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory_fd), "rb")


def _read_size(file: BinaryIO) -> int:
    head = file.read(_HEAD.size)
    if len(head) != _HEAD.size or not head.startswith(_MAGIC):
        raise _damaged()
    size: int = _HEAD.unpack(head)[1]
    return size


def _write(fd: int, data: bytes | bytearray | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _damaged() -> StoreError:
    return StoreError("the record of the layer's archive is damaged")
