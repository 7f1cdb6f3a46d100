"""Freezing a control group by its own files: cgroup.freeze of version 2 (also the unified part of a hybrid host),
freezer.state of version 1.  Kernel documentation: cgroup-v2 "cgroup.freeze", cgroup-v1 freezer-subsystem.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from dockerd_py.errors import NotSupported, PydockerdError, TimedOut

FROZEN_WITHIN = 10.0  # seconds; a process in an uninterruptible call is frozen when that ends

_UNIFIED, _FREEZER = "cgroup.freeze", "freezer.state"


def freeze(directories: list[Path]) -> None:
    """Freeze the group that ``directories`` are, one in each hierarchy.  Blocks until it is.

    Raises NotSupported, TimedOut (it is thawed then), PydockerdError.
    """
    directory = _able(directories)
    if directory is None:
        raise NotSupported("processes cannot be paused here: neither cgroup.freeze nor the freezer controller is there")
    try:
        _write(directory, frozen=True)
        deadline = time.monotonic() + FROZEN_WITHIN
        pause = 0.0005
        while not _is_frozen(directory):
            if time.monotonic() > deadline:
                raise TimedOut(f"the processes in {directory} could not be paused within {FROZEN_WITHIN:g} s")
            time.sleep(pause)
            pause = min(2 * pause, 0.02)
    except BaseException:
        thaw(directories)
        raise


def thaw(directories: list[Path]) -> None:
    """The opposite.  Blocks; nothing happens when it is not frozen or gone."""
    directory = _able(directories)
    if directory is not None and _asked(directory):
        with contextlib.suppress(FileNotFoundError):
            _write(directory, frozen=False)


def _able(directories: list[Path]) -> Path | None:
    for name in (_UNIFIED, _FREEZER):
        for directory in directories:
            if (directory / name).exists():
                return directory
    return None


def _write(directory: Path, *, frozen: bool) -> None:
    unified = directory / _UNIFIED
    try:
        if unified.exists():
            unified.write_text("1" if frozen else "0")
        else:
            (directory / _FREEZER).write_text("FROZEN" if frozen else "THAWED")
    except FileNotFoundError:
        raise
    except OSError as error:
        verb = "pause" if frozen else "unpause"
        raise PydockerdError(f"cannot {verb} the processes in {directory}: {error.strerror}") from error


def _is_frozen(directory: Path) -> bool:
    events = directory / "cgroup.events"
    if (directory / _UNIFIED).exists():
        return "frozen 1" in events.read_text().splitlines()
    return (directory / _FREEZER).read_text().strip() == "FROZEN"


def _asked(directory: Path) -> bool:
    """Whether it is frozen, or about to be."""
    try:
        unified = directory / _UNIFIED
        if unified.exists():
            return unified.read_text().strip() == "1"
        return (directory / _FREEZER).read_text().strip() != "THAWED"
    except OSError:
        return False
