"""btrfs subvolumes by their ioctls (ioctl_btrfs in linux/btrfs.h), without the btrfs program.

They need Linux 5.7 and root.  Failures are OSErrors; all calls block.

A container may make subvolumes of its own anywhere below its root, nested, renamed and set read-only.  So what is to
be destroyed is found in the file system's own tree of subvolumes and named by number: no path that a container has
made is ever resolved here.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

_ARGS_SIZE = 4096  # of every structure that is passed here
_FIRST_INODE = 256  # the inode number of each subvolume's root directory
_ROOT_TREE = 1
_ROOT_REF_KEY = 156  # an item (parent's id, ROOT_REF, child's id)
_SPEC_BY_ID = 1 << 4
_READ_ONLY = 1 << 1
_HANDLE_TYPE = 0x4D  # FILEID_BTRFS_WITHOUT_PARENT of fs/btrfs/export.h
_MAX_ID = (1 << 64) - 1


def _request(direction: int, number: int, size: int = _ARGS_SIZE) -> int:
    return direction << 30 | size << 16 | 0x94 << 8 | number


_WRITE, _READ = 1, 2
_SUBVOL_CREATE = _request(_WRITE, 14)
_TREE_SEARCH = _request(_READ | _WRITE, 17)
_INO_LOOKUP = _request(_READ | _WRITE, 18)
_SNAP_CREATE_V2 = _request(_WRITE, 23)
_SUBVOL_GETFLAGS = _request(_READ, 25, 8)
_SUBVOL_SETFLAGS = _request(_WRITE, 26, 8)
_SNAP_DESTROY_V2 = _request(_WRITE, 63)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.open_by_handle_at.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int]


def create(path: Path) -> None:
    """Make an empty subvolume at ``path``.  Raises OSError: ENOTTY where the file system is not btrfs."""
    with _directory(path.parent) as parent:
        name = os.fsencode(path.name)
        _call(parent, _SUBVOL_CREATE, struct.pack("=q4088s", 0, name), path)


def snapshot(source: Path, path: Path) -> None:
    """Make a writable snapshot of the subvolume ``source`` at ``path``.

    What is nested in the source is an empty directory in the snapshot.
    """
    with _directory(path.parent) as parent, _directory(source) as origin:
        name = os.fsencode(path.name)
        _call(parent, _SNAP_CREATE_V2, struct.pack("=qQQ32x4040s", origin, 0, 0, name), path)


def is_subvolume(path: Path) -> bool:
    """Whether ``path`` is a subvolume's root directory."""
    info = os.lstat(path)
    if not stat.S_ISDIR(info.st_mode) or info.st_ino != _FIRST_INODE:
        return False
    try:
        with _directory(path) as directory:
            _tree_of(directory)
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP):
            return False  # another file system, where 256 is a number like any
        raise
    return True


def destroy(path: Path) -> None:
    """Destroy the subvolume ``path`` with all that are nested in it.  Its blocks are freed by the kernel, later."""
    with _directory(path) as directory:
        tree = _tree_of(directory)
    # Through the parent, as the subvolume itself must not be held open by us.
    with _directory(path.parent) as parent:
        _destroy(parent, tree, path)


def destroy_below(directory: Path) -> int:
    """Destroy every subvolume strictly inside ``directory``.  Returns how many were found on the way, nested ones
    not counted.  Walks the whole of ``directory``: meant for what is left after all else in it was deleted.
    """
    count = 0
    pending = [directory]
    while pending:
        with os.scandir(pending.pop()) as entries:
            found = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
        for path in found:
            if is_subvolume(path):
                destroy(path)
                count += 1
            else:
                pending.append(path)
    return count


def _destroy(fd: int, tree: int, path: Path) -> None:
    for child in _children(fd, tree):
        try:
            _destroy(fd, child, path)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            # A read-only subvolume does not let go of what is nested in it.
            _make_writable(fd, tree, path)
            _destroy(fd, child, path)
    _call(fd, _SNAP_DESTROY_V2, struct.pack("=qQQ32xQ4032x", 0, 0, _SPEC_BY_ID, tree), path)


def _children(fd: int, tree: int) -> list[int]:
    """The ids of the subvolumes that lie directly in the subvolume ``tree``."""
    found: list[int] = []
    after = 0
    while True:
        key = struct.pack(
            "=7Q4I32x3992x",
            *(_ROOT_TREE, tree, tree, after, _MAX_ID, 0, _MAX_ID),
            *(_ROOT_REF_KEY, _ROOT_REF_KEY, 4096, 0),
        )
        answer = _call(fd, _TREE_SEARCH, key, None)
        (items,) = struct.unpack_from("=I", answer, 64)
        if items == 0:
            return found
        at = 104
        for _ in range(items):
            _, _, child, _, length = struct.unpack_from("=QQQII", answer, at)
            found.append(child)
            at += 32 + length
        after = found[-1] + 1


def _make_writable(fd: int, tree: int, path: Path) -> None:
    # A handle names the root directory of a subvolume by number alone; generation 0 stands for any.
    handle = struct.pack("=IiQQI", 20, _HANDLE_TYPE, _FIRST_INODE, tree, 0)
    opened = _libc.open_by_handle_at(fd, handle, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    if opened < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fspath(path))
    try:
        (flags,) = struct.unpack("=Q", _call(opened, _SUBVOL_GETFLAGS, bytes(8), path))
        _call(opened, _SUBVOL_SETFLAGS, struct.pack("=Q", flags & ~_READ_ONLY), path)
    finally:
        os.close(opened)


def _tree_of(directory: int) -> int:
    """The id of the subvolume that an open directory lies in."""
    answer = _call(directory, _INO_LOOKUP, struct.pack("=QQ4080x", 0, _FIRST_INODE), None)
    tree: int
    (tree,) = struct.unpack_from("=Q", answer)
    return tree


def _call(fd: int, request: int, arguments: bytes, path: Path | None) -> bytearray:
    buffer = bytearray(arguments)
    try:
        fcntl.ioctl(fd, request, buffer)
    except OSError as error:
        if path is not None:
            error.filename = os.fspath(path)
        raise
    return buffer


@contextlib.contextmanager
def _directory(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
