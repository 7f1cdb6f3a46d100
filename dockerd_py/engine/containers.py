"""Containers: what a user asks of them.

All of them are in memory; the database is written before an answer is given.  A container's lock is held over each
change of its state, so that two callers never start, end or remove it at once; `stop` and `kill` only send signals
and take no lock.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import replace
from signal import SIGKILL

from dockerd_py import ids
from dockerd_py.engine import attach, names, settings, signals
from dockerd_py.engine.events import EventLog
from dockerd_py.engine.images import Images, Users
from dockerd_py.engine.lifecycle import KILL_SECONDS, Lifecycle
from dockerd_py.engine.logs import LogBatch, Logs
from dockerd_py.engine.model import (
    AttachOptions,
    Container,
    ContainerConfig,
    Created,
    HostConfig,
    LogOptions,
    State,
    WaitCondition,
    WaitResult,
)
from dockerd_py.engine.record import Paths, Record, snapshot
from dockerd_py.errors import (
    AlreadyInState,
    AmbiguousId,
    Conflict,
    NoSuchContainer,
    NotRunning,
    PydockerdError,
    RuntimeFailed,
    TimedOut,
)
from dockerd_py.runtime.monitors import RequestFailed
from dockerd_py.store.archive import outgoing
from dockerd_py.store.containers import ContainerRow
from dockerd_py.store.store import Store

log = logging.getLogger(__name__)

_REMOVALS = 5  # attempts at a container that others start meanwhile


class Containers:
    def __init__(
        self,
        paths: Paths,
        store: Store,
        images: Images,
        lifecycle: Lifecycle,
        events: EventLog,
        *,
        log_driver: str,
        runtime: str,
    ) -> None:
        self._paths = paths
        self._store = store
        self._images = images
        self._lifecycle = lifecycle
        self._events = events
        self._logs = Logs(paths)
        self._log_driver = log_driver
        self._runtime = runtime
        self._by_id: dict[str, Record] = {}
        self._by_name: dict[str, Record] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        lifecycle.on_exit = self._after_exit

    # Looking up

    def get(self, ref: str) -> Container:
        """By full id, name, or unique prefix of an id, in this order.  Raises NoSuchContainer, AmbiguousId."""
        return snapshot(self.record(ref), self._paths)

    def list(self, *, all: bool = False) -> list[Container]:  # noqa: A002 - Docker's word
        """Newest first; without ``all``, those that run."""
        chosen = (record for record in self._by_id.values() if all or record.state.running)
        return [snapshot(record, self._paths) for record in sorted(chosen, key=_age)]

    async def sizes(self, ref: str) -> Container:
        record = self.record(ref)
        size_rw = await self._store.layers.rw_size(record.id)
        size_root_fs = size_rw + self._images.size(record.image_id)
        return replace(snapshot(record, self._paths), size_rw=size_rw, size_root_fs=size_root_fs)

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
        raise NoSuchContainer(ref)

    def records(self) -> Iterable[Record]:
        return self._by_id.values()

    def users_of(self, image_id: str) -> Users:
        """The containers made from an image: (id, whether it runs)."""
        return [(r.id, r.state.running) for r in self._by_id.values() if r.image_id == image_id]

    # Making and removing

    async def create(
        self, config: ContainerConfig, host: HostConfig, name: str = "", *, min_memory: int = settings.MIN_MEMORY
    ) -> Created:
        """Make a container of an image, not yet running.

        Raises NoSuchImage; Conflict for a taken name; BadParameter and NotSupported for the settings.
        """
        if name:
            name = ids.check_name(name)
            self._check_free(name)
        image = self._images.get(config.image)
        merged = settings.merge(config, image.config)
        path, *args = settings.command_of(merged)
        warnings = settings.check(merged, host, min_memory)
        container_id = ids.new_id()
        record = Record(
            id=container_id,
            name=name or names.generate(self._by_name.__contains__, container_id[:12]),
            image_id=image.id,
            created=time.time_ns(),
            config=replace(merged, hostname=merged.hostname or _default_hostname(container_id, host)),
            host=host,
            state=State(),
            driver=self._store.driver.name,
            log_driver=host.log_driver or self._log_driver,
            path=path,
            args=tuple(args),
            runtime=self._runtime,
        )
        self._lifecycle.expect_start()
        self._by_name[record.name] = record  # taken from here on, also for whoever asks while we wait
        try:
            await self._store.create_container(row_of(record), self._images.chain_id(image.id))
        except BaseException:
            del self._by_name[record.name]
            raise
        self._by_id[record.id] = record
        self._events.publish("container", "create", record.id, record.attributes())
        return Created(record.id, tuple(warnings))

    def adopt(self, record: Record) -> None:
        """Take in a container that the database knows."""
        self._by_id[record.id] = record
        self._by_name[record.name] = record

    async def remove(self, ref: str, *, force: bool = False, volumes: bool = False) -> None:
        """Take a container and its layer away.  ``volumes`` says that its anonymous volumes go too: it has none yet.

        Raises NoSuchContainer; Conflict when it runs and ``force`` is not set, or is being removed already.
        """
        record = self.record(ref)
        if record.removing:
            raise Conflict(f"removal of container {record.name} is already in progress")
        for _ in range(_REMOVALS):
            if record.state.running:
                if not force:
                    raise Conflict(
                        f"You cannot remove a running container {record.id}. "
                        "Stop the container before attempting removal or force remove"
                    )
                await self._lifecycle.kill_for_good(record)
            async with record.lock:
                if record.gone:
                    raise NoSuchContainer(ref)
                if not record.state.running:
                    await self._remove(record)
                    return
                # A start had the lock before us.
        raise Conflict(f"container {record.name} was started again and again while it was being removed")

    async def _remove(self, record: Record) -> None:
        record.removing = True
        try:
            if record.monitor is not None:  # attached to, never started
                monitor, record.monitor = record.monitor, None
                await attach.dismiss(monitor)
            async with record.content_lock:
                await self._store.remove_container(record.id)
        finally:
            record.removing = False
        for directory in (self._paths.run_directory(record.id), self._paths.directory(record.id)):
            shutil.rmtree(directory, ignore_errors=True)
        record.gone = True
        del self._by_id[record.id]
        del self._by_name[record.name]
        self._events.publish("container", "destroy", record.id, record.attributes())
        record.settle_removal()

    def _after_exit(self, record: Record) -> None:
        """An exit that was not asked for by `remove`: a container with --rm goes now."""
        if not record.host.auto_remove or record.gone:
            return
        task = asyncio.get_running_loop().create_task(self._auto_remove(record))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _auto_remove(self, record: Record) -> None:
        try:
            await self.remove(record.id)
        except (NoSuchContainer, Conflict) as error:
            log.debug("%s: not removed by itself: %s", record.id, error)
        except PydockerdError as error:
            log.error("%s: cannot be removed: %s", record.id, error)

    # Running

    async def start(self, ref: str) -> None:
        """Raises NoSuchContainer, AlreadyInState, CommandNotFound, CommandNotExecutable, RuntimeFailed, TimedOut."""
        await self._lifecycle.start(self.record(ref))

    async def stop(self, ref: str, timeout: int | None = None) -> None:
        """Ask it to end with its stop signal, then kill it.

        timeout: seconds; None: the container's own, else 10; -1: wait for ever.
        Raises NoSuchContainer, AlreadyInState, TimedOut.
        """
        record = self.record(ref)
        await self._lifecycle.stop(record, timeout)
        self._events.publish("container", "stop", record.id, record.attributes())

    async def restart(self, ref: str, timeout: int | None = None) -> None:
        record = self.record(ref)
        try:
            await self._lifecycle.stop(record, timeout)
        except AlreadyInState:
            pass
        await self._lifecycle.start(record)
        self._events.publish("container", "restart", record.id, record.attributes())

    async def kill(self, ref: str, signal: str = "SIGKILL") -> None:
        """Send a signal to its init.  After SIGKILL, returns once it has ended.

        Raises NoSuchContainer, BadParameter, NotRunning.
        """
        record = self.record(ref)
        number = signals.parse(signal or "SIGKILL")
        ended = self._lifecycle.exit_of(record)
        await self._lifecycle.kill(record, number)
        self._events.publish("container", "kill", record.id, record.attributes(signal=str(number)))
        if number == SIGKILL:
            try:
                await asyncio.wait_for(ended, KILL_SECONDS)
            except asyncio.TimeoutError:
                raise TimedOut(f"container {record.name} did not end though it was killed") from None

    async def wait(self, ref: str, condition: WaitCondition = WaitCondition.NOT_RUNNING) -> WaitResult:
        """Its exit code, once the condition holds.  Raises NoSuchContainer."""
        record = self.record(ref)
        if condition is WaitCondition.NOT_RUNNING and not record.state.running:
            return record.result
        waiting = record.at_removal if condition is WaitCondition.REMOVED else record.at_exit
        future: asyncio.Future[WaitResult] = asyncio.get_running_loop().create_future()
        waiting.append(future)
        try:
            return await future
        finally:
            if future in waiting:
                waiting.remove(future)

    # Streams

    async def logs(self, ref: str, options: LogOptions) -> AsyncGenerator[LogBatch, None]:
        """Batches of records; with ``follow``, until the container ends.  Raises NoSuchContainer."""
        record = self.record(ref)
        async with aclosing(self._logs.read(record, options)) as batches:
            async for batch in batches:
                yield batch

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
        return snapshot(record, self._paths)

    async def attach(self, ref: str, options: AttachOptions, fd: int, early: bytes) -> None:
        """Give a client's connection to the container.  Owns ``fd``, whatever comes.

        early: what the client had sent already.  Returns once the monitor has the connection.
        """
        try:
            record = self.record(ref)
            async with record.lock:
                attach.check(record, options)
                monitor = await self._lifecycle.monitor_for_attach(record)
            self._events.publish("container", "attach", record.id, record.attributes())
            await attach.hand_over(record, monitor, options, fd, early)
        finally:
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
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _check_free(self, name: str) -> None:
        holder = self._by_name.get(name)
        if holder is not None:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{holder.id}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )


def row_of(record: Record) -> ContainerRow:
    return ContainerRow(
        id=record.id,
        name=record.name,
        image_id=record.image_id,
        created=record.created,
        settings=settings.dump_settings(
            record.config, record.host, log_driver=record.log_driver, runtime=record.runtime
        ),
        state=settings.dump_state(record.state, epoch=record.log_end.epoch, ordinal=record.log_end.ordinal),
    )


def _default_hostname(container_id: str, host: HostConfig) -> str:
    return "" if host.network_mode == "host" else container_id[:12]


def _age(record: Record) -> int:
    return -record.created
