"""Archives that mean harm: bombs of each compression, floods of headers, and whatever hypothesis thinks of."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator

from hypothesis import strategies as st
from store_house import SMALL, Member, member, tar

END = bytes(1024)
MIB = 1 << 20


# Headers


def header(body: bytes, type_: bytes = tarfile.XHDTYPE) -> bytes:
    """An extended header of any size."""
    info = tarfile.TarInfo("x")
    info.type = type_
    info.size = len(body)
    return info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512)


def record(key: bytes, value: bytes) -> bytes:
    """A pax record."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def records(count: int) -> bytes:
    return b"".join(record(b"k%d" % number, b"v") for number in range(count))


def empty(name: str, type_: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.type = type_
    return info.tobuf(tarfile.USTAR_FORMAT)


def sparse_file_of_many_pieces() -> Iterator[bytes]:
    """In GNU's form 1.0, whose map has no length of its own."""
    keys = ((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"5"))
    yield header(b"".join(record(*pair) for pair in keys)) + empty("f") + b"999999999\n"
    for _ in range(6):
        yield b"1\n" * MIB


def old_sparse_file_of_many_pieces() -> Iterator[bytes]:
    """In GNU's old form, a chain of blocks each of which says that one more follows."""
    block = bytearray(empty("f", tarfile.GNUTYPE_SPARSE))
    block[482] = 1
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    yield bytes(block)
    more = b"".join(b"%011o\0%011o\0" % (number * 2 + 1, 1) for number in range(21))
    for _ in range(12):
        yield (more + b"\1" + bytes(7)) * 2048


FLOODS: dict[str, tuple[Callable[[], Iterator[bytes]], str]] = {
    "pax headers of many records": (lambda: iter([(header(records(60_000)) + empty("f")) * 10, END]), ""),
    "pax headers for one entry": (lambda: iter([header(record(b"a", b"b")) * 5000, SMALL]), "too many headers"),
    "long pax headers for one entry": (lambda: iter([header(record(b"a", b"b" * 900_000))] * 12), "bytes of headers"),
    "global headers": (
        lambda: (header(record(b"k%d" % number, b"v"), tarfile.XGLTYPE) + empty("f") for number in range(200)),
        "global headers",
    ),
    "a global header that breaks off": (
        lambda: (header(record(b"k", b"v" * MIB)[:-MIB], tarfile.XGLTYPE) for _ in range(3)), "damaged|no tar",
    ),
    "large global headers": (
        lambda: (header(record(b"k%d" % n, b"v" * 900_000), tarfile.XGLTYPE) + empty("f") for n in range(10)),
        "global headers",
    ),
    "long names for one entry": (
        lambda: iter([header(b"n" * 1_000_000, tarfile.GNUTYPE_LONGNAME)] * 12), "bytes of headers",
    ),
    "a long name": (lambda: iter([header(b"n" * 1_000_000, tarfile.GNUTYPE_LONGNAME), empty("f"), END]), "too long"),
    "a deep name": (lambda: iter([header(b"n/" * 400_000, tarfile.GNUTYPE_LONGNAME), empty("f"), END]), "too long"),
    "a long link": (
        lambda: iter([header(b"n" * 1_000_000, tarfile.GNUTYPE_LONGLINK), empty("f", b"2"), END]), "too long",
    ),
    "long numbers": (lambda: iter([header(record(b"size", b"9" * 100_000)) + empty("f"), END]), ""),
    "a long sparse number": (
        lambda: iter([header(record(b"GNU.sparse.size", b"x" * 900_000)) + empty("f"), END]), "damaged|no tar",
    ),
    "a sparse map without end": (sparse_file_of_many_pieces, "bytes of headers"),
    "an old sparse map without end": (old_sparse_file_of_many_pieces, "bytes of headers"),
    "an old sparse map that breaks off": (
        lambda: iter([next(old_sparse_file_of_many_pieces())]), "damaged|truncated",
    ),
    "small files": (lambda: (empty(f"d{n // 500}/f{n}") for n in range(4000)), "truncated: it ends without"),
    "directories": (lambda: iter([*(empty(f"d{n}", b"5") for n in range(4000)), END]), ""),
    "the same file": (lambda: iter([*(empty("f") for n in range(4000)), END]), ""),
    "a file and a directory in turn": (
        lambda: iter([*(empty("f", b"05"[n % 2 : n % 2 + 1]) for n in range(1500)), END]), "",
    ),
    "whiteouts": (lambda: iter([*(empty(f".wh.f{n}") for n in range(5000)), END]), ""),
}  # fmt: skip
"""What floods: (the archive in pieces, what is said of it; "": it may be taken)."""


# Bombs


def swelling(size: int, byte: bytes = b"\0") -> Iterator[bytes]:
    """A tar with one file of one byte again and again."""
    info = tarfile.TarInfo("zeros")
    info.size = size
    yield info.tobuf()
    for _ in range(size // MIB):
        yield byte * MIB
    yield bytes(-size % 512) + END


def swelling_behind_the_end(size: int) -> Iterator[bytes]:
    yield SMALL
    for _ in range(size // MIB):
        yield bytes(MIB)


def zstd(pieces: Iterator[bytes]) -> bytes:
    """A frame in which a MiB of zeros takes 32 bytes (RFC 8878, 3.1.1.2: RLE blocks)."""
    out = bytearray(b"\x28\xb5\x2f\xfd\x00" + bytes([7 << 3]))
    for piece in pieces:
        for at in range(0, len(piece), 1 << 17):
            part = piece[at : at + (1 << 17)]
            kind, data = (1, b"\0") if not any(part) else (0, part)
            out += (len(part) << 3 | kind << 1).to_bytes(3, "little") + data
    return bytes(out + (1).to_bytes(3, "little"))


COMPRESSED: dict[str, Callable[[Iterator[bytes]], bytes]] = {
    "plain": b"".join,
    "gzip": lambda pieces: gzip.compress(b"".join(pieces)),
    "bzip2": lambda pieces: bz2.compress(b"".join(pieces)),
    "xz": lambda pieces: lzma.compress(b"".join(pieces), preset=0),
    "zstd": zstd,
}


def xz_with_a_dictionary_of_4_gib() -> bytes:
    """What lzma writes, but for the size of the dictionary in the block's header (xz file format, 5.3.1)."""
    data = bytearray(lzma.compress(SMALL))
    size = (data[12] + 1) * 4
    assert data[14:16] == b"\x21\x01"
    data[16] = 40
    data[12 + size - 4 : 12 + size] = zlib.crc32(data[12 : 12 + size - 4]).to_bytes(4, "little")
    return bytes(data)


def zstd_with_a_window_of_2_gib() -> bytes:
    block = (len(SMALL) << 3 | 1).to_bytes(3, "little")
    return b"\x28\xb5\x2f\xfd\x00" + bytes([21 << 3]) + block + SMALL


# Anything


def names(outside: str) -> st.SearchStrategy[str]:
    """Names that come back in one archive, some of which lead out to the directory ``outside``."""
    part = st.sampled_from(
        ["a", "b", "d", "link", "..", ".", "", "dev", "null", ".wh.a", ".wh..wh..opq", "\u00e9", "x" * 300]
    )
    ready = st.sampled_from(["a", "b", "d", "d/a", "d/b", "link", "link/a", "link/secret", "./a", "a/../../escape"])
    led_out = st.sampled_from([outside, f"{outside}/secret", f"{outside}/new", "../outside", "../outside/secret", "/"])
    return st.one_of(ready, ready, led_out, st.lists(part, min_size=1, max_size=4).map("/".join))


def members(outside: str) -> st.SearchStrategy[list[Member]]:
    types = (
        tarfile.REGTYPE, tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE,
        tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, b"7", b"Z",
    )  # fmt: skip
    one = st.builds(
        lambda name, kind, data, link, mode, owner, device: member(
            name, kind, data if kind in (tarfile.REGTYPE, b"7") else b"", linkname=link, mode=mode, uid=owner,
            devmajor=device, devminor=device,
        ),
        names(outside), st.sampled_from(types), st.binary(max_size=40), names(outside),
        st.sampled_from([0o644, 0o755, 0, 0o7777]), st.sampled_from([0, 1000, 2**31]), st.sampled_from([0, 1, 3, 8]),
    )  # fmt: skip
    return st.lists(one, min_size=1, max_size=8)


@st.composite
def archives(draw: st.DrawFn, outside: str) -> bytes:
    """A tar of any members, often with bytes changed, cut off, or compressed."""
    form = draw(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
    data = bytearray(tar(*draw(members(outside)), format_=form))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 4]))):
        at = draw(st.integers(0, len(data) - 1))
        data[at] = draw(st.integers(0, 255))
        if draw(st.booleans()):  # make the checksum right again
            block = at - at % 512
            data[block + 148 : block + 156] = b" " * 8
            data[block + 148 : block + 156] = b"%06o\0 " % sum(data[block : block + 512])
    if draw(st.sampled_from([False] * 7 + [True])):
        del data[draw(st.integers(0, len(data))) :]
    return COMPRESSED[draw(st.sampled_from(["plain", "plain", "plain", *COMPRESSED]))](iter([bytes(data)]))
