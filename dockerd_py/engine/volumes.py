"""Volumes: making, showing and removing them, and what a container's creation, start and end have to do with them.

A name's lock is held over the making and removal of its volume and over the creation and removal of containers that
have it, so that none of these sees another half done.  Locks of several names are taken in the order of the names.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from dockerd_py import ids
from dockerd_py.engine.events import EventLog
from dockerd_py.engine.mount_model import ANONYMOUS_LABEL, LOCAL_DRIVER, VOLUME, Mount, Volume
from dockerd_py.engine.mounts import check_driver, check_volume_name
from dockerd_py.engine.record import Record
from dockerd_py.errors import BadParameter, Conflict, NoSuchVolume, NotSupported, PydockerdError
from dockerd_py.store import volume_fill
from dockerd_py.store.store import Store, VolumesOfContainer
from dockerd_py.store.volumes import VolumeRow

log = logging.getLogger(__name__)

_OPTIONS = {"type": ("device",), "device": ("type",), "o": ("device", "type")}
"""The options of the driver "local", each with those that it needs beside it."""


class Volumes:
    def __init__(self, store: Store, events: EventLog) -> None:
        self._store = store
        self._events = events
        self._locks: dict[str, asyncio.Lock] = {}
        self._wanted: Counter[str] = Counter()  # how many hold or await each lock
        self._in_use: dict[str, tuple[str, ...]] = {}  # from a container that runs to its volumes

    # What a user asks

    def get(self, name: str) -> Volume:
        """Raises NoSuchVolume."""
        row = self._store.volumes.get(name)
        if row is None:
            raise NoSuchVolume(name)
        return self._snapshot(row)

    def list(self) -> list[Volume]:
        """Sorted by name."""
        return [self._snapshot(row) for row in self._store.volumes.all()]

    async def size(self, name: str) -> int:
        """Bytes of the files in a volume; -1 for one that is mounted from elsewhere.

        Raises NoSuchVolume, StoreError.
        """
        row = self._row(name)
        return -1 if row.is_mounted_for_use else await self._store.volumes.size(name)

    async def create(
        self, name: str, *, driver: str = "", options: Mapping[str, str], labels: Mapping[str, str]
    ) -> Volume:
        """Make a volume; one that is there already is returned, if it is as asked.  "" for a name makes one up.

        Raises BadParameter, NotSupported; Conflict for a volume that has other options or labels; StoreError.
        """
        labels = dict(labels) if name else {ANONYMOUS_LABEL: "", **labels}
        name = check_volume_name(name) if name else ids.new_id()
        check_driver(name, driver)
        _check_options(name, options)
        async with self.reserved([name]):
            row = self._store.volumes.get(name)
            if row is None:
                row = VolumeRow(name, time.time_ns(), labels, dict(options))
                await self._store.volumes.create(row)
                self._publish_created([row])
            elif (options and options != row.options) or (labels and labels != row.labels):
                raise Conflict(
                    f"create {name}: there is a volume of this name with other options or labels: "
                    "remove it, or choose another name"
                )
        return self._snapshot(row)

    async def remove(self, name: str, *, force: bool = False) -> None:
        """``force``: that there is none is no error.  Raises NoSuchVolume, Conflict when it is in use, StoreError."""
        async with self.reserved([name]):
            if self._store.volumes.get(name) is None:
                if force:
                    return
                raise NoSuchVolume(name)
            await self._store.volumes.remove(name)
            self._publish_destroyed([name])

    async def prune(self, passes: Callable[[Volume], bool]) -> tuple[tuple[str, ...], int]:
        """Remove the volumes that no container has and that pass.  Their names, and the bytes that this freed."""
        removed, reclaimed = [], 0
        for volume in self.list():
            if volume.users or not passes(volume):
                continue
            try:
                size = max(0, await self.size(volume.name))
                await self.remove(volume.name)
            except (NoSuchVolume, Conflict):
                continue  # removed, or taken, by somebody else
            removed.append(volume.name)
            reclaimed += size
        self._events.publish("volume", "prune", "", {"reclaimed": str(reclaimed)})
        return tuple(removed), reclaimed

    # What containers need

    @asynccontextmanager
    async def reserved(self, names: Iterable[str]) -> AsyncIterator[None]:
        """Nobody else makes or removes volumes of these names meanwhile."""
        async with AsyncExitStack() as stack:
            for name in sorted(set(names)):
                self._wanted[name] += 1
                stack.callback(self._forget_lock, name)
                await stack.enter_async_context(self._locks.setdefault(name, asyncio.Lock()))
            yield

    def of_new_container(self, record: Record) -> VolumesOfContainer:
        """What the store needs to make the volumes of a container; their names are reserved."""
        requests = {mount.source: mount for mount in record.host.mounts if mount.type == VOLUME and mount.source}
        anonymous = [mount for mount in record.host.mounts if mount.type == VOLUME and not mount.source]
        by_target = {mount.target: mount for mount in anonymous}
        new, used = [], []
        for mount in _volumes_in(record.mounts):
            if self._store.volumes.get(mount.name) is not None:
                used.append(mount.name)
                continue
            request = requests.get(mount.name) or by_target.get(mount.target)
            options = dict(request.driver_options) if request else {}
            labels = dict(request.labels) if request else {}
            _check_options(mount.name, options)
            if mount.anonymous:
                labels = {ANONYMOUS_LABEL: "", **labels}
            new.append(VolumeRow(mount.name, time.time_ns(), labels, options))
        fresh = {row.name: row for row in new}

        async def fill() -> None:
            to_fill = [mount for mount in record.mounts if mount.type == VOLUME and mount.copy]
            if not to_fill:
                return
            async with self._store.layers.held_rw(record.id) as root:
                for mount in to_fill:
                    row = fresh.get(mount.name) or self._row(mount.name)
                    await volume_fill.fill(
                        self._store.volumes, self._store.volume_mounts, row, root, mount.target,
                        fresh=mount.name in fresh,
                    )  # fmt: skip

        return VolumesOfContainer(tuple(new), tuple(used), fill)

    def created(self, made: VolumesOfContainer) -> None:
        """The container is there: tell of the volumes that came with it."""
        self._publish_created(made.new)

    def removed(self, names: Iterable[str]) -> None:
        self._publish_destroyed(names)

    async def mount(self, record: Record) -> None:
        """Have a container's volumes ready for its start.  Raises StoreError; `unmount` all the same."""
        self._in_use[record.id] = record.volumes
        await self._store.volume_mounts.hold(record.id, self._rows(record.volumes))
        for mount in record.mounts:
            if mount.type == VOLUME:
                attributes = {
                    "container": record.id,
                    "destination": mount.target,
                    "driver": mount.driver,
                    "propagation": mount.propagation,
                    "read/write": "false" if mount.read_only else "true",
                }
                self._events.publish("volume", "mount", mount.name, attributes)

    async def unmount(self, container_id: str) -> None:
        """A container has ended.  Raises StoreError."""
        for name in self._in_use.pop(container_id, ()):
            attributes = {"container": container_id, "driver": LOCAL_DRIVER}
            self._events.publish("volume", "unmount", name, attributes)
        await self._store.volume_mounts.release(container_id)

    def has(self, record: Record, name: str) -> bool:
        """Whether a container has a volume, be it mounted at the moment or not."""
        return record.id in self._store.volumes.users(name)

    def unnamed_of(self, record: Record) -> Sequence[str]:
        """The volumes without a name that go with a container, those that a start's settings have covered, too."""
        mounted = {mount.name: mount for mount in record.mounts if mount.type == VOLUME}
        found = [name for name, mount in mounted.items() if mount.anonymous]
        return found + [
            row.name
            for row in self._store.volumes.all()
            if row.name not in mounted and ANONYMOUS_LABEL in row.labels and self.has(record, row.name)
        ]

    @asynccontextmanager
    async def held(self, record: Record) -> AsyncIterator[None]:
        """The container's volumes are mounted, whether it runs or not.  Raises StoreError."""
        async with self._store.volume_mounts.held(self._rows(record.volumes)):
            yield

    async def recover(self, records: Iterable[Record], of_all_drivers: set[str]) -> None:
        """Take over what containers that run have mounted, and take away what is left of others.

        of_all_drivers: the ids of all containers; those of hidden ones may run, and keep what they have.
        """
        known = set()
        for record in records:
            known.add(record.id)
            if record.state.running:
                self._in_use[record.id] = record.volumes
                self._store.volume_mounts.adopt(record.id, self._rows(record.volumes))
        hidden = of_all_drivers - known
        for row in self._store.volumes.all():
            for container_id in self._store.volumes.users(row.name) & hidden:
                self._store.volume_mounts.adopt(container_id, [row])
        try:
            await self._store.volume_mounts.recover()
        except PydockerdError as error:
            log.error("%s", error)

    # Below

    def _forget_lock(self, name: str) -> None:
        self._wanted[name] -= 1
        if not self._wanted[name]:
            del self._wanted[name], self._locks[name]

    def _row(self, name: str) -> VolumeRow:
        row = self._store.volumes.get(name)
        if row is None:
            raise NoSuchVolume(name)
        return row

    def _rows(self, names: Iterable[str]) -> Sequence[VolumeRow]:
        return [row for name in names if (row := self._store.volumes.get(name)) is not None]

    def _snapshot(self, row: VolumeRow) -> Volume:
        return Volume(
            name=row.name,
            created=row.created,
            labels=dict(row.labels),
            options=dict(row.options),
            mountpoint=str(self._store.volumes.data(row.name)),
            users=tuple(sorted(self._store.volumes.users(row.name))),
        )

    def _publish_created(self, rows: Iterable[VolumeRow]) -> None:
        for row in rows:
            self._events.publish("volume", "create", row.name, {"driver": LOCAL_DRIVER})

    def _publish_destroyed(self, names: Iterable[str]) -> None:
        for name in names:
            self._events.publish("volume", "destroy", name, {"driver": LOCAL_DRIVER})


def _volumes_in(mounts: Iterable[Mount]) -> Iterable[Mount]:
    """One mount for each volume."""
    return {mount.name: mount for mount in mounts if mount.type == VOLUME}.values()


def _check_options(name: str, options: Mapping[str, str]) -> None:
    for option, needed in _OPTIONS.items():
        for other in needed:
            if options.get(option) and not options.get(other):
                raise BadParameter(f'create {name}: missing required option: "{other}"')
    if "size" in options:
        raise NotSupported(f"create {name}: quota size requested but no quota support: the option size is for tmpfs "
                           "a part of o (o=size=64m)")  # fmt: skip
    for option in options:
        if option not in _OPTIONS:
            raise BadParameter(f'create {name}: invalid option: "{option}"')
