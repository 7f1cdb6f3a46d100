"""From tar entries to files, inside the process's root directory.

The process has changed its root to the target before any of this runs, so nothing here can reach outside; the
checks below are for the archives that *try*, which get an error that names the entry.  Every path that is written
to has been resolved to one without symbolic links first.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable

from dockerd_py.errors import BadArchive
from dockerd_py.store.archive.entries import Entry, entries
from dockerd_py.store.archive.program import show
from dockerd_py.store.archive.skeleton import SkeletonWriter
from dockerd_py.store.archive.stream import TarStream

OVERLAY = "overlay"
AUFS = "aufs"
APPLY = "apply"

WHITEOUT = ".wh."
WHITEOUT_META = ".wh..wh."
WHITEOUT_OPAQUE = ".wh..wh..opq"
OPAQUE_XATTR = "trusted.overlay.opaque"

PSEUDO_LINKS = ".wh..wh.plnk"  # where aufs keeps the files that have names in several branches

_CHUNK = 4096  # zeros of this length or more become a hole
_ZEROS = bytes(1 << 18)

_KEPT_XATTRS = ("user.", "security.capability", "security.ima", "system.posix_acl_")
_OVERLAY_XATTRS = ("trusted.overlay.", "user.overlay.")
_MAX_LINKS = 40
_MAX_MAJOR, _MAX_MINOR = (1 << 12) - 1, (1 << 20) - 1  # the kernel's own, MINORBITS in linux/kdev_t.h
_MAX_KNOWN = 200_000
_MAX_LOST = 20
_NO_XATTRS = (errno.ENOTSUP, errno.EPERM)


class Extractor:
    """Writes entries below the current directory, which is the root directory.

    ``whiteouts`` says what ``.wh.`` entries become; with APPLY they take away what was there before, but nothing
    that this archive brought.  ``skeleton`` learns where each file's contents go, and which are replaced.
    """

    def __init__(self, whiteouts: str, skeleton: SkeletonWriter | None = None) -> None:
        self._skeleton = skeleton
        self.size = 0
        self.count = 0
        self.lost: list[str] = []
        self._overlay = whiteouts == OVERLAY
        self._apply = whiteouts == APPLY
        self._aufs = whiteouts == AUFS
        self._brought: set[str] = set()  # with APPLY alone
        self._cleaned: set[str] = set()  # directories that hold nothing else any more
        self._directories: set[str] = set()  # known to be directories, on paths without symbolic links
        self._times: dict[str, tuple[int, int]] = {}  # directory: (inode, mtime), set when all else is written
        self._links_aside = False  # whether the archive has brought pseudo-links of aufs's

    def extract(self, stream: TarStream) -> None:
        for entry in entries(stream):
            self.count += 1
            try:
                self._add(entry, stream)
            except OSError as error:
                if error.filename is None:
                    error.filename = entry.shown
                raise
        if self._links_aside:
            self._clear(PSEUDO_LINKS)
        for path, (inode, time) in self._times.items():
            # What a later entry has put in its place keeps its own time.
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                if os.lstat(path).st_ino == inode:
                    os.utime(path, ns=(time, time), follow_symlinks=False)

    def _add(self, entry: Entry, stream: TarStream) -> None:
        parts = _parts(entry.name, entry)
        if not parts:
            if not entry.isdir():
                raise BadArchive(f"{entry.shown}: the root of the archive can only be a directory")
            self._finish_directory(".", entry)
            return
        if parts[0] == PSEUDO_LINKS:
            self._put_aside(parts, entry, stream)
            return
        for part in parts[:-1]:
            if part.startswith(WHITEOUT_META):
                return
            if part.startswith(WHITEOUT):
                raise BadArchive(f"{entry.shown}: {show(part)} is a whiteout's name, and no directory's")
        parent = self._parent(parts[:-1], entry, make=True)
        name = parts[-1]
        if name.startswith(WHITEOUT):
            self._white_out(parent, name, entry)
            return
        path = _join(parent, name)
        if self._apply:
            self._note(path)
        if self._aufs and not entry.isdir():
            self._take_whiteout(path)
        if entry.isdir():
            self._make_directory(path, entry)
        elif entry.isreg():
            self._make_file(path, entry, stream)
        elif entry.issym():
            self._retry(path, lambda: os.symlink(entry.linkname, path))
            self._finish_special(path, entry)
        elif entry.islnk():
            self._make_hard_link(path, entry)
        elif entry.isfifo():
            self._retry(path, lambda: os.mkfifo(path, 0o600))
            self._finish_special(path, entry)
        elif entry.isdev():
            self._make_device(path, entry)
        else:
            raise BadArchive(f"{entry.shown}: entries of type {entry.type!r} are not known here")

    # The kinds of entries

    def _make_directory(self, path: str, entry: Entry) -> None:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            info = os.lstat(path)
            if not stat.S_ISDIR(info.st_mode):
                self._clear(path)
                os.mkdir(path, 0o700)
                if self._is_whiteout(info):
                    self._make_opaque(path)
        if self._aufs and self._take_whiteout(path):
            self._make_opaque(path)
        self._know(path)
        self._finish_directory(path, entry)

    def _finish_directory(self, path: str, entry: Entry) -> None:
        os.chown(path, entry.uid, entry.gid)
        os.chmod(path, entry.mode & 0o7777)
        self._set_xattrs(path, entry)
        self._times[path] = (os.lstat(path).st_ino, entry.mtime_ns())

    def _make_file(self, path: str, entry: Entry, stream: TarStream) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(path, flags, 0o600)
        except FileExistsError:
            self._clear(path)
            fd = os.open(path, flags, 0o600)
        if self._skeleton is not None:
            self._skeleton.contents(path, entry.segments(), sparse=entry.sparse is not None)
        try:
            write_contents(fd, entry, stream)
            os.fchown(fd, entry.uid, entry.gid)
            os.fchmod(fd, entry.mode & 0o7777)  # after the owner, which takes set-user-id bits away
            self._set_xattrs(fd, entry)
            time = entry.mtime_ns()
            os.utime(fd, ns=(time, time))
        finally:
            os.close(fd)
        self.size += entry.size

    def _make_hard_link(self, path: str, entry: Entry) -> None:
        parts = _parts(entry.linkname, entry, "hard link to ")
        missing = f"{entry.shown}: hard link to {show(entry.linkname)}, which the archive has not brought before"
        aside = parts[:1] == [PSEUDO_LINKS]
        if not parts:
            raise BadArchive(f"{entry.shown}: hard link to the root of the archive")
        target = _join(self._parent(parts[:-1], entry, make=False, missing=missing), parts[-1])
        try:
            info = os.lstat(target)
        except FileNotFoundError:
            raise BadArchive(missing) from None
        if stat.S_ISDIR(info.st_mode) or self._is_whiteout(info) or (parts[-1].startswith(WHITEOUT) and not aside):
            raise BadArchive(f"{entry.shown}: hard link to {show(entry.linkname)}, which is no file")
        if target.startswith(path + "/"):
            raise BadArchive(f"{entry.shown}: hard link to {show(entry.linkname)}, in the directory that it replaces")
        if target != path:
            self._retry(path, lambda: os.link(target, path, follow_symlinks=False))

    def _make_device(self, path: str, entry: Entry) -> None:
        """Any: a layer's directory is root's alone, and which devices a container may open is for its scope to say."""
        numbers = (entry.devmajor, entry.devminor)
        if not (0 <= numbers[0] <= _MAX_MAJOR and 0 <= numbers[1] <= _MAX_MINOR):
            raise BadArchive(f"{entry.shown}: the device number {numbers[0]}:{numbers[1]} is out of range")
        if self._overlay and entry.ischr() and numbers == (0, 0):
            raise BadArchive(
                f"{entry.shown}: a character device 0:0, which takes a file of the layers below away where they lie on "
                "each other by overlayfs; leave it out, or use another storage driver",
            )
        kind = stat.S_IFCHR if entry.ischr() else stat.S_IFBLK
        self._retry(path, lambda: os.mknod(path, kind | 0o600, os.makedev(*numbers)))
        self._finish_special(path, entry)

    def _finish_special(self, path: str, entry: Entry) -> None:
        os.lchown(path, entry.uid, entry.gid)
        if not entry.issym():
            os.chmod(path, entry.mode & 0o7777)
        self._set_xattrs(path, entry)
        time = entry.mtime_ns()
        os.utime(path, ns=(time, time), follow_symlinks=False)

    def _white_out(self, parent: str, name: str, entry: Entry) -> None:
        if name == WHITEOUT_OPAQUE:
            if self._apply:
                self._delete_old(parent)
            else:
                self._make_opaque(parent or ".")
            return
        if name.startswith(WHITEOUT_META):
            return  # aufs's own bookkeeping
        hidden = name[len(WHITEOUT) :]
        if hidden in ("", ".", ".."):
            raise BadArchive(f"{entry.shown}: a whiteout of nothing")
        path = _join(parent, hidden)
        if self._apply:
            if path not in self._brought:
                self._clear(path)
            elif os.path.isdir(path) and not os.path.islink(path):
                self._delete_old(path)
            return
        try:
            if stat.S_ISDIR(os.lstat(path).st_mode):
                self._make_opaque(path)
            # This archive brought it, and a whiteout speaks of the layers below only.
        except FileNotFoundError:
            if self._aufs:
                _touch(_join(parent, name))
            else:
                os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))

    def _put_aside(self, parts: list[str], entry: Entry, stream: TarStream) -> None:
        """Keep a pseudo-link, which later entries are hard links to, until the archive's end."""
        if len(parts) != 2 or not entry.isreg():
            return  # the directory itself, or nothing that aufs writes
        if not self._links_aside:
            os.mkdir(PSEUDO_LINKS, 0o700)
            self._links_aside = True
        path = "/".join(parts)
        self._note(path)
        self._make_file(path, entry, stream)

    def _make_opaque(self, directory: str) -> None:
        """Let nothing of the layers below show in ``directory``."""
        if self._aufs:
            _touch(_join(directory, WHITEOUT_OPAQUE))
        else:
            os.setxattr(directory, OPAQUE_XATTR, b"y")

    def _take_whiteout(self, path: str) -> bool:
        """Take aufs's whiteout of ``path`` away, as this archive brings what it hid.  Whether there was one."""
        parent, _, name = path.rpartition("/")
        try:
            os.unlink(_join(parent, WHITEOUT + name))
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            return False
        return True

    # What they share

    def _parent(self, parts: list[str], entry: Entry, *, make: bool, missing: str = "") -> str:
        """The directory named by ``parts`` as a path without symbolic links.

        Symbolic links on the way are followed only while they lead from inside to inside, relatively.
        """
        direct = "/".join(parts)
        if not direct or direct in self._directories:
            return direct
        current = ""
        links = 0
        pending = parts[::-1]
        while pending:
            part = pending.pop()
            if part == "..":
                current = current.rpartition("/")[0]
                continue
            path = _join(current, part)
            if path in self._directories:
                current = path
                continue
            try:
                info = os.lstat(path)
            except FileNotFoundError:
                if not make:
                    raise BadArchive(missing) from None
                os.mkdir(path, 0o755)
                if self._apply:
                    self._note(path)
                if self._aufs and self._take_whiteout(path):
                    self._make_opaque(path)
            else:
                if stat.S_ISLNK(info.st_mode):
                    links += 1
                    pending += self._follow(path, current, entry, links)
                    continue
                if self._is_whiteout(info) and make:
                    self._clear(path)
                    os.mkdir(path, 0o755)
                    self._make_opaque(path)
                elif not stat.S_ISDIR(info.st_mode):
                    raise BadArchive(f"{entry.shown}: {show(path)} is in the archive already, and is no directory")
            self._know(path)
            current = path
        return current

    def _follow(self, path: str, directory: str, entry: Entry, links: int) -> list[str]:
        target = os.readlink(path)
        shown = f"{entry.shown}: {show(path)} on its way is a symbolic link to {show(target)}"
        if links > _MAX_LINKS:
            raise BadArchive(f"{shown}, and there are too many of them")
        depth = directory.count("/") + 1 if directory else 0
        parts = [part for part in target.split("/") if part not in ("", ".")]
        for part in parts:
            depth += -1 if part == ".." else 1
            if depth < 0:
                break
        if target.startswith("/") or depth < 0:
            raise BadArchive(f"{shown}, which leads out of the archive's root")
        return parts[::-1]

    def _retry(self, path: str, make: Callable[[], None]) -> None:
        try:
            make()
        except FileExistsError:
            self._clear(path)
            make()

    def _clear(self, path: str) -> None:
        """Take away whatever is at ``path``."""
        if self._skeleton is not None and os.path.lexists(path):
            self._skeleton.replaced(path)
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        except (IsADirectoryError, PermissionError):
            self._directories.clear()
            shutil.rmtree(path)

    def _delete_old(self, directory: str) -> None:
        """Delete what is in ``directory`` and did not come with this archive."""
        if directory in self._cleaned:
            return
        self._cleaned.add(directory)
        with os.scandir(directory or ".") as found:
            names = [entry.name for entry in found]
        for name in names:
            path = _join(directory, name)
            if path not in self._brought:
                self._clear(path)
            elif os.path.isdir(path) and not os.path.islink(path):
                self._delete_old(path)

    def _is_whiteout(self, info: os.stat_result) -> bool:
        """Of overlayfs's; elsewhere such a device is a device."""
        return self._overlay and stat.S_ISCHR(info.st_mode) and info.st_rdev == 0

    def _know(self, path: str) -> None:
        if len(self._directories) >= _MAX_KNOWN:
            self._directories.clear()
        self._directories.add(path)

    def _note(self, path: str) -> None:
        """Remember what this archive brought, with the directories above it."""
        while path and path not in self._brought:
            self._brought.add(path)
            path = path.rpartition("/")[0]

    def _set_xattrs(self, path: str | int, entry: Entry) -> None:
        for name, value in entry.xattrs().items():
            if name.startswith(_OVERLAY_XATTRS):
                raise BadArchive(f"{entry.shown}: the attribute {show(name)} would steer the overlay mount")
            if not name.startswith(_KEPT_XATTRS):
                self._lose(name, entry)
                continue
            try:
                if isinstance(path, int):
                    os.setxattr(path, name, value)
                else:
                    os.setxattr(path, name, value, follow_symlinks=False)
            except OSError as error:
                if error.errno not in _NO_XATTRS:
                    raise
                self._lose(name, entry)

    def _lose(self, name: str, entry: Entry) -> None:
        if len(self.lost) < _MAX_LOST:
            self.lost.append(f"{show(name)} of {entry.shown}")


def _parts(name: str, entry: Entry, what: str = "") -> list[str]:
    if name.startswith("/"):
        raise BadArchive(f"{entry.shown}: {what}{show(name)} is an absolute path; names in an archive are relative")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BadArchive(f'{entry.shown}: {what}{show(name)} has ".." in it, which could lead out of the archive')
    return parts


def write_contents(fd: int, entry: Entry, stream: TarStream) -> None:
    """An entry's contents into a new file: with the holes that the archive tells of, and with holes for long zeros."""
    truncated = BadArchive(f"the archive is truncated: it ends inside {entry.shown}")
    for offset, length in entry.segments():
        os.lseek(fd, offset, os.SEEK_SET)
        if not stream.copy(length, lambda piece: _write_all(fd, piece)):
            raise truncated
    if os.fstat(fd).st_size != entry.size:
        os.ftruncate(fd, entry.size)


def _write_all(fd: int, piece: memoryview) -> None:
    # Bytes, as memory views are compared item by item.
    if len(piece) >= _CHUNK and piece[0] == piece[-1] == 0 and bytes(piece) == _ZEROS[: len(piece)]:
        os.lseek(fd, len(piece), os.SEEK_CUR)
        return
    while piece:
        piece = piece[os.write(fd, piece) :]


def _touch(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o444))


def _join(parent: str, name: str) -> str:
    return f"{parent}/{name}" if parent else name
