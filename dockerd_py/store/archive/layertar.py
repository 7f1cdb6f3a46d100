"""The helper program: what a container changed against its image, as a list or as the tar of a layer.

What is gone is a ``.wh.`` entry, and a directory that hides its old contents has ``.wh..wh..opq`` right behind it, in
whichever way the storage driver writes such marks down.
"""

from __future__ import annotations

import os
from typing import Any

from dockerd_py import confined
from dockerd_py.errors import BadParameter
from dockerd_py.store import changes
from dockerd_py.store.archive.program import begin, run, walk_deep
from dockerd_py.store.archive.treetar import TreeWriter, Write

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"


def main(arguments: dict[str, Any]) -> None:
    """``home`` (the working directory), ``upper``, ``lowers`` (directories in it, the topmost first), ``marks`` (of
    `changes.Marks`) and ``tar``: whether the tar is wanted rather than the list."""
    run(lambda: _work(**arguments))


def _work(home: str, upper: str, lowers: list[str], marks: str, tar: bool) -> None:
    walk_deep()
    os.chdir(home)
    found = changes.changes(upper, lowers, changes.Marks(marks))
    if not tar:
        begin({"changes": [[change.path, change.kind] for change in found if change.kind != changes.SAME]})
        return
    for change in found:
        name = change.path.rpartition("/")[2]
        if change.kind != changes.DELETED and name.startswith(WHITEOUT):
            raise BadParameter(
                f"{change.path} cannot be part of an image: in layers, such a name takes another file away; rename it"
            )
    root = os.open(upper, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    output = begin({})
    write_layer(root, found, output.write)
    output.flush()


def write_layer(root: int, found: list[changes.Change], write: Write) -> None:
    """The whole tar of a layer from the tree below ``root``, an open directory.  Raises OSError."""
    writer = TreeWriter(write)
    hidden = ""  # the opaque directory that we are in: what is gone there needs no word
    with _Parents(root) as parents:
        for change in sorted(found, key=lambda change: os.fsencode(change.path).split(b"/")):
            if hidden and not change.path.startswith(hidden):
                hidden = ""
            directory, _, name = change.path.rpartition("/")
            if change.kind == changes.DELETED:
                if not hidden:
                    writer.add_marker(_join(directory, WHITEOUT + name))
                continue
            parent = parents.open(directory)
            if parent is not None:
                writer.add(parent, name, os.fsencode(change.path))
            if change.opaque and not hidden:
                writer.add_marker(_join(change.path, OPAQUE))
                hidden = change.path + "/"
    writer.finish()


class _Parents:
    """The directory that was opened last: entries come directory by directory."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._path: str | None = None
        self._fd = -1

    def __enter__(self) -> _Parents:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def open(self, path: str) -> int | None:
        """None when it is gone, or something else by now."""
        if path != self._path:
            self._close()
            try:
                self._fd = confined.open_in_root(self._root, path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
            except (FileNotFoundError, NotADirectoryError):
                return None
            self._path = path
        return self._fd

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._path, self._fd = None, -1


def _join(directory: str, name: str) -> bytes:
    return os.fsencode(f"{directory}/{name}" if directory else name)
