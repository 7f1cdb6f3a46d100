"""A volume gets what the image has at its place, if the volume is empty.  See `archive.copyup` for how."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from dockerd_py.store.archive import copyup
from dockerd_py.store.archive.helper import answer
from dockerd_py.store.files import store_errors
from dockerd_py.store.volume_mounts import VolumeMounts
from dockerd_py.store.volumes import VolumeRow, VolumeStore


async def fill(
    volumes: VolumeStore, mounted: VolumeMounts, row: VolumeRow, root: Path, path: str, *, fresh: bool
) -> None:
    """Copy what is at ``path`` of the mounted root filesystem ``root`` into a volume that is empty.

    fresh: the volume is being made, so that a crash takes it away.
    Raises BadParameter where there is a file at ``path``, and StoreError.
    """
    if row.is_mounted_for_use and row.options.get("type") == "tmpfs":
        return  # it would be gone with the mount, before anybody sees it
    async with mounted.held([row]):
        data = volumes.data(row.name)
        directory = volumes.directory(row.name)
        in_mount = row.is_mounted_for_use
        with store_errors(f"cannot fill the volume {row.name}"):
            if not await asyncio.to_thread(_needs_helper, root, path, directory, data, in_mount=in_mount):
                return
        in_place = fresh and not in_mount
        beside = "" if in_place else copyup.beside(directory, data, mounted=in_mount)
        arguments = {"root": str(root), "path": path, "data": str(data), "beside": beside, "daemon": os.getpid()}
        await answer("copyup", arguments, doing=f"cannot fill the volume {row.name}")


def _needs_helper(root: Path, path: str, directory: Path, data: Path, *, in_mount: bool) -> bool:
    """Whether there are files to be copied.  A directory without any is done here."""
    source = copyup.source_directory(root, path)
    if source is None:
        return False
    try:
        copyup.recover(directory, data, mounted=in_mount)
        if not copyup.is_empty(data):
            return False
        if os.listdir(source):
            return True
        copyup.copy_metadata(source, data)
        return False
    finally:
        os.close(source)
