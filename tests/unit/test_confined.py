"""Names below a root that is not ours never lead out of it, and never hang."""

from __future__ import annotations

import errno
import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from dockerd_py import confined


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("secret")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text("inside")
    return root


def test_an_ordinary_file_is_read_by_its_path_or_from_an_open_directory(root: Path) -> None:
    assert confined.read_in_root(root, "/etc/passwd") == b"inside"
    fd = os.open(root, os.O_PATH)
    try:
        assert confined.read_in_root(fd, b"etc/passwd") == b"inside"
    finally:
        os.close(fd)


def test_an_absolute_link_starts_at_the_root(root: Path) -> None:
    (root / "link").symlink_to("/etc/passwd")
    assert confined.read_in_root(root, "link") == b"inside"


@pytest.mark.parametrize("target", ["../outside/secret", "../../../../../etc/hostname", "/../outside/secret"])
def test_dot_dot_stops_at_the_root(root: Path, target: str) -> None:
    (root / "link").symlink_to(target)
    for name in ("link", target):
        with pytest.raises(FileNotFoundError):
            confined.read_in_root(root, name)


def test_the_magic_links_of_proc_are_not_followed(root: Path) -> None:
    fd = os.open(root.parent / "outside", os.O_PATH)
    try:
        with pytest.raises(OSError, match="symbolic links") as caught:
            confined.read_in_root("/", f"/proc/self/fd/{fd}/secret")
        assert caught.value.errno == errno.ELOOP
    finally:
        os.close(fd)


def test_a_name_with_a_zero_byte_is_refused(root: Path) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        confined.read_in_root(root, "etc/passwd\0x")


def test_the_error_names_what_was_asked_for(root: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        confined.read_in_root(root, "/etc/shadow")
    assert caught.value.filename == "/etc/shadow"


def test_a_fifo_is_refused_at_once(root: Path) -> None:
    os.mkfifo(root / "etc/group")
    with pytest.raises(OSError, match="Not a regular file"):
        confined.read_in_root(root, "etc/group")


@pytest.mark.parametrize("kind", ["directory", "device", "socket"])
def test_only_regular_files_are_read(root: Path, kind: str) -> None:
    if kind == "directory":
        (root / "x").mkdir()
    elif kind == "device":
        os.mknod(root / "x", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    else:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(root / "x"))
    with pytest.raises(OSError, match="Not a regular file"):
        confined.read_in_root(root, "x")


def test_a_file_of_the_limit_is_read_and_a_larger_one_is_refused(root: Path) -> None:
    (root / "big").write_bytes(b"x" * 1000)
    assert len(confined.read_in_root(root, "big", 1000)) == 1000
    with pytest.raises(OSError, match="Larger than 999 bytes") as caught:
        confined.read_in_root(root, "big", 999)
    assert caught.value.errno == errno.EFBIG


def test_nothing_stays_open(root: Path) -> None:
    os.mkfifo(root / "fifo")
    (root / "dangling").symlink_to("/a/b")
    before = os.listdir("/proc/self/fd")
    confined.read_in_root(root, "etc/passwd")
    confined.mkdirs_in_root(root, "dangling/c")
    confined.stat_in_root(root, "fifo")
    for name in ("fifo", "none"):
        with pytest.raises(OSError):  # noqa: PT011
            confined.read_in_root(root, name)
    with pytest.raises(NotADirectoryError):
        confined.mkdirs_in_root(root, "etc/passwd/x")
    assert os.listdir("/proc/self/fd") == before


def test_descriptors_are_not_inherited(root: Path) -> None:
    fd = confined.open_in_root(root, "etc/passwd", os.O_RDONLY)
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_stat_follows_the_last_link_unless_told(root: Path) -> None:
    (root / "link").symlink_to("/etc/passwd")
    assert stat.S_ISREG(confined.stat_in_root(root, "link").st_mode)
    assert stat.S_ISLNK(confined.stat_in_root(root, "link", follow=False).st_mode)


def test_what_a_link_points_at_decides_whether_a_name_exists(root: Path) -> None:
    (root / "good").symlink_to("/etc")
    (root / "dangling").symlink_to("/nowhere")
    (root / "circle").symlink_to("circle")
    assert confined.exists_in_root(root, "good/passwd")
    for name in ("dangling", "circle", "etc/passwd/x", "n" * 300):
        assert not confined.exists_in_root(root, name)


def test_files_are_created_with_the_mode_given(root: Path) -> None:
    fd = confined.open_in_root(root, "/etc/new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.close(fd)
    assert stat.S_IMODE((root / "etc/new").stat().st_mode) == 0o600


def test_new_directories_get_mode_and_owner_whatever_the_umask(root: Path) -> None:
    before = os.umask(0o077)
    try:
        confined.mkdirs_in_root(root, "/a/./b//c", 0o2775, 1000, 1001)
    finally:
        os.umask(before)
    for name in ("a", "a/b", "a/b/c"):
        info = (root / name).stat()
        assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (0o2775, 1000, 1001)


def test_directories_that_exist_are_left_as_they_are(root: Path) -> None:
    (root / "etc").chmod(0o700)
    confined.mkdirs_in_root(root, "etc/x/y", 0o755, 1000, 1000)
    assert stat.S_IMODE((root / "etc").stat().st_mode) == 0o700
    assert (root / "etc").stat().st_uid == 0
    confined.mkdirs_in_root(root, "etc/x/y")
    assert (root / "etc/x/y").stat().st_uid == 1000


def test_directories_are_made_where_a_link_leads_inside_the_root(root: Path) -> None:
    (root / "var").mkdir()
    (root / "var/run").symlink_to("/run")
    (root / "up").symlink_to("../../../../tmp/up")
    confined.mkdirs_in_root(root, "/var/run/app/socket")
    confined.mkdirs_in_root(root, "up/x")
    assert (root / "run/app/socket").is_dir()
    assert (root / "tmp/up/x").is_dir()
    assert sorted(os.listdir(root.parent)) == ["outside", "root"]


def test_a_relative_link_is_resolved_from_where_it_lies(root: Path) -> None:
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/link").symlink_to("../c")
    confined.mkdirs_in_root(root, "a/b/link/../d")
    assert (root / "a/c").is_dir()
    assert (root / "a/d").is_dir()


def test_a_circle_of_links_is_an_error(root: Path) -> None:
    (root / "one").symlink_to("two/x")
    (root / "two").symlink_to("one/x")
    with pytest.raises(OSError, match="symbolic links") as caught:
        confined.mkdirs_in_root(root, "one/y")
    assert caught.value.errno == errno.ELOOP


def test_a_file_in_the_way_is_an_error(root: Path) -> None:
    with pytest.raises(NotADirectoryError):
        confined.mkdirs_in_root(root, "etc/passwd")


def test_very_deep_names_are_made(root: Path) -> None:
    name = "/".join(["d"] * 200)
    confined.mkdirs_in_root(root, name)
    assert confined.exists_in_root(root, name)


def test_nothing_gets_out_while_a_directory_is_swapped_for_a_link(root: Path) -> None:
    (root / "d").mkdir()
    (root / "d/secret").write_text("inside")
    (root / "l").symlink_to("../../outside")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(root / "d", root / "t")
            os.rename(root / "l", root / "d")
            os.rename(root / "d", root / "l")
            os.rename(root / "t", root / "d")

    thread = threading.Thread(target=swap)
    thread.start()
    seen = set()
    try:
        for _ in range(3000):
            try:
                seen.add(confined.read_in_root(root, "d/../d/secret"))
            except OSError as error:
                seen.add(errno.errorcode[error.errno or 0].encode())
    finally:
        stop.set()
        thread.join()
    assert b"inside" in seen
    assert seen <= {b"inside", b"ENOENT", b"EAGAIN"}
