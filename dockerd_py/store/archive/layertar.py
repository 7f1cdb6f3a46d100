"""A layer's tar from what a container changed: one canonical pax form, and the helper program that writes it.

The same tree always gives the same bytes: entries in the order of their paths, numeric owners only, a pax header
where a value does not fit into the old one and nowhere else, no padding beyond the two final blocks.  What is gone is
a ``.wh.`` entry, a directory that hides its old contents has ``.wh..wh..opq`` right behind it.

The program (``main``) prints one line of JSON, ``{}`` or the changes themselves, and then the tar.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Any

from dockerd_py import confined
from dockerd_py.store import changes
from dockerd_py.store.archive.program import begin, own_mounts, run

BLOCK = 512
PIECE = 1 << 20
WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"

EMPTY_DIFF_ID = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
"""Of the tar with nothing in it: two blocks of zeros."""

_REGULAR, _LINK, _SYMLINK, _CHARACTER, _BLOCK, _DIRECTORY, _FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_TYPES = {
    stat.S_IFREG: _REGULAR,
    stat.S_IFLNK: _SYMLINK,
    stat.S_IFCHR: _CHARACTER,
    stat.S_IFBLK: _BLOCK,
    stat.S_IFDIR: _DIRECTORY,
    stat.S_IFIFO: _FIFO,
}
_NANO = 10**9

Write = Callable[[bytes], object]


class LayerWriter:
    """Writes entries of the tree below ``root`` (an open directory) to ``write``; ``finish`` ends the archive."""

    def __init__(self, root: int, write: Write) -> None:
        self._root = root
        self._write = write
        self._links: dict[tuple[int, int], bytes] = {}

    def add(self, path: str, name: str) -> None:
        """The file, directory, link, fifo or device at ``path``, under ``name``.  A socket is left out.

        A further name of a file that was written before becomes a hard link.  Raises OSError.
        """
        fd = confined.open_in_root(self._root, path, os.O_PATH | os.O_NOFOLLOW)
        try:
            info = os.fstat(fd)
            type_ = _TYPES.get(stat.S_IFMT(info.st_mode))
            if type_ is None:
                return
            raw = os.fsencode(name)
            if type_ == _DIRECTORY:
                raw += b"/"
            elif info.st_nlink > 1:
                first = self._links.setdefault((info.st_dev, info.st_ino), raw)
                if first != raw:
                    self._header(raw, info, _LINK, target=first)
                    return
            target = os.fsencode(os.readlink("", dir_fd=fd)) if type_ == _SYMLINK else b""
            xattrs = changes.kept_xattrs(fd)
            if type_ == _REGULAR:
                self._file(fd, raw, info, xattrs)
            else:
                self._header(raw, info, type_, target=target, xattrs=xattrs)
        finally:
            os.close(fd)

    def add_marker(self, name: str) -> None:
        """An empty file with nothing of its own: a whiteout."""
        self._write(header(os.fsencode(name), mode=0, uid=0, gid=0, size=0, mtime_ns=0, type_=_REGULAR))

    def finish(self) -> None:
        self._write(bytes(2 * BLOCK))

    def _header(
        self,
        name: bytes,
        info: os.stat_result,
        type_: bytes,
        *,
        size: int = 0,
        target: bytes = b"",
        xattrs: dict[str, bytes] | None = None,
    ) -> None:
        device = (os.major(info.st_rdev), os.minor(info.st_rdev)) if type_ in (_CHARACTER, _BLOCK) else (0, 0)
        self._write(
            header(
                name,
                mode=stat.S_IMODE(info.st_mode),
                uid=info.st_uid,
                gid=info.st_gid,
                size=size,
                mtime_ns=info.st_mtime_ns,
                type_=type_,
                target=target,
                device=device,
                xattrs=xattrs or {},
            )
        )

    def _file(self, path_fd: int, name: bytes, info: os.stat_result, xattrs: dict[str, bytes]) -> None:
        fd = os.open(f"/proc/self/fd/{path_fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            self._header(name, info, _REGULAR, size=info.st_size, xattrs=xattrs)
            left = info.st_size
            while left > 0:
                piece = os.read(fd, min(left, PIECE))
                if not piece:  # it became shorter while it was read: the header has promised the rest
                    piece = bytes(min(left, PIECE))
                self._write(piece)
                left -= len(piece)
            self._write(bytes(-info.st_size % BLOCK))
        finally:
            os.close(fd)


def header(
    name: bytes,
    *,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime_ns: int,
    type_: bytes,
    target: bytes = b"",
    device: tuple[int, int] = (0, 0),
    xattrs: dict[str, bytes] | None = None,
) -> bytes:
    """One entry's header block, with a pax header before it where it needs one (pax(1), "pax Header Block")."""
    records: dict[str, bytes] = {}
    seconds, nanoseconds = divmod(mtime_ns, _NANO)
    if nanoseconds or not 0 <= seconds < 8**11:
        records["mtime"] = _decimal(mtime_ns)
    for key, value, limit in (("uid", uid, 8**7), ("gid", gid, 8**7), ("size", size, 8**11)):
        if value >= limit:
            records[key] = b"%d" % value
    for key, text in (("path", name), ("linkpath", target)):
        if len(text) > 100 or not text.isascii():
            records[key] = text
    for key, value_ in (xattrs or {}).items():
        records[f"SCHILY.xattr.{key}"] = value_
    block = _block(
        name[:100], mode, uid if uid < 8**7 else 0, gid if gid < 8**7 else 0, size if size < 8**11 else 0,
        seconds if 0 <= seconds < 8**11 else 0, type_, target[:100], device,
    )  # fmt: skip
    if not records:
        return block
    body = b"".join(_record(key.encode(), value) for key, value in sorted(records.items()))
    before = _block(b"pax_header", 0o644, 0, 0, len(body), 0, b"x", b"", (0, 0))
    return before + body + bytes(-len(body) % BLOCK) + block


def write_layer(root: int, found: list[changes.Change], write: Write) -> None:
    """The whole tar of a layer.  Raises OSError."""
    writer = LayerWriter(root, write)
    hidden = ""  # the opaque directory that we are in: what is gone there needs no word
    for change in sorted(found, key=lambda change: os.fsencode(change.path).split(b"/")):
        if hidden and not change.path.startswith(hidden):
            hidden = ""
        directory, _, name = change.path.rpartition("/")
        if change.kind == changes.DELETED:
            if not hidden:
                writer.add_marker(f"{directory}/{WHITEOUT}{name}" if directory else WHITEOUT + name)
            continue
        writer.add(change.path, change.path)
        if change.opaque and not hidden:
            writer.add_marker(f"{change.path}/{OPAQUE}")
            hidden = change.path + "/"
    writer.finish()


def main(arguments: dict[str, Any]) -> None:
    """``home`` (the working directory), ``upper``, ``lowers`` (directories in it, the topmost first), ``layer`` and
    ``tar``: whether the tar is wanted rather than the list."""

    def work() -> None:
        os.chdir(arguments["home"])
        found = changes.changes(arguments["upper"], _lower_view(arguments["lowers"]), layer=arguments["layer"])
        if not arguments["tar"]:
            listed = [[change.path, change.kind] for change in found if change.kind != changes.SAME]
            begin({"changes": listed})
            return
        root = os.open(arguments["upper"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        output = begin({})
        write_layer(root, found, output.write)
        output.flush()

    run(work)


def _lower_view(lowers: list[str]) -> str | None:
    """One directory that shows all of them: mounted in this process's own mount namespace, which ends with it."""
    if len(lowers) < 2:
        return lowers[0] if lowers else None
    from dockerd_py.store.mounts import MS_RDONLY, mount  # noqa: PLC0415 - most containers need no mount

    own_mounts()
    # It lies on the topmost of them, which is a lower directory of the mount by then.
    mount("overlay", lowers[0], "overlay", MS_RDONLY, f"lowerdir={':'.join(lowers)}")
    return lowers[0]


def _decimal(nanoseconds: int) -> bytes:
    sign = "-" if nanoseconds < 0 else ""
    whole, fraction = divmod(abs(nanoseconds), _NANO)
    text = f"{sign}{whole}.{fraction:09d}".rstrip("0").rstrip(".")
    return text.encode()


def _record(key: bytes, value: bytes) -> bytes:
    """``length key=value\\n``, the length counting itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _block(
    name: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, type_: bytes, target: bytes,
    device: tuple[int, int],
) -> bytes:  # fmt: skip
    fields = [
        name.ljust(100, b"\0"), b"%07o\0" % mode, b"%07o\0" % uid, b"%07o\0" % gid, b"%011o\0" % size,
        b"%011o\0" % mtime, b" " * 8, type_, target.ljust(100, b"\0"), b"ustar\x0000", bytes(64),
        b"%07o\0" % device[0], b"%07o\0" % device[1], bytes(155 + 12),
    ]  # fmt: skip
    block = b"".join(fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]
