"""The interface of every storage driver.

A driver's unit is a directory named by a *cache id*: thirteen random characters that the database keeps beside the
layer.  ``parents`` are always cache ids of read-only layers, the topmost first.  Calls for one cache id never
overlap; calls for different ones may.  Each method may be repeated after a crash in the middle of it, and ``remove``
takes whatever there is.  OSErrors come out as StoreError, with what was being done.
"""

from __future__ import annotations

import base64
import enum
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from dockerd_py.errors import BadParameter
from dockerd_py.store.files import make_directory, spread_subdirectories
from dockerd_py.store.trash import Trash

TRASH = "trash"


class Whiteouts(str, enum.Enum):
    """What an archive's ``.wh.`` entries become while a layer is unpacked for this driver."""

    OVERLAY = "overlay"  # character device 0/0, trusted.overlay.opaque
    AUFS = "aufs"  # empty files with the very names that they have in the archive
    APPLY = "apply"  # the directory holds the parent's files too: delete what is whited out


class Driver(ABC):
    """One way of laying layers on each other.  ``home`` is its directory, and its alone."""

    name: ClassVar[str]
    whiteouts: ClassVar[Whiteouts]
    max_depth: ClassVar[int]
    """How many read-only layers a container's root may lie on."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.trash = Trash(home / TRASH)

    @classmethod
    @abstractmethod
    def probe(cls, directory: Path) -> None:
        """Try the driver in an empty directory of the root's file system, by doing what it does.

        Raises StoreError with the reason when it cannot be used here.  Blocks.
        """

    def prepare(self) -> None:
        """Make what the driver needs in ``home``.  Blocks; called once, before anything else."""
        make_directory(self.home)
        spread_subdirectories(self.home)
        self.trash.prepare()

    def cache_ids(self) -> set[str]:
        """Every directory there is, whether a row knows it or not.  Blocks."""
        return {name for name in os.listdir(self.home) if name != TRASH}

    def directory(self, cache_id: str) -> Path:
        """Everything that belongs to ``cache_id`` lies in here."""
        return self.home / cache_id

    @abstractmethod
    def target(self, cache_id: str) -> Path:
        """Where a read-only layer's archive is unpacked."""

    @abstractmethod
    def root(self, cache_id: str) -> Path:
        """Where a container's root filesystem is while it is mounted."""

    @abstractmethod
    async def create(self, cache_id: str, parents: Sequence[str]) -> None:
        """Make a read-only layer's directory, ready to be unpacked into."""

    @abstractmethod
    async def create_rw(self, cache_id: str, parents: Sequence[str]) -> None:
        """Make a container's writable layer on ``parents``.  Not mounted yet."""

    @abstractmethod
    async def mount(self, cache_id: str, parents: Sequence[str]) -> Path:
        """Mount a writable layer and return its root.  Nothing happens if it is mounted."""

    @abstractmethod
    async def unmount(self, cache_id: str) -> None:
        """The opposite of ``mount``.  Nothing happens if it is not mounted."""

    @abstractmethod
    def is_mounted(self, cache_id: str) -> bool: ...

    @abstractmethod
    async def rw_size(self, cache_id: str, parents: Sequence[str]) -> int:
        """Bytes of the files that a container has written or changed."""

    @abstractmethod
    async def remove(self, cache_id: str) -> None:
        """Unmount, and put the directory into the trash.  Quick; the bytes are deleted later."""

    def check_depth(self, parents: Sequence[str]) -> None:
        """Raises BadParameter for more layers than a container's root may lie on."""
        if len(parents) > self.max_depth:
            raise BadParameter(
                f"max depth exceeded: {len(parents)} layers, and the storage driver {self.name} takes "
                f"{self.max_depth}; make one layer of several by export and import",
            )


def new_cache_id() -> str:
    """65 random bits in 13 characters: short, because mount(2) takes the names of all layers on one page."""
    return base64.b32encode(secrets.token_bytes(9)).decode().lower()[:13]
