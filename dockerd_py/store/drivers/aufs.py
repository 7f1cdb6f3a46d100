"""Layers on each other by aufs, on kernels that have it (it never was part of Linux itself).

``<home>/<cache id>/diff`` is a branch: a layer's own files, with aufs's whiteouts beside them (``.wh.<name>``, and
``.wh..wh..opq`` in an opaque directory).  A container's layer has ``merged``, the mount point, beside it.  Branches
are named relative to the working directory, as overlay's layers are, so that no character of the root's path can
separate options.  See aufs(5).
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
from dockerd_py.store.drivers.base import Driver, Whiteouts
from dockerd_py.store.drivers.measure import bytes_in
from dockerd_py.store.files import store_errors, sync_directory

log = logging.getLogger(__name__)

WHITEOUT = ".wh."

# dio: direct I/O works.  xino: where aufs keeps its table of inode numbers, unlinked at once; the writable branch
# would be the default, and is no place for it where that is on a disk.
_OPTIONS = "dio,xino=/dev/shm/aufs.xino"


class AufsDriver(Driver):
    name = "aufs"
    whiteouts = Whiteouts.AUFS
    max_depth = 126  # kernels are built for 127 branches, and the container's own is one of them

    @classmethod
    def probe(cls, directory: Path) -> None:
        for name in ("lower", "diff", "merged"):
            (directory / name).mkdir()
        fds = [os.open(directory / name, os.O_PATH | os.O_CLOEXEC) for name in ("diff", "lower")]
        upper, lower = (f"/proc/self/fd/{fd}" for fd in fds)
        try:
            mounts.mount("none", directory / "merged", "aufs", data=mount_options(upper, [lower])[0])
        except OSError as error:
            if error.errno == errno.ENODEV:
                raise StoreError("this kernel has no aufs: its module is not installed, or cannot be loaded") from error
            raise StoreError(f"aufs cannot be mounted here: {error.strerror}") from error
        else:
            try:
                with store_errors("aufs does not work on this file system"):
                    (directory / "merged" / "file").write_bytes(b"")
            finally:
                mounts.unmount(directory / "merged", mounts.MNT_DETACH)
        finally:
            for fd in fds:
                os.close(fd)

    def target(self, cache_id: str) -> Path:
        return self.home / cache_id / "diff"

    def root(self, cache_id: str) -> Path:
        return self.home / cache_id / "merged"

    async def create(self, cache_id: str, parents: Sequence[str]) -> None:
        await asyncio.to_thread(self._make, cache_id, ("diff",), tuple(parents))

    async def create_rw(self, cache_id: str, parents: Sequence[str]) -> None:
        self.check_depth(parents)
        await asyncio.to_thread(self._make, cache_id, ("diff", "merged"), tuple(parents))

    async def mount(self, cache_id: str, parents: Sequence[str]) -> Path:
        await asyncio.to_thread(self._mount, cache_id, tuple(parents))
        return self.root(cache_id)

    async def unmount(self, cache_id: str) -> None:
        if not await asyncio.to_thread(self.is_mounted, cache_id):
            return
        # Hard links between branches are known to the mount alone; auplink(8) writes them down before it goes.
        if auplink := shutil.which("auplink"):
            done = await subprocesses.run([auplink, os.fspath(self.root(cache_id)), "flush"], check=False)
            if done.returncode != 0:
                log.warning("auplink of layer %s: %s", cache_id, done.stderr.decode(errors="replace").strip())
        await asyncio.to_thread(self._unmount, cache_id)

    def is_mounted(self, cache_id: str) -> bool:
        try:
            return os.stat(self.root(cache_id)).st_dev != os.stat(self.home).st_dev
        except FileNotFoundError:
            return False

    async def rw_size(self, cache_id: str, parents: Sequence[str]) -> int:
        return await asyncio.to_thread(bytes_in, self.target(cache_id), WHITEOUT)

    async def remove(self, cache_id: str) -> None:
        await self.unmount(cache_id)
        await asyncio.to_thread(self.trash.throw, self.directory(cache_id))
        self.trash.empty_soon()

    def _make(self, cache_id: str, names: tuple[str, ...], parents: tuple[str, ...]) -> None:
        base = self.directory(cache_id)
        with store_errors(f"cannot make layer {cache_id}"):
            base.mkdir(0o710, exist_ok=True)
            for name in names:
                (base / name).mkdir(0o755, exist_ok=True)
            # A merged tree's root shows the topmost directory's owner and mode, also where no archive spoke of it.
            target = self.target(cache_id)
            if parents:
                below = os.stat(self.target(parents[0]))
                os.chown(target, below.st_uid, below.st_gid)
                target.chmod(below.st_mode & 0o7777)
            else:
                target.chmod(0o755)
            sync_directory(base)
            sync_directory(self.home)

    def _mount(self, cache_id: str, parents: tuple[str, ...]) -> None:
        if self.is_mounted(cache_id):
            return
        self.check_working_directory()
        first, *more = mount_options(f"{cache_id}/diff", [f"{parent}/diff" for parent in parents])
        with store_errors(f"cannot mount the root filesystem of layer {cache_id}"):
            mounts.mount("none", f"{cache_id}/merged", "aufs", data=first)
            try:
                for data in more:
                    mounts.mount("none", f"{cache_id}/merged", "aufs", mounts.MS_REMOUNT, data)
            except BaseException:
                mounts.unmount(self.root(cache_id), mounts.MNT_DETACH)
                raise

    def _unmount(self, cache_id: str) -> None:
        root = self.root(cache_id)
        with store_errors(f"cannot unmount the root filesystem of layer {cache_id}"):
            try:
                mounts.unmount(root)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                # Somebody on the host is in there; the mount goes with its last user.
                mounts.unmount(root, mounts.MNT_DETACH | mounts.UMOUNT_NOFOLLOW)


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
