"""Layers on each other by overlayfs.

``<home>/<cache id>/diff`` is a layer's own files; a container's layer has ``work`` (overlayfs's own) and ``merged``
(the mount point) beside it.  mount(2) takes its options on one page, so 127 layers cannot be named by absolute paths;
they are named relative to the process's current directory, which therefore has to be ``home``.  Cache ids are so
short that 127 of them fit as they are, and no directory of shorter links has to be kept true across crashes.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Sequence
from pathlib import Path

from dockerd_py.store import mounts
from dockerd_py.store.drivers.base import Driver, Whiteouts
from dockerd_py.store.drivers.measure import bytes_in
from dockerd_py.store.files import store_errors, sync_directory

_PARAMETERS = Path("/sys/module/overlay/parameters")

# Without these a layer's directory alone would not tell what the container changed: renamed directories and files
# with changed owners would be notes that point into the layers below.
_PLAIN = ("index", "metacopy", "redirect_dir")


class OverlayDriver(Driver):
    name = "overlay"
    whiteouts = Whiteouts.OVERLAY
    max_depth = 127

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self._options = _plain_options()

    @classmethod
    def probe(cls, directory: Path) -> None:
        for name in ("lower", "diff", "work", "merged"):
            (directory / name).mkdir()
        # Named by descriptors, as the path may hold characters that separate mount options.
        fds = [os.open(directory / name, os.O_PATH | os.O_CLOEXEC) for name in ("lower", "diff", "work")]
        lower, upper, work = (f"/proc/self/fd/{fd}" for fd in fds)
        try:
            with store_errors("overlayfs cannot be mounted here"):
                mounts.mount(
                    "overlay",
                    directory / "merged",
                    "overlay",
                    data=_plain_options() + f"lowerdir={lower},upperdir={upper},workdir={work}",
                )
            try:
                # A file system without trusted xattrs or without whiteouts mounts, and fails later.
                with store_errors("overlayfs does not work on this file system"):
                    os.mknod(directory / "diff" / "whiteout", 0o020000, os.makedev(0, 0))
                    os.setxattr(directory / "diff", "trusted.overlay.opaque", b"y")
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
        await asyncio.to_thread(self._make_rw, cache_id, tuple(parents))

    async def mount(self, cache_id: str, parents: Sequence[str]) -> Path:
        await asyncio.to_thread(self._mount, cache_id, tuple(parents))
        return self.root(cache_id)

    async def unmount(self, cache_id: str) -> None:
        await asyncio.to_thread(self._unmount, cache_id)

    def is_mounted(self, cache_id: str) -> bool:
        # An overlay mount has a device number of its own.
        try:
            return os.stat(self.root(cache_id)).st_dev != os.stat(self.home).st_dev
        except FileNotFoundError:
            return False

    async def rw_size(self, cache_id: str, parents: Sequence[str]) -> int:
        return await asyncio.to_thread(bytes_in, self.target(cache_id))

    async def remove(self, cache_id: str) -> None:
        await asyncio.to_thread(self._remove, cache_id)
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
            # A row that says "ready" must not outlive a power loss that its directory did not.
            sync_directory(base)
            sync_directory(self.home)

    def _make_rw(self, cache_id: str, parents: tuple[str, ...]) -> None:
        self.check_depth(parents)
        self._make(cache_id, ("diff", "work", "merged"), parents)

    def _mount(self, cache_id: str, parents: tuple[str, ...]) -> None:
        if self.is_mounted(cache_id):
            return
        self.check_working_directory()
        # overlayfs wants at least one lower directory; an image without layers has an empty one.
        lower = ":".join(f"{parent}/diff" for parent in parents) or f"{cache_id}/lower"
        with store_errors(f"cannot mount the root filesystem of layer {cache_id}"):
            if not parents:
                (self.directory(cache_id) / "lower").mkdir(exist_ok=True)
            mounts.mount(
                "overlay",
                f"{cache_id}/merged",
                "overlay",
                data=f"{self._options}lowerdir={lower},upperdir={cache_id}/diff,workdir={cache_id}/work",
            )

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

    def _remove(self, cache_id: str) -> None:
        self._unmount(cache_id)
        self.trash.throw(self.directory(cache_id))


def _plain_options() -> str:
    return "".join(f"{name}=off," for name in _PLAIN if (_PARAMETERS / name).exists())
