"""A tarball on its way to the daemon: from a file here, or from a pipe whose end nobody knows."""

from __future__ import annotations

import os
import stat

from dockerd_py.cli.errors import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

_PIECE = 256 * 1024


def bytes_left(fd: int) -> int | None:
    """How much can be read from ``fd``, where that is known beforehand."""
    found = os.fstat(fd)
    return max(0, found.st_size - os.lseek(fd, 0, os.SEEK_CUR)) if stat.S_ISREG(found.st_mode) else None


def headers_for(total: int | None) -> dict[str, str]:
    headers = {"Content-Type": "application/x-tar"}
    if total is not None:
        headers["Content-Length"] = str(total)
    return headers


def pieces(fd: int, total: int | None) -> Generator[bytes, None, None]:
    """All of it.  Raises CliError when less than ``total`` comes."""
    left = total
    while left is None or left > 0:
        piece = os.read(fd, _PIECE if left is None else min(_PIECE, left))
        if not piece:
            if left:
                raise CliError("the tarball became shorter while it was sent")
            return
        if left is not None:
            left -= len(piece)
        yield piece
