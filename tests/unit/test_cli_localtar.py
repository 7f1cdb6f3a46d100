"""What `pydocker cp` writes on this machine stays where the user wanted it, whatever the archive says."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from dockerd_py.cli import localtar
from dockerd_py.cli.errors import CliError


def archive(*entries: tuple[str, bytes, str]) -> list[bytes]:
    """(name, type, link target or content)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, type_, text in entries:
            info = tarfile.TarInfo(name)
            info.type = type_
            info.mode = 0o755
            if type_ == tarfile.REGTYPE:
                info.size = len(text)
                tar.addfile(info, io.BytesIO(text.encode()))
            else:
                info.linkname = text
                tar.addfile(info)
    return [buffer.getvalue()]


DIRECTORY = ("top", tarfile.DIRTYPE, "")


@pytest.mark.parametrize(
    "entries",
    [
        (DIRECTORY, ("top/../../escaped", tarfile.REGTYPE, "x")),
        (DIRECTORY, ("/escaped", tarfile.REGTYPE, "x")),
        (DIRECTORY, ("escaped", tarfile.REGTYPE, "x")),
        (DIRECTORY, ("top/out", tarfile.SYMTYPE, ".."), ("top/out/escaped", tarfile.REGTYPE, "x")),
        (DIRECTORY, ("top/out", tarfile.SYMTYPE, "../escaped"), ("top/out", tarfile.DIRTYPE, "")),
        (("top", tarfile.SYMTYPE, ".."), ("top/escaped", tarfile.REGTYPE, "x")),
        (DIRECTORY, ("top/hard", tarfile.LNKTYPE, "../secret")),
        (DIRECTORY, ("top/hard", tarfile.LNKTYPE, "/etc/shadow")),
    ],
)
def test_a_hostile_archive_is_refused(tmp_path: Path, entries: tuple[tuple[str, bytes, str], ...]) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "here").mkdir()
    with pytest.raises(CliError):
        localtar.unpack(iter(archive(*entries)), "top", str(tmp_path / "here/top"), owners=False)
    assert sorted(os.listdir(tmp_path)) == ["here", "secret"]
    assert not Path("/escaped").exists()


def test_a_file_is_written_over_a_link_and_not_through_it(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("before")
    (tmp_path / "top").mkdir()
    (tmp_path / "top/file").symlink_to(tmp_path / "victim")
    data = archive(DIRECTORY, ("top/file", tarfile.REGTYPE, "new"))
    localtar.unpack(iter(data), "top", str(tmp_path / "top"), owners=False)
    assert (tmp_path / "victim").read_text() == "before"
    assert (tmp_path / "top/file").read_text() == "new"


def test_what_was_packed_is_unpacked_again(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub/file").write_bytes(b"x" * 1000)
    os.link(source / "sub/file", source / "hard")
    (source / "soft").symlink_to("nowhere")
    os.mkfifo(source / "fifo")
    (source / os.fsdecode(b"not-\xff-utf8")).write_text("")
    (source / ("long" * 60)).write_text("")
    (source / "sub").chmod(0o500)
    os.utime(source / "sub/file", ns=(10**18 + 5, 10**18 + 5))
    pieces = localtar.pack(str(source), "top", owners=True)
    localtar.unpack(pieces, "top", str(tmp_path / "copy"), owners=True)
    assert sorted(os.listdir(tmp_path / "copy")) == sorted(os.listdir(source))
    assert (tmp_path / "copy/sub").stat().st_mode == (source / "sub").stat().st_mode
    assert (tmp_path / "copy/hard").stat().st_nlink == 2
    assert (tmp_path / "copy/hard").read_bytes() == b"x" * 1000
    assert int((tmp_path / "copy/sub/file").stat().st_mtime) == 10**9
    assert os.readlink(tmp_path / "copy/soft") == "nowhere"


def test_a_damaged_archive_is_an_error(tmp_path: Path) -> None:
    whole = archive(DIRECTORY, ("top/file", tarfile.REGTYPE, "x" * 5000))[0]
    with pytest.raises(CliError):
        localtar.unpack(iter([whole[:2500]]), "top", str(tmp_path / "top"), owners=False)
