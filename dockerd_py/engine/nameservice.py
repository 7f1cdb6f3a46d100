"""The daemon's side of the name service of user-defined networks.

How `engine.networking` uses it::

    service = NameService(config.exec_root, units, installed=config.is_default_instance)
    await service.adopt([(entry, pid), ...])     # once, in recovery: the containers that run
    await service.put(entry, namespace)          # at a start, before the runtime: names are known when this returns
    service.started(container_id, pid)           # as soon as the runtime has told the pid of the container's init
    await service.change(entry)                  # connect, disconnect, rename; the other containers need nothing
    await service.forget(container_id)           # a start that failed, or the end (which the service sees by itself)
    await service.close(idle=...)

Every method may be called for any container.  Only those on a user-defined network need an entry; the service is
started when the first one comes.  A container has a name on a network as long as its entry says so: an entry names
only its own container's addresses, so none has to be changed when another container comes or goes.

The service may be killed, or restarted for an upgrade, at any time: it comes back by itself with all that `started`
was called for, and gets the rest from here.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dockerd_py.nat.dns.model import NameEntry, NetworkNames
from dockerd_py.units.base import Units

__all__ = ["ADDRESS", "NameEntry", "NameService", "NetworkNames"]

ADDRESS = "127.0.0.11"
"""For the container's resolv.conf."""


class NameService:
    def __init__(self, exec_root: Path, units: Units, *, installed: bool) -> None:
        """Does nothing yet.  ``installed``: whether this is the host's own daemon, whose service systemd has."""

    async def ensure(self) -> None:
        """See to it that the service runs, and that it is of our version.  Raises NetworkFailed.

        `put` does so by itself; early, it spares the first container 60 ms."""

    async def put(self, entry: NameEntry, namespace: int, *, pid: int = 0) -> None:
        """Make the service answer in ``namespace`` (a descriptor, which stays the caller's) and know these names.

        In place of an earlier entry of this container, whose sockets are closed.  The namespace's loopback must be
        up.  ``pid`` is given when the container runs already; else `started` has to follow, or `forget`.
        Raises NetworkFailed; nothing is left then.
        """

    def started(self, container_id: str, pid: int) -> None:
        """The container's init runs: its entry lives until that process ends, daemon or not.  Returns at once."""

    async def change(self, entry: NameEntry) -> None:
        """Other names, addresses, servers for a container that has an entry.  Nothing happens for one that has none.

        Raises NetworkFailed."""

    def has(self, container_id: str) -> bool:
        """Whether there is an entry: who is connected to its first user-defined network needs `put`, not `change`."""
        return False

    async def forget(self, container_id: str) -> None:
        """Take the entry away; its namespace is free when this returns.  Fine when there is none; raises nothing."""

    async def adopt(self, entries: Iterable[tuple[NameEntry, int]]) -> None:
        """What should be there, after a restart of the daemon: entries of what runs, with the pids of their inits.

        Compares with what the service has and repairs it: what it lacks is opened through /proc/<pid>/ns/net, the
        others go.  With no entries and no service nothing is started.  Raises NetworkFailed.
        """

    async def close(self, *, idle: bool) -> None:
        """Let go.  A service that was started for this daemon alone ends when there is no container (``idle``), one
        that is the daemon's child ends with it; the host's own stays."""
