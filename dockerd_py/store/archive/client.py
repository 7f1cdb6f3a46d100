"""Unpacking, from the daemon's side."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from dockerd_py.store.archive import helper
from dockerd_py.store.drivers.base import Whiteouts

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Unpacked:
    diff_id: str  # "sha256:<hex>" of the tar, uncompressed, to its last byte
    size: int  # bytes of the regular files
    entries: int
    taken: int  # bytes of the tar, uncompressed


async def unpack(
    source: AsyncIterator[bytes],
    target: Path,
    whiteouts: Whiteouts,
    progress: helper.Progress | None = None,
    *,
    keep: Path | None = None,
    limit: int = 0,
) -> Unpacked:
    """Unpack the tar that ``source`` yields (plain, gzip, bzip2, xz or zstd) into the directory ``target``.

    ``progress`` is told the number of bytes taken so far.  ``keep`` is a directory, outside of ``target``, for what
    ``outgoing.pack`` needs to write the same tar again.  ``limit`` is the most bytes that the tar may have,
    uncompressed (0: as many as there is room for).  Raises BadArchive, StoreError, and whatever ``source`` raises.
    On any failure, and when cancelled, the helper is gone and ``target`` is the caller's to throw away.  It need not
    be there before ``source`` gives its first bytes.
    """
    arguments = {
        "target": os.fspath(target),
        "whiteouts": whiteouts.value,
        "keep": "" if keep is None else os.fspath(keep),
        "limit": limit,
    }
    result = await helper.answer("unpack", arguments, source, doing="cannot unpack the archive", progress=progress)
    if result["lost"]:
        log.warning("extended attributes that cannot be kept: %s", ", ".join(result["lost"]))
    return Unpacked(result["diff_id"], result["size"], result["entries"], result["taken"])
