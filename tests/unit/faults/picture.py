"""All that an operation could have changed, as one value that two moments can be compared by.

What the daemon says (images, containers), every file below its root and run directories by its contents and place,
mounts, and processes.  Random names are left out: a layer's directory is known by what is in it.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import stat
from collections import Counter
from pathlib import Path
from typing import Any

import net_picture
from daemons import Daemon, until
from net_house import NetDaemon

from dockerd_py.store.drivers.choose import DRIVERS

Picture = dict[str, Any]

MONITOR = "pydockerd-mon"
_REMEMBERED = re.compile(r".*/x/[0-9a-f]{8}\.json")  # an exec that has ended, as long as somebody may ask for it


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
                daemon.run / "containers", daemon.run / "runtime", daemon.run / "names",
            )
        },
        "run": sorted(os.listdir(daemon.run)),
        "mounts": sorted(line.split()[4].rpartition("/")[2] for line in daemon.mounts()),
        "groups": _groups(names),
        "monitors": len(monitors(daemon)),
        **(net_picture.of(daemon) if isinstance(daemon, NetDaemon) else {}),
    }  # fmt: skip


def _groups(names: dict[str, str]) -> dict[str, bool]:
    """The control groups of containers, and whether there are processes in them."""
    top = Path("/sys/fs/cgroup/memory")
    found = {}
    for place, directories, _ in os.walk(top if top.is_dir() else "/sys/fs/cgroup"):
        for directory in fnmatch.filter(directories, "container-*.scope"):
            if (name := names.get(directory[len("container-") : -len(".scope")])) is not None:
                found[name] = any(map(_text, Path(place, directory).rglob("cgroup.procs")))
            directories.remove(directory)
    return found


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:  # its group is being removed
        return ""


def is_consistent(found: Picture) -> bool:
    """Whether just the containers that run hold what such a one holds, and none is about to be started again."""
    words = {text.partition(" ")[0]: text.rpartition(" ")[2] for text in found["containers"]}
    running = {name for name in words if words[name] == "running"}
    held = {path for path in found["run/containers"] if path.rpartition("/")[0] == ""}
    processes = {name for name in found["groups"] if found["groups"][name]}
    return (
        "restarting" not in words.values()
        and len(running) == found["monitors"]
        and running == held == processes == found["groups"].keys()
        and ("networks" not in found or net_picture.is_consistent(found))
    )


def monitors(daemon: Daemon) -> list[int]:
    return [pid for pid in _of_fork_server(daemon) if _comm(pid) == MONITOR]


def fork_servers(daemon: Daemon) -> list[int]:
    return [pid for pid in _of_fork_server(daemon) if _comm(pid) != MONITOR]


def settled(daemon: Daemon) -> None:
    """Wait until what was removed is deleted, and nobody works in the daemon's directories but itself."""
    until(lambda: is_settled(daemon))


def is_settled(daemon: Daemon) -> bool:
    return not list(daemon.root.glob("*/trash/*")) and not strangers(daemon)


def strangers(daemon: Daemon) -> list[str]:
    """Processes that name the daemon's directory and are neither it nor its fork server nor its name service."""
    programs = [f"/dockerd_py/{name}/__main__.py " for name in ("monitor", "nat/dns")]
    own = ["dockerd_py.daemon.main ", "/faults/tracer.py ", *programs]
    return [line for line in daemon.processes() if not any(each in line for each in own)]


def differences(one: Picture, other: Picture) -> str:
    return "\n".join(f"{key}: {one[key]}\n  is not {other[key]}" for key in one if one[key] != other[key])


def _image(daemon: Daemon, image: str) -> str:
    found = daemon.get(f"/images/{image}/json").json
    return f"{sorted(found['RepoTags'])} {found['RootFS']['Layers']} {found['Config']['Cmd']} {found['Size']}"


def _container(daemon: Daemon, container: str) -> str:
    found = daemon.inspect(container)
    links = found["HostConfig"]["Links"]
    return f"{found['Name']} {found['Config']['Image']} {found['Config']['Cmd']} {links} {found['State']['Status']}"


def _layers(root: Path) -> dict[str, Counter[str]]:
    found = {}
    for driver in DRIVERS:
        home = root / driver
        if home.is_dir():
            found[driver] = Counter(_digest(home / name) for name in os.listdir(home) if name != "trash")
    return found


def _digest(directory: Path) -> str:
    """Of everything in it.  What overlayfs keeps in its work directory is its own; of mounts, it counts that they are
    there."""
    lines = []
    for top, directories, files in os.walk(directory):
        inside = os.path.relpath(top, directory)
        if inside == "work" or os.path.ismount(top):
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
            if not _REMEMBERED.fullmatch(path):
                found.append(path)
    return sorted(found)


def _of_fork_server(daemon: Daemon) -> list[int]:
    """The fork server, its monitors, and what these have just forked."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                argv = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:  # it has ended meanwhile
                continue
            if os.fsencode(daemon.run / "monitor.sock") in argv:
                found.append(int(entry.name))
    return found


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
