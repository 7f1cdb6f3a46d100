"""The helper program: unpack the tar on standard input into a directory, and say in JSON how it went.

It makes the directory its root before it looks at the archive's names, bounds its own memory, and answers at the end
with ``{"diff_id", "taken", "size", "entries", "lost"}``.  Should the daemon die, its end of the pipe closes, the
archive ends too early, and so does this.
"""

from __future__ import annotations

import os
import resource
from typing import Any

from dockerd_py.store.archive.allowance import Allowance
from dockerd_py.store.archive.extract import Extractor
from dockerd_py.store.archive.program import ARCHIVE, begin, change_root, run
from dockerd_py.store.archive.skeleton import SkeletonWriter
from dockerd_py.store.archive.stream import RawInput, TarStream, open_decompressed

_MEMORY = 1 << 30


def main(arguments: dict[str, Any]) -> None:
    """``target``, ``whiteouts`` (what they become), ``keep``: the directory for the skeleton ("": none is kept), and
    ``limit``: the most bytes that the archive may have, uncompressed (0: no limit).

    Nothing is touched before the first bytes are there to read.
    """
    run(lambda: _unpack(**arguments), ARCHIVE)


def _unpack(target: str, whiteouts: str, keep: str, limit: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    os.umask(0)
    source = open_decompressed(RawInput(0))
    skeleton = None
    if keep:
        skeleton = SkeletonWriter(os.open(keep, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    change_root(target)
    stream = TarStream(source, skeleton.raw if skeleton else None, Allowance(limit, "."))
    extractor = Extractor(whiteouts, skeleton)
    extractor.extract(stream)
    digest = stream.finish()
    if skeleton is not None:
        skeleton.finish()
    begin(
        {
            "diff_id": f"sha256:{digest}",
            "taken": stream.tell(),
            "size": extractor.size,
            "entries": extractor.count,
            "lost": extractor.lost,
        }
    )
