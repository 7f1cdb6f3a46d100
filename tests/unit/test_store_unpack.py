"""Unpacking: what an archive holds arrives; a hostile archive gets an error and reaches nothing else."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import hashlib
import io
import lzma
import os
import shutil
import stat
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest
from daemons import until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_house import SMALL, directory, hardlink, helpers, member, needs_root, run, stream, symlink, tar, tree

from dockerd_py.errors import BadArchive, StoreError
from dockerd_py.store.archive.client import Unpacked, unpack
from dockerd_py.store.drivers.base import Whiteouts

pytestmark = needs_root

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw+ep


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "target"
    path.mkdir()
    return path


def extract(data: bytes, target: Path, whiteouts: Whiteouts = Whiteouts.OVERLAY) -> Unpacked:
    return run(unpack(stream(data), target, whiteouts))


def refused(data: bytes, target: Path, match: str) -> None:
    with pytest.raises(BadArchive, match=match):
        extract(data, target)


# What arrives


def test_the_answer_names_the_diff_id_the_size_and_the_number_of_entries(target: Path) -> None:
    result = extract(SMALL, target)
    assert result == Unpacked("sha256:" + hashlib.sha256(SMALL).hexdigest(), 6, 2, len(SMALL))
    assert (target / "etc/motd").read_bytes() == b"hello\n"


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress], ids=["gzip", "bzip2", "xz"])
def test_a_compressed_archive_has_the_diff_id_of_the_plain_one(target: Path, compress: object) -> None:
    assert callable(compress)
    assert extract(compress(SMALL), target).diff_id == "sha256:" + hashlib.sha256(SMALL).hexdigest()


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress], ids=["gzip", "bzip2", "xz"])
def test_an_archive_in_several_compressed_members_is_one_archive(target: Path, compress: object) -> None:
    assert callable(compress)
    data = compress(SMALL[:700]) + compress(SMALL[700:])
    assert extract(data, target).diff_id == "sha256:" + hashlib.sha256(SMALL).hexdigest()


def test_a_zstd_archive_is_unpacked(target: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    data = zstandard.ZstdCompressor().compress(SMALL[:700]) + zstandard.ZstdCompressor().compress(SMALL[700:])
    assert extract(data, target).diff_id == "sha256:" + hashlib.sha256(SMALL).hexdigest()


def test_a_stream_of_single_bytes_is_unpacked(target: Path) -> None:
    assert run(unpack(stream(gzip.compress(SMALL), 1), target, Whiteouts.OVERLAY)).entries == 2


def test_what_follows_the_end_of_the_archive_counts_into_the_diff_id(target: Path) -> None:
    data = SMALL + b"trailing garbage" * 100
    assert extract(data, target).diff_id == "sha256:" + hashlib.sha256(data).hexdigest()


def test_modes_owners_and_special_bits_arrive(target: Path) -> None:
    extract(
        tar(
            directory("tmp", mode=0o1777),
            member("su", mode=0o4755, uid=0, gid=5),
            member("big-owner", uid=100_000, gid=4_000_000_000),
            member("fifo", tarfile.FIFOTYPE, mode=0o622),
        ),
        target,
    )
    assert stat.S_IMODE((target / "tmp").stat().st_mode) == 0o1777
    su = (target / "su").stat()
    assert (stat.S_IMODE(su.st_mode), su.st_uid, su.st_gid) == (0o4755, 0, 5)
    big = (target / "big-owner").stat()
    assert (big.st_uid, big.st_gid) == (100_000, 4_000_000_000)
    fifo = (target / "fifo").stat()
    assert stat.S_ISFIFO(fifo.st_mode)
    assert stat.S_IMODE(fifo.st_mode) == 0o622


def test_a_file_in_a_directory_with_the_set_group_id_bit_keeps_its_own_group(target: Path) -> None:
    extract(tar(directory("d", mode=0o2755, gid=7), member("d/f", gid=0), directory("d/e", gid=0)), target)
    assert (target / "d/f").stat().st_gid == 0
    assert (target / "d/e").stat().st_gid == 0
    assert stat.S_IMODE((target / "d/e").stat().st_mode) == 0o755


def test_the_entry_for_the_root_sets_the_roots_mode_and_owner(target: Path) -> None:
    extract(tar(directory("./", mode=0o751, uid=3), member("./f")), target)
    assert (stat.S_IMODE(target.stat().st_mode), target.stat().st_uid) == (0o751, 3)


def test_times_arrive_to_the_nanosecond_also_those_of_directories(target: Path) -> None:
    extract(
        tar(
            directory("d", pax_headers={"mtime": "1500000000.123456789"}),
            member("d/f", data=b"x", pax_headers={"mtime": "-1.5"}),
            member("d/later"),
        ),
        target,
    )
    assert (target / "d").stat().st_mtime_ns == 1_500_000_000_123_456_789
    assert (target / "d/f").stat().st_mtime_ns == -1_500_000_000


def test_xattrs_arrive_exactly(target: Path) -> None:
    text = CAPABILITY.decode("utf-8", "surrogateescape")
    extract(
        tar(
            member("ping", data=b"x", pax_headers={"SCHILY.xattr.security.capability": text}),
            directory("d", pax_headers={"SCHILY.xattr.user.note": "a=b\nc"}),
        ),
        target,
    )
    assert os.getxattr(target / "ping", "security.capability") == CAPABILITY
    assert os.getxattr(target / "d", "user.note") == b"a=b\nc"


def test_hard_links_are_one_file(target: Path) -> None:
    result = extract(
        tar(directory("a"), member("a/one", data=b"123"), hardlink("two", "a/one"), hardlink("a/three", "./two")),
        target,
    )
    assert (target / "a/one").stat().st_nlink == 3
    assert (target / "a/one").samefile(target / "a/three")
    assert result.size == 3


def test_names_that_are_no_utf8_and_names_beyond_255_bytes_arrive(target: Path) -> None:
    odd = b"caf\xe9\xff".decode("utf-8", "surrogateescape")
    deep = "/".join(["d" * 100] * 5)
    extract(tar(member(odd, data=b"1"), member(f"{deep}/f", data=b"2"), format_=tarfile.GNU_FORMAT), target)
    assert (os.fsencode(target) + b"/caf\xe9\xff") in [os.fsencode(path) for path in target.iterdir()]
    assert (target / deep / "f").read_bytes() == b"2"


@pytest.mark.parametrize(
    "how", ["--format=gnu", "--format=posix --sparse-version=0.0", "--format=posix --sparse-version=0.1",
            "--format=posix --sparse-version=1.0"],
)  # fmt: skip
def test_sparse_files_of_gnu_tar_arrive_with_their_holes(tmp_path: Path, target: Path, how: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with (source / "holes").open("wb") as file:
        for offset in (5 << 20, 9 << 20, 20 << 20):
            file.seek(offset)
            file.write(b"data at %d" % offset)
        file.truncate(64 << 20)
    (source / "after").write_bytes(b"next entry")
    data = subprocess.run(
        ["tar", "-C", source, "-cS", *how.split(), "holes", "after"], check=True, stdout=subprocess.PIPE,
    ).stdout
    extract(data, target)
    assert subprocess.run(["cmp", source / "holes", target / "holes"], check=False).returncode == 0
    assert (target / "holes").stat().st_blocks * 512 < 1 << 20
    assert (target / "after").read_bytes() == b"next entry"


def test_a_tree_packed_by_gnu_tar_comes_back_the_same(tmp_path: Path, target: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree("/etc", source, symlinks=True, ignore_dangling_symlinks=True)
    data = subprocess.run(["tar", "-C", source, "-c", "."], check=True, stdout=subprocess.PIPE).stdout
    extract(data, target)
    compared = subprocess.run(
        ["diff", "-r", "--no-dereference", source, target], check=False, capture_output=True, text=True,
    )
    assert compared.returncode == 0, compared.stdout
    assert tree(source) == tree(target)


def test_missing_parents_are_made(target: Path) -> None:
    extract(tar(member("a/b/c", data=b"x")), target)
    assert (target / "a/b/c").read_bytes() == b"x"
    assert stat.S_IMODE((target / "a").stat().st_mode) == 0o755


def test_a_later_entry_of_the_same_name_wins(target: Path) -> None:
    extract(
        tar(
            member("f", data=b"first"),
            member("f", data=b"second"),
            directory("d"),
            member("d/in", data=b"x"),
            member("d", data=b"now a file"),
            symlink("s", "f"),
            directory("s"),
            member("s/in", data=b"y"),
        ),
        target,
    )
    assert (target / "f").read_bytes() == b"second"
    assert (target / "d").read_bytes() == b"now a file"
    assert not (target / "s").is_symlink()
    assert (target / "s/in").read_bytes() == b"y"


def test_a_relative_link_that_stays_inside_is_followed(target: Path) -> None:
    extract(
        tar(directory("usr/bin"), symlink("bin", "usr/bin"), member("bin/sh", data=b"#!"), symlink("usr/up", "../usr"),
            member("usr/up/bin/ls", data=b"ls")),
        target,
    )  # fmt: skip
    assert (target / "usr/bin/sh").read_bytes() == b"#!"
    assert (target / "usr/bin/ls").read_bytes() == b"ls"


def test_symbolic_links_are_made_as_they_are_wherever_they_point(target: Path) -> None:
    extract(tar(symlink("mtab", "/proc/mounts"), symlink("up", "../../../..")), target)
    assert os.readlink(target / "mtab") == "/proc/mounts"
    assert os.readlink(target / "up") == "../../../.."


def test_the_devices_of_every_root_filesystem_are_made(target: Path) -> None:
    extract(tar(directory("dev"), member("dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)), target)
    info = (target / "dev/null").stat()
    assert stat.S_ISCHR(info.st_mode)
    assert info.st_rdev == os.makedev(1, 3)
    assert stat.S_IMODE(info.st_mode) == 0o666


@pytest.mark.parametrize("whiteouts", list(Whiteouts))
def test_devices_are_made_wherever_they_are(target: Path, whiteouts: Whiteouts) -> None:
    members = [member("srv/sda", tarfile.BLKTYPE, devmajor=8, devminor=1_048_575, mode=0o660, uid=3, gid=6)]
    if whiteouts is not Whiteouts.OVERLAY:
        # Like all that has no meaning there, this is a device like any.
        members += [member("zero", tarfile.CHRTYPE, devmajor=0, devminor=0), hardlink("same", "zero"), member("zero/x")]
        with pytest.raises(BadArchive, match="zero is in the archive already, and is no directory"):
            extract(tar(*members), target, whiteouts)
        members.pop()
    extract(tar(*members), target, whiteouts)
    info = (target / "srv/sda").lstat()
    assert stat.S_ISBLK(info.st_mode)
    assert (info.st_rdev, info.st_uid, stat.S_IMODE(info.st_mode)) == (os.makedev(8, 1_048_575), 3, 0o660)
    if whiteouts is not Whiteouts.OVERLAY:
        assert (target / "zero").lstat().st_rdev == 0
        assert (target / "zero").samefile(target / "same")


def test_long_zeros_become_holes(target: Path) -> None:
    data = os.urandom(5000) + bytes(6 << 20) + b"x" + bytes(3 << 20)
    extract(tar(member("f", data=data), member("z", data=bytes(5 << 20)), member("short", data=bytes(4000))), target)
    assert (target / "f").read_bytes() == data
    assert (target / "z").read_bytes() == bytes(5 << 20)
    assert (target / "f").stat().st_blocks * 512 < 2 << 20
    assert (target / "z").stat().st_blocks == 0


# Whiteouts


def test_whiteouts_become_overlays_own(target: Path) -> None:
    extract(tar(directory("d"), member("d/.wh.gone"), directory("o"), member("o/.wh..wh..opq")), target)
    info = (target / "d/gone").lstat()
    assert stat.S_ISCHR(info.st_mode)
    assert info.st_rdev == 0
    assert os.getxattr(target / "o", "trusted.overlay.opaque") == b"y"
    assert tree(target) == {"d", "d/gone", "o"}


@pytest.mark.parametrize("whiteouts", list(Whiteouts))
def test_the_bookkeeping_of_aufs_is_left_out(target: Path, whiteouts: Whiteouts) -> None:
    extract(
        tar(
            directory(".wh..wh.plnk"), member(".wh..wh.plnk/1.2", data=b"x"), member(".wh..wh.aufs"),
            directory(".wh..wh.orph"), member(".wh..wh.orph/3", data=b"y"), member("d/.wh..wh.odd/f"), member("f"),
        ),
        target,
        whiteouts,
    )  # fmt: skip
    assert tree(target) == {"f"}


@pytest.mark.parametrize("whiteouts", list(Whiteouts))
def test_links_to_aufss_pseudo_links_are_one_file(target: Path, whiteouts: Whiteouts) -> None:
    """Layers that the first year's daemon made on aufs have them."""
    extract(
        tar(
            directory(".wh..wh.plnk"), member(".wh..wh.plnk/917.43", data=b"data", mode=0o4755), member(".wh..wh..opq"),
            hardlink("bin/one", ".wh..wh.plnk/917.43"), hardlink("bin/two", "./.wh..wh.plnk/917.43"),
        ),
        target,
        whiteouts,
    )  # fmt: skip
    assert tree(target) - {".wh..wh..opq"} == {"bin", "bin/one", "bin/two"}
    assert (target / "bin/one").read_bytes() == b"data"
    assert (target / "bin/one").samefile(target / "bin/two")
    info = (target / "bin/one").stat()
    assert (stat.S_IMODE(info.st_mode), info.st_nlink) == (0o4755, 2)


def test_a_directory_that_comes_after_its_whiteout_hides_what_was_below(target: Path) -> None:
    extract(tar(member(".wh.d"), directory("d"), member("d/new")), target)
    assert os.getxattr(target / "d", "trusted.overlay.opaque") == b"y"


def test_whiteouts_applied_take_away_the_parents_files_and_none_of_this_archives(target: Path) -> None:
    extract(tar(directory("d"), member("d/old"), member("d/stays"), directory("o/deep"), member("o/old")), target)
    extract(
        tar(member("d/.wh.old"), directory("o"), member("o/new", data=b"n"), member("o/.wh..wh..opq"), member("x"),
            member(".wh.x")),
        target,
        Whiteouts.APPLY,
    )  # fmt: skip
    assert tree(target) == {"d", "d/stays", "o", "o/new", "x"}


def test_an_archive_without_an_entry_unpacks_to_nothing(target: Path) -> None:
    assert extract(bytes(1024), target).entries == 0
    assert tree(target) == set()


# Archives that are broken


def test_an_empty_input_is_no_archive(target: Path) -> None:
    refused(b"", target, "the archive is empty")


@pytest.mark.parametrize("data", [b"no tar at all" * 1000, b"short", os.urandom(5000)])
def test_something_else_is_no_archive(target: Path, data: bytes) -> None:
    refused(data, target, "no tar archive")


def test_an_archive_cut_off_inside_a_file_is_truncated(target: Path) -> None:
    data = tar(member("big", data=b"x" * 100_000))
    refused(data[:50_000], target, "truncated: it ends inside big")


def test_an_archive_cut_off_between_entries_is_truncated(target: Path) -> None:
    refused(tar(member("a", data=b"x" * 512), member("b"))[:1024], target, "truncated: it ends without an end")


def test_an_archive_cut_off_inside_a_header_is_truncated(target: Path) -> None:
    refused(tar(member("a"), member("b"))[:700], target, "truncated: it ends inside a header")


def test_a_compressed_archive_cut_off_is_truncated(target: Path) -> None:
    refused(gzip.compress(SMALL)[:-20], target, "truncated")
    refused(lzma.compress(SMALL)[:-40], target, "truncated")
    refused(bz2.compress(SMALL)[:-20], target, "truncated")


def test_compressed_data_that_is_damaged_says_so(target: Path) -> None:
    data = bytearray(gzip.compress(os.urandom(2000)))
    data[100] ^= 0xFF
    refused(bytes(data), target, "damaged|no tar archive")


def test_damage_in_the_middle_is_not_taken_for_the_end(target: Path) -> None:
    data = bytearray(tar(member("a", data=b"1" * 512), member("b", data=b"2")))
    data[1024 + 148] ^= 0x3F  # the checksum of b's header
    refused(bytes(data), target, "damaged at byte 1024")


# Archives that mean harm

OUTSIDE = [
    ("a name that goes up", [member("../escape", data=b"x")], r'escape has "\.\." in it'),
    ("a name that goes up later", [member("a/../../escape", data=b"x")], r'has "\.\." in it'),
    ("an absolute name", [member("/etc/escape", data=b"x")], "/etc/escape is an absolute path"),
    ("an absolute directory", [directory("//escape")], "is an absolute path"),
    ("a hard link that goes up", [hardlink("a", "../../../etc/passwd")], r'a: hard link to .* has "\.\." in it'),
    ("an absolute hard link", [hardlink("a", "/etc/passwd")], "a: hard link to /etc/passwd is an absolute path"),
    ("a hard link to nothing", [hardlink("a", "b")], "a: hard link to b, which the archive has not brought"),
    ("a hard link to a directory", [directory("d"), hardlink("a", "d")], "which is no file"),
    ("a hard link into what it replaces", [member("a/b"), hardlink("a", "a/b")], "in the directory that it replaces"),
    ("a hard link to the root", [hardlink("a", ".")], "hard link to the root"),
    ("a write through an absolute link", [symlink("a", "/tmp"), member("a/escape", data=b"x")],
     "a/escape: a on its way is a symbolic link to /tmp, which leads out"),
    ("a write through a link to the root", [symlink("a", "/"), member("a/escape")], "leads out"),
    ("a write through a link that goes up", [directory("d"), symlink("d/a", "../../x"), member("d/a/escape")],
     "leads out"),
    ("a hard link through a link", [symlink("a", "/etc"), hardlink("b", "a/passwd")], "b: a on its way .* leads out"),
    ("a directory swapped for a link", [directory("d"), member("d/f"), symlink("d", "/tmp"), member("d/escape")],
     "d/escape: d on its way is a symbolic link to /tmp"),
    ("links that go round", [symlink("a", "b"), symlink("b", "a"), member("a/f")], "too many"),
    ("a device that overlayfs takes for a whiteout", [member("d/zero", tarfile.CHRTYPE, devmajor=0, devminor=0)],
     "d/zero: a character device 0:0"),
    ("a device beyond all numbers", [member("d", tarfile.BLKTYPE, devmajor=4096, devminor=0)], "4096:0 is out of"),
    ("a file in a whiteout", [member(".wh.d/f")], r"\.wh\.d is a whiteout's name"),
    ("a hard link to no pseudo-link", [member(".wh..wh.plnk/1.2"), hardlink("f", ".wh..wh.plnk/3.4")], "not brought"),
    ("an attribute of overlayfs", [directory("d", pax_headers={"SCHILY.xattr.trusted.overlay.redirect": "/.."})],
     "trusted.overlay.redirect would steer"),
    ("a whiteout of the parent", [member("d/.wh..")], "a whiteout of nothing"),
    ("a file where a directory has to be", [member("f", data=b"x"), member("f/g")], "f is in the archive already"),
    ("an owner beyond the file system", [member("f", uid=2**32)], "out of range"),
    ("a time beyond all", [member("f", pax_headers={"mtime": "99999999999999"})], "out of range"),
    ("a name too long", [member("n" * 300)], "name too long"),
    ("a root that is a file", [member("./")], "can only be a directory"),
]  # fmt: skip


@pytest.mark.parametrize(("members", "match"), [case[1:] for case in OUTSIDE], ids=[case[0] for case in OUTSIDE])
def test_a_hostile_archive_is_refused_by_the_name_of_its_entry(
    tmp_path: Path, target: Path, members: list[tuple[tarfile.TarInfo, bytes]], match: str,
) -> None:
    with pytest.raises(BadArchive, match="(?i)" + match):
        extract(tar(member("harmless"), *members), target)
    assert {path.name for path in tmp_path.iterdir()} == {"target"}
    assert not any(Path(place, "escape").exists() for place in ("/tmp", "/", "/etc"))


def test_an_extended_header_of_hostile_size_is_refused_without_reading_it(target: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type = tarfile.XHDTYPE
    info.size = 8 << 30
    refused(info.tobuf(tarfile.GNU_FORMAT) + b"0" * 100_000, target, "extended header of 8589934592 bytes")


def test_a_flood_of_global_headers_is_refused(target: Path) -> None:
    flood = b"".join(
        tarfile.TarInfo.create_pax_global_header({f"k{number}": "v"}) for number in range(1100)
    )
    refused(flood + SMALL, target, "too many (global )?headers")


def test_a_flood_of_headers_for_one_entry_is_refused(target: Path) -> None:
    header = tarfile.TarInfo("x").create_pax_header  # one pax header before each
    one = header(tarfile.TarInfo("y" * 120).get_info(), "utf-8")[:1024]
    refused(one * 3000 + SMALL, target, "too many headers|damaged")


def test_a_huge_sparse_claim_takes_no_space(target: Path) -> None:
    info, _ = member("huge", pax_headers={"GNU.sparse.map": "0,4", "GNU.sparse.size": str(1 << 40),
                                           "GNU.sparse.name": "huge", "GNU.sparse.numblocks": "1"})  # fmt: skip
    info.size = 4
    try:
        extract(tar((info, b"data")), target)
    except BadArchive:
        return  # a file system that holds no such file
    assert (target / "huge").stat().st_size == 1 << 40
    assert (target / "huge").stat().st_blocks < 100


def test_a_map_of_holes_that_goes_backwards_is_refused(target: Path) -> None:
    info, _ = member("f", pax_headers={"GNU.sparse.map": "8,4,0,4", "GNU.sparse.size": "100", "GNU.sparse.name": "f"})
    info.size = 8
    refused(tar((info, b"datadata")), target, "map of holes")


def test_a_compression_bomb_does_not_fill_memory(target: Path) -> None:
    inner = io.BytesIO()
    with gzip.GzipFile(fileobj=inner, mode="wb", compresslevel=9) as file:
        header = tarfile.TarInfo("zeros")
        header.size = 1 << 30
        header.mode = 0o644
        file.write(header.tobuf())
        for _ in range(64):
            file.write(bytes(1 << 20))
    before = peak_of_children()
    refused(inner.getvalue(), target, "truncated: it ends inside zeros")
    assert peak_of_children() - before < 200 << 20


def peak_of_children() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_an_archive_with_any_bytes_changed_is_unpacked_or_refused_and_stays_inside(
    tmp_path: Path, data: st.DataObject,
) -> None:
    whole = bytearray(
        tar(
            directory("d"),
            member("d/f", data=b"x" * 700),
            symlink("d/s", "../.."),
            hardlink("h", "d/f"),
            member("long" * 60, data=b"y", pax_headers={"SCHILY.xattr.user.a": "b"}),
        ),
    )
    for _ in range(data.draw(st.integers(1, 8))):
        position = data.draw(st.integers(0, len(whole) - 1))
        whole[position] = data.draw(st.integers(0, 255))
        block = position - position % 512
        if data.draw(st.booleans()):  # make the checksum right again
            header = whole[block : block + 512]
            header[148:156] = b" " * 8
            whole[block + 148 : block + 156] = b"%06o\0 " % sum(header)
    target = tmp_path / "target"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    outside = tree(tmp_path) - tree(target)
    try:
        extract(bytes(whole), target)
    except BadArchive:
        pass
    assert {name for name in tree(tmp_path) if not name.startswith("target")} | {"target"} >= outside
    assert {path.name for path in tmp_path.iterdir()} == {"target"}


# Failures around it


def test_a_source_that_fails_ends_the_helper(target: Path) -> None:
    async def broken() -> object:
        yield SMALL[:600]
        raise ConnectionError("the client went away")

    with pytest.raises(ConnectionError):
        run(unpack(broken(), target, Whiteouts.OVERLAY))  # type: ignore[arg-type]


def test_a_helper_that_is_killed_is_an_error(target: Path) -> None:
    async def steps() -> None:
        async def source() -> object:
            yield SMALL[:600]
            # A process has no command line in the moment of its exec.
            await asyncio.to_thread(until, lambda: helpers(target))
            for helper in helpers(target):
                os.kill(helper, 9)
            await asyncio.sleep(0.1)
            yield SMALL[600:]

        await unpack(source(), target, Whiteouts.OVERLAY)  # type: ignore[arg-type]

    with pytest.raises(StoreError, match="ended by signal 9"):
        run(steps())


def test_a_full_disk_is_an_error_that_says_so(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", small], check=True)
    try:
        with pytest.raises(StoreError, match="no space left on the disk"):
            extract(tar(member("f", data=os.urandom(1 << 20))), small)
    finally:
        subprocess.run(["umount", small], check=True)


def test_progress_is_told_as_bytes_arrive(target: Path) -> None:
    seen: list[int] = []
    run(unpack(stream(SMALL, 1000), target, Whiteouts.OVERLAY, seen.append))
    assert seen[-1] == len(SMALL)
    assert seen == sorted(seen)


def test_a_bare_gzip_header_is_truncated_not_a_crash(target: Path) -> None:
    refused(b"\x1f\x8b\x08" + struct.pack("<BIBB", 0, 0, 0, 3), target, "truncated")
