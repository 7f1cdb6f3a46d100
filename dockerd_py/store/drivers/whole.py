"""What the drivers share that give each layer the whole tree, its parents' files included: btrfs and vfs.

``<home>/<cache id>/fs`` is that tree; nothing is ever mounted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from dockerd_py.store.drivers.base import Driver, Whiteouts
from dockerd_py.store.drivers.measure import bytes_changed


class WholeTreeDriver(Driver):
    """A layer begins as its parent's copy, however that is made."""

    whiteouts = Whiteouts.APPLY
    max_depth = 127

    def target(self, cache_id: str) -> Path:
        return self.home / cache_id / "fs"

    def root(self, cache_id: str) -> Path:
        return self.target(cache_id)

    async def mount(self, cache_id: str, parents: Sequence[str]) -> Path:
        return self.root(cache_id)

    async def unmount(self, cache_id: str) -> None:
        """There is no mount."""

    def is_mounted(self, cache_id: str) -> bool:
        return False

    async def rw_size(self, cache_id: str, parents: Sequence[str]) -> int:
        below = self.target(parents[0]) if parents else None
        return await asyncio.to_thread(bytes_changed, self.target(cache_id), below)

    async def remove(self, cache_id: str) -> None:
        await asyncio.to_thread(self.trash.throw, self.directory(cache_id))
        self.trash.empty_soon()
