"""Files and directories that survive a power loss: written aside, synced, renamed, and the directory synced."""

from __future__ import annotations

import array
import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dockerd_py.errors import StoreError

_FULL = (errno.ENOSPC, errno.EDQUOT)

_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS = 0x80086601, 0x40086602  # linux/fs.h
_FS_TOPDIR_FL = 0x00020000


def write_durably(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Put ``data`` at ``path``: readers see the old file or the whole new one, also after a power loss."""
    aside = path.with_name(f".{path.name}.new")
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in ``path`` durable (fsync(2) of a file says nothing about its name)."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directory(path: Path, mode: int = 0o700) -> None:
    """Make ``path`` and its parents; the mode holds whatever the umask is.  An existing one is left as it is."""
    if not path.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)


def spread_subdirectories(path: Path) -> None:
    """Have ext4 put each directory that is made in ``path``, with what will be in it, where there is room.

    Else all of them lie near ``path`` (ext4's Orlov allocator), and a file that is made there has to pass by every
    inode that was freed within the last minute, which ext4 does not take again so soon: a tree of ten thousand
    files, made after such a one was deleted, takes 8 s instead of 0.6.  chattr(1) says +T to it.  Other file systems
    have nothing of the kind, and refuse.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            flags = array.array("i", [0])
            fcntl.ioctl(fd, _FS_IOC_GETFLAGS, flags)
            if not flags[0] & _FS_TOPDIR_FL:
                fcntl.ioctl(fd, _FS_IOC_SETFLAGS, array.array("i", [flags[0] | _FS_TOPDIR_FL]))
    finally:
        os.close(fd)


@contextmanager
def store_errors(doing: str) -> Iterator[None]:
    """Turn an OSError inside the block into a StoreError that begins with ``doing``."""
    try:
        yield
    except OSError as error:
        raise store_error(doing, error) from error


def is_full(error: StoreError) -> bool:
    """Whether it was for lack of space."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in _FULL


def store_error(doing: str, error: OSError) -> StoreError:
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in _FULL:
        return StoreError(f"{doing}: no space left on the disk{where}; free some and try again")
    return StoreError(f"{doing}: {error.strerror or error}{where}")


def shown(path: Path | str) -> str:
    """A path on one line, whatever is in it."""
    text = os.fspath(path)
    return text if text.isprintable() else repr(text)
