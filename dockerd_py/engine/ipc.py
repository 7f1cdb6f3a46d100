"""What /dev/shm is in a container, by its IPC mode.

A shareable container's lies on a file system of its own below /run, where the containers that join it find it.  It is
mounted by its start, which is written down before, and taken away with its end, by recovery if need be.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from pathlib import Path

from dockerd_py.engine.isolation import joined_container
from dockerd_py.engine.record import Paths, Record
from dockerd_py.errors import BadParameter, StoreError
from dockerd_py.runtime import spec
from dockerd_py.store import mounts

SHAREABLE = "shareable"
HOSTS_SHM = "/dev/shm"
_MS_NOEXEC = 8


async def shm_of(record: Record, paths: Paths, find: Callable[[str], Record]) -> str:
    """``SpecInput.shm`` for a start of the container; a shareable one's is mounted by this.

    Raises NoSuchContainer, BadParameter for a container that shares its IPC with nobody, StoreError.
    """
    mode = record.host.namespaces.ipc
    if mode == "none":
        return spec.NONE
    if mode == spec.HOST:
        return HOSTS_SHM
    if donor := joined_container(mode):
        return _shm_of_donor(find(donor), paths)
    if mode != SHAREABLE:
        return spec.PRIVATE
    directory = _directory(record.id, paths)
    try:
        await asyncio.to_thread(_mount, directory, record.host.shm_size)
    except OSError as error:
        raise StoreError(f"cannot mount {directory}: {error.strerror}") from error
    return str(directory)


async def release_shm(record: Record, paths: Paths) -> None:
    """Take away what `shm_of` has mounted, if it has; those who have joined keep it."""
    if record.host.namespaces.ipc == SHAREABLE:
        await asyncio.to_thread(unmount_below, paths.run_directory(record.id))


def unmount_below(directory: Path) -> None:
    """Take away every mount in a run directory.  Raises StoreError."""
    for point in mounts.mounts_below(directory):
        try:
            mounts.unmount(point.path, mounts.MNT_DETACH | mounts.UMOUNT_NOFOLLOW)
        except OSError as error:
            if error.errno != errno.EINVAL:  # somebody else was quicker
                raise StoreError(f"cannot unmount {point.path}: {error.strerror}") from error


def _shm_of_donor(donor: Record, paths: Paths) -> str:
    mode = donor.host.namespaces.ipc
    if mode == SHAREABLE:
        return str(_directory(donor.id, paths))
    if mode == spec.HOST:
        return HOSTS_SHM
    raise BadParameter(
        f"cannot join the IPC of container {donor.name}: non-shareable IPC (hint: use IpcMode:shareable for the donor "
        "container)"
    )


def _directory(container_id: str, paths: Paths) -> Path:
    return paths.run_directory(container_id) / "shm"


def _mount(directory: Path, size: int) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = mounts.MS_NOSUID | mounts.MS_NODEV | _MS_NOEXEC
    if any(Path(point.path) == directory for point in mounts.mounts_below(directory.parent)):
        return
    mounts.mount("shm", directory, "tmpfs", flags, f"mode=1777,size={size}")
