"""What the service needs to come back after it was killed: a file for each container that runs.

The daemon writes and removes them (`write`, `remove`), the service reads them when it starts.  They are in a directory
that a reboot clears, and say nothing once the process that they name is gone: its start time goes with its pid.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dockerd_py.nat.dns.model import EntryError, NameEntry

DIRECTORY = "names"
"""In the exec root."""

_SUFFIX = ".json"


class Process(NamedTuple):
    """A process, and no other one that has its pid later."""

    pid: int
    started: int  # clock ticks since the boot

    @classmethod
    def of(cls, pid: int) -> Process:
        """Raises ProcessLookupError."""
        try:
            text = Path(f"/proc/{pid}/stat").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            raise ProcessLookupError(f"there is no process {pid}") from None
        # the command, in parentheses, may contain anything (proc(5))
        return cls(pid, int(text[text.rindex(b")") + 2 :].split()[19]))

    def open(self) -> tuple[int, int]:
        """A pidfd and its network namespace, as descriptors.  Raises ProcessLookupError when it has ended, OSError."""
        pidfd = os.pidfd_open(self.pid)
        try:
            namespace = open_namespace(self.pid)
            try:
                if Process.of(self.pid) != self:
                    raise ProcessLookupError(f"process {self.pid} is another one by now")
            except BaseException:
                os.close(namespace)
                raise
        except BaseException:
            os.close(pidfd)
            raise
        return pidfd, namespace


class Saved(NamedTuple):
    entry: NameEntry
    process: Process
    ports: tuple[int, int]  # of the sockets in the container's namespace, to which the rules there lead


def open_namespace(pid: int) -> int:
    """The network namespace of a process.  Raises ProcessLookupError, OSError."""
    try:
        return os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ProcessLookupError(f"there is no process {pid}") from None


def write(directory: Path, saved: Saved) -> None:
    """Whole or not at all.  Not synced: a reboot ends what it tells of.  Raises OSError."""
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    text = json.dumps({"entry": saved.entry.to_json(), "process": saved.process, "ports": saved.ports})
    path = directory / (saved.entry.container_id + _SUFFIX)
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


def remove(directory: Path, container_id: str) -> None:
    """Fine when there is none."""
    (directory / (container_id + _SUFFIX)).unlink(missing_ok=True)


def names(directory: Path) -> list[str]:
    """The full ids of the containers that have a file."""
    with contextlib.suppress(FileNotFoundError):
        return [path.stem for path in directory.glob(f"*{_SUFFIX}")]
    return []


def sweep(directory: Path) -> None:
    """Take away what a daemon that was killed inside `write` has left."""
    for path in directory.glob("*.new"):
        path.unlink(missing_ok=True)


def read(directory: Path) -> Iterator[Saved | EntryError]:
    """All files; for one that can't be used, why."""
    for container_id in names(directory):
        path = directory / (container_id + _SUFFIX)
        try:
            value = json.loads(path.read_text())
            (pid, started), (udp, tcp) = value["process"], value["ports"]
            process = Process(int(pid), int(started))
            yield Saved(NameEntry.from_json(value["entry"]), process, (int(udp), int(tcp)))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            yield EntryError(f"{path}: {error!r}")
