"""mount(2), umount2(2), syncfs(2) and /proc/self/mountinfo: what the standard library lacks, and no policy.

Failures are OSErrors with the kernel's errno.  All calls block; async callers put them into a thread.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_REMOUNT = 32
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]
_libc.syncfs.argtypes = [ctypes.c_int]


@dataclass(frozen=True)
class MountPoint:
    """One line of proc(5)'s mountinfo."""

    mount_id: int
    parent_id: int
    root: str
    path: str
    options: str
    peers: tuple[str, ...]  # "shared:1", "master:2": mount_namespaces(7)
    filesystem: str
    source: str
    super_options: str


def mount(source: str, target: str | Path, filesystem: str, flags: int = 0, data: str = "") -> None:
    """mount(2).  ``data`` has to fit into one page with its final NUL; the kernel cuts off the rest in silence."""
    encoded = os.fsencode(data)
    if len(encoded) >= os.sysconf("SC_PAGE_SIZE"):
        raise ValueError(f"{len(encoded)} bytes of mount options do not fit into one page")
    result = _libc.mount(os.fsencode(source), os.fsencode(target), filesystem.encode(), flags, encoded)
    if result != 0:
        raise _last_error(target)


def unmount(target: str | Path, flags: int = UMOUNT_NOFOLLOW) -> None:
    """umount2(2).  With MNT_DETACH the mount leaves the tree at once and goes when its last user does."""
    if _libc.umount2(os.fsencode(target), flags) != 0:
        raise _last_error(target)


def sync_filesystem(path: Path) -> None:
    """Write all that is dirty on the file system that holds ``path`` to the disk: syncfs(2)."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(fd) != 0:
            raise _last_error(path)
    finally:
        os.close(fd)


def mount_points(mountinfo: Path = Path("/proc/self/mountinfo")) -> list[MountPoint]:
    """The mounts of this process's namespace, in the order of mountinfo (a later one may lie over an earlier)."""
    lines = mountinfo.read_bytes().splitlines()
    return [_parse(line) for line in lines]


def mounts_below(directory: Path, points: Iterable[MountPoint] | None = None) -> list[MountPoint]:
    """The mounts strictly inside ``directory``, the innermost first: the order in which they can be unmounted."""
    prefix = os.fspath(directory.resolve()).rstrip("/") + "/"
    inside = [point for point in (mount_points() if points is None else points) if point.path.startswith(prefix)]
    return inside[::-1]


def _parse(line: bytes) -> MountPoint:
    fields = line.split(b" ")
    # Optional fields (peer groups) stand between the sixth field and a lone "-".
    dash = fields.index(b"-", 6)
    filesystem, source, super_options = fields[dash + 1 : dash + 4]
    return MountPoint(
        mount_id=int(fields[0]),
        parent_id=int(fields[1]),
        root=_unescape(fields[3]),
        path=_unescape(fields[4]),
        options=_unescape(fields[5]),
        peers=tuple(_unescape(field) for field in fields[6:dash]),
        filesystem=_unescape(filesystem),
        source=_unescape(source),
        super_options=_unescape(super_options),
    )


def _unescape(field: bytes) -> str:
    """The kernel writes space, tab, newline and backslash as three octal digits."""
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), field))


def _last_error(path: str | Path) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), os.fspath(path))
