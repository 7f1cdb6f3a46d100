"""Where removed directories wait: out of their place at once by a rename, deleted later, off every hot path.

The bytes are deleted by rm(1), in a process of its own: a tree of ten thousand files would hold Python's
interpreter lock long enough to be felt by every client.  One rm takes all that gathered while the last one ran.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import secrets
from pathlib import Path

from dockerd_py import subprocesses
from dockerd_py.errors import PydockerdError
from dockerd_py.store import mounts, subvolumes
from dockerd_py.store.files import make_directory, store_errors

log = logging.getLogger(__name__)

_GATHER_SECONDS = 0.2
_ATTEMPTS = 5
_AT_ONCE = 500


class Trash:
    """A directory on the same file system as what is thrown into it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._worker: asyncio.Task[None] | None = None
        self._full = asyncio.Event()

    def prepare(self) -> None:
        make_directory(self.directory)

    def throw(self, path: Path) -> None:
        """Take ``path`` out of its place: a rename, which blocks for microseconds.  Gone already: nothing to do.

        Mounts that lie in it are taken away.  Call ``empty_soon`` on the event loop afterwards.
        Raises StoreError.
        """
        target = self.directory / secrets.token_hex(8)
        with store_errors(f"cannot remove {path}"):
            try:
                path.rename(target)
            except FileNotFoundError:
                return
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                unmount_below(path)
                path.rename(target)

    def empty_soon(self) -> None:
        """Have the trash emptied in the background."""
        self._full.set()
        if self._worker is None or self._worker.done():
            self._worker = asyncio.get_running_loop().create_task(self._work(), name="store-trash")

    async def emptied(self) -> None:
        """Empty the trash and return when that is done.  What cannot go is logged, and left to the next start."""
        await asyncio.to_thread(unmount_below, self.directory)
        for _ in range(_ATTEMPTS):
            names = await asyncio.to_thread(os.listdir, self.directory)
            if not names:
                return
            # A helper of a daemon that was killed may still be writing there for a moment: hence the attempts.
            complaints = b""
            for start in range(0, len(names), _AT_ONCE):
                paths = [os.path.join(self.directory, name) for name in names[start : start + _AT_ONCE]]
                done = await subprocesses.run(
                    ["rm", "-rf", "--one-file-system", "--", *paths], check=False, timeout=None,
                )
                complaints += done.stderr
            # rm takes a subvolume of btrfs for another file system; these are all that is left then.
            if complaints and await asyncio.to_thread(_destroy_subvolumes, self.directory) == 0:
                log.warning("emptying %s: %s", self.directory, complaints.decode(errors="replace").strip())
                await asyncio.sleep(_GATHER_SECONDS)

    async def close(self) -> None:
        """Finish what is under way."""
        if self._worker is not None:
            self._worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._worker
        await self.emptied()

    async def _work(self) -> None:
        while self._full.is_set():
            await asyncio.sleep(_GATHER_SECONDS)
            self._full.clear()
            try:
                await self.emptied()
            except (OSError, PydockerdError) as error:
                log.error("emptying %s: %s", self.directory, error)


def _destroy_subvolumes(directory: Path) -> int:
    with store_errors(f"cannot empty {directory}"):
        return subvolumes.destroy_below(directory)


def unmount_below(directory: Path) -> None:
    """Take away every mount in ``directory``, also one in use; processes that are in it keep what they have open."""
    for point in mounts.mounts_below(directory):
        log.info("unmounting %s, which no container owns", point.path)
        mounts.unmount(point.path, mounts.MNT_DETACH | mounts.UMOUNT_NOFOLLOW)
