"""The tar of a layer that we make: always the same bytes, readable by every tar, and all that a file has in it."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
from store_house import directory, hardlink, member, needs_root, run, stream, symlink, tar
from store_house import tree as tree_of

from dockerd_py.errors import BadParameter
from dockerd_py.store import changes, mounts
from dockerd_py.store.archive import header, helper, layertar
from dockerd_py.store.archive.client import unpack
from dockerd_py.store.archive.treetar import TreeWriter
from dockerd_py.store.below import Below
from dockerd_py.store.changes import Marks
from dockerd_py.store.drivers.base import Whiteouts

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


def layer_of(root: Path, *lowers: Path, marks: Marks = Marks.OVERLAY) -> bytes:
    found = changes.changes(str(root), list(map(str, lowers)), marks)
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
    assert "sha256:" + hashlib.sha256(data).hexdigest() == header.EMPTY_DIFF_ID


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
    kinds = [(change.path, change.kind) for change in changes.changes(str(upper), [str(lower)], Marks.OVERLAY)]
    assert kinds == [("gone", 2), ("new", 0), ("new/both", 0), ("new/old", 2), ("sub", 0), ("sub/gone", 2)]


def test_a_directory_that_is_swapped_for_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/file").write_text("secret")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/link").symlink_to(tmp_path / "secret")
    found = [changes.Change("link", changes.ADDED), changes.Change("link/file", changes.ADDED)]
    buffer = io.BytesIO()
    fd = os.open(tmp_path / "tree", os.O_PATH | os.O_DIRECTORY)
    layertar.write_layer(fd, found, buffer.write)
    TreeWriter(buffer.write).add_tree(fd, "link", b"again")
    os.close(fd)
    assert b"link/file" not in buffer.getvalue()
    assert b"again/file" not in buffer.getvalue()


# What layers look like when they lie on each other


def made(tree: Path, *names: str) -> Path:
    """Files, each with its own name in it."""
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    return tree


def as_overlay_marks(tree: Path) -> None:
    """Turn a branch of aufs into a layer of overlayfs, by the two documents that tell of their marks."""
    for path in sorted(tree.rglob(".wh.*")):
        if path.name == ".wh..wh..opq":
            os.setxattr(path.parent, "trusted.overlay.opaque", b"y")
        elif not path.name.startswith(".wh..wh."):
            os.mknod(path.with_name(path.name[4:]), 0o020000, os.makedev(0, 0))
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


@pytest.mark.parametrize("marks", [Marks.AUFS, Marks.OVERLAY])
def test_several_layers_below_are_seen_as_one_tree(tmp_path: Path, marks: Marks) -> None:
    """The container has a directory of each name, so that everything below shows itself as gone or not."""
    bottom = made(tmp_path / "0", "d/a", "d/b", "d/sub/x", "opaque/old", "gone/x", "back/old", "file", "was-dir/x")
    middle = made(tmp_path / "1", "d/b", "d/.wh.a", "d/new", "opaque/.wh..wh..opq", "opaque/new")
    made(middle, ".wh.gone", ".wh.back", ".wh.file")
    (tmp_path / "1/was-dir").write_text("")
    top = made(tmp_path / "2", "back/new", "file/is/dir", "d/sub/.wh.x", "was-dir/back")
    made(top, "back/.wh..wh..opq", "file/.wh..wh..opq", "was-dir/.wh..wh..opq")
    names = ("d", "opaque", "gone", "back", "file", "was-dir")
    upper = made(tmp_path / "3", *(f"{name}/.wh..wh..opq" for name in names))
    if marks is Marks.OVERLAY:
        for tree in (bottom, middle, top, upper):
            as_overlay_marks(tree)
    found = changes.changes(str(upper), [str(each) for each in (top, middle, bottom)], marks)
    assert [change.path for change in found if change.kind == changes.DELETED] == [
        "back/new", "d/b", "d/new", "d/sub", "file/is", "opaque/new", "was-dir/back",
    ]  # fmt: skip
    assert [change.path for change in found if change.kind == changes.ADDED] == ["gone"]
    assert [change.path for change in found if change.opaque] == ["back", "d", "file", "opaque", "was-dir"]


def test_the_layers_below_are_seen_as_the_kernel_shows_them(tmp_path: Path) -> None:
    bottom = made(tmp_path / "0", "d/a", "d/b", "e/x", "f")
    middle = made(tmp_path / "1", "d/.wh.a", "e/.wh..wh..opq", "e/y", ".wh.f")
    top = made(tmp_path / "2", "d/c", "f/now/dir")
    layers = (top, middle, bottom)
    for each in layers:
        as_overlay_marks(each)
    (tmp_path / "merged").mkdir()
    options = ":".join(map(str, layers))
    mounts.mount("overlay", tmp_path / "merged", "overlay", mounts.MS_RDONLY, f"lowerdir={options}")
    try:
        shown = tree_of(tmp_path / "merged")
    finally:
        mounts.unmount(tmp_path / "merged")
    fds = tuple(os.open(each, os.O_RDONLY | os.O_DIRECTORY) for each in layers)

    def walked(below: Below | None, path: str) -> set[str]:
        assert below is not None
        found = set()
        for name, info in below.entries().items():
            found.add(path + name)
            assert below.find(name) == info
            if stat.S_ISDIR(info.st_mode):
                found |= walked(below.directory(name), f"{path}{name}/")
        return found

    assert walked(Below(fds, "", Marks.OVERLAY), "") == shown
    for fd in fds:
        os.close(fd)


# From aufs's marks to an archive's, to overlayfs's, and back


def test_what_a_container_on_aufs_did_becomes_a_layer(tmp_path: Path) -> None:
    lower = made(tmp_path / "lower", "etc/passwd", "etc/group", "home/ann/x", "new/old", "hard/one")
    upper = made(tmp_path / "upper", "etc/passwd", "etc/.wh.group", ".wh.home", "new/.wh..wh..opq", "new/file")
    made(upper, "hard/two")
    # Files with several names, and files that are gone and still open, as aufs keeps account of them.
    (upper / ".wh..wh.plnk").mkdir()
    os.link(upper / "hard/two", upper / ".wh..wh.plnk/1234.5678")
    made(upper, ".wh..wh.orph/77", ".wh..wh.aufs", ".wh.never-there")
    os.mknod(upper / "zero", 0o020600, os.makedev(0, 0))
    data = layer_of(upper, lower, marks=Marks.AUFS)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == [
            "etc", "etc/.wh.group", "etc/passwd", "hard", "hard/two", ".wh.home", "new", "new/.wh..wh..opq", "new/file",
            "zero",
        ]  # fmt: skip
        zero = archive.getmember("zero")
        assert zero.ischr()
        assert (zero.devmajor, zero.devminor) == (0, 0)


CHANGED = tar(
    directory("d"), member("d/.wh..wh..opq"), member("d/new", data=b"1"), directory("e"), member("e/.wh.gone"),
    member(".wh.top"), symlink("s", "d"), hardlink("e/same", "d/new"),
)  # fmt: skip


@pytest.mark.parametrize("first", [Whiteouts.OVERLAY, Whiteouts.AUFS])
def test_marks_go_from_each_form_into_the_other_and_back(tmp_path: Path, first: Whiteouts) -> None:
    below = made(tmp_path / "below", "d/old", "e/gone", "top/x")
    second = Whiteouts.AUFS if first is Whiteouts.OVERLAY else Whiteouts.OVERLAY
    data = CHANGED
    seen = []
    for number, form in enumerate((first, second, first)):
        target = tmp_path / str(number)
        target.mkdir()
        run(unpack(stream(data), target, form))
        data = layer_of(target, below, marks=Marks(form.value))
        seen.append(data)
    assert seen[0] == seen[1] == seen[2]
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == ["d", "d/.wh..wh..opq", "d/new", "e", "e/.wh.gone", "e/same", "s", ".wh.top"]
        assert not any("overlay" in key for entry in archive for key in entry.pax_headers)


def test_a_name_that_would_take_another_file_away_is_refused(tmp_path: Path) -> None:
    made(tmp_path / "upper", "etc/.wh.passwd")
    arguments = {"home": str(tmp_path), "upper": "upper", "lowers": [], "marks": "overlay"}
    with pytest.raises(BadParameter, match=r"etc/\.wh\.passwd cannot be part of an image"):
        run(helper.answer("layertar", {**arguments, "tar": True}))
    assert len(run(helper.answer("layertar", {**arguments, "tar": False}))["changes"]) == 2
