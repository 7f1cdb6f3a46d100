"""Names inside a root that is not ours, resolved by the kernel and never past that root.

A container's root filesystem is written by strangers: any component of a name may be a symbolic link to
``/etc``, a fifo that never answers, a device whose mere opening does something.  Every function here takes a
root and a name *as the container sees it*, and resolves it with openat2(2) and RESOLVE_IN_ROOT, so that an
absolute link starts at that root and ``..`` stops there, whatever is renamed meanwhile.  Needs Linux 5.6.

Failures are OSErrors that carry the name asked for.  Nothing here logs, blocks on a fifo or opens a device.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import struct
from collections import deque
from collections.abc import Iterator

Root = int | str | os.PathLike[str]  # an open directory (any mode, O_PATH too) or its path on the host
Name = str | bytes | os.PathLike[str]  # as seen from inside; a leading "/" changes nothing

_SYS_OPENAT2 = 437  # one number for every architecture since 5.0
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10
_RACE_RETRIES = 256  # EAGAIN: somebody renamed directories while a ".." was resolved
_MAX_LINKS = 40  # as many as the kernel follows
_CREATING = os.O_CREAT | (os.O_TMPFILE & ~os.O_DIRECTORY)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def openat2(dir_fd: int, name: Name, flags: int, mode: int = 0) -> int:
    """openat2(2) below ``dir_fd`` with RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS; always O_CLOEXEC.

    ``mode`` counts only with O_CREAT or O_TMPFILE.  Raises OSError: ENOSYS on a kernel before 5.6, EAGAIN when
    the tree is renamed without end.
    """
    raw = os.fsencode(name)
    if b"\0" in raw:
        raise _error(errno.EINVAL, name)
    how = struct.pack(
        "QQQ", flags | os.O_CLOEXEC, mode if flags & _CREATING else 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS
    )
    for _ in range(_RACE_RETRIES):
        fd: int = _libc.syscall(
            ctypes.c_long(_SYS_OPENAT2),
            ctypes.c_long(dir_fd),
            ctypes.c_char_p(raw or b"."),
            ctypes.c_char_p(how),
            ctypes.c_size_t(len(how)),
        )
        if fd >= 0:
            return fd
        code = ctypes.get_errno()
        if code not in (errno.EAGAIN, errno.EINTR):
            break
    if code == errno.ENOSYS:
        raise OSError(code, "openat2(2) is missing: Linux 5.6 or later is needed", os.fsdecode(raw))
    raise _error(code, name)


def open_in_root(root: Root, name: Name, flags: int, mode: int = 0) -> int:
    """A file descriptor (O_CLOEXEC) for ``name`` below ``root``; the caller closes it.

    The flags are open(2)'s and follow a link in the last place unless O_NOFOLLOW is set.  With other flags than
    O_PATH or O_DIRECTORY this opens fifos and devices like any open does: see `read_in_root`.
    """
    with _directory(root) as root_fd:
        return openat2(root_fd, name, flags, mode)


def read_in_root(root: Root, name: Name, limit: int = 1 << 20) -> bytes:
    """The contents of a regular file of at most ``limit`` bytes.

    Raises OSError: EINVAL for anything but a regular file (which is not opened), EFBIG for a larger one.
    """
    with contextlib.ExitStack() as stack:
        path_fd = open_in_root(root, name, os.O_PATH)
        stack.callback(os.close, path_fd)
        if not stat.S_ISREG(os.fstat(path_fd).st_mode):
            raise OSError(errno.EINVAL, "Not a regular file", os.fsdecode(name))
        fd = os.open(f"/proc/self/fd/{path_fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        stack.callback(os.close, fd)
        pieces = []
        left = limit + 1
        while left > 0 and (piece := os.read(fd, min(left, 1 << 20))):
            pieces.append(piece)
            left -= len(piece)
        if left <= 0:
            raise OSError(errno.EFBIG, f"Larger than {limit} bytes", os.fsdecode(name))
        return b"".join(pieces)


def stat_in_root(root: Root, name: Name, *, follow: bool = True) -> os.stat_result:
    """stat(2), or lstat(2) unless ``follow``, of ``name`` below ``root``."""
    fd = open_in_root(root, name, os.O_PATH | (0 if follow else os.O_NOFOLLOW))
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def exists_in_root(root: Root, name: Name) -> bool:
    """Whether ``name``, its links followed, leads to anything.  Other failures than a missing or looping name
    (EACCES, EIO) are raised, not taken for an answer."""
    try:
        stat_in_root(root, name)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
            return False
        raise
    return True


def mkdirs_in_root(root: Root, name: Name, mode: int = 0o755, uid: int = -1, gid: int = -1) -> None:
    """Make ``name`` and every directory above it that is missing; each new one gets exactly ``mode`` and owner.

    Links on the way are followed inside the root, and a dangling one has its target made, as a container's
    own ``mkdir -p`` at that target would.  What exists is left as it is.  Raises NotADirectoryError when a
    component is a file, OSError ELOOP for a circle.
    """
    todo = deque(_components(name))
    done: list[bytes] = []
    links = 0
    with _directory(root) as root_fd, contextlib.ExitStack() as stack:
        parent = os.dup(root_fd)
        stack.callback(lambda: os.close(parent))
        while todo:
            part = todo.popleft()
            try:
                fd = openat2(root_fd, b"/".join([*done, part]), os.O_PATH | os.O_DIRECTORY)
            except FileNotFoundError:
                target = _make_or_read_link(parent, part, mode, uid, gid)
                if target is None:
                    todo.appendleft(part)  # it is there now: opened like the others
                    continue
                links += 1
                if links > _MAX_LINKS:
                    raise _error(errno.ELOOP, name) from None
                todo.extendleft(reversed(_components(target)))
                if target.startswith(b"/"):
                    done = []
                    os.dup2(root_fd, parent, inheritable=False)
                continue
            except OSError as error:
                raise _error(error.errno or errno.EIO, name) from None
            os.dup2(fd, parent, inheritable=False)
            os.close(fd)
            done.append(part)


def _make_or_read_link(parent: int, part: bytes, mode: int, uid: int, gid: int) -> bytes | None:
    """Make the directory ``part``; or, where a link of that name is in the way, say where it points."""
    try:
        os.mkdir(part, mode, dir_fd=parent)
    except FileExistsError:
        try:
            return os.readlink(part, dir_fd=parent)
        except OSError:
            return None  # no link any more: the caller looks again
    fd = openat2(parent, part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchown(fd, uid, gid)
        os.fchmod(fd, mode)  # mkdir's was cut by our umask, and fchown clears the set-id bits
    finally:
        os.close(fd)
    return None


def _components(name: Name) -> list[bytes]:
    return [part for part in os.fsencode(name).split(b"/") if part not in (b"", b".")]


@contextlib.contextmanager
def _directory(root: Root) -> Iterator[int]:
    if isinstance(root, int):
        yield root
        return
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _error(code: int, name: Name) -> OSError:
    return OSError(code, os.strerror(code), os.fsdecode(name))
