"""Small file systems of any kind, in files, for tests that need one of their own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dockerd_py.store import mounts
from dockerd_py.store.trash import unmount_below

# Nothing is kept back for root, so that full is full.
_OPTIONS = {"ext4": ["-q", "-m", "0"], "btrfs": ["-q"]}


@contextmanager
def file_system(directory: Path, kind: str, size: int) -> Iterator[Path]:
    """A new file system of ``size`` bytes, mounted in ``directory``; skips the test where there cannot be one."""
    program = shutil.which(f"mkfs.{kind}", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None:
        pytest.skip(f"mkfs.{kind} is not installed")
    image, point = directory / f"{kind}.img", directory / kind
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run([program, *_OPTIONS[kind], image], check=True, capture_output=True)
    done = subprocess.run(["mount", "-o", "loop", image, point], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no {kind} can be mounted from a file here: {done.stderr.strip()}")
    try:
        yield point
    finally:
        unmount_below(point)
        mounts.unmount(point, mounts.MNT_DETACH)
        image.unlink()
