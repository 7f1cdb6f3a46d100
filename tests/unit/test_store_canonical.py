"""The archives that we make ourselves: one form, the same for the same tree, and readable by everybody."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import subprocess
import tarfile
import time
from contextlib import aclosing
from pathlib import Path

import pytest
from store_house import facts, needs_root, run, stream

from dockerd_py.store.archive import outgoing
from dockerd_py.store.archive.client import unpack
from dockerd_py.store.drivers.base import Whiteouts

pytestmark = needs_root


def archive_of(path: Path) -> bytes:
    async def collect() -> bytes:
        async with aclosing(outgoing.canonical(path)) as pieces:
            return b"".join([piece async for piece in pieces])

    return run(collect())


def names_in(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as archive:
        return archive.getnames()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "b").mkdir(parents=True, mode=0o750)
    (top / "a.d").mkdir()
    (top / "a").mkdir()
    (top / "a/x").write_bytes(b"x")
    (top / "b/motd").write_bytes(b"hello\n")
    os.link(top / "b/motd", top / "a/same")
    (top / "su").write_bytes(b"su")
    os.chown(top / "su", 3_000_000, 4_000_000_000)
    (top / "su").chmod(0o4755)
    os.setxattr(top / "su", "user.note", b"\x00\xff=\n")
    os.setxattr(top / "su", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    os.setxattr(top / "b", "user.dir", b"d")
    os.symlink("b/motd", top / "link")
    os.symlink("t" * 400, top / "long-link")
    os.symlink(os.fsdecode(b"\xe9"), top / "odd-link")
    os.mkfifo(top / "fifo", 0o622)
    os.mknod(top / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (top / os.fsdecode(b"caf\xe9")).write_bytes(b"latin")
    (top / "grün").write_bytes(b"utf-8")
    (top / ("n" * 250)).write_bytes(b"long")
    deep = top / "/".join(["deep-directory-name"] * 20)
    deep.mkdir(parents=True)
    (deep / "f").write_bytes(b"deep")
    with open(top / "sparse", "wb") as file:
        file.seek(3 << 20)
        file.write(b"data")
        file.seek(20 << 20)
        file.write(b"more")
        file.truncate(24 << 20)
    (top / "zeros").write_bytes(b"x" + bytes(2 << 20) + b"x")
    with open(top / "hole", "wb") as file:
        file.truncate(20 << 20)
    with open(top / "small-hole", "wb") as file:
        file.truncate(2 << 20)
    (top / "random").write_bytes(os.urandom((1 << 20) + 77))
    for name, when in (("su", 1_600_000_000_123_456_789), ("a/x", -1_500_000_000), ("b/motd", 10**9), ("link", 7)):
        os.utime(top / name, ns=(0, when), follow_symlinks=False)
    return top


def test_the_same_tree_gives_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree, tmp_path / "ignored", symlinks=True, ignore=shutil.ignore_patterns("fifo", "null", "odd*"))
    subprocess.run(["cp", "-a", tree, tmp_path / "copy"], check=True)
    assert archive_of(tree) == archive_of(tmp_path / "copy")


def test_names_come_sorted_with_directories_before_what_is_in_them(tree: Path) -> None:
    names = [name.split("/") for name in names_in(archive_of(tree))]
    assert names == sorted(names, key=lambda parts: [os.fsencode(part) for part in parts])
    assert ["a"] in names
    assert ["a", "x"] in names
    assert ["."] not in names


def test_all_of_it_comes_back_through_our_own_reader(tree: Path, tmp_path: Path) -> None:
    (tree / "null").unlink()  # an image's archive may not bring it there
    data = archive_of(tree)
    target = tmp_path / "target"
    target.mkdir()
    result = run(unpack(stream(data, 100_000), target, Whiteouts.OVERLAY))
    assert facts(target) == facts(tree)
    assert result.diff_id == "sha256:" + hashlib.sha256(archive_of(target)).hexdigest()


def test_all_of_it_comes_back_through_gnu_tar(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    command = ["tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", "-", "-C", tmp_path / "target"]
    done = subprocess.run(command, input=archive_of(tree), check=True, capture_output=True)
    assert facts(tmp_path / "target") == facts(tree), done.stderr


def test_all_of_it_comes_back_through_bsdtar(tree: Path, tmp_path: Path) -> None:
    os.utime(tree / "a/x", ns=(0, -2 * 10**9))  # libarchive reads -1.5 as -1 and a half more
    (tmp_path / "target").mkdir()
    command = ["bsdtar", "-xpf", "-", "--numeric-owner", "--xattrs", "-C", tmp_path / "target"]
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    subprocess.run(command, input=archive_of(tree), check=True, capture_output=True, env=environment)
    assert facts(tmp_path / "target") == facts(tree)


def test_large_holes_take_no_room_and_small_ones_are_zeros_that_any_tar_reads(tree: Path) -> None:
    data = archive_of(tree)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        sparse = {entry.name for entry in archive if entry.issparse()}
    assert sparse == {"sparse", "hole"}
    assert len(data) < 12 << 20


def test_a_file_with_very_many_holes_has_a_list_of_them_that_go_reads(tmp_path: Path) -> None:
    with open(tmp_path / "holes", "wb") as file:
        for number in range(12_000):
            file.seek(number * 8192)
            file.write(b"%d" % number)
        for number in range(20):
            file.seek((1 << 30) + (number << 24))
            file.write(b"far")
    data = archive_of(tmp_path)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        entry = archive.getmember("holes")
        assert len(entry.sparse) < 30  # type: ignore[attr-defined]
        reader = archive.extractfile(entry)
        assert reader is not None
        reader.seek(11_999 * 8192)
        assert reader.read(5) == b"11999"
        reader.seek((1 << 30) + (19 << 24))
        assert reader.read() == b"far"


def test_a_file_of_ten_gigabytes_of_holes_is_quick(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with open(tmp_path / "d/huge", "wb") as file:
        file.seek(10 << 30)
        file.write(b"end")
    begun = time.monotonic()
    data = archive_of(tmp_path / "d")
    assert time.monotonic() - begun < 5
    assert len(data) < 200_000
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getmember("huge").size == (10 << 30) + 3


def test_a_socket_is_left_out(tmp_path: Path) -> None:
    os.mknod(tmp_path / "socket", stat.S_IFSOCK | 0o600)
    (tmp_path / "file").touch()
    assert names_in(archive_of(tmp_path)) == ["file"]


def test_an_empty_directory_gives_an_empty_archive(tmp_path: Path) -> None:
    assert archive_of(tmp_path) == bytes(1024)
