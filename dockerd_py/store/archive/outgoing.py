"""Archives that go out, from the daemon's side: streams that a helper process writes as fast as they are read.

Each is an async generator that has to be closed (``contextlib.aclosing``); its helper process is gone then.  A stream
that ends without an exception is whole.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from pathlib import Path

from dockerd_py.store.archive import helper


def pack(target: Path, keep: Path, diff_id: str) -> AsyncGenerator[bytes, None]:
    """The tar that was unpacked into ``target`` with ``keep``, byte for byte.

    Raises StoreError, perhaps only at the end, when the files are not what came in.
    """
    arguments = {"target": os.fspath(target), "keep": os.fspath(keep), "diff_id": diff_id}
    return helper.outgoing("pack", arguments, f"cannot write out layer {diff_id}")


def canonical(directory: Path) -> AsyncGenerator[bytes, None]:
    """A tar of what is in ``directory`` (not of the directory itself), the same for the same tree.

    What is mounted inside stays out.  Raises StoreError.
    """
    arguments = {"directory": os.fspath(directory)}
    return helper.outgoing("canonical", arguments, f"cannot make an archive of {directory}")
