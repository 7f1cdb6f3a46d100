"""The test host's place in the machine's cgroups: a group of its own in each hierarchy, removed at the end."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

V2_CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")


@dataclass(frozen=True)
class Hierarchy:
    """One mounted cgroup hierarchy.

    options: what mounts it again: "cpu,cpuacct", "none,name=systemd"; empty for the unified one.
    mount: where it is mounted.
    group: the caller's own group in it.
    """

    options: str
    mount: Path
    group: Path

    @property
    def unified(self) -> bool:
        return self.options == ""


def hierarchies() -> list[Hierarchy]:
    """The hierarchies that are mounted here (proc(5), cgroups(7))."""
    mounts: dict[frozenset[str], tuple[str, Path]] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        source, target = left.split()[3:5]
        kind, _, options = right.split()[:3]
        if kind == "cgroup2":
            mounts.setdefault(frozenset(), (source, Path(target)))
        elif kind == "cgroup":
            mounts.setdefault(frozenset(options.split(",")), (source, Path(target)))
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        wanted = frozenset(filter(None, names.split(",")))
        # The superblock's options hold "rw" and the like beside the controllers.
        matches = [at for has, at in mounts.items() if (wanted <= has if wanted else not has)]
        if matches:
            source, mount = matches[0]
            options = f"none,{names}" if names.startswith("name=") else names
            found.append(Hierarchy(options, mount, mount / os.path.relpath(path, source)))
    return found


def places(name: str) -> list[Path]:
    """Where the groups of a host called ``name`` are to be, one in each hierarchy."""
    found = hierarchies()
    only_unified = len(found) == 1 and found[0].unified
    # On unified cgroups alone, a group with processes in it, such as ours, can't have children with limits.
    return [(each.mount if only_unified else each.group) / name for each in found]


def create(groups: list[Path]) -> None:
    for group in groups:
        if (group.parent / "cgroup.subtree_control").exists() and len(groups) == 1:
            _enable(group.parent)
        group.mkdir()
        if (group / "cpuset.cpus").exists() and (group / "cgroup.clone_children").exists():
            for setting in ("cpuset.cpus", "cpuset.mems"):
                (group / setting).write_text((group.parent / setting).read_text())
            (group / "cgroup.clone_children").write_text("1")


def _enable(group: Path) -> None:
    there = (group / "cgroup.controllers").read_text().split()
    for controller in V2_CONTROLLERS:
        if controller in there:
            (group / "cgroup.subtree_control").write_text(f"+{controller}")


def enter(groups: list[Path]) -> None:
    """Move the calling process into them."""
    for group in groups:
        (group / "cgroup.procs").write_text("0")


def remove(groups: list[Path], patience: float = 5.0) -> None:
    """Remove the groups with all that is below; ``patience`` in seconds is for processes that still end."""
    deadline = time.monotonic() + patience
    for group in groups:
        for folder, _, _ in os.walk(group, topdown=False):
            _rmdir(folder, deadline)


def _rmdir(folder: str, deadline: float) -> None:
    while True:
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
