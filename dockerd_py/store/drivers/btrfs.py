"""Layers as btrfs subvolumes: each is a snapshot of the one below it, and shares all blocks that it did not change.

Each tree is a subvolume.  Subvolumes that a container makes in its root are destroyed with it, by the trash, and are
not part of a layer made from it.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence
from pathlib import Path

from dockerd_py.errors import StoreError
from dockerd_py.store import subvolumes
from dockerd_py.store.drivers.whole import WholeTreeDriver
from dockerd_py.store.files import store_errors, sync_directory


class BtrfsDriver(WholeTreeDriver):
    name = "btrfs"

    @classmethod
    def probe(cls, directory: Path) -> None:
        try:
            with store_errors("subvolumes do not work here"):
                subvolumes.create(directory / "below")
                subvolumes.create(directory / "below/nested")
                subvolumes.snapshot(directory / "below", directory / "fs")
        except StoreError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENOTTY:
                raise StoreError("the file system is not btrfs") from error
            raise
        finally:
            with store_errors("subvolumes cannot be destroyed here"):
                subvolumes.destroy_below(directory)

    async def create(self, cache_id: str, parents: Sequence[str]) -> None:
        self.check_depth(parents)
        await asyncio.to_thread(self._make, cache_id, parents[0] if parents else None)

    async def create_rw(self, cache_id: str, parents: Sequence[str]) -> None:
        await self.create(cache_id, parents)

    def _make(self, cache_id: str, parent: str | None) -> None:
        base, target = self.directory(cache_id), self.target(cache_id)
        with store_errors(f"cannot make layer {cache_id}"):
            base.mkdir(0o710, exist_ok=True)
            # Both are made whole or not at all: what is there after a crash is what would be made now.
            if target.exists():
                return
            if parent is None:
                subvolumes.create(target)
                target.chmod(0o755)
            else:
                subvolumes.snapshot(self.target(parent), target)
            sync_directory(base)
            sync_directory(self.home)
