"""What is mounted for volumes with a device (tmpfs, nfs, a directory of the host) while somebody uses them.

Whoever uses a volume holds it: a container while it runs, a copy as long as it takes.  The first holder has it
mounted, the last one unmounted.  The place is always the same, so after a crash the mounts that nobody holds any more
are found there.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from dockerd_py import ids, subprocesses
from dockerd_py.errors import StoreError
from dockerd_py.store import mounts
from dockerd_py.store.files import store_errors
from dockerd_py.store.tasks import uninterrupted
from dockerd_py.store.volumes import VolumeRow, VolumeStore

log = logging.getLogger(__name__)


class VolumeMounts:
    def __init__(self, volumes: VolumeStore) -> None:
        self._volumes = volumes
        self._holders: dict[str, set[str]] = defaultdict(set)
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def hold(self, holder: str, rows: Iterable[VolumeRow]) -> None:
        """Have each of these volumes mounted until ``release``.

        Raises StoreError with mount(8)'s words; ``release`` all the same.
        """
        for row in rows:
            if row.is_mounted_for_use:
                await uninterrupted(self._hold(holder, row))

    async def release(self, holder: str) -> None:
        """Let go of all volumes that ``holder`` has.  Raises StoreError."""
        for name in [name for name, holders in self._holders.items() if holder in holders]:
            await uninterrupted(self._release(holder, name))

    @asynccontextmanager
    async def held(self, rows: Iterable[VolumeRow]) -> AsyncIterator[None]:
        """Have them mounted for the length of the block.  Raises StoreError."""
        holder = ids.new_id()
        try:
            await self.hold(holder, rows)
            yield
        finally:
            await self.release(holder)

    def adopt(self, holder: str, rows: Iterable[VolumeRow]) -> None:
        """A container that runs has had these mounted since an earlier daemon's days."""
        for row in rows:
            if row.is_mounted_for_use:
                self._holders[row.name].add(holder)

    async def recover(self) -> None:
        """Take away the mounts of volumes that nobody holds, once all that run have been adopted.

        Raises StoreError.
        """
        with store_errors("cannot look for mounts of volumes"):
            points = await asyncio.to_thread(mounts.mounts_below, self._volumes.home)
        home = self._volumes.home.resolve()
        for point in points:
            name = Path(point.path).relative_to(home).parts[0]
            if not self._holders.get(name):
                log.info("unmounting %s: no container that runs has this volume", point.path)
                await self._unmount(Path(point.path))

    async def _hold(self, holder: str, row: VolumeRow) -> None:
        async with self._locks[row.name]:
            if not self._holders[row.name]:
                await self._mount(row)
            self._holders[row.name].add(holder)

    async def _release(self, holder: str, name: str) -> None:
        async with self._locks[name]:
            holders = self._holders[name]
            holders.discard(holder)
            if not holders:
                del self._holders[name]
                await self._unmount(self._volumes.data(name))

    async def _mount(self, row: VolumeRow) -> None:
        device, kind, options = row.options["device"], row.options["type"], row.options.get("o", "")
        argv = ["mount", "-t", kind, *(["-o", options] if options else []), "--", device, os.fspath(
            self._volumes.data(row.name)
        )]  # fmt: skip
        try:
            await subprocesses.run(argv)
        except subprocesses.ProgramFailed as error:
            raise StoreError(f"volume {row.name}: {device} cannot be mounted: {error.stderr or error}") from error

    async def _unmount(self, path: Path) -> None:
        with store_errors(f"cannot unmount {path}"):
            await asyncio.to_thread(_unmount, path)


def _unmount(path: Path) -> None:
    """Gone from the tree in any case: who still reads in it keeps what is open."""
    try:
        mounts.unmount(path)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return  # an administrator was quicker
        mounts.unmount(path, mounts.MNT_DETACH | mounts.UMOUNT_NOFOLLOW)
