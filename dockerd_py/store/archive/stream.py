"""The archive as it comes in: any compression, hashed, in bounded memory, read once from front to back.

A thread reads, decompresses and hashes; the other takes the bytes from a short queue.  So the two processors share
the work, and whoever is slower holds the other back.  Standard library only, but for zstd.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import lzma
import os
import queue
import threading
import zlib
from collections.abc import Callable
from typing import IO, Protocol, cast

from dockerd_py.errors import BadArchive
from dockerd_py.store.archive.allowance import Allowance

CHUNK = 256 * 1024
_QUEUED = 32
_ZSTD_MAX_WINDOW = 1 << 27  # what the zstd program takes by default
_LZMA_MEMORY = 256 << 20

MAX_HEADER = 1 << 20
"""The largest extended header that is taken (the limit that Go's tar reader has, too)."""

MAX_HEADERS = 8 << 20
"""All that may be said of one entry: its headers, long names and its map of holes."""

# What the libraries say to a dictionary or window beyond these.
_MEMLIMIT = "Memory usage limit"
_ZSTD_WINDOW = "requires too much memory"

_MAGIC_LENGTH = 10

_GZIP = b"\x1f\x8b\x08"
_BZIP2_HEAD = b"BZh"
_BZIP2_BLOCKS = (b"1AY&SY", b"\x17rE8P\x90")  # the first block, or the end of an empty file
_XZ = b"\xfd7zXZ\x00"
_ZSTD = b"\x28\xb5\x2f\xfd"


class Readable(Protocol):
    def read(self, size: int = ..., /) -> bytes: ...


class RawInput:
    """A file descriptor, with a look ahead that short reads of a pipe do not disturb."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._ahead = b""

    def peek(self, size: int) -> bytes:
        while len(self._ahead) < size:
            more = os.read(self._fd, size - len(self._ahead))
            if not more:
                break
            self._ahead += more
        return self._ahead

    def read(self, size: int = CHUNK) -> bytes:
        if self._ahead:
            head, self._ahead = self._ahead[:size], self._ahead[size:]
            return head
        return os.read(self._fd, CHUNK if size < 0 else size)


def open_decompressed(raw: RawInput) -> Readable:
    """Whatever ``raw`` is compressed with, a reader of what is inside; anything unknown is read as it is.

    Imports what it needs, so it has to be called while the file system is still all there.
    """
    magic = raw.peek(_MAGIC_LENGTH)
    file = cast("IO[bytes]", raw)  # nothing but read() is ever called
    if magic.startswith(_GZIP):
        return gzip.GzipFile(fileobj=file, mode="rb")
    if magic.startswith(_BZIP2_HEAD) and magic[4:] in _BZIP2_BLOCKS:
        return bz2.BZ2File(file, "rb")
    if magic.startswith(_XZ):
        return _XzReader(raw)
    if magic.startswith(_ZSTD):
        return _open_zstd(file)
    return raw


class TarStream:
    """What ``tarfile`` needs of a file, for one that only goes forward.

    ``record`` gets all that is read or skipped, in order, but not what ``copy`` passes on.  ``allowance`` is asked
    for every byte of it.
    """

    def __init__(
        self,
        source: Readable,
        record: Callable[[memoryview], object] | None = None,
        allowance: Allowance | None = None,
    ) -> None:
        self._record = record or _ignore
        self._allowance = allowance
        self._headers = 0
        self._queue: queue.Queue[bytes | Exception] = queue.Queue(_QUEUED)
        self._hash = hashlib.sha256()
        self._chunk = memoryview(b"")
        self._position = 0
        self._ended = False
        # A daemon thread: it may be blocked in a full queue when an error ends the process.
        threading.Thread(target=self._pump, args=(source,), daemon=True).start()

    def read(self, size: int) -> bytes:
        """``size`` bytes, fewer only at the end.  For headers: a size beyond MAX_HEADER is refused."""
        if size > MAX_HEADER:
            raise BadArchive(f"the archive has an extended header of {size} bytes; at most {MAX_HEADER} are taken")
        self._headers += size
        if self._headers > MAX_HEADERS:
            raise BadArchive(f"the archive has more than {MAX_HEADERS} bytes of headers for one entry")
        if size <= len(self._chunk):
            taken = self._take(size)
            self._record(taken)
            return bytes(taken)
        parts = []
        while size > 0 and self._fill():
            part = self._take(min(size, len(self._chunk)))
            self._record(part)
            size -= len(part)
            parts.append(bytes(part))
        return b"".join(parts)

    def next_entry(self) -> None:
        """The headers of another entry are read from here on."""
        self._headers = 0

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, whence: int = 0) -> int:
        """Go forward to ``position``.  Raises BadArchive when the stream ends before."""
        if whence != 0 or position < self._position:
            raise BadArchive("the archive is damaged: an entry has an impossible size")
        if self._each(position - self._position, self._record) > 0:
            raise BadArchive("the archive is truncated: it ends inside an entry")
        return self._position

    def copy(self, size: int, write: Callable[[memoryview], object]) -> bool:
        """Pass the next ``size`` bytes to ``write`` in pieces.  False if the stream ended before."""
        return self._each(size, write) == 0

    def finish(self) -> str:
        """Read what follows the archive's end and return the sha256 of the whole, in hex digits."""
        while self._fill():
            self._record(self._take(len(self._chunk)))
        return self._hash.hexdigest()

    def _each(self, size: int, write: Callable[[memoryview], object]) -> int:
        while size > 0 and self._fill():
            part = self._take(min(size, len(self._chunk)))
            write(part)
            size -= len(part)
        return size

    def _take(self, size: int) -> memoryview:
        part, self._chunk = self._chunk[:size], self._chunk[size:]
        self._position += size
        return part

    def _fill(self) -> bool:
        """Have at least one byte in ``_chunk``; False at the end."""
        if self._chunk:
            return True
        if self._ended:
            return False
        item = self._queue.get()
        if isinstance(item, Exception):
            raise item
        if self._allowance is not None:
            self._allowance.take(len(item))
        self._chunk = memoryview(item)
        self._ended = not item
        return not self._ended

    def _pump(self, source: Readable) -> None:
        try:
            while chunk := source.read(CHUNK):
                self._hash.update(chunk)
                self._queue.put(chunk)
            self._queue.put(b"")
        except BadArchive as error:
            self._queue.put(error)
        except EOFError:
            self._queue.put(BadArchive("the archive is truncated: its compressed data ends too early"))
        except lzma.LZMAError as error:
            self._queue.put(_too_much_memory() if _MEMLIMIT in str(error) else _damaged(error))
        except (zlib.error, OSError, ValueError) as error:
            self._queue.put(_damaged(error))
        except MemoryError:
            self._queue.put(_too_much_memory())


class _XzReader:
    """lzma.LZMAFile, with a bound on the dictionary's memory, which the file's own header chooses."""

    def __init__(self, raw: RawInput) -> None:
        self._raw = raw
        self._stream: lzma.LZMADecompressor | None = None

    def read(self, size: int = CHUNK, /) -> bytes:
        while True:
            if self._stream is None or self._stream.eof:
                rest = b"" if self._stream is None else self._stream.unused_data
                rest = self._skip_padding(rest)
                if not rest and self._stream is not None:
                    return b""
                self._stream = lzma.LZMADecompressor(memlimit=_LZMA_MEMORY)
                data = rest
            else:
                data = b""
            if not data and self._stream.needs_input:
                data = self._raw.read(CHUNK)
                if not data:
                    raise EOFError
            out = self._stream.decompress(data, size)
            if out:
                return out

    def _skip_padding(self, rest: bytes) -> bytes:
        """Streams may be followed by zeros, in fours, and by more streams."""
        while True:
            rest = rest.lstrip(b"\0")
            if rest:
                return rest
            rest = self._raw.read(CHUNK)
            if not rest:
                return b""


class _ZstdReader:
    def __init__(self, reader: Readable, error: type[Exception]) -> None:
        self._reader = reader
        self._error = error

    def read(self, size: int = CHUNK, /) -> bytes:
        try:
            return self._reader.read(size)
        except self._error as error:
            raise (_too_much_memory() if _ZSTD_WINDOW in str(error) else _damaged(error)) from error


def _open_zstd(file: IO[bytes]) -> Readable:
    # The helper starts without site-packages, where this one module lives.
    with contextlib.suppress(ImportError):
        import site  # noqa: PLC0415

        site.main()
    try:
        import zstandard  # noqa: PLC0415
    except ImportError:
        raise BadArchive("the archive is compressed with zstd, and python3-zstandard is not installed") from None
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_MAX_WINDOW)
    reader = decompressor.stream_reader(file, read_size=CHUNK, read_across_frames=True)
    return _ZstdReader(reader, zstandard.ZstdError)


def _damaged(error: Exception) -> BadArchive:
    return BadArchive(f"the archive's compressed data is damaged: {error}")


def _too_much_memory() -> BadArchive:
    return BadArchive(
        f"the archive needs too much memory to decompress: at most {_LZMA_MEMORY >> 20} MiB with xz and a window of "
        f"{_ZSTD_MAX_WINDOW >> 20} MiB with zstd are taken"
    )


def _ignore(_part: memoryview) -> None:
    """What nobody records goes nowhere."""
