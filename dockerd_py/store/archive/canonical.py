"""The helper program: a tar of all that is in a directory, but for what is mounted there."""

from __future__ import annotations

import os
from typing import Any

from dockerd_py.store.archive.program import begin, run, walk_deep
from dockerd_py.store.archive.treetar import TreeWriter


def main(arguments: dict[str, Any]) -> None:
    """``directory``."""
    run(lambda: _export(arguments["directory"]))


def _export(directory: str) -> None:
    walk_deep()
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    output = begin({})
    writer = TreeWriter(output.write)
    writer.add_inside(fd, b"", one_file_system=True)
    writer.finish()
    output.flush()
