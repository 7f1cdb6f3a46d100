"""What links ask for while containers run: hosts files that stay right, and a link that is taken away."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace

from dockerd_py.engine import making
from dockerd_py.engine.containers import Containers
from dockerd_py.engine.lifecycle import Lifecycle
from dockerd_py.engine.networking import Networking
from dockerd_py.engine.record import Paths, Record
from dockerd_py.errors import Conflict, NoSuchContainer
from dockerd_py.store.store import Store
from dockerd_py.store.tasks import uninterrupted

log = logging.getLogger(__name__)

UNLINKING = "unlinking"
"""The phase of a container's state while it loses a link."""

LARGEST_HOSTS = 1 << 20
"""Bytes of a hosts file that are read: its container can make it as large as it likes, and sparse."""


class Linking:
    def __init__(
        self, paths: Paths, store: Store, containers: Containers, lifecycle: Lifecycle, networking: Networking
    ) -> None:
        self._paths = paths
        self._store = store
        self._containers = containers
        self._lifecycle = lifecycle
        self._networking = networking
        lifecycle.on_other_address = self.follow

    async def finish(self, source: Record) -> None:
        """The end of what took a link away: its line goes from the hosts file.  Recovery's part, too."""
        if source.state.running:
            self._lifecycle.rewrite_hosts(source)
        await self._lifecycle.save(source)

    async def unlink(self, ref: str) -> None:
        """Take away the link that is called "parent/alias", and nothing else.

        Raises NoSuchContainer; Conflict for a container's own name; NetworkFailed when the link is gone, but not out of
        the firewall.
        """
        if "/" not in ref.strip("/"):
            self._containers.record(ref)
            raise Conflict("Conflict, cannot remove the default name of the container")
        source, _, alias = self._containers.link(ref)
        await uninterrupted(self._unlink(ref, source, alias))

    def follow(self, target: Record) -> None:
        """A container has got an address, or another name: right the hosts files of those that are linked to it.

        And its own: it may have been told of an address that another had until just now.
        """
        for record in dict.fromkeys((target.id, *(source.id for source, _ in self._containers.links.sources(target)))):
            self._right(self._containers.record(record))

    def resume(self, records: Iterable[Record]) -> None:
        """Finish what an earlier daemon had to leave."""
        for record in records:
            self._right(record)

    def _right(self, record: Record) -> None:
        """What its processes have written into the file stays as long as the file is right about the links, and no
        larger than a hosts file can be."""
        if not record.host.links or not record.state.running:
            return
        try:
            with open(self._paths.directory(record.id) / "hosts", "rb") as file:
                data = file.read(LARGEST_HOSTS + 1)
        except OSError as error:
            log.error("%s: its hosts file cannot be read: %s", record.id, error)
            return
        text = data.decode(errors="surrogateescape")
        if len(data) > LARGEST_HOSTS or not self._containers.links.is_current(record, text):
            self._lifecycle.rewrite_hosts(record)

    async def _unlink(self, ref: str, source: Record, alias: str) -> None:
        async with source.lock:
            if source.gone or not any(link.alias == alias for link in source.host.links):
                raise NoSuchContainer(ref)
            before = source.host
            source.host = replace(before, links=tuple(link for link in before.links if link.alias != alias))
            state = self._lifecycle.state_of(source, **({"phase": UNLINKING} if source.state.running else {}))
            try:
                await self._store.containers.update(source.id, making.settings_of(source), state)
            except BaseException:
                source.host = before
                raise
            self._containers.links.changed()
            if source.state.running:
                await self.finish(source)
                await self._networking.renamed(source)
                await self._networking.refresh()
