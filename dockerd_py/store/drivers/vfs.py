"""Layers as full copies: slow and large, and at home on every file system.

cp(1) makes the copies: it keeps owners, modes, times, xattrs, hard links, holes and device nodes, and shares the
blocks where the file system can.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Sequence
from pathlib import Path

from dockerd_py import subprocesses
from dockerd_py.errors import StoreError
from dockerd_py.store import mounts
from dockerd_py.store.drivers.whole import WholeTreeDriver
from dockerd_py.store.files import store_error, store_errors


class VfsDriver(WholeTreeDriver):
    name = "vfs"

    @classmethod
    def probe(cls, directory: Path) -> None:
        with store_errors("no files can be made here"):
            (directory / "fs").mkdir()

    async def create(self, cache_id: str, parents: Sequence[str]) -> None:
        await asyncio.to_thread(self._make, cache_id)
        if parents:
            await self._copy(parents[0], cache_id)

    async def create_rw(self, cache_id: str, parents: Sequence[str]) -> None:
        self.check_depth(parents)
        await self.create(cache_id, parents)
        # A row that says "ready" must not outlive a power loss that its files did not.
        with store_errors(f"cannot write layer {cache_id} to the disk"):
            await asyncio.to_thread(mounts.sync_filesystem, self.home)

    def _make(self, cache_id: str) -> None:
        with store_errors(f"cannot make layer {cache_id}"):
            self.directory(cache_id).mkdir(0o710, exist_ok=True)
            self.target(cache_id).mkdir(0o755, exist_ok=True)
            self.target(cache_id).chmod(0o755)

    async def _copy(self, parent: str, cache_id: str) -> None:
        source, target = self.target(parent), self.target(cache_id)
        argv = ["cp", "-a", "--reflink=auto", "--sparse=auto", "-T", "--", os.fspath(source), os.fspath(target)]
        try:
            await subprocesses.run(argv, timeout=None, env={**os.environ, "LC_ALL": "C"})
        except subprocesses.ProgramFailed as error:
            if os.strerror(errno.ENOSPC) in error.stderr:
                full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                raise store_error(f"cannot copy layer {parent}", full) from error
            raise StoreError(f"cannot copy layer {parent}: {error.stderr or error}") from error
