"""Layers on each other by overlayfs.  A container's layer has ``work``, overlayfs's own, beside its ``diff``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from dockerd_py.store import mounts
from dockerd_py.store.drivers.base import Whiteouts
from dockerd_py.store.drivers.branches import BranchDriver, trial_directories
from dockerd_py.store.files import store_errors

_PARAMETERS = Path("/sys/module/overlay/parameters")

# Without these a layer's directory alone would not tell what the container changed: renamed directories and files
# with changed owners would be notes that point into the layers below.
_PLAIN = ("index", "metacopy", "redirect_dir")


class OverlayDriver(BranchDriver):
    name = "overlay"
    whiteouts = Whiteouts.OVERLAY
    max_depth = 127
    rw_directories = ("diff", "work", "merged")

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self._options = _plain_options()

    @classmethod
    def probe(cls, directory: Path) -> None:
        merged = directory / "merged"
        with trial_directories(directory, "lower", "diff", "work", "merged") as (lower, upper, work, _):
            with store_errors("overlayfs cannot be mounted here"):
                options = f"lowerdir={lower},upperdir={upper},workdir={work}"
                mounts.mount("overlay", merged, "overlay", data=_plain_options() + options)
            try:
                # A file system without trusted xattrs or without whiteouts mounts, and fails later.
                with store_errors("overlayfs does not work on this file system"):
                    os.mknod(directory / "diff" / "whiteout", 0o020000, os.makedev(0, 0))
                    os.setxattr(directory / "diff", "trusted.overlay.opaque", b"y")
                    (merged / "file").write_bytes(b"")
            finally:
                mounts.unmount(merged, mounts.MNT_DETACH)

    def _mount_on(self, cache_id: str, parents: Sequence[str]) -> None:
        # overlayfs wants at least one lower directory; an image without layers has an empty one.
        lower = ":".join(f"{parent}/diff" for parent in parents) or f"{cache_id}/lower"
        if not parents:
            (self.directory(cache_id) / "lower").mkdir(exist_ok=True)
        mounts.mount(
            "overlay",
            f"{cache_id}/merged",
            "overlay",
            data=f"{self._options}lowerdir={lower},upperdir={cache_id}/diff,workdir={cache_id}/work",
        )


def _plain_options() -> str:
    return "".join(f"{name}=off," for name in _PLAIN if (_PARAMETERS / name).exists())
