"""How far a transfer is: a bar on a terminal, a line now and then elsewhere, on standard error."""

from __future__ import annotations

import sys
import time

from dockerd_py.cli.text import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    Pieces = Generator[bytes, None, None]

_BAR_FROM = 4 << 20  # bytes; what is smaller is through before a bar could be drawn
_LINE_SECONDS = 5.0


def shown(pieces: Pieces, what: str, total: int | None) -> Pieces:
    """The same pieces, with the progress shown as they go by; to be closed.  total: bytes, None: nobody knows."""
    if not sys.stderr.isatty():
        return _lines(pieces, what, total)
    if total is not None and total < _BAR_FROM:
        return pieces
    try:
        import rich.progress  # noqa: F401
    except ImportError:
        return _lines(pieces, what, total)
    return _bar(pieces, what, total)


def _bar(pieces: Pieces, what: str, total: int | None) -> Pieces:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        FileSizeColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    name, speed = TextColumn("{task.description}", markup=False), TransferSpeedColumn()
    # Before version 12.3 rich knows no total that nobody knows.
    columns = (
        (name, FileSizeColumn(), speed)
        if total is None
        else (name, BarColumn(), DownloadColumn(), speed, TimeRemainingColumn())
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=float("inf") if total is None else total)
        for piece in pieces:
            yield piece
            progress.advance(task, len(piece))


def _lines(pieces: Pieces, what: str, total: int | None) -> Pieces:
    done = 0
    last = time.monotonic()
    for piece in pieces:
        yield piece
        done += len(piece)
        if time.monotonic() - last >= _LINE_SECONDS:
            last = time.monotonic()
            of = f" of {size(total)}" if total else ""
            print(f"{what}: {size(done)}{of}", file=sys.stderr, flush=True)
