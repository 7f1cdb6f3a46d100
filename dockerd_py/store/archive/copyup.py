"""The helper program that gives an empty volume what the image has at its place; and what a crash left of it.

A volume that nobody has yet is filled where it is: it counts only when all of it is there.  One that was there before
is filled beside: the copy is made in ``_copying``, synced, renamed to ``_copied``, and its entries are then moved into
the volume one by one.  So the directory's name says after a crash whether the copy was whole: a whole one is moved on,
another one goes.  What somebody else has put into the volume meanwhile is never replaced.

The source is resolved by openat2(2) inside the container's root; below it no link is followed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dockerd_py.confined import open_in_root
from dockerd_py.errors import BadParameter, StoreError
from dockerd_py.store.archive.program import begin, run, walk_deep

COPYING, COPIED = "_copying", "_copied"
HIDDEN = ".pydockerd"
"""What the names above begin with where they have to lie in the volume itself: in a file system mounted for it."""

KEPT_XATTRS = ("user.", "security.capability", "system.posix_acl_")

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 1 << 24
_NO_REPLACE = 1  # renameat2(2)
_PR_SET_PDEATHSIG = 1  # prctl(2)
_UNABLE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)

_libc = ctypes.CDLL(None, use_errno=True)


def main(arguments: dict[str, Any]) -> None:
    """``root`` and ``path`` (in it) of what is copied, ``data``: the volume; ``beside``: what the names of the
    directories in which the copy waits begin with, or "" to copy into the volume itself.  ``daemon``: the process
    with which this one ends, so that recovery finds nobody at work."""

    def work() -> None:
        if _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0 or os.getppid() != arguments["daemon"]:
            raise StoreError("the daemon ended")
        os.umask(0)
        walk_deep()
        root = os.open(arguments["root"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        source = open_in_root(root, arguments["path"], os.O_RDONLY | os.O_DIRECTORY)
        beside: str = arguments["beside"]
        if not beside:
            _copy_all(source, arguments["data"])
        else:
            _clear(beside + COPYING)
            os.mkdir(beside + COPYING, 0o700)
            _copy_all(source, beside + COPYING)
            os.rename(beside + COPYING, beside + COPIED)
            finish(beside + COPIED, arguments["data"])
        begin({})

    run(work)


def beside(directory: Path, data: Path, *, mounted: bool) -> str:
    """What the names of a volume's waiting directories begin with."""
    return f"{data}/{HIDDEN}" if mounted else f"{directory}/"


def is_empty(data: Path) -> bool:
    """Whether there is nothing in a volume but what an interrupted copy left."""
    return not [name for name in os.listdir(data) if name not in (HIDDEN + COPYING, HIDDEN + COPIED)]


def recover(directory: Path, data: Path, *, mounted: bool = False) -> None:
    """Finish or take away what was under way when the last daemon was killed.  Raises OSError."""
    prefix = beside(directory, data, mounted=mounted)
    _clear(prefix + COPYING)
    if os.path.isdir(prefix + COPIED):
        finish(prefix + COPIED, data)


def finish(copied: str, data: str | Path) -> None:
    """Move a whole copy into the volume; it may be repeated."""
    with _opened(copied) as source, _opened(data) as target:
        for name in os.listdir(source):
            _move(source, target, name)
        _set_metadata(source, target, os.fstat(source))
        os.fsync(target)
    _clear(copied)


def copy_metadata(source: int, data: Path) -> None:
    """Owner, mode, times and attributes of a directory alone."""
    with _opened(data) as target:
        _set_metadata(source, target, os.fstat(source))


def _copy_all(source: int, target: str) -> None:
    with _opened(target) as fd:
        _Copier(fd).directory(source, fd, "")
        if _libc.syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), target)


class _Copier:
    """Copies trees into the directory ``top``, which nobody else writes to."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._first_names: dict[tuple[int, int], str] = {}

    def directory(self, source: int, target: int, path: str) -> None:
        for name in os.listdir(source):
            info = os.stat(name, dir_fd=source, follow_symlinks=False)
            below = f"{path}/{name}" if path else name
            if stat.S_ISDIR(info.st_mode):
                os.mkdir(name, 0o700, dir_fd=target)
                with _opened(name, dir_fd=source) as inner, _opened(name, dir_fd=target) as made:
                    self.directory(inner, made, below)
            elif not self._link(info, name, target, below):
                self._add(source, target, name, info)
        _set_metadata(source, target, os.fstat(source))

    def _link(self, info: os.stat_result, name: str, target: int, path: str) -> bool:
        """Make ``name`` a hard link, if it is another name of what was copied before."""
        if info.st_nlink == 1:
            return False
        first = self._first_names.setdefault((info.st_dev, info.st_ino), path)
        if first == path:
            return False
        os.link(first, name, src_dir_fd=self._top, dst_dir_fd=target, follow_symlinks=False)
        return True

    def _add(self, source: int, target: int, name: str, info: os.stat_result) -> None:
        if stat.S_ISREG(info.st_mode):
            with _opened(name, dir_fd=source, flags=_READ) as old, _opened(name, dir_fd=target, flags=_NEW_FILE) as new:
                _copy_contents(old, new)
                _set_metadata(old, new, info)
            return
        if stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        elif stat.S_ISSOCK(info.st_mode):
            return  # nobody listens on it
        else:
            os.mknod(name, stat.S_IFMT(info.st_mode) | 0o600, info.st_rdev, dir_fd=target)
        os.chown(name, info.st_uid, info.st_gid, dir_fd=target, follow_symlinks=False)
        if not stat.S_ISLNK(info.st_mode):
            os.chmod(name, stat.S_IMODE(info.st_mode), dir_fd=target)
        os.utime(name, ns=(info.st_atime_ns, info.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def _copy_contents(source: int, target: int) -> None:
    """The data, with holes where the source has some."""
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    position = 0
    while position < size:
        try:
            begin_ = os.lseek(source, position, os.SEEK_DATA)
            end = os.lseek(source, begin_, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole is left
                return
            begin_, end = position, size  # a file system that cannot tell
        _copy_range(source, target, begin_, end)
        position = end


def _copy_range(source: int, target: int, position: int, end: int) -> None:
    while position < end:
        count = min(end - position, _PIECE)
        try:
            done = os.copy_file_range(source, target, count, position, position)
        except OSError as error:
            if error.errno not in _UNABLE:
                raise
            done = 0
        if not done:
            done = os.pwrite(target, os.pread(source, count, position), position)
        if not done:
            return  # it became shorter
        position += done


def _set_metadata(source: int, target: int, info: os.stat_result) -> None:
    os.fchown(target, info.st_uid, info.st_gid)
    os.fchmod(target, stat.S_IMODE(info.st_mode))  # after the owner, which takes set-user-id bits away
    try:
        for name in os.listxattr(source):
            if name.startswith(KEPT_XATTRS):
                os.setxattr(target, name, os.getxattr(source, name))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:  # a file system without them
            raise
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))


def _move(source: int, target: int, name: str) -> None:
    raw = os.fsencode(name)
    if _libc.renameat2(source, raw, target, raw, _NO_REPLACE) == 0:
        return
    number = ctypes.get_errno()
    if number == errno.EINVAL:  # a file system that cannot promise not to replace
        if not _exists(target, name):
            os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
    elif number != errno.EEXIST:
        raise OSError(number, os.strerror(number), name)


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _clear(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


@contextlib.contextmanager
def _opened(path: str | Path, *, dir_fd: int | None = None, flags: int = _DIRECTORY) -> Iterator[int]:
    fd = os.open(path, flags, 0o600, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def source_directory(root: Path, path: str) -> int | None:
    """What the container's root has at ``path``, opened; None where there is nothing.

    Raises BadParameter for a file there, and OSError.
    """
    try:
        return open_in_root(root, path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise BadParameter(f"cannot mount volume over existing file, file exists {path}") from None
