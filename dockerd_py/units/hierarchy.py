"""Where control groups are mounted and where a process sits in them: read from /proc, never guessed by path names.

Shapes: proc_pid_mountinfo(5), cgroups(7).  Everything here is a pure function of two texts, but for `current`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dockerd_py.errors import NotRunning

_ESCAPE = re.compile(r"\\([0-7]{3})")
_NOT_CONTROLLERS = frozenset({"rw", "ro", "none", "xattr", "clone_children", "noprefix", "cpuset_v2_mode", "all"})


@dataclass(frozen=True)
class Hierarchy:
    """One mounted tree of control groups."""

    version: int  # 1 or 2
    controllers: frozenset[str]  # version 1 only; "name=systemd" for a named one; empty for version 2
    mount: Path
    root: str  # the group that is mounted there, as /proc/<pid>/cgroup spells paths
    path: str  # the group of the process that was asked about, spelled so too

    def locate(self, path: str) -> Path:
        """The directory of the group ``path`` (as /proc/<pid>/cgroup spells it).

        A group above our namespace is taken as the namespace's root.  A group outside the mounted part is looked
        for below the mount point, where a container without a control group namespace finds its tree.
        """
        root = self.root.rstrip("/")
        if path.startswith("/.."):
            path = ""
        elif path == root or path.startswith(root + "/"):
            path = path[len(root) :]
        return self.mount / path.lstrip("/")

    def spell(self, directory: Path) -> str:
        """The opposite of `locate`."""
        below = directory.relative_to(self.mount).as_posix()
        root = self.root.rstrip("/")
        return root or "/" if below == "." else f"{root}/{below}"

    @property
    def own(self) -> Path:
        return self.locate(self.path)


def find_hierarchies(mountinfo: str, cgroup: str) -> list[Hierarchy]:
    """The hierarchies of ``mountinfo``, each once, writable mounts first.  ``cgroup``: a /proc/<pid>/cgroup."""
    paths: dict[frozenset[str], str] = {}
    for line in cgroup.splitlines():
        _number, controllers, path = line.split(":", 2)
        paths[frozenset(c for c in controllers.split(",") if c)] = path
    found: dict[frozenset[str], Hierarchy] = {}
    for version, controllers_, mount, root, _read_only in sorted(_mounts(mountinfo), key=lambda m: m[4]):
        path_ = paths.get(controllers_)
        if path_ is not None and controllers_ not in found:
            found[controllers_] = Hierarchy(version, controllers_, mount, root, path_)
    return list(found.values())


def current(pid: int | str = "self") -> list[Hierarchy]:
    """The hierarchies as this process sees them, with the place of ``pid`` in each."""
    return find_hierarchies(
        Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape"),
        Path(f"/proc/{pid}/cgroup").read_text("utf-8", "surrogateescape"),
    )


def version_of(hierarchies: Iterable[Hierarchy]) -> int:
    """2 where every controller is in the unified tree; 1 on version 1 and hybrid."""
    resource = any(c for h in hierarchies if h.version == 1 for c in h.controllers if not c.startswith("name="))
    return 1 if resource else 2


def of_controller(hierarchies: Iterable[Hierarchy], controller: str) -> Hierarchy | None:
    """The version 1 hierarchy that has ``controller``, else the unified one if the controller is there."""
    unified = None
    for hierarchy in hierarchies:
        if controller in hierarchy.controllers:
            return hierarchy
        if hierarchy.version == 2:
            unified = hierarchy
    if unified is not None and controller in read_words(unified.own / "cgroup.controllers"):
        return unified
    return None


def read_words(file: Path) -> set[str]:
    """The words of a kernel file; none when it is not there."""
    try:
        return set(file.read_text().split())
    except OSError:
        return set()


def read_pids(directory: Path) -> list[int]:
    """The processes of a group and of every group below it; none when it is gone meanwhile."""
    pids: dict[int, None] = {}
    for place, _directories, _files in os.walk(directory):
        try:
            text = Path(place, "cgroup.procs").read_text()
        except OSError:  # gone, or a threaded group, whose processes the group above it lists
            continue
        pids.update(dict.fromkeys(int(word) for word in text.split() if word != "0"))
    return list(pids)


def doors(hierarchies: Iterable[Hierarchy], name: str, pid: int) -> list[str]:
    """The ``cgroup.procs`` of the groups of ``pid``, a process of the scope ``name``, in ``hierarchies``; without those
    outside of the scope that are not writable.  Raises NotRunning where it is gone, or nowhere in the scope.

    Quick enough for the loop: it reads one file of /proc.
    """
    try:
        text = Path(f"/proc/{pid}/cgroup").read_text("utf-8", "surrogateescape")
    except (FileNotFoundError, ProcessLookupError):
        raise NotRunning(f"{name} has ended") from None
    paths: dict[frozenset[str], str] = {}
    for line in text.splitlines():
        _number, controllers, path = line.split(":", 2)
        paths[frozenset(filter(None, controllers.split(",")))] = path
    found = []
    inside = False
    for place in hierarchies:
        if place.controllers not in paths:
            continue
        path = paths[place.controllers]
        door = place.locate(path) / "cgroup.procs"
        if f"/{name}/" in f"{path}/":
            inside = True
            found.append(str(door))
        elif not path.startswith("/..") and os.access(door, os.W_OK):
            found.append(str(door))
    if not inside:
        raise NotRunning(f"{name} has ended")
    return found


def pay_for_first_move(hierarchies: Iterable[Hierarchy]) -> None:
    """Move this process to where it is: nothing changes, and the next moves of any process are quick.

    The kernel takes a lock over all forks for a move.  After an idle while it waits for a grace period first, 5 to
    20 ms; shortly after another move it does not.
    """
    for place in hierarchies:
        if not place.path.startswith("/.."):
            with contextlib.suppress(OSError):  # read-only: the price is paid later then
                (place.own / "cgroup.procs").write_text(str(os.getpid()))
                return


def _mounts(mountinfo: str) -> Iterable[tuple[int, frozenset[str], Path, str, bool]]:
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if kind[0] not in ("cgroup", "cgroup2"):
            continue
        read_only = "ro" in fields[5].split(",")
        mount, root = Path(_unescape(fields[4])), _unescape(fields[3])
        if kind[0] == "cgroup2":
            yield 2, frozenset(), mount, root, read_only
        else:
            options = (o for o in kind[2].split(",") if o not in _NOT_CONTROLLERS)
            controllers = frozenset(o for o in options if "=" not in o or o.startswith("name="))
            yield 1, controllers, mount, root, read_only


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)
