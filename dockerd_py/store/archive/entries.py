"""A tar's entries, strictly: ``tarfile`` takes the damage that it meets after the first entry for the end.

Here an archive ends with its end-of-archive block or not at all, and every number is in the range that a file
system can hold.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, cast

from dockerd_py.errors import BadArchive
from dockerd_py.store.archive.program import show
from dockerd_py.store.archive.stream import TarStream

if TYPE_CHECKING:
    from typing import IO

MAX_GLOBAL_HEADERS = 100
MAX_GLOBAL_SIZE = 1 << 20
MAX_ENTRIES = 10_000_000
MAX_ID = 2**32 - 2
_MAX_TIME = 2**33

# Their common base is documented; what sets them apart is not typed.
_EndOfArchive: type[tarfile.HeaderError] = tarfile.EOFHeaderError  # type: ignore[attr-defined]
_EndOfStream: type[tarfile.HeaderError] = tarfile.EmptyHeaderError  # type: ignore[attr-defined]
_ShortBlock: type[tarfile.HeaderError] = tarfile.TruncatedHeaderError  # type: ignore[attr-defined]

_PAX_XATTR = "SCHILY.xattr."
_DECIMAL = re.compile(r"(-?)(\d+)(?:\.(\d*))?")


class Entry(tarfile.TarInfo):
    """One entry.  ``tarfile`` has put pax and GNU headers into its fields already."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Entry:
        assert isinstance(tarfile_, _Reader)
        position = tarfile_.input.tell()
        try:
            return super().fromtarfile(tarfile_)
        except _EndOfArchive:
            tarfile_.complete = True
            raise
        except _EndOfStream:
            if position == 0:
                raise BadArchive("the archive is empty") from None
            raise BadArchive("the archive is truncated: it ends without an end-of-archive block") from None
        except _ShortBlock:
            if position == 0:
                raise BadArchive("this is no tar archive: it is shorter than one block") from None
            raise BadArchive("the archive is truncated: it ends inside a header") from None
        except tarfile.HeaderError as error:
            if position == 0:
                raise BadArchive("this is no tar archive, nor one compressed by gzip, bzip2, xz or zstd") from None
            raise BadArchive(f"the archive is damaged at byte {position}: {error}") from None

    @property
    def shown(self) -> str:
        return show(self.name)

    def mtime_ns(self) -> int:
        """The time of modification; ``tarfile``'s own field is a float, which has no nanoseconds."""
        exact = self.pax_headers.get("mtime", "")
        if match := _DECIMAL.fullmatch(exact):
            sign, whole, fraction = match.groups()
            time = int(whole) * 10**9 + int((fraction or "")[:9].ljust(9, "0"))
            time = -time if sign else time
        else:
            time = int(self.mtime) * 10**9
        if abs(time) > _MAX_TIME * 10**9:
            raise BadArchive(f"{self.shown}: its time is out of range")
        return time

    def xattrs(self) -> dict[str, bytes]:
        return {
            key[len(_PAX_XATTR) :]: value.encode("utf-8", "surrogateescape")
            for key, value in self.pax_headers.items()
            if key.startswith(_PAX_XATTR)
        }

    def segments(self) -> list[tuple[int, int]]:
        """Where the data that follows the header belongs in the file: (offset, length), in order."""
        sparse = cast("list[tuple[int, int]] | None", self.sparse)
        if sparse is None:
            return [(0, self.size)]
        end = 0
        # Old GNU headers fill their table with empty segments, in no order.
        sparse = [segment for segment in sparse if segment[1]]
        for offset, length in sparse:
            if offset < end or length < 0 or offset + length > self.size:
                raise BadArchive(f"{self.shown}: its map of holes is damaged")
            end = offset + length
        return sparse


class _Reader(tarfile.TarFile):
    members: list[tarfile.TarInfo]

    def __init__(self, stream: TarStream) -> None:
        self.input = stream  # not "stream", which is a name of TarFile's own from Python 3.13 on
        self.complete = False
        super().__init__(
            fileobj=cast("IO[bytes]", stream),
            mode="r",
            tarinfo=Entry,
            encoding="utf-8",
            errors="surrogateescape",
        )


def entries(stream: TarStream) -> Iterator[Entry]:
    """The entries in their order.  The data of each has to be read from ``stream`` before the next is asked for,
    or is skipped.  Raises BadArchive; an archive that ends early does so before the last entry is passed for whole.
    """
    try:
        reader = _Reader(stream)
        count = 0
        # One that holds no entry is at its end by now, and not every Python's `next` bears to be called then.
        while not reader.complete and (entry := reader.next()) is not None:
            # tarfile keeps every entry that it has seen.
            reader.members.clear()
            count += 1
            if count > MAX_ENTRIES:
                raise BadArchive(f"the archive has more than {MAX_ENTRIES} entries")
            if reader.pax_headers:
                _check_global(reader.pax_headers)
            assert isinstance(entry, Entry)
            _check(entry)
            yield entry
            stream.next_entry()
        if not reader.complete:
            raise BadArchive("the archive is truncated: it ends without an end-of-archive block")
    except (tarfile.TarError, IndexError) as error:  # tarfile takes a header that breaks off for whole
        raise BadArchive(f"the archive is damaged: {error}") from None
    except RecursionError:
        raise BadArchive("the archive is damaged: too many headers for one entry") from None


def _check_global(headers: Mapping[str, str]) -> None:
    """Every entry gets a copy of them."""
    size = sum(len(key) + len(value) for key, value in headers.items())
    if len(headers) > MAX_GLOBAL_HEADERS or size > MAX_GLOBAL_SIZE:
        raise BadArchive("the archive has too many global headers")


def _check(entry: Entry) -> None:
    if entry.size < 0:
        raise BadArchive(f"{entry.shown}: its size is negative")
    if not (0 <= entry.uid <= MAX_ID and 0 <= entry.gid <= MAX_ID):
        raise BadArchive(f"{entry.shown}: its owner {entry.uid}:{entry.gid} is out of range")
    if "\0" in entry.name or "\0" in entry.linkname:
        raise BadArchive(f"{entry.shown}: its name holds a zero byte")
