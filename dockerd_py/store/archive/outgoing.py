"""Archives that go out, from the daemon's side: streams that a helper process writes as fast as they are read.

Each is an async generator that has to be closed (``contextlib.aclosing``); its helper process is gone then.  A stream
that ends without an exception is whole.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from pathlib import Path

from dockerd_py.store.archive import helper
from dockerd_py.store.archive.canonical import AUFS, OVERLAY, PLAIN

__all__ = ["AUFS", "OVERLAY", "PLAIN", "canonical", "pack"]


def pack(target: Path, keep: Path, diff_id: str) -> AsyncGenerator[bytes, None]:
    """The tar that was unpacked into ``target`` with ``keep``, byte for byte.

    Raises StoreError, perhaps only at the end, when the files are not what came in.
    """
    arguments = [os.fspath(target), os.fspath(keep), diff_id]
    return helper.outgoing("pack", arguments, f"cannot write out layer {diff_id}")


def canonical(
    directory: Path, form: str = PLAIN, chosen: Iterable[tuple[bytes, bool]] | None = None
) -> AsyncGenerator[bytes, None]:
    """A tar of what is in ``directory`` (not of the directory itself), the same for the same tree.

    form: PLAIN, the files as they are; OVERLAY or AUFS, a writable layer's own directory, whose whiteouts are turned
    into an archive's.  chosen: only these names, relative to ``directory`` (b"." is it itself), each with whether it is
    a whiteout.  Raises StoreError.
    """
    arguments = [os.fspath(directory), form, "all" if chosen is None else "chosen"]
    doing = f"cannot make an archive of {directory}"
    if chosen is None:
        return helper.outgoing("canonical", arguments, doing)
    choice = b"".join(b"%b%b\0" % (b"-" if removed else b"+", name) for name, removed in chosen)
    return _with_input("canonical", arguments, doing, choice)


async def _with_input(module: str, arguments: list[str], doing: str, data: bytes) -> AsyncGenerator[bytes, None]:
    # A file, as a pipe would have to be fed while the output is read.
    with os.fdopen(os.memfd_create("input", os.MFD_CLOEXEC), "w+b", buffering=0) as file:
        file.write(data)
        file.seek(0)
        async with aclosing(helper.outgoing(module, arguments, doing, stdin=file)) as pieces:
            async for piece in pieces:
                yield piece
