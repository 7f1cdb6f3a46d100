"""A layer goes out as it came in, byte for byte, whatever wrote the tar."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import time
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_house import Member, directory, hardlink, member, needs_root, run, stream, symlink, tar

from dockerd_py.errors import BadArchive, StoreError
from dockerd_py.store.archive import outgoing, skeleton
from dockerd_py.store.archive.client import unpack
from dockerd_py.store.drivers.base import Whiteouts

pytestmark = needs_root

NOT_UTF8 = b"caf\xe9"
LONG = "/".join(["a-directory-with-a-rather-long-name"] * 12)


class House:
    """One layer's directory with its skeleton beside it."""

    def __init__(self, base: Path) -> None:
        self.keep = base / "keep"
        self.target = base / "target"
        self.keep.mkdir()
        self.target.mkdir()
        self.diff_id = ""

    def take(self, data: bytes, whiteouts: Whiteouts = Whiteouts.OVERLAY) -> None:
        self.diff_id = run(unpack(stream(data, 70_000), self.target, whiteouts, keep=self.keep)).diff_id

    def give(self) -> bytes:
        async def collect() -> bytes:
            async with aclosing(outgoing.pack(self.target, self.keep, self.diff_id)) as pieces:
                return b"".join([piece async for piece in pieces])

        return run(collect())

    def there_and_back(self, data: bytes, whiteouts: Whiteouts = Whiteouts.OVERLAY) -> None:
        self.take(data, whiteouts)
        assert self.give() == data
        assert skeleton.archive_size(self.keep) == len(data)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some of everything that a root filesystem may hold."""
    top = tmp_path_factory.mktemp("tree")
    (top / "etc").mkdir(mode=0o750)
    (top / "etc/motd").write_bytes(b"hello\n")
    (top / "empty").touch()
    (top / "block").write_bytes(b"x" * 512)
    (top / "big").write_bytes(os.urandom(700_001))
    (top / LONG).mkdir(parents=True)
    (top / LONG / ("n" * 200)).write_bytes(b"deep")
    (Path(os.fsdecode(os.fsencode(top) + b"/" + NOT_UTF8))).write_bytes(b"latin")
    os.link(top / "etc/motd", top / "etc/same")
    os.symlink("etc/motd", top / "link")
    os.symlink("x" * 300, top / "long-link")
    os.mkfifo(top / "fifo")
    os.chmod(top / "block", 0o4755)
    os.chown(top / "empty", 4_000_000, 70_000)
    os.setxattr(top / "block", "user.note", b"\x00\xffbinary")
    os.utime(top / "empty", ns=(1, 1_234_567_890_123_456_789))
    with open(top / "sparse", "wb") as file:
        for offset in (0, 300_000, 5_000_000):
            file.seek(offset)
            file.write(os.urandom(5000))
        file.truncate(9_000_000)
    with open(top / "many-holes", "wb") as file:
        for number in range(60):
            file.seek(number * 65536)
            file.write(b"%d" % number)
        file.truncate(70 * 65536)
    with open(top / "all-hole", "wb") as file:
        file.truncate(1 << 20)
    return top


GNU = [
    *(["--format=gnu"], ["--format=oldgnu"], ["--format=posix"], ["--format=posix", "--xattrs"]),
    *(["--format=oldgnu", "--sparse"], ["--format=gnu", "--sparse"]),
    *(["--format=posix", "--sparse", f"--sparse-version={version}"] for version in ("0.0", "0.1", "1.0")),
]


@pytest.mark.parametrize("options", GNU, ids=" ".join)
def test_what_gnu_tar_wrote(house: House, tree: Path, options: list[str]) -> None:
    data = subprocess.run(["tar", "-C", tree, *options, "-cf", "-", "."], check=True, capture_output=True).stdout
    house.there_and_back(data)
    assert (house.target / "sparse").read_bytes() == (tree / "sparse").read_bytes()


@pytest.mark.parametrize("format_", ["ustar", "v7"])
def test_what_gnu_tar_wrote_in_an_old_format(house: House, tree: Path, format_: str) -> None:
    command = ["tar", "-C", tree, f"--format={format_}", "-cf", "-", "etc", "block", "big", "link"]
    house.there_and_back(subprocess.run(command, check=True, capture_output=True).stdout)


@pytest.mark.parametrize("blocks", ["1", "300"])
def test_what_gnu_tar_wrote_in_records_of_any_size(house: House, tree: Path, blocks: str) -> None:
    command = ["tar", "-C", tree, "-b", blocks, "-cf", "-", "block", "etc"]
    house.there_and_back(subprocess.run(command, check=True, capture_output=True).stdout)


def test_what_gnu_tar_appended_to(house: House, tree: Path, tmp_path: Path) -> None:
    for action, name in (("-cf", "block"), ("-rf", "etc"), ("-rf", "block")):
        subprocess.run(["tar", "-C", tree, action, tmp_path / "tar", name], check=True)
    house.there_and_back((tmp_path / "tar").read_bytes())


@pytest.mark.parametrize("format_", ["pax", "gnutar", "ustar", "v7tar"])
def test_what_bsdtar_wrote(house: House, tree: Path, format_: str) -> None:
    names = ["."] if format_ in ("pax", "gnutar") else ["etc", "block", "big", "link"]
    command = ["bsdtar", "-C", tree, f"--format={format_}", "-cf", "-", *names]
    house.there_and_back(subprocess.run(command, check=True, capture_output=True).stdout)
    if format_ == "pax":
        assert (house.target / "sparse").read_bytes() == (tree / "sparse").read_bytes()
        assert (house.target / "sparse").stat().st_blocks * 512 < 1 << 20


def test_what_busybox_wrote(house: House, tree: Path) -> None:
    command = ["busybox", "tar", "-C", tree, "-cf", "-", "etc", "block", "big", "link", "fifo", LONG]
    house.there_and_back(subprocess.run(command, check=True, capture_output=True).stdout)


def test_what_we_write_ourselves(house: House, tree: Path) -> None:
    async def collect() -> bytes:
        async with aclosing(outgoing.canonical(tree)) as pieces:
            return b"".join([piece async for piece in pieces])

    house.there_and_back(run(collect()))


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_python_wrote(house: House, tree: Path, format_: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format_, errors="surrogateescape") as archive:
        for name in ("etc", "block", "big", "link", "sparse", "fifo"):
            archive.add(tree / name, name)
        if format_ != tarfile.USTAR_FORMAT:
            archive.add(tree, ".")  # most of it for the second time
    house.there_and_back(buffer.getvalue())


# Headers that no tool on this machine writes, made from the documents that describe them


def block(
    name: bytes, data: bytes = b"", *, magic: bytes = b"ustar\x0000", signed: bool = False, **fields: bytes
) -> bytes:
    """An entry: its header with ``fields`` as they stand, a checksum, and its padded data."""
    places = {
        "mode": (100, b"0000644\0"), "uid": (108, b"0000000\0"), "gid": (116, b"0000000\0"),
        "size": (124, b"%011o\0" % len(data)), "mtime": (136, b"14000000000\0"), "type": (156, b"0"),
        "link": (157, b""), "uname": (265, b""), "gname": (297, b""), "major": (329, b""), "minor": (337, b""),
        "rest": (345, b""),
    }  # fmt: skip
    header = bytearray(512)
    header[: len(name)] = name
    header[257 : 257 + len(magic)] = magic
    for key, (place, value) in places.items():
        value = fields.get(key, value)
        header[place : place + len(value)] = value
    header[148:156] = b" " * 8
    total = sum(each - 256 if signed and each > 127 else each for each in header)
    header[148:156] = b"%06o\0 " % total
    return bytes(header) + data + bytes(-len(data) % 512)


def pax(*records: tuple[str, bytes], type_: bytes = b"x") -> bytes:
    body = b""
    for key, value in records:
        rest = len(key) + len(value) + 3
        length = next(each for each in range(rest, rest + 9) if each == rest + len(str(each)))
        body += b"%d %b=%b\n" % (length, key.encode(), value)
    return block(b"PaxHeaders.0/x", body, type=type_)


def base256(number: int, size: int) -> bytes:
    """GNU's and star's number in binary: the first bit is set."""
    raw = bytearray(number.to_bytes(size, "big", signed=True))
    raw[0] |= 0x80
    return bytes(raw)


END = bytes(1024)
DATA = b"contents " * 100

BY_HAND = {
    "seventh edition Unix": [
        block(b"d/", magic=b"", type=b"\0", mode=b"   755 \0", uid=b"     0 \0", gid=b"     0 \0"),
        block(b"d/f", DATA, magic=b"", type=b"\0", size=b"%11o " % len(DATA)),
        block(b"d/hard", magic=b"", type=b"1", link=b"d/f"),
        block(b"d/soft", magic=b"", type=b"2", link=b"f"),
    ],
    "star": [
        block(b"f", DATA, rest=b"p/q".ljust(131, b"\0") + b"14000000001 14000000002 " + bytes(8) + b"tar\0"),
        block(b"g", DATA, rest=bytes(131) + b"14000000001 14000000002 " + bytes(8) + b"tar\0"),
    ],
    "a checksum of signed bytes": [block(b"caf\xe9", DATA, signed=True)],
    "GNU's long names": [
        block(b"././@LongLink", b"n" * 150 + b"/" + b"m" * 180 + b"\0", magic=b"ustar  \0", type=b"L"),
        block(b"n" * 100, DATA, magic=b"ustar  \0"),
        block(b"././@LongLink", b"t" * 300 + b"\0", magic=b"ustar  \0", type=b"K"),
        block(b"link", magic=b"ustar  \0", type=b"2", link=b"t" * 100),
    ],
    "numbers in binary": [
        block(b"f", DATA, magic=b"ustar  \0", size=base256(len(DATA), 12), uid=base256(4_000_000_000, 8),
              gid=base256(70_000, 8), mtime=base256(-1_500, 12)),
    ],
    "numbers with odd ends": [
        block(b"f", DATA, mode=b"100644 \0", uid=b"      0\0", gid=b"0\0\0\0\0\0\0\0", size=b"%012o" % len(DATA)),
    ],
    "a global header": [
        pax(("comment", b"1f2e3d"), ("mtime", b"1600000000.25"), type_=b"g"), block(b"f", DATA),
        pax(("mtime", b"1.5")), block(b"g", DATA), pax(("mtime", b""), type_=b"g"), block(b"h", DATA),
    ],
    "names in another character set": [
        pax(("hdrcharset", b"BINARY"), ("path", b"caf\xe9/\xff")), block(b"caf_", DATA),
        pax(("hdrcharset", b"ISO-IR 10646 2000 UTF-8"), ("path", "grün".encode())), block(b"gr_n", DATA),
    ],
    "as Go writes it": [
        pax(("atime", b"1600000000.5"), ("ctime", b"1600000000.25"), ("mtime", b"1600000000.123456789"),
            ("path", b"n" * 120), ("SCHILY.xattr.security.capability", bytes.fromhex("0100000200040000" + "00" * 12))),
        block(b"n" * 100, DATA, mode=b"0100644\0", uname=b"root", gname=b"root", major=b"0000000\0",
              minor=b"0000000\0"),
        block(b"dev/", mode=b"0040755\0", type=b"5"),
    ],
    "a contiguous file": [block(b"f", DATA, type=b"7")],
    "a size in two places": [pax(("size", b"%d" % len(DATA))), block(b"f", DATA, size=b"00000000000\0")],
    "unknown records": [pax(("LIBARCHIVE.creationtime", b"1.5"), ("SCHILY.fflags", b"nodump")), block(b"f", DATA)],
}  # fmt: skip


@pytest.mark.parametrize("whiteouts", list(Whiteouts))
@pytest.mark.parametrize("entries", BY_HAND.values(), ids=list(BY_HAND))
@pytest.mark.parametrize(
    "end",
    [END, END + bytes(9216), END + b"garbage", END + block(b"more", DATA) + END, bytes(512)],
    ids=["end", "blocking factor", "garbage", "another archive", "half an end"],
)
def test_what_is_written_by_others(house: House, entries: list[bytes], end: bytes, whiteouts: Whiteouts) -> None:
    house.there_and_back(b"".join(entries) + end, whiteouts)


def test_what_others_wrote_is_understood(tmp_path: Path) -> None:
    made = {}
    for name, entries in BY_HAND.items():
        (tmp_path / name).mkdir()
        made[name] = House(tmp_path / name)
        made[name].take(b"".join(entries) + END)
    unix = made["seventh edition Unix"].target
    assert (unix / "d/f").samefile(unix / "d/hard")
    assert os.readlink(unix / "d/soft") == "f"
    assert (made["star"].target / "p/q/f").read_bytes() == (made["star"].target / "g").read_bytes() == DATA
    assert (made["GNU's long names"].target / ("n" * 150) / ("m" * 180)).read_bytes() == DATA
    assert os.readlink(made["GNU's long names"].target / "link") == "t" * 300
    info = (made["numbers in binary"].target / "f").stat()
    assert (info.st_uid, info.st_gid, info.st_mtime, info.st_size) == (4_000_000_000, 70_000, -1500, len(DATA))
    times = [(made["a global header"].target / name).stat().st_mtime for name in "fgh"]
    assert times[:2] == [1_600_000_000.25, 1.5]
    names = os.listdir(os.fsencode(made["names in another character set"].target))
    assert sorted(names) == [b"caf\xe9", "grün".encode()]
    go = made["as Go writes it"].target / ("n" * 120)
    assert go.stat().st_mtime_ns == 1_600_000_000_123_456_789
    assert os.getxattr(go, "security.capability").startswith(b"\1\0\0\2")
    assert (made["a size in two places"].target / "f").read_bytes() == DATA


def test_a_compressed_archive_goes_out_plain(house: House) -> None:
    data = tar(member("f", data=b"x" * 1000))
    house.take(gzip.compress(data))
    assert house.give() == data


def test_an_archive_of_nothing(house: House) -> None:
    house.there_and_back(bytes(1024))


def test_what_follows_the_end_comes_out_again(house: House) -> None:
    house.there_and_back(tar(member("f", data=b"1")) + os.urandom(300_000))


def test_padding_that_is_not_zero_comes_out_again(house: House) -> None:
    data = bytearray(tar(member("f", data=b"x" * 10)))
    data[600:1024] = b"!" * 424
    house.there_and_back(bytes(data))


@pytest.mark.parametrize("whiteouts", list(Whiteouts))
def test_whiteouts_with_and_without_contents(house: House, whiteouts: Whiteouts) -> None:
    house.there_and_back(
        tar(
            directory("d"),
            member("d/.wh..wh..opq"),
            member("d/.wh.gone", data=b"nobody reads this"),
            member(".wh..wh.plnk", data=b"nor this"),
        ),
        whiteouts,
    )


REPLACED: dict[str, list[Member]] = {
    "file by file": [member("f", data=b"1" * 600), member("f", data=b"2"), member("f", data=b"3" * 9000)],
    "file by link": [member("f", data=b"1" * 600), symlink("f", "g"), member("f", data=b"2")],
    "directory by file": [
        directory("d"),
        member("d/x", data=b"1" * 600),
        member("d/e/y", data=b"2" * 600),
        hardlink("d/z", "d/x"),
        symlink("d/s", "x"),
        member("d", data=b"3"),
        member("after", data=b"4"),
    ],
    "file by hard link": [member("f", data=b"1"), member("g", data=b"2"), hardlink("f", "g")],
    "linked file by file": [member("f", data=b"1"), hardlink("g", "f"), member("f", data=b"2"), member("g", data=b"3")],
    "another spelling": [member("d/f", data=b"1"), member("./d//f", data=b"2")],
    "through a link": [directory("d"), symlink("l", "d"), member("d/f", data=b"1"), member("l/f", data=b"2")],
}


@pytest.mark.parametrize("whiteouts", list(Whiteouts))
@pytest.mark.parametrize("members", REPLACED.values(), ids=list(REPLACED))
def test_contents_that_a_later_entry_replaced_come_out_again(
    house: House, members: list[Member], whiteouts: Whiteouts
) -> None:
    house.there_and_back(tar(*members), whiteouts)


def test_a_sparse_file_that_is_replaced_comes_out_again(house: House, tree: Path) -> None:
    command = ["tar", "-C", tree, "--format=posix", "--sparse", "-cf", "-", "sparse", "etc/motd"]
    once = subprocess.run(command, check=True, capture_output=True).stdout
    entries = once.rstrip(b"\0")
    entries += bytes(-len(entries) % 512)
    house.there_and_back(entries + once)


def test_contents_replaced_many_times_are_kept_once_each(house: House) -> None:
    members = [member("big", data=b"x" * 100_000)]
    members += [hardlink("l", "big") for _ in range(50)]
    house.there_and_back(tar(*members))
    assert not (house.keep / skeleton.REPLACED).exists()


def test_a_file_beyond_eight_gigabytes_of_holes(house: House, tmp_path: Path) -> None:
    with open(tmp_path / "huge", "wb") as file:
        file.seek(9 << 30)
        file.write(b"end")
    command = ["tar", "-C", tmp_path, "--format=posix", "--sparse", "-cf", "-", "huge"]
    house.there_and_back(subprocess.run(command, check=True, capture_output=True).stdout)


NAMES = st.sampled_from(
    ["a", "b", "a/x", "a/y", "b/x", "a/b/x", "l/x", "l", "./a", ".wh.a", "a/.wh.x", "a/.wh..wh..opq"]
)


@st.composite
def members_of_an_archive(draw: st.DrawFn) -> Member:
    name = draw(NAMES)
    kind = draw(st.sampled_from(["file", "file", "file", "directory", "link", "hard link"]))
    if kind == "directory":
        return directory(name)
    if kind == "link":
        return symlink(name, draw(st.sampled_from(["a", "b", "x"])))
    if kind == "hard link":
        return hardlink(name, draw(NAMES))
    return member(name, data=draw(st.binary(max_size=1500)))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(members=st.lists(members_of_an_archive(), max_size=14), whiteouts=st.sampled_from(list(Whiteouts)))
def test_whatever_can_be_unpacked_comes_out_again(tmp_path: Path, members: list[Member], whiteouts: Whiteouts) -> None:
    base = tmp_path / os.urandom(4).hex()
    base.mkdir()
    with contextlib.suppress(BadArchive):
        House(base).there_and_back(tar(*members), whiteouts)
    shutil.rmtree(base)


def test_the_skeleton_of_many_small_files_is_small(house: House) -> None:
    data = tar(*(member(f"usr/share/file-{number}", data=b"x" * 100) for number in range(2000)))
    house.there_and_back(data)
    assert (house.keep / skeleton.SKELETON).stat().st_size < len(data) / 30


def altered(house: House) -> str:
    with pytest.raises(StoreError) as caught:
        house.give()
    return str(caught.value)


ARCHIVE = tar(member("d/f", data=b"contents" * 1000), member("g", data=b"untouched"))


def test_a_file_that_was_changed_is_named(house: House) -> None:
    house.take(ARCHIVE)
    path = house.target / "d/f"
    before = path.stat()
    time.sleep(0.05)  # a change is known by its time, which has the resolution of the kernel's clock tick
    with open(path, "r+b") as file:
        file.write(b"C")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "d/f changed since" in altered(house)
    assert house.diff_id in altered(house)


def test_a_file_that_was_cut_short_is_named(house: House) -> None:
    house.take(ARCHIVE)
    os.truncate(house.target / "d/f", 5)
    assert "d/f is shorter than when it came in" in altered(house)


@pytest.mark.parametrize("other", ["nothing", "link", "fifo"])
def test_a_file_that_is_none_any_more_is_named(house: House, other: str) -> None:
    house.take(ARCHIVE)
    path = house.target / "d/f"
    path.unlink()
    if other == "link":
        path.symlink_to("../g")
    elif other == "fifo":
        os.mkfifo(path)
    assert "d/f" in altered(house)


def test_a_link_that_leads_out_is_not_followed(house: House) -> None:
    outside = house.target.parent / "outside"
    outside.mkdir()
    (outside / "f").write_bytes(b"contents" * 1000)
    house.take(ARCHIVE)
    shutil.rmtree(house.target / "d")
    (house.target / "d").symlink_to(outside)
    assert "d/f" in altered(house)


def test_a_damaged_skeleton_is_an_error(house: House) -> None:
    house.take(ARCHIVE)
    path = house.keep / skeleton.SKELETON
    data = path.read_bytes()
    for broken in (b"", data[:40], data[:-30], data[:16] + b"\0" * 50, b"x" + data[1:]):
        path.write_bytes(broken)
        assert "damaged" in altered(house)
    path.unlink()
    assert "nothing was kept" in altered(house)


def test_a_reader_that_leaves_ends_the_helper(house: House) -> None:
    house.take(tar(member("big", data=os.urandom(8 << 20))))

    async def read_a_little() -> None:
        async with aclosing(outgoing.pack(house.target, house.keep, house.diff_id)) as pieces:
            async for _piece in pieces:
                return

    run(read_a_little())
    mine = [path for path in Path("/proc").glob("[0-9]*/cmdline") if os.fsencode(house.target) in _read(path)]
    assert mine == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_the_archive_is_the_one_that_the_digest_names(house: House) -> None:
    house.take(ARCHIVE)
    assert "sha256:" + hashlib.sha256(house.give()).hexdigest() == house.diff_id
