"""The tar of a layer that we make: always the same bytes, readable by every tar, and all that a file has in it."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from store_house import needs_root

from dockerd_py.store import changes
from dockerd_py.store.archive import layertar

pytestmark = needs_root

LONG = "directory-with-a-long-name/" * 12 + "file"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    (root / LONG).parent.mkdir(parents=True)
    (root / LONG).write_text("deep")
    (root / "file").write_bytes(b"x" * 1000)
    os.chown(root / "file", 70_000, 3_000_000)
    (root / "file").chmod(0o4755)
    os.setxattr(root / "file", "user.bytes", b"\xff\x00\n=")
    os.setxattr(root / "file", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    os.utime(root / "file", ns=(1, 1_600_000_000_123_456_789))
    os.utime(root / "file", ns=(1, 1_600_000_000_123_456_789))
    os.link(root / "file", root / "zlink")
    (root / "soft").symlink_to("target/" * 30)
    (root / os.fsdecode(b"not-\xff-utf8")).write_text("")
    (root / "ünïcode").write_text("")
    os.mkfifo(root / "fifo", 0o620)
    os.mknod(root / "null", 0o020666, os.makedev(1, 3))
    (root / "old").write_text("")
    os.utime(root / "old", ns=(0, -1_500_000_000))
    (root / "sticky").mkdir()
    (root / "sticky").chmod(0o1777)
    return root


def layer_of(root: Path, lower: Path | None = None, *, layer: bool = True) -> bytes:
    found = changes.changes(str(root), None if lower is None else str(lower), layer=layer)
    buffer = io.BytesIO()
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        layertar.write_layer(fd, found, buffer.write)
    finally:
        os.close(fd)
    return buffer.getvalue()


def test_the_same_files_give_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    subprocess.run(["cp", "-a", tree, tmp_path / "copy"], check=True)
    assert layer_of(tree) == layer_of(tmp_path / "copy")


def test_nothing_gives_the_well_known_empty_tar(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    data = layer_of(tmp_path / "empty")
    assert "sha256:" + hashlib.sha256(data).hexdigest() == layertar.EMPTY_DIFF_ID


def test_all_that_a_file_has_comes_back(tree: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(layer_of(tree)), errors="surrogateescape") as archive:
        entries = {entry.name: entry for entry in archive}
    file = entries["file"]
    assert (file.uid, file.gid, file.mode, file.size) == (70_000, 3_000_000, 0o4755, 1000)
    assert file.pax_headers["mtime"] == "1600000000.123456789"
    assert file.pax_headers["SCHILY.xattr.user.bytes"].encode("utf-8", "surrogateescape") == b"\xff\x00\n="
    assert "SCHILY.xattr.security.capability" in file.pax_headers
    assert (entries["zlink"].type, entries["zlink"].linkname) == (tarfile.LNKTYPE, "file")
    assert entries["soft"].linkname == "target/" * 30
    assert entries["old"].pax_headers["mtime"] == "-1.5"
    assert (entries["null"].devmajor, entries["null"].devminor) == (1, 3)
    assert entries["sticky"].mode == 0o1777
    assert LONG in entries
    assert os.fsdecode(b"not-\xff-utf8") in entries


def test_gnu_tar_reads_it(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    command = ["tar", "-C", tmp_path / "out", "-xp", "--xattrs", "--xattrs-include=*"]
    subprocess.run(command, input=layer_of(tree), check=True)
    assert layer_of(tmp_path / "out") == layer_of(tree)


def test_what_is_gone_is_whited_out(tmp_path: Path) -> None:
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    for name in ("gone", "kept", "sub/gone", "new/old", "new/both"):
        (lower / name).parent.mkdir(parents=True, exist_ok=True)
        (lower / name).write_text("")
    (upper / "sub").mkdir(parents=True)
    (upper / "new").mkdir()
    (upper / "new/both").write_text("other")
    for name in ("gone", "sub/gone", "never-there"):
        os.mknod(upper / name, 0o020000, os.makedev(0, 0))
    os.setxattr(upper / "new", "trusted.overlay.opaque", b"y")
    with tarfile.open(fileobj=io.BytesIO(layer_of(upper, lower))) as archive:
        names = archive.getnames()
    assert names == [".wh.gone", "new", "new/.wh..wh..opq", "new/both", "sub", "sub/.wh.gone"]
    kinds = [(change.path, change.kind) for change in changes.changes(str(upper), str(lower), layer=True)]
    assert kinds == [("gone", 2), ("new", 0), ("new/both", 0), ("new/old", 2), ("sub", 0), ("sub/gone", 2)]


def test_a_directory_that_is_swapped_for_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/file").write_text("secret")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/link").symlink_to(tmp_path / "secret")
    fd = os.open(tmp_path / "tree", os.O_PATH | os.O_DIRECTORY)
    writer = layertar.LayerWriter(fd, lambda piece: None)
    with pytest.raises(FileNotFoundError):
        writer.add("link/file", "link/file")
    os.close(fd)
