"""Containers: what a user asks of them.

All of them are in memory; the database is written before an answer is given.  A container's lock is held over each
change of its state, so that two callers never start, end or remove it at once; `stop` and `kill` only send signals,
without the lock, but wait for a start that is under way.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import replace

from dockerd_py import ids
from dockerd_py.engine import (
    attach,
    logsettings,
    making,
    mounts,
    replay,
    resources,
    settings,
    stats,
)
from dockerd_py.engine.confine import Facts
from dockerd_py.engine.ending import Ending
from dockerd_py.engine.events import EventLog
from dockerd_py.engine.images import Images, Users
from dockerd_py.engine.lifecycle import Lifecycle
from dockerd_py.engine.links import LinkTable, joined
from dockerd_py.engine.logs import LogBatch, Logs
from dockerd_py.engine.making import Making
from dockerd_py.engine.model import (
    AttachOptions,
    Container,
    ContainerConfig,
    Created,
    HostConfig,
    LogOptions,
    Stats,
    WaitCondition,
    WaitResult,
)
from dockerd_py.engine.networking import Networking
from dockerd_py.engine.networks import Networks
from dockerd_py.engine.pausing import Pausing
from dockerd_py.engine.record import Paths, Record, snapshot
from dockerd_py.engine.restarts import Restarts
from dockerd_py.engine.updates import Updates
from dockerd_py.engine.volumes import Volumes
from dockerd_py.errors import (
    AmbiguousId,
    BadParameter,
    Conflict,
    NameTaken,
    NoSuchContainer,
    NotRunning,
    PydockerdError,
    RuntimeFailed,
    StillRunning,
)
from dockerd_py.runtime.monitors import RequestFailed
from dockerd_py.runtime.runtimes import Runtimes
from dockerd_py.store.archive import outgoing
from dockerd_py.store.store import Store
from dockerd_py.store.tasks import uninterrupted
from dockerd_py.units.base import Units

log = logging.getLogger(__name__)

_REMOVALS = 5  # attempts at a container that others start meanwhile


class Containers:
    def __init__(
        self,
        paths: Paths,
        store: Store,
        images: Images,
        lifecycle: Lifecycle,
        ending: Ending,
        restarts: Restarts,
        pausing: Pausing,
        updates: Updates,
        units: Units,
        volumes: Volumes,
        events: EventLog,
        *,
        log_driver: str,
        log_options: dict[str, str],
        runtimes: Runtimes,
        facts: Facts,
        networks: Networks,
        networking: Networking,
    ) -> None:
        self._paths = paths
        self._store = store
        self._images = images
        self._lifecycle = lifecycle
        self._ending = ending
        self._restarts = restarts
        self._pausing = pausing
        self._updates = updates
        self._units = units
        self._volumes = volumes
        self._networking = networking
        self._events = events
        self._logs = Logs(paths)
        self._making = Making(
            paths, store, self.record, log_driver=log_driver, log_options=log_options, runtimes=runtimes, facts=facts,
            networks=networks,
        )  # fmt: skip
        self._by_id: dict[str, Record] = {}
        self._by_name: dict[str, Record] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.links = LinkTable(self._by_id, networks, networking.has_place)
        lifecycle.on_exit = self._after_exit
        lifecycle.find = lifecycle.files.find = self.record
        lifecycle.files.environment, lifecycle.files.aliases = self.links.environment, self.links.aliases
        networking.records = self.records
        networking.link_rules = self.links.rules

    # Looking up

    def get(self, ref: str) -> Container:
        """By full id, name, or unique prefix of an id, in this order.  Raises NoSuchContainer, AmbiguousId."""
        return self._snapshot(self.record(ref))

    def list(self, *, all: bool = False) -> list[Container]:  # noqa: A002 - Docker's word
        """Newest first; without ``all``, those that run."""
        chosen = (record for record in self._by_id.values() if all or record.state.active)
        return [self._snapshot(record) for record in sorted(chosen, key=_age)]

    async def sizes(self, ref: str) -> Container:
        record = self.record(ref)
        size_rw = await self._store.layers.rw_size(record.id)
        size_root_fs = size_rw + self._images.size(record.image_id)
        return replace(self._snapshot(record), size_rw=size_rw, size_root_fs=size_root_fs)

    def _snapshot(self, record: Record) -> Container:
        attachments = self._networking.attachments(record)
        return snapshot(record, self._paths, attachments, self.links.names(record), self.links.shown(record))

    def record(self, ref: str) -> Record:
        found = self._by_id.get(ref) or self._by_name.get(ref.removeprefix("/"))
        if found is not None:
            return found
        if ref:
            matches = [record for key, record in self._by_id.items() if key.startswith(ref)]
            if len(matches) == 1:
                return matches[0]
            if matches:
                raise AmbiguousId(ref)
        return self.link(ref)[1]

    def link(self, ref: str) -> tuple[Record, Record, str]:
        """Who is linked to whom by the name "parent/alias", and the alias.  Raises NoSuchContainer, AmbiguousId."""
        parent, _, alias = ref.removeprefix("/").rpartition("/")
        if parent and "/" not in parent:
            source = self.record(parent)
            if (target := self.links.find(source, alias)) is not None:
                return source, target, alias
        raise NoSuchContainer(ref)

    def records(self) -> Iterable[Record]:
        return self._by_id.values()

    def users_of(self, image_id: str) -> Users:
        """The containers made from an image: (id, whether it runs)."""
        return [(r.id, r.state.active) for r in self._by_id.values() if r.image_id == image_id]

    def images_in_use(self) -> set[str]:
        """The ids of the images, or layers, that containers were made from."""
        return {record.image_id for record in self._by_id.values()}

    # Making and removing

    async def create(
        self,
        config: ContainerConfig,
        host: HostConfig,
        name: str = "",
        *,
        image_ref: str = "",
        min_memory: int = resources.MIN_MEMORY,
        max_layers: int | None = None,
    ) -> Created:
        """Make a container of an image, not yet running.

        image_ref: what `Graph.exact` made of ``config.image``.  max_layers: that the image may have (None: any it can).

        Raises NoSuchImage; Conflict for a taken name; BadParameter and NotSupported for the settings; NoSuchContainer
        for another one whose volumes it is to have.
        """
        if name:
            name = ids.check_name(name)
            self._check_free(name)
        image = self._images.get(image_ref or config.image)
        if max_layers is not None and len(image.diff_ids) > max_layers:
            raise PydockerdError("Cannot create container with more than 127 parents")
        merged = settings.merge(config, image.config)
        host, warnings = self._making.check(merged, host, min_memory)
        mounted = await self._making.plan_mounts(merged, host)
        if name:
            self._check_free(name)
        record = self._making.new_record(image.id, merged, host, mounted, name, self._by_name.__contains__)
        self._lifecycle.expect_start()
        self._by_name[record.name] = record  # taken from here on, also for whoever asks while we wait
        try:
            async with self._volumes.reserved(record.volumes):
                made = self._volumes.of_new_container(record)
                await self._store.create_container(making.row_of(record), self._images.chain_id(image.id), made)
        except BaseException:
            del self._by_name[record.name]
            raise
        self._by_id[record.id] = record
        self.links.changed()
        self._volumes.created(made)
        self._events.publish("container", "create", record.id, record.attributes())
        return Created(record.id, tuple(warnings))

    def adopt(self, record: Record) -> None:
        """Take in a container that the database knows."""
        self._by_id[record.id] = record
        self.links.changed()
        self._by_name[record.name] = record

    async def remove(self, ref: str, *, force: bool = False, volumes: bool = False) -> None:
        """Take a container and its layer away; with ``volumes`` also the volumes without a name that no other has.

        Raises NoSuchContainer; Conflict when it runs and ``force`` is not set, or is being removed already.
        """
        record = self.record(ref)
        if record.removing:
            raise Conflict(f"removal of container {record.name} is already in progress")
        for _ in range(_REMOVALS):
            if record.state.active:
                if not force:
                    raise StillRunning(
                        f"You cannot remove a {record.state.status.value} container {record.id}. "
                        "Stop the container before attempting removal or force remove"
                    )
                await self._ending.end_for_removal(record)
            async with record.lock:
                if record.gone:
                    raise NoSuchContainer(ref)
                if not record.state.active:
                    await self._remove(record, volumes)
                    return
                # A start had the lock before us.
        raise Conflict(f"container {record.name} was started again and again while it was being removed")

    async def _remove(self, record: Record, volumes: bool) -> None:
        record.removing = True
        try:
            if record.monitor is not None:  # attached to, never started
                monitor, record.monitor = record.monitor, None
                await attach.dismiss(monitor)
            going = self._volumes.unnamed_of(record) if volumes else []
            async with record.content_lock, self._volumes.reserved((*record.volumes, *going)):
                self._volumes.removed(await self._store.remove_container(record.id, going))
        finally:
            record.removing = False
        for directory in (self._paths.run_directory(record.id), self._paths.directory(record.id)):
            shutil.rmtree(directory, ignore_errors=True)
        record.gone = True
        self._networking.forget(record)
        del self._by_id[record.id]
        del self._by_name[record.name]
        self.links.changed()
        self._events.publish("container", "destroy", record.id, record.attributes())
        record.settle_removal()

    async def rename(self, ref: str, name: str) -> None:
        """Give it another name.  Raises NoSuchContainer, BadParameter, Conflict."""
        record = self.record(ref)
        if not name.removeprefix("/"):
            raise BadParameter("Neither old nor new names may be empty")
        await uninterrupted(self._rename(record, ids.check_name(name)))

    async def _rename(self, record: Record, name: str) -> None:
        async with record.lock:
            if record.gone or record.removing:
                raise Conflict(f"container {record.name} is being removed")
            if name == record.name:
                raise BadParameter("Renaming a container with the same name as its current name")
            self._check_free(name)
            self._by_name[name] = record  # taken from here on
            try:
                await self._store.containers.rename(record.id, name)
            except BaseException:
                del self._by_name[name]
                raise
            old, record.name = record.name, name
            del self._by_name[old]
            await self._lifecycle.tell_name(record)
            try:
                await self._networking.renamed(record)
            except PydockerdError as error:
                log.error("%s: others on its networks do not find it by its new name yet: %s", record.id, error)
        self._lifecycle.on_other_address(record)
        self._events.publish("container", "rename", record.id, record.attributes(oldName="/" + old))

    def _after_exit(self, record: Record) -> None:
        """An exit that was not asked for by `remove`: a container with --rm goes now, one with a policy comes back."""
        self._restarts.schedule(record)
        if not record.host.auto_remove or record.gone or record.stays:
            return
        task = asyncio.get_running_loop().create_task(self._auto_remove(record))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _auto_remove(self, record: Record) -> None:
        try:
            await self.remove(record.id, volumes=True)
        except (NoSuchContainer, Conflict) as error:
            log.debug("%s: not removed by itself: %s", record.id, error)
        except PydockerdError as error:
            log.error("%s: cannot be removed: %s", record.id, error)

    # Running

    async def start(
        self, ref: str, host: HostConfig | None = None, *, min_memory: int = resources.MIN_MEMORY
    ) -> None:
        """``host``: put in the place of its settings before it starts, and kept.

        Raises NoSuchContainer, AlreadyInState, CommandNotFound, CommandNotExecutable, RuntimeFailed, TimedOut;
        BadParameter, NotSupported and Conflict for ``host``, which then is not kept.
        """
        record = self.record(ref)
        if host is None:
            await self._lifecycle.start(record)
            return
        wanted, _ = self._making.check(record.config, host, min_memory)
        planned = await self._making.plan_mounts(record.config, wanted)
        runtime = self._making.check_runtime(wanted.runtime)

        async def prepare() -> None:
            mounted = mounts.replanned(record.mounts, planned, lambda name: self._volumes.has(record, name))
            log_driver = wanted.log_driver or self._making.log_driver
            linked = replace(wanted, links=joined(record.id, record.host.links, wanted.links))
            await self._updates.replace(record, linked, mounted, log_driver=log_driver, runtime=runtime)
            self.links.changed()

        await self._lifecycle.start(record, prepare=prepare)

    async def pause(self, ref: str) -> None:
        """Freeze all its processes.  Raises NoSuchContainer, Conflict, NotRunning, NotSupported, TimedOut."""
        await self._pausing.pause(self.record(ref))

    async def unpause(self, ref: str) -> None:
        """Let them go on.  Raises NoSuchContainer, Conflict when it is not paused."""
        await self._pausing.unpause(self.record(ref))

    async def stop(self, ref: str, timeout: int | None = None, signal: str = "") -> None:
        """Ask it to end with a signal, then kill it.

        timeout: seconds; None: the container's own, else 10; -1: wait for ever.  signal: "": its own stop signal.
        Raises NoSuchContainer, BadParameter for the signal, AlreadyInState, TimedOut.
        """
        await self._ending.stop(self.record(ref), timeout, signal)

    async def restart(self, ref: str, timeout: int | None = None, signal: str = "") -> None:
        """Stop it as `stop` does, if it runs, and start it.  Raises as both do.

        One with --rm stays for its start; when this fails, or is given up before, it goes.
        """
        await self._ending.restart(self.record(ref), timeout, signal)

    async def kill(self, ref: str, signal: str = "SIGKILL") -> None:
        """Send a signal to its init.  After SIGKILL, returns once it has ended.

        Raises NoSuchContainer, BadParameter, NotRunning.
        """
        await self._ending.kill(self.record(ref), signal)

    async def wait(self, ref: str, condition: WaitCondition = WaitCondition.NOT_RUNNING) -> WaitResult:
        """Its exit code, once the condition holds.  Raises NoSuchContainer."""
        return await self._ending.wait(self.record(ref), condition)

    async def update(self, ref: str, change: HostConfig) -> None:
        """Change its limits and its restart policy.  Raises NoSuchContainer, BadParameter, NotSupported, Conflict."""
        await self._updates.update(self.record(ref), change)

    async def stats(self, ref: str) -> Stats:
        """What it uses now.  Raises NoSuchContainer."""
        return await stats.sample(self.record(ref), self._units)

    def stats_stream(self, ref: str) -> AsyncGenerator[tuple[Stats, Stats], None]:
        """The sample before and the present one, each second, until it is removed.  Raises NoSuchContainer."""
        return stats.stream(self.record(ref), self._units)

    # Streams

    async def logs(self, ref: str, options: LogOptions) -> AsyncGenerator[LogBatch, None]:
        """Batches of records; with ``follow``, until the container ends.  Raises NoSuchContainer."""
        record = self.record(ref)
        async with aclosing(self._logs.read(record, options)) as batches:
            async for batch in batches:
                yield batch

    def log_attributes(self, ref: str) -> dict[str, str]:
        """The labels and variables that its log options choose for every line.  Raises NoSuchContainer."""
        record = self.record(ref)
        return logsettings.attributes_of(record.config, record.host.log_options)

    async def export(self, ref: str) -> AsyncGenerator[bytes, None]:
        """Its root filesystem as one tar, whether it runs or not; to be closed.

        Raises NoSuchContainer, Conflict when it is being removed,
        and, while it is read, StoreError.
        """
        record = self.record(ref)
        if record.removing or record.gone:
            raise Conflict(f"container {record.name} is being removed")
        self._events.publish("container", "export", record.id, record.attributes())
        return self._export(record)

    async def _export(self, record: Record) -> AsyncGenerator[bytes, None]:
        async with self._store.layers.held_rw(record.id) as root, aclosing(outgoing.canonical(root)) as pieces:
            async for piece in pieces:
                yield piece

    async def check_attach(self, ref: str, options: AttachOptions) -> Container:
        """What `attach` would refuse, before a connection is given away for it."""
        record = self.record(ref)
        attach.check(record, options)
        return self._snapshot(record)

    async def attach(self, ref: str, options: AttachOptions, fd: int, early: bytes) -> None:
        """Give a client's connection to the container.  Owns ``fd``, whatever comes.

        early: what the client had sent already.  Returns once the monitor has the connection; where the log is asked
        for, it gets it later, and what fails then is told on the connection.
        """
        try:
            record = self.record(ref)
            async with record.lock:
                attach.check(record, options)
                monitor = None
                if options.stream and (options.waits or not record.state.finished_at):
                    monitor = await self._lifecycle.monitor_for_attach(record)
            self._events.publish("container", "attach", record.id, record.attributes())
            if options.logs:
                one = replay.Replay(self._logs, record, monitor, options, fd, early)
                fd = -1
                task = asyncio.get_running_loop().create_task(one.run())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            elif monitor is not None:
                await attach.hand_over(record, monitor, options, fd, early)
        finally:
            if fd >= 0:
                os.close(fd)

    async def resize(self, ref: str, height: int, width: int) -> None:
        """Set the size of its terminal, in characters.  Raises NoSuchContainer, NotRunning, Conflict."""
        record = self.record(ref)
        monitor = record.monitor
        if monitor is None:
            raise NotRunning(f"Container {record.id} is not running")
        try:
            await monitor.request("resize", height=height, width=width)
        except RequestFailed as error:
            raise Conflict(f"cannot resize: {error}") from error
        except RuntimeFailed:
            raise NotRunning(f"Container {record.id} is not running") from None

    async def close(self) -> None:
        await self._restarts.close(self._by_id.values())
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _check_free(self, name: str) -> None:
        holder = self._by_name.get(name)
        if holder is not None:
            raise NameTaken(name, holder.id)


def _age(record: Record) -> int:
    return -record.created
