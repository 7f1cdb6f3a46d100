"""All that an operation could have changed, as one value that two moments can be compared by.

What the daemon says (images, containers), every file below its root and run directories by its contents and place,
mounts, and processes.  Random names are left out: a layer's directory is known by what is in it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from pathlib import Path
from typing import Any

from daemons import Daemon, until

from dockerd_py.store.drivers.choose import DRIVERS

Picture = dict[str, Any]


def picture(daemon: Daemon) -> Picture:
    """The daemon has to be at rest: see `settled`."""
    names = {one["Id"]: one["Names"][0] for one in daemon.get("/containers/json?all=1").json}
    return {
        "images": sorted(_image(daemon, one["Id"]) for one in daemon.get("/images/json?all=1").json),
        "containers": sorted(_container(daemon, one) for one in names),
        "root": sorted({*os.listdir(daemon.root)} - {"tmp"}),  # which is made when it is needed
        "layers": _layers(daemon.root),
        **{
            str(directory.relative_to(daemon.directory)): _files(directory, names)
            for directory in (
                daemon.root / "tmp", daemon.root / "spool", daemon.root / "containers",
                daemon.run / "containers", daemon.run / "runtime",
            )
        },
        "run": sorted(os.listdir(daemon.run)),
        "mounts": sorted(line.split()[4].rpartition("/")[2] for line in daemon.mounts()),
    }  # fmt: skip


def settled(daemon: Daemon) -> None:
    """Wait until what was removed is deleted, and nobody works in the daemon's directories but itself."""
    until(lambda: is_settled(daemon))


def is_settled(daemon: Daemon) -> bool:
    return not list(daemon.root.glob("*/trash/*")) and not strangers(daemon)


def strangers(daemon: Daemon) -> list[str]:
    """Processes that name the daemon's directory and are neither it nor its fork server."""
    own = ["dockerd_py.daemon.main ", "/dockerd_py/monitor/__main__.py ", "/faults/tracer.py "]
    return [line for line in daemon.processes() if not any(each in line for each in own)]


def differences(one: Picture, other: Picture) -> str:
    return "\n".join(f"{key}: {one[key]}\n  is not {other[key]}" for key in one if one[key] != other[key])


def _image(daemon: Daemon, image: str) -> str:
    found = daemon.get(f"/images/{image}/json").json
    return f"{sorted(found['RepoTags'])} {found['RootFS']['Layers']} {found['Config']['Cmd']} {found['Size']}"


def _container(daemon: Daemon, container: str) -> str:
    found = daemon.inspect(container)
    return f"{found['Name']} {found['Config']['Image']} {found['Config']['Cmd']} {found['State']['Status']}"


def _layers(root: Path) -> dict[str, Counter[str]]:
    found = {}
    for driver in DRIVERS:
        home = root / driver
        if home.is_dir():
            found[driver] = Counter(_digest(home / name) for name in os.listdir(home) if name != "trash")
    return found


def _digest(directory: Path) -> str:
    """Of everything in it.  What overlayfs keeps in its work directory is its own."""
    lines = []
    for top, directories, files in os.walk(directory):
        inside = os.path.relpath(top, directory)
        if inside == "work":
            directories.clear()
            continue
        for name in (*directories, *files):
            path = os.path.join(top, name)
            info = os.lstat(path)
            content = ""
            if stat.S_ISREG(info.st_mode):
                content = hashlib.sha256(Path(path).read_bytes()).hexdigest()
            elif stat.S_ISLNK(info.st_mode):
                content = os.readlink(path)
            owner = (info.st_uid, info.st_gid)
            lines.append(f"{os.path.relpath(path, directory)} {info.st_mode:o} {owner} {info.st_rdev} {content}")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def _files(directory: Path, names: dict[str, str]) -> list[str]:
    found = []
    for top, directories, files in os.walk(directory):
        for name in (*directories, *files):
            path = os.path.relpath(os.path.join(top, name), directory)
            for container, called in names.items():
                path = path.replace(container, called)
            found.append(path)
    return sorted(found)
