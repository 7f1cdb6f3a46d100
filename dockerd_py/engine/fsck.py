"""Whether all that a daemon keeps is in order: the store, and what the engine has beside it for its containers."""

from __future__ import annotations

import os
from pathlib import Path

from dockerd_py import wire
from dockerd_py.config import Config
from dockerd_py.engine import forkserver, nameservice
from dockerd_py.engine.record import Paths
from dockerd_py.errors import StoreError
from dockerd_py.nat.dns import state
from dockerd_py.store import fsck, lock, mounts
from dockerd_py.store.files import shown, store_errors
from dockerd_py.store.fsck import Report
from dockerd_py.store.store import DATABASE_NAME


def check(config: Config, *, deep: bool = False) -> list[str]:
    """One line for each thing that is wrong; nothing is changed.  Blocks.

    deep: the contents of all layers are read, too.

    Raises ConfigError while a daemon uses the root, and StoreError when it cannot be looked at.
    """
    if not config.root.is_dir():
        raise StoreError(f"{config.root} is not a directory: name the root directory by -g")
    found: list[str] = []
    with lock.held(config.root):
        containers = fsck.check(config.root, DATABASE_NAME, found.append, deep=deep)
        paths = Paths(config)
        _check_names(paths.containers, containers, "files of", found.append)
        _check_names(paths.spool, containers, "the exit record of", found.append)
        _check_names(paths.run, containers, "run-time files of", found.append)
        _check_names(paths.runtime_root, containers, "the OCI runtime's state of", found.append)
        _check_names(paths.exec_root / state.DIRECTORY, containers, "names of", found.append)
        if paths.exec_root.is_dir():
            with store_errors(f"cannot read {paths.exec_root}"):
                for name in (forkserver.SOCKET_NAME, nameservice.SOCKET_NAME):
                    for path in sorted(wire.abandoned(str(paths.exec_root / name))):
                        found.append(f"{shown(path)}: a socket of a process that was killed")
        for point in mounts.mounts_below(paths.run):
            inside = Path(point.path).relative_to(paths.run.resolve()).parts
            if inside[0] not in containers:
                found.append(f"{shown(point.path)}: a mount that belongs to no container")
    return found


def _check_names(directory: Path, containers: set[str], what: str, report: Report) -> None:
    with store_errors(f"cannot read {directory}"):
        for name in sorted(os.listdir(directory)) if directory.is_dir() else ():
            if name.partition(".")[0] not in containers:
                report(f"{shown(directory / name)}: {what} a container that is not there")
