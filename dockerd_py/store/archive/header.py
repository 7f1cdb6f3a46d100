"""The headers of the archives that we make ourselves: ustar where it suffices, pax records for what it can't say.

POSIX.1-2008, pax; SCHILY.xattr as star, GNU tar and Go write it; sparse files in GNU tar's form 1.0.  The same values
always give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping

BLOCK = 512
END = bytes(2 * BLOCK)
"""What an archive ends with."""

EMPTY_DIFF_ID = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
"""Of a layer's tar with nothing in it: its end alone."""

FILE = b"0"
HARD_LINK = b"1"
SYMBOLIC_LINK = b"2"
CHARACTER_DEVICE = b"3"
BLOCK_DEVICE = b"4"
DIRECTORY = b"5"
FIFO = b"6"
_PAX = b"x"

_NAME = 100
_MAX_OCTAL_ID = 0o7777777
_MAX_OCTAL_SIZE = 0o77777777777
_PAX_NAME = b"././@PaxHeader"


def header(
    name: bytes,
    kind: bytes = FILE,
    *,
    size: int = 0,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: int = 0,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
    more: Mapping[bytes, bytes] | None = None,
) -> bytes:
    """One entry's header, with its extended header before it where one is needed.

    mtime: nanoseconds since the epoch.  device: major and minor.  more: pax records to be added.
    """
    records = dict(more or {})
    if not _plain(name):
        records[b"path"] = name
    if not _plain(link):
        records[b"linkpath"] = link
    if not (_is_utf8(name) and _is_utf8(link)):
        records[b"hdrcharset"] = b"BINARY"
    if size > _MAX_OCTAL_SIZE:
        records[b"size"] = b"%d" % size
    for key, number in ((b"uid", uid), (b"gid", gid)):
        if number > _MAX_OCTAL_ID:
            records[key] = b"%d" % number
    seconds, fraction = divmod(mtime, 10**9)
    if fraction or not 0 <= seconds <= _MAX_OCTAL_SIZE:
        records[b"mtime"] = _decimal(mtime)
    fields = _ustar(
        name, kind,
        size=size if size <= _MAX_OCTAL_SIZE else 0,
        mode=mode,
        uid=uid if uid <= _MAX_OCTAL_ID else 0,
        gid=gid if gid <= _MAX_OCTAL_ID else 0,
        mtime=min(max(seconds, 0), _MAX_OCTAL_SIZE),
        link=link,
        device=device,
    )  # fmt: skip
    return _extended(records) + fields if records else fields


def sparse(name: bytes, size: int, segments: list[tuple[int, int]]) -> tuple[dict[bytes, bytes], bytes]:
    """(pax records, map) for a file of ``size`` bytes that has data in ``segments`` (offset, length) only.

    The map stands before the data, and counts into the entry's size.
    """
    numbers = [len(segments), *(number for segment in segments for number in segment)]
    table = b"".join(b"%d\n" % number for number in numbers)
    records = {
        b"GNU.sparse.major": b"1",
        b"GNU.sparse.minor": b"0",
        b"GNU.sparse.name": name,
        b"GNU.sparse.realsize": b"%d" % size,
    }
    if not _is_utf8(name):
        records[b"hdrcharset"] = b"BINARY"
    return records, table + padding(len(table))


def padding(size: int) -> bytes:
    """What follows contents of ``size`` bytes."""
    return bytes(-size % BLOCK)


def _ustar(
    name: bytes, kind: bytes, *, size: int, mode: int, uid: int, gid: int, mtime: int, link: bytes,
    device: tuple[int, int],
) -> bytes:  # fmt: skip
    block = bytearray(BLOCK)

    def put(offset: int, data: bytes) -> None:
        block[offset : offset + len(data)] = data

    put(0, _readable(name))
    put(100, b"%07o\0" % (mode & 0o7777))
    put(108, b"%07o\0" % uid)
    put(116, b"%07o\0" % gid)
    put(124, b"%011o\0" % size)
    put(136, b"%011o\0" % mtime)
    put(148, b" " * 8)
    put(156, kind)
    put(157, _readable(link))
    put(257, b"ustar\x0000")
    put(329, b"%07o\0" % min(device[0], _MAX_OCTAL_ID))
    put(337, b"%07o\0" % min(device[1], _MAX_OCTAL_ID))
    put(148, b"%06o\0 " % sum(block))
    return bytes(block)


def _extended(records: Mapping[bytes, bytes]) -> bytes:
    # The character set has to be known before the names that are in it.
    keys = sorted(records, key=lambda key: (key != b"hdrcharset", key))
    data = b"".join(_record(key, records[key]) for key in keys)
    fields = _ustar(_PAX_NAME, _PAX, size=len(data), mode=0o644, uid=0, gid=0, mtime=0, link=b"", device=(0, 0))
    return fields + data + padding(len(data))


def _record(key: bytes, value: bytes) -> bytes:
    """``length key=value``, where the length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _plain(name: bytes) -> bool:
    return len(name) <= _NAME and name.isascii()


def _readable(name: bytes) -> bytes:
    """What stands in the old field; where it is not the name itself, a pax record has that."""
    if not name.isascii():
        name = bytes(char if char < 128 else ord("_") for char in name)
    return name[:_NAME]


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _decimal(nanoseconds: int) -> bytes:
    whole, fraction = divmod(abs(nanoseconds), 10**9)
    text = f"{'-' if nanoseconds < 0 else ''}{whole}.{fraction:09d}".rstrip("0").rstrip(".")
    return text.encode()
