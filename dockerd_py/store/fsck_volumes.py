"""Whether the volumes of a root directory are in order: rows, directories and mounts.  Nothing is changed."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from dockerd_py.store import mounts
from dockerd_py.store.archive.copyup import COPIED, COPYING
from dockerd_py.store.files import shown, store_errors
from dockerd_py.store.volumes import DATA, HOME, TRASH

_STATES = {"intended": "half made", "removing": "half removed"}


def check(connection: sqlite3.Connection | None, root: Path, report: Callable[[str], None]) -> None:
    """Report what is wrong with the volumes below ``root``; the connection is None where there is no database."""
    home = root / HOME
    known: set[str] = set()
    mounted: set[Path] = set()
    rows = [] if connection is None else connection.execute("SELECT name, options, state FROM volumes ORDER BY name")
    for name, options, state in rows:
        known.add(name)
        if state != "ready":
            report(f"volume {name}: {_STATES[state]}")
        elif not (home / name / DATA).is_dir():
            report(f"volume {name}: its directory is not there")
        if json.loads(options).get("device"):
            mounted.add(home.resolve() / name / DATA)
        for left in (COPYING, COPIED):
            if (home / name / left).exists():
                report(f"{shown(home / name / left)}: left of what was to be copied into the volume")
    with store_errors(f"cannot read {home}"):
        for name in sorted(os.listdir(home)) if home.is_dir() else ():
            if name not in known and name != TRASH:
                report(f"{shown(home / name)}: no volume is recorded for it")
        trash = home / TRASH
        for name in sorted(os.listdir(trash)) if trash.is_dir() else ():
            report(f"{shown(trash / name)}: removed, and not deleted yet")
    for point in mounts.mounts_below(home) if home.is_dir() else ():
        if Path(point.path) not in mounted:
            report(f"{shown(point.path)}: a mount that belongs to no volume")
