"""What the drivers share that let the kernel lay directories on each other: overlay and aufs.

``<home>/<cache id>/diff`` is a layer's own files with the marks for what it hides; a container's layer has ``merged``,
the mount point, beside it.  mount(2) takes its options on one page, so 127 layers cannot be named by absolute paths;
they are named relative to the process's current directory, which therefore has to be ``home``.  Cache ids are so
short that 127 of them fit as they are, and no directory of shorter links has to be kept true across crashes; and no
character of the root's path can separate options.
"""

from __future__ import annotations

import asyncio
import errno
import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ClassVar

from dockerd_py.errors import StoreError
from dockerd_py.store import mounts
from dockerd_py.store.drivers.base import Driver
from dockerd_py.store.drivers.measure import bytes_in
from dockerd_py.store.files import store_errors, sync_directory


class BranchDriver(Driver):
    """A layer is a directory of its own, and a container's root a mount of them all."""

    rw_directories: ClassVar[tuple[str, ...]]
    """What a container's layer is made of."""
    mark_prefix: ClassVar[str] = ""
    """How the names of files begin that are marks, and nobody's contents."""

    def target(self, cache_id: str) -> Path:
        return self.home / cache_id / "diff"

    def root(self, cache_id: str) -> Path:
        return self.home / cache_id / "merged"

    async def create(self, cache_id: str, parents: Sequence[str]) -> None:
        await asyncio.to_thread(self._make, cache_id, ("diff",), tuple(parents))

    async def create_rw(self, cache_id: str, parents: Sequence[str]) -> None:
        self.check_depth(parents)
        await asyncio.to_thread(self._make, cache_id, self.rw_directories, tuple(parents))

    async def mount(self, cache_id: str, parents: Sequence[str]) -> Path:
        await asyncio.to_thread(self._mount, cache_id, tuple(parents))
        return self.root(cache_id)

    async def unmount(self, cache_id: str) -> None:
        await asyncio.to_thread(self._unmount, cache_id)

    def is_mounted(self, cache_id: str) -> bool:
        # Such a mount has a device number of its own.
        try:
            return os.stat(self.root(cache_id)).st_dev != os.stat(self.home).st_dev
        except FileNotFoundError:
            return False

    async def rw_size(self, cache_id: str, parents: Sequence[str]) -> int:
        return await asyncio.to_thread(bytes_in, self.target(cache_id), self.mark_prefix)

    async def remove(self, cache_id: str) -> None:
        await self.unmount(cache_id)
        await asyncio.to_thread(self.trash.throw, self.directory(cache_id))
        self.trash.empty_soon()

    @abstractmethod
    def _mount_on(self, cache_id: str, parents: Sequence[str]) -> None:
        """Mount what is not mounted yet, with names relative to ``home``.  Raises OSError.  Blocks."""

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
            # A row that says "ready" must not outlive a power loss that its directory did not.
            sync_directory(base)
            sync_directory(self.home)

    def _mount(self, cache_id: str, parents: tuple[str, ...]) -> None:
        if self.is_mounted(cache_id):
            return
        self._check_working_directory()
        with store_errors(f"cannot mount the root filesystem of layer {cache_id}"):
            self._mount_on(cache_id, parents)

    def _unmount(self, cache_id: str) -> None:
        if not self.is_mounted(cache_id):
            return
        root = self.root(cache_id)
        with store_errors(f"cannot unmount the root filesystem of layer {cache_id}"):
            try:
                mounts.unmount(root)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                # Somebody on the host is in there; the mount goes with its last user.
                mounts.unmount(root, mounts.MNT_DETACH | mounts.UMOUNT_NOFOLLOW)

    def _check_working_directory(self) -> None:
        here = os.stat(".")
        home = os.stat(self.home)
        if (here.st_dev, here.st_ino) != (home.st_dev, home.st_ino):
            raise StoreError(
                f"the daemon's working directory is {os.getcwd()}, and has to be {self.home}: "
                f"{self.name} mounts name their layers relative to it",
            )


@contextmanager
def trial_directories(directory: Path, *names: str) -> Iterator[tuple[str, ...]]:
    """Make empty directories for a trial mount.  They are named by descriptors, as the path may hold characters that
    separate mount options."""
    with ExitStack() as open_fds:
        found = []
        for name in names:
            (directory / name).mkdir()
            fd = os.open(directory / name, os.O_PATH | os.O_CLOEXEC)
            open_fds.callback(os.close, fd)
            found.append(f"/proc/self/fd/{fd}")
        yield tuple(found)
