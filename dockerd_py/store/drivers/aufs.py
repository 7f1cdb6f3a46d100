"""Layers on each other by aufs, on kernels that have it (it never was part of Linux itself).

A layer's directory is a branch: its own files, with aufs's whiteouts beside them (``.wh.<name>``, and
``.wh..wh..opq`` in an opaque directory).  See aufs(5).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from dockerd_py import subprocesses
from dockerd_py.errors import StoreError
from dockerd_py.store import mounts
from dockerd_py.store.drivers.base import Whiteouts
from dockerd_py.store.drivers.branches import BranchDriver, trial_directories
from dockerd_py.store.files import store_errors

log = logging.getLogger(__name__)

# dio: direct I/O works.  xino: where aufs keeps its table of inode numbers, unlinked at once; the writable branch
# would be the default, and is no place for it where that is on a disk.
_OPTIONS = "dio,xino=/dev/shm/aufs.xino"


class AufsDriver(BranchDriver):
    name = "aufs"
    whiteouts = Whiteouts.AUFS
    max_depth = 126  # kernels are built for 127 branches, and the container's own is one of them
    rw_directories = ("diff", "merged")
    mark_prefix = ".wh."

    @classmethod
    def probe(cls, directory: Path) -> None:
        merged = directory / "merged"
        with trial_directories(directory, "diff", "lower", "merged") as (upper, lower, _):
            try:
                mounts.mount("none", merged, "aufs", data=mount_options(upper, [lower])[0])
            except OSError as error:
                if error.errno == errno.ENODEV:
                    reason = "this kernel has no aufs: its module is not installed, or cannot be loaded"
                    raise StoreError(reason) from error
                raise StoreError(f"aufs cannot be mounted here: {error.strerror}") from error
            try:
                with store_errors("aufs does not work on this file system"):
                    (merged / "file").write_bytes(b"")
            finally:
                mounts.unmount(merged, mounts.MNT_DETACH)

    async def unmount(self, cache_id: str) -> None:
        if not await asyncio.to_thread(self.is_mounted, cache_id):
            return
        # Hard links between branches are known to the mount alone; auplink(8) writes them down before it goes.
        if auplink := shutil.which("auplink"):
            done = await subprocesses.run([auplink, os.fspath(self.root(cache_id)), "flush"], check=False)
            if done.returncode != 0:
                log.warning("auplink of layer %s: %s", cache_id, done.stderr.decode(errors="replace").strip())
        await super().unmount(cache_id)

    def _mount_on(self, cache_id: str, parents: Sequence[str]) -> None:
        first, *more = mount_options(f"{cache_id}/diff", [f"{parent}/diff" for parent in parents])
        mounts.mount("none", f"{cache_id}/merged", "aufs", data=first)
        try:
            for data in more:
                mounts.mount("none", f"{cache_id}/merged", "aufs", mounts.MS_REMOUNT, data)
        except BaseException:
            mounts.unmount(self.root(cache_id), mounts.MNT_DETACH)
            raise


def mount_options(upper: str, lowers: Sequence[str], page: int = os.sysconf("SC_PAGE_SIZE")) -> list[str]:
    """The data of the mount, then of as many remounts as it takes to append the branches that found no room on its
    page.  ``upper`` is written to; of ``lowers``, the topmost comes first.  ``ro+wh``: whiteouts in them count.

    Raises ValueError for a branch that does not fit onto a page.
    """
    room = page - 1  # the final NUL
    branches = [f"{lower}=ro+wh" for lower in lowers]
    data = f"br:{upper}=rw"
    while branches and len(os.fsencode(f"{data}:{branches[0]},{_OPTIONS}")) <= room:
        data += ":" + branches.pop(0)
    calls = [f"{data},{_OPTIONS}"]
    while branches:
        data = f"append:{branches.pop(0)}"
        while branches and len(os.fsencode(f"{data},append:{branches[0]}")) <= room:
            data += f",append:{branches.pop(0)}"
        calls.append(data)
    if any(len(os.fsencode(call)) > room for call in calls):
        raise ValueError(f"the name of a branch does not fit into {page} bytes of mount options")
    return calls
