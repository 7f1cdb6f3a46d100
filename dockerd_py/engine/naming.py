"""In which containers the name service answers, and what it knows of each.

Those on a user-defined network find each other by name.  Where the host's name servers are on its loopback, which no
container reaches, those on the default bridge alone ask the service, too: it passes their questions on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from dockerd_py.engine import netviews
from dockerd_py.engine.nameservice import NameEntry, NameService
from dockerd_py.engine.network_model import Endpoint
from dockerd_py.engine.networks import Networks
from dockerd_py.engine.record import Record
from dockerd_py.errors import PydockerdError
from dockerd_py.runtime.files import HostResolver

log = logging.getLogger(__name__)


class Naming:
    def __init__(
        self, networks: Networks, service: NameService, servers: tuple[str, ...], host: HostResolver | None = None
    ) -> None:
        """servers: those of containers that name none, instead of the host's."""
        self._networks = networks
        self._service = service
        self._servers = servers
        self._host = host or HostResolver()
        self._told: tuple[str, ...] = ()  # the host's, when they were last asked for
        self._tasks: set[asyncio.Task[None]] = set()
        self.running: Callable[[], Sequence[Record]] = tuple

    def forwards(self, record: Record, endpoints: Sequence[Endpoint]) -> bool:
        """For its state: whether it needs the service to reach any name server, wherever it is."""
        asks_host = not (record.host.resolver.dns or self._servers)
        return bool(endpoints) and asks_host and self._host.is_on_loopback()

    def has(self, record: Record) -> bool:
        return netviews.has_names(self._networks, record)

    async def put(self, record: Record, namespace: int) -> None:
        """At a start.  Raises NetworkFailed."""
        if self.has(record):
            await self._service.put(self._entry(record), namespace)

    def started(self, record: Record, pid: int) -> None:
        if self._service.has(record.id):
            self._service.started(record.id, pid)

    async def changed(self, record: Record) -> None:
        """It has another name.  Raises NetworkFailed."""
        if self._service.has(record.id):
            await self._service.change(self._entry(record))

    async def moved(self, record: Record, namespace: int) -> None:
        """A running container's networks have changed.  Raises NetworkFailed."""
        if not self.has(record):
            await self._service.forget(record.id)
        elif self._service.has(record.id):
            await self._service.change(self._entry(record))
        else:
            await self._service.put(self._entry(record), namespace, pid=record.state.pid)

    async def forget(self, container_id: str) -> None:
        await self._service.forget(container_id)

    async def adopt(self, running: Iterable[Record]) -> None:
        """After a restart of the daemon.  Raises NetworkFailed."""
        await self._service.adopt([(self._entry(one), one.state.pid) for one in running if self.has(one)])

    async def tell_all(self) -> None:
        """The host's name servers may be others now."""
        for record in self.running():
            try:
                await self.changed(record)
            except PydockerdError as error:
                log.error("%s: it asks the name servers that the host had: %s", record.id, error)

    async def close(self, *, idle: bool) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._service.close(idle=idle)

    def _entry(self, record: Record) -> NameEntry:
        return netviews.name_entry(self._networks, record, self._servers or self._of_host())

    def _of_host(self) -> tuple[str, ...]:
        found = self._host.servers()
        if found != self._told:
            self._told = found
            task = asyncio.ensure_future(self.tell_all())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return found
