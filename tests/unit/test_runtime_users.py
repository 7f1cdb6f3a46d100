"""``user[:group]`` means in a container what its own passwd and group files say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dockerd_py.errors import BadParameter
from dockerd_py.runtime.users import User, resolve

PASSWD = """\
# comment
root:x:0:0:root:/root:/bin/sh

broken
bad:x:many:1:::
nobody:x:4294967295:4294967295:::
ann:x:1000:1001:Ann:/home/ann:/bin/sh
  bob:x:2000:2000
"""
GROUP = """\
root:x:0:root
ann:x:1001:
audio:x:29:ann,bob
video:x:44:ann
bad:x:many:ann
wheel:x:10:root
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    return tmp_path


@pytest.mark.parametrize(
    ("spec", "user"),
    [
        ("", User(0, 0, (0, 10), "/root")),
        ("root", User(0, 0, (0, 10), "/root")),
        ("ann", User(1000, 1001, (29, 44, 1001), "/home/ann")),
        ("1000", User(1000, 1001, (29, 44, 1001), "/home/ann")),
        ("ann:audio", User(1000, 29, (29,), "/home/ann")),
        ("ann:29", User(1000, 29, (29,), "/home/ann")),
        ("1000:4242", User(1000, 4242, (4242,), "/home/ann")),
        ("4242", User(4242, 0, (0,), "/")),
        ("4242:4343", User(4242, 4343, (4343,), "/")),
        (":video", User(0, 44, (44,), "/root")),
        (":1000", User(0, 1000, (1000,), "/root")),
        ("ann:", User(1000, 1001, (29, 44, 1001), "/home/ann")),
        ("bob", User(2000, 2000, (29, 2000), "/")),
        ("2147483647", User(2147483647, 0, (0,), "/")),
    ],
)
def test_a_user_is_resolved(root: Path, spec: str, user: User) -> None:
    assert resolve(root, spec) == user


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("eve", "unable to find user eve: no matching entries in passwd file"),
        ("bad", "unable to find user bad: no matching entries in passwd file"),
        ("nobody", "unable to find user nobody: no matching entries in passwd file"),
        ("-1", "unable to find user -1: no matching entries in passwd file"),
        ("ann:eve", "unable to find group eve: no matching entries in group file"),
        ("2147483648", "uids and gids must be in range 0-2147483647"),
        ("0:2147483648", "uids and gids must be in range 0-2147483647"),
    ],
)
def test_a_user_that_is_none_is_a_clear_error(root: Path, spec: str, sentence: str) -> None:
    with pytest.raises(BadParameter) as caught:
        resolve(root, spec)
    assert str(caught.value) == sentence


def test_without_the_files_numbers_work_and_names_do_not(tmp_path: Path) -> None:
    assert resolve(tmp_path, "") == User(0, 0, (0,), "/")
    assert resolve(tmp_path, "5:6") == User(5, 6, (6,), "/")
    with pytest.raises(BadParameter, match="unable to find user root"):
        resolve(tmp_path, "root")


def test_the_hosts_files_are_not_reached_through_links(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").symlink_to("/../../../../etc/passwd")
    with pytest.raises(BadParameter, match="unable to find user daemon"):
        resolve(tmp_path, "daemon")


def test_a_passwd_file_that_is_a_fifo_is_an_error_and_no_hang(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    os.mkfifo(tmp_path / "etc/passwd")
    with pytest.raises(BadParameter, match="cannot read /etc/passwd of the container: Not a regular file"):
        resolve(tmp_path, "ann")


def test_names_that_are_not_utf_8_do_no_harm(root: Path) -> None:
    (root / "etc/passwd").write_bytes(b"\xff\xfe:x:7:7:::\nann:x:1:2::/h\xff:\n")
    assert resolve(root, "ann").home == "/h\udcff"
