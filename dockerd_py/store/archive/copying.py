"""The helper program that copies out of a container's root filesystem, or into it.

It mounts what the container has mounted (its binds, /etc/hosts and the like) in a mount namespace of its own, so the
container's files look as they do from inside, whether it runs or not, and nothing of it stays when the helper ends.
Every name is resolved by openat2(2) inside the container's root, and things are made by the *at calls in directories
opened so: neither the archive nor the container, which may rename things meanwhile, leads anywhere else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import resource
import stat
from collections.abc import Iterator
from typing import Any

from dockerd_py.confined import mkdirs_in_root, open_in_root, stat_in_root
from dockerd_py.errors import BadArchive, BadParameter, Denied, NotFound
from dockerd_py.store.archive.allowance import Allowance
from dockerd_py.store.archive.entries import Entry, entries
from dockerd_py.store.archive.extract import write_contents
from dockerd_py.store.archive.program import CLIENT, begin, own_mounts, run, show, walk_deep
from dockerd_py.store.archive.stream import RawInput, TarStream, open_decompressed
from dockerd_py.store.archive.treetar import KEPT_XATTRS, TreeWriter

_MEMORY = 1 << 30
_MAX_LINKS = 40
# null, zero, full, random, urandom, tty, console, ptmx: what is copied in may end in a directory of the host's, where
# no container's rules guard a device.
_HARMLESS_DEVICES = ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2))
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC = 1, 32, 4096, 16384
_FD = "/proc/self/fd/%d"
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SUBDIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def main(arguments: dict[str, Any]) -> None:
    """``root``, ``mounts`` ([source, target, read-only] each), ``path`` and ``action``:

    "stat" answers with the path's stat; "get" with that and a tar of it (``follow``: of what a link leads to); "put"
    unpacks standard input (``no_overwrite``: a directory never takes the place of a file, nor the other way round;
    ``owner``: [uid, gid] of all of it, or null; ``limit``: bytes that it may have, uncompressed, 0 for no limit).
    """

    def work() -> None:
        own_mounts()
        root = os.open(arguments["root"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        # As the runtime has it: links of the image decide what lies in what, before anything is mounted.
        places = [(source, resolve(root, target), read_only) for source, target, read_only in arguments["mounts"]]
        for source, target, read_only in sorted(places, key=lambda place: place[1].count("/")):
            _bind(root, source, target, read_only)
        path = arguments["path"]
        if arguments["action"] == "put":
            _put(root, path, arguments["no_overwrite"], arguments["owner"], arguments["limit"])
        else:
            _get(root, path, follow=arguments["follow"], with_tar=arguments["action"] == "get")

    run(work, CLIENT)


def resolve(root: int, path: str) -> str:
    """Where ``path`` leads inside ``root`` when every link in it is followed; what is missing is taken as it stands."""
    done: list[str] = []
    todo = [part for part in path.split("/") if part not in ("", ".")][::-1]
    links = 0
    while todo:
        part = todo.pop()
        if part == "..":
            del done[-1:]
            continue
        done.append(part)
        try:
            fd = open_in_root(root, "/".join(done), os.O_PATH | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            continue
        try:
            if stat.S_ISLNK(os.fstat(fd).st_mode):
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                target = os.readlink("", dir_fd=fd)
                done = [] if target.startswith("/") else done[:-1]
                todo += [part for part in target.split("/") if part not in ("", ".")][::-1]
        finally:
            os.close(fd)
    return "/" + "/".join(done)


def _bind(root: int, source: str, target: str, read_only: bool) -> None:
    from dockerd_py.store.mounts import mount  # noqa: PLC0415 - ctypes, for those that have mounts

    try:
        is_directory = os.path.isdir(source)
        if not is_directory and not os.path.exists(source):
            return  # it is made when the container starts
        try:
            fd = open_in_root(root, target, os.O_PATH)
        except FileNotFoundError:
            mkdirs_in_root(root, target if is_directory else posixpath.dirname(target))
            if not is_directory:
                os.close(open_in_root(root, target, os.O_WRONLY | os.O_CREAT, 0o644))
            fd = open_in_root(root, target, os.O_PATH)
        mount(source, _FD % fd, "none", _MS_BIND | _MS_REC)
        os.close(fd)
        if read_only:
            fd = open_in_root(root, target, os.O_PATH)
            mount("none", _FD % fd, "none", _MS_BIND | _MS_REMOUNT | _MS_RDONLY)
            os.close(fd)
    except OSError as error:
        raise BadParameter(f"cannot show what is mounted at {target}: {error.strerror}") from error


# Out of the container


def _get(root: int, path: str, *, follow: bool, with_tar: bool) -> None:
    path = resolve(root, path) if follow else path
    absolute = "/" + path.lstrip("/")
    # A last "/" or "/." asks for the directory behind a link; else the last component is taken as it is.
    directory, base = posixpath.split(absolute)
    place = posixpath.join(resolve(root, directory), base)
    inside = base in ("", ".", "..")
    if inside:
        place = resolve(root, absolute)
    try:
        info = stat_in_root(root, place, follow=False)
    except FileNotFoundError:
        raise NotFound(path) from None
    if inside and not stat.S_ISDIR(info.st_mode):
        raise BadParameter(f"{path}: not a directory")
    name = base if base in (".", "..") else posixpath.basename(absolute.rstrip("/")) or "/"
    answer = {
        "name": name,
        "size": info.st_size,
        "mode": info.st_mode,
        "mtime": info.st_mtime_ns,
        "link": resolve(root, absolute) if stat.S_ISLNK(info.st_mode) else "",
    }
    output = begin(answer)
    if with_tar:
        walk_deep()
        writer = TreeWriter(output.write)
        parent, last = posixpath.split(place)
        with contextlib.suppress(FileNotFoundError), _closing(open_in_root(root, parent, _SUBDIRECTORY)) as fd:
            writer.add_tree(fd, last or ".", os.fsencode(name))
        writer.finish()
        output.flush()


# Into the container


def _put(root: int, path: str, no_overwrite: bool, owner: list[int] | None, limit: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    os.umask(0)
    place = resolve(root, path)
    try:
        fd = open_in_root(root, place, os.O_PATH | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise NotFound(path) from None
    with _closing(fd):
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            raise BadParameter("extraction point is not a directory")
        if os.statvfs(_FD % fd).f_flag & os.ST_RDONLY:
            raise Denied(f"{path}: mounted volume is marked read-only")
        allowance = Allowance(limit, os.open(_FD % fd, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    stream = TarStream(open_decompressed(RawInput(0)), allowance=allowance)
    Unpacker(root, place, no_overwrite=no_overwrite, owner=owner).unpack(stream)
    stream.finish()
    begin({})


class Unpacker:
    """Writes an archive's entries below ``place``, a path without links in ``root``."""

    def __init__(self, root: int, place: str, *, no_overwrite: bool, owner: list[int] | None) -> None:
        self._root = root
        self._place = place
        self._keeps_kinds = no_overwrite
        self._owner = owner
        self._times: list[tuple[str, int]] = []

    def unpack(self, stream: TarStream) -> None:
        for entry in entries(stream):
            parts = _parts(entry.name, entry)
            if not parts:
                if not entry.isdir():
                    raise BadArchive(f"{entry.shown}: the root of the archive can only be a directory")
                continue  # what is unpacked into stays as it is
            with _closing(self._parent(parts[:-1])) as parent:
                self._add(entry, parent, parts, stream)
        for path, time in reversed(self._times):
            with contextlib.suppress(OSError), _closing(open_in_root(self._root, path, _SUBDIRECTORY)) as fd:
                os.utime(fd, ns=(time, time))

    def _add(self, entry: Entry, parent: int, parts: list[str], stream: TarStream) -> None:
        name = parts[-1]
        exists = self._make_room(parent, name, entry)
        uid, gid = self._owner or (entry.uid, entry.gid)
        if entry.isreg():
            with _closing(os.open(name, _NEW_FILE, 0o600, dir_fd=parent)) as fd:
                write_contents(fd, entry, stream)
                self._finish(fd, entry, uid, gid)
                os.utime(fd, ns=(entry.mtime_ns(), entry.mtime_ns()))
            return
        if entry.isdir():
            if not exists:
                os.mkdir(name, 0o700, dir_fd=parent)
            with _closing(os.open(name, _SUBDIRECTORY, dir_fd=parent)) as fd:
                self._finish(fd, entry, uid, gid)
            self._times.append((posixpath.join(self._place, *parts), entry.mtime_ns()))
            return
        if entry.islnk():
            self._link(entry, parent, name)
            return
        if entry.issym():
            os.symlink(entry.linkname, name, dir_fd=parent)
        elif entry.isfifo():
            os.mkfifo(name, 0o600, dir_fd=parent)
        elif entry.ischr() and (entry.devmajor, entry.devminor) in _HARMLESS_DEVICES:
            os.mknod(name, stat.S_IFCHR | 0o600, os.makedev(entry.devmajor, entry.devminor), dir_fd=parent)
        elif entry.isdev():
            raise BadArchive(f"{entry.shown}: the device {entry.devmajor}:{entry.devminor} may not be made")
        else:
            raise BadArchive(f"{entry.shown}: entries of type {entry.type!r} are not known here")
        os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
        if not entry.issym():
            with _closing(open_in_root(parent, name, os.O_PATH | os.O_NOFOLLOW)) as fd:
                os.chmod(_FD % fd, entry.mode & 0o7777)
        os.utime(name, ns=(entry.mtime_ns(), entry.mtime_ns()), dir_fd=parent, follow_symlinks=False)

    def _make_room(self, parent: int, name: str, entry: Entry) -> bool:
        """Take away what is in the way.  True when it is a directory that the entry's goes into."""
        try:
            info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return False
        is_directory = stat.S_ISDIR(info.st_mode)
        if is_directory and entry.isdir():
            return True
        if self._keeps_kinds and is_directory != entry.isdir():
            old, new = ("directory", "non-directory") if is_directory else ("non-directory", "directory")
            path = show(posixpath.join(self._place, entry.name))
            raise BadParameter(f'cannot overwrite {old} "{path}" with {new} "{self._place}"')
        _remove(parent, name, is_directory)
        return False

    def _parent(self, parts: list[str]) -> int:
        path = posixpath.join(self._place, *parts)
        try:
            return open_in_root(self._root, path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            mkdirs_in_root(self._root, path)
            return open_in_root(self._root, path, os.O_RDONLY | os.O_DIRECTORY)

    def _link(self, entry: Entry, parent: int, name: str) -> None:
        parts = _parts(entry.linkname, entry)
        if not parts:
            raise BadArchive(f"{entry.shown}: hard link to the root of the archive")
        try:
            with _closing(self._parent(parts[:-1])) as source:
                os.link(parts[-1], name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            raise BadArchive(f"{entry.shown}: hard link to {show(entry.linkname)}, which is not there") from None

    def _finish(self, fd: int, entry: Entry, uid: int, gid: int) -> None:
        os.fchown(fd, uid, gid)
        os.fchmod(fd, entry.mode & 0o7777)  # after the owner, which takes set-user-id bits away
        for key, value in entry.xattrs().items():
            if key.startswith(KEPT_XATTRS):
                with contextlib.suppress(OSError):  # a file system without them
                    os.setxattr(fd, key, value)


def _parts(name: str, entry: Entry) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BadArchive(f'{entry.shown}: {show(name)} has ".." in it, which could lead out of the archive')
    return parts


def _remove(parent: int, name: str, is_directory: bool) -> None:
    if not is_directory:
        os.unlink(name, dir_fd=parent)
        return
    with _closing(os.open(name, _SUBDIRECTORY, dir_fd=parent)) as fd, os.scandir(fd) as found:
        for entry in found:
            _remove(fd, entry.name, entry.is_dir(follow_symlinks=False))
    os.rmdir(name, dir_fd=parent)


@contextlib.contextmanager
def _closing(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)
