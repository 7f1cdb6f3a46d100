"""Which storage driver a root directory is used with: the one asked for, the one remembered, or the best that works."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from pathlib import Path

from dockerd_py.errors import ConfigError, StoreError
from dockerd_py.store import subvolumes
from dockerd_py.store.drivers.aufs import AufsDriver
from dockerd_py.store.drivers.base import Driver
from dockerd_py.store.drivers.btrfs import BtrfsDriver
from dockerd_py.store.drivers.overlay import OverlayDriver
from dockerd_py.store.drivers.vfs import VfsDriver
from dockerd_py.store.files import is_full, store_errors
from dockerd_py.store.trash import unmount_below

log = logging.getLogger(__name__)

PROBE_PREFIX = ".probe-"

# overlay first wherever it works, on btrfs too: its containers share the page cache of their layers.
_BEST_FIRST: tuple[type[Driver], ...] = (OverlayDriver, BtrfsDriver, AufsDriver, VfsDriver)
DRIVERS: dict[str, type[Driver]] = {driver.name: driver for driver in _BEST_FIRST}


def choose_driver(root: Path, wanted: str = "", remembered: str = "") -> Driver:
    """The driver for ``root``, not prepared yet.  Blocks: each candidate is tried by a real mount in the root.

    ``wanted`` is the administrator's choice ("" for none), ``remembered`` the driver of the last start.
    Raises ConfigError for a name that is unknown and for a chosen or remembered driver that does not work here.
    """
    if wanted and wanted not in DRIVERS:
        known = ", ".join(sorted(DRIVERS))
        raise ConfigError(f'unknown storage driver "{wanted}": this daemon has {known}')
    fixed = wanted or (remembered if remembered in DRIVERS else "")
    candidates = (DRIVERS[fixed],) if fixed else _BEST_FIRST
    reasons: list[str] = []
    for candidate in candidates:
        try:
            _probe(candidate, root)
        except StoreError as error:
            if candidate.name == remembered and is_full(error):
                log.warning("storage driver %s is used untried: %s", candidate.name, error)
                return candidate(root / candidate.name)
            reasons.append(f"{candidate.name}: {error}")
            continue
        for reason in reasons:
            log.warning("storage driver %s is used, as a better one does not work here: %s", candidate.name, reason)
        return candidate(root / candidate.name)
    why = "; ".join(reasons)
    if fixed and not wanted:
        raise ConfigError(f"{root} was used with a storage driver that does not work here now: {why}; choose one by -s")
    raise ConfigError(f"the storage driver cannot be used in {root}: {why}")


def _probe(driver: type[Driver], root: Path) -> None:
    with store_errors("it cannot be tried"):
        directory = Path(tempfile.mkdtemp(prefix=PROBE_PREFIX, dir=root))
    try:
        driver.probe(directory)
    finally:
        remove_probe(directory)


def remove_probe(directory: Path) -> None:
    """Take away the directory in which a driver was tried, also when that was cut short.  Raises OSError."""
    unmount_below(directory)
    with contextlib.suppress(OSError):
        subvolumes.destroy_below(directory)
    # overlayfs leaves a directory of mode 0 in its work directory; root may remove it.
    shutil.rmtree(os.fspath(directory))
