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

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dockerd_py.nat.dns
from dockerd_py import wire
from dockerd_py.engine.namelink import NameLink, RequestRefused, ServiceGone
from dockerd_py.engine.ownservice import OwnService
from dockerd_py.errors import NetworkFailed, PydockerdError
from dockerd_py.nat.dns import redirect, sockets, stamp, state
from dockerd_py.nat.dns.model import EntryError, NameEntry, NetworkNames, digest
from dockerd_py.nat.dns.sockets import Sockets
from dockerd_py.nat.dns.state import Process, Saved
from dockerd_py.units.base import Units

__all__ = ["ADDRESS", "NameEntry", "NameService", "NetworkNames"]

log = logging.getLogger(__name__)

ADDRESS = redirect.ADDRESS
"""For the container's resolv.conf."""

INSTALLED_UNIT = "pydockerd-dns.service"
PROGRAM = os.path.join(os.path.dirname(dockerd_py.nat.dns.__file__), "__main__.py")
SOCKET_NAME = "names.sock"
"""In the exec root."""

SERVICE_PROPERTIES: dict[str, bool | int | str] = {
    "Description": "Names of containers",
    "Type": "notify",
    "Restart": "always",
    "StartLimitIntervalUSec": 0,
    "OOMPolicy": "continue",
    "OOMScoreAdjust": -500,
    "CollectMode": "inactive-or-failed",
}

VERSION = 1
ATTEMPTS = 3
LONGEST_PAUSE = 30.0  # seconds between attempts to get the service back


class NameService:
    def __init__(self, exec_root: Path, units: Units, *, installed: bool) -> None:
        """Does nothing yet.  ``installed``: whether this is the host's own daemon, whose service systemd has."""
        path = str(exec_root / SOCKET_NAME)
        self._directory = exec_root / state.DIRECTORY
        self._service = OwnService(
            path,
            units,
            [sys.executable, "-I", "-S", PROGRAM, path],
            unit=INSTALLED_UNIT,
            installed=installed,
            properties=SERVICE_PROPERTIES,
        )
        self._records: dict[str, _Record] = {}
        self._link: NameLink | None = None
        self._connecting = asyncio.Lock()
        self._worker = ThreadPoolExecutor(1, "names")  # enters namespaces, and writes files in the order of the calls
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    async def ensure(self) -> None:
        """See to it that the service runs, and that it is of our version.  Raises NetworkFailed.

        `put` does so by itself; early, it spares the first container 60 ms."""
        await self._connected()

    async def put(self, entry: NameEntry, namespace: int, *, pid: int = 0) -> None:
        """Make the service answer in ``namespace`` (a descriptor, which stays the caller's) and know these names.

        In place of an earlier entry of this container, whose sockets are closed.  The namespace's loopback must be
        up.  ``pid`` is given when the container runs already; else `started` has to follow, or `forget`.
        Raises NetworkFailed; nothing is left then.
        """
        record = _Record(entry)
        try:
            if pid:
                record.process = Process.of(pid)
            record.take(await self._open(namespace))
        except OSError as error:
            raise NetworkFailed(f"no name service for the container: {error}") from error
        if (old := self._records.get(entry.container_id)) is not None:
            old.close()
        self._records[entry.container_id] = record
        try:
            for attempt in range(ATTEMPTS):
                link = await self._connected()
                try:
                    await self._send(link, record)
                    break
                except ServiceGone:
                    if attempt == ATTEMPTS - 1:
                        raise
            if record.process is not None:
                record.close()
                await self._work(state.write, self._directory, record.saved())
        except BaseException as error:
            if self._records.get(entry.container_id) is record:
                await asyncio.shield(self._task(self.forget(entry.container_id)))
            record.close()
            if isinstance(error, OSError):
                raise NetworkFailed(f"no name service for the container: {error}") from error
            raise

    def started(self, container_id: str, pid: int) -> None:
        """The container's init runs: its entry lives until that process ends, daemon or not.  Returns at once."""
        record = self._records.get(container_id)
        if record is None:
            return
        try:
            record.process = Process.of(pid)
            pidfd = os.pidfd_open(pid)
        except OSError as error:  # it has ended already, or there is no descriptor left
            log.debug("container %s has no names: %s", container_id[:12], error)
            self._task(self.forget(container_id))
            return
        try:
            if self._link is not None:
                self._link.tell("started", fds=(pidfd,), id=container_id)
        finally:
            os.close(pidfd)
        record.close()
        self._save(record)

    async def change(self, entry: NameEntry) -> None:
        """Other names, addresses, servers for a container that has an entry.  Nothing happens for one that has none.

        Raises NetworkFailed; all is as before then."""
        record = self._records.get(entry.container_id)
        if record is None or record.entry == entry:
            return
        before, record.entry = record.entry, entry
        try:
            for attempt in range(ATTEMPTS):
                link = await self._connected()
                try:
                    await link.request("change", entry=entry.to_json())
                    break
                except ServiceGone:
                    if attempt == ATTEMPTS - 1:
                        raise
        except BaseException:
            record.entry = before
            raise
        self._save(record)

    def has(self, container_id: str) -> bool:
        """Whether there is an entry: who is connected to its first user-defined network needs `put`, not `change`."""
        return container_id in self._records

    async def forget(self, container_id: str) -> None:
        """Take the entry away; its namespace is free when this returns.  Fine when there is none; raises nothing."""
        record = self._records.pop(container_id, None)
        if record is None:
            return
        record.close()
        try:
            await self._work(state.remove, self._directory, container_id)
            if self._link is not None and container_id not in self._records:
                await self._link.request("forget", id=container_id)
        except (OSError, PydockerdError) as error:
            # a service that is gone has let go of it; one that is back is compared with what we have
            log.debug("container %s: %s", container_id[:12], error)

    async def adopt(self, entries: Iterable[tuple[NameEntry, int]]) -> None:
        """What should be there, after a restart of the daemon: entries of what runs, with the pids of their inits.

        Compares with what the service has and repairs it: what it lacks is opened through /proc/<pid>/ns/net, the
        others go.  With no entries and no service nothing is started.  Raises NetworkFailed.
        """
        for entry, pid in entries:
            record = _Record(entry)
            with contextlib.suppress(ProcessLookupError):  # it has just ended; recovery sees that, too
                record.process = Process.of(pid)
                self._records[entry.container_id] = record
        try:
            for saved in await self._work(lambda: list(state.read(self._directory))):
                known = None if isinstance(saved, EntryError) else self._records.get(saved.entry.container_id)
                if known is not None and known.process == saved.process:
                    known.ports = saved.ports
            for path in wire.abandoned(self._service.path):
                os.unlink(path)
            await self._work(self._settle_files, {key: each.saved() for key, each in self._records.items()})
        except OSError as error:
            raise NetworkFailed(f"the files of the name service cannot be written: {error}") from error
        if self._records or self._service.is_alive():
            await self._connected()

    async def close(self, *, idle: bool) -> None:
        """Let go.  A service that was started for this daemon alone ends when there is no container (``idle``), one
        that is the daemon's child ends with it; the host's own stays."""
        self._closing = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._link is not None:
            self._link.close()
            self._link = None
        for record in self._records.values():
            record.close()
        await self._service.close(idle=idle and not self._records)
        if not self._service.is_alive():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._service.path)  # the service itself has no right to
        await asyncio.to_thread(self._worker.shutdown)

    async def _connected(self) -> NameLink:
        """A connection to a service of our version that knows what we know.  Raises NetworkFailed."""
        if (link := self._link) is not None:
            return link
        async with self._connecting:
            if (link := self._link) is not None:
                return link
            try:
                link = await self._connect()
            except (OSError, PydockerdError) as error:
                raise NetworkFailed(f"the name service of containers cannot be reached: {error}") from error
            try:
                await self._repair(link)
            except BaseException as error:
                link.close()
                if isinstance(error, OSError):
                    raise NetworkFailed(f"the name service of containers cannot be set up: {error}") from error
                raise
            self._link = link
            return link

    async def _connect(self) -> NameLink:
        for _ in range(ATTEMPTS):
            await self._service.ensure()
            link = NameLink(wire.connect(self._service.path), self._lost)
            try:
                reply = await link.request("hello", version=VERSION)
                if reply["code"] == await asyncio.to_thread(stamp.of_code):
                    return link
                log.info("the name service is of another version: it starts again as ours")
            except RequestRefused as error:
                log.info("the name service is of another version (%s): it starts again as ours", error)
            except ServiceGone:
                continue
            except BaseException:
                link.close()
                raise
            link.tell("leave")
            await link.ended()
        raise NetworkFailed("it is of another version, and stays so")

    async def _repair(self, link: NameLink) -> None:
        """Raises NetworkFailed, OSError."""
        there: dict[str, tuple[int, bool, tuple[int, int]]] = {}
        while True:
            page = (await link.request("list", after=max(there, default="")))["entries"]
            if not page:
                break
            there.update({key: (number, attended, tuple(ports)) for key, number, attended, ports in page})
        for container_id in there.keys() - self._records.keys():
            await link.request("forget", id=container_id)
        for container_id, record in list(self._records.items()):
            number, attended, ports = there.get(container_id, (None, False, sockets.NEW))
            if record.ports == sockets.NEW and attended:
                record.ports = ports
                self._save(record)
            if number is None or ports != record.ports or (record.process is not None and not attended):
                await self._put_again(link, record)
            elif number != digest(record.entry):
                await link.request("change", entry=record.entry.to_json())

    async def _put_again(self, link: NameLink, record: _Record) -> None:
        if record.sockets is not None:
            await self._send(link, record)
        elif record.process is not None:
            try:
                pidfd, namespace = record.process.open()
            except ProcessLookupError:
                return
            os.close(pidfd)
            try:
                record.take(await self._open(namespace, record.ports))
                await self._send(link, record)
            except OSError as error:  # one container's trouble is not the others'
                log.warning("no name service for container %s: %s", record.entry.container_id[:12], error)
            finally:
                os.close(namespace)
                record.close()

    async def _send(self, link: NameLink, record: _Record) -> None:
        """Raises NetworkFailed, OSError."""
        if record.sockets is None:
            return  # it has been forgotten meanwhile
        fds = [sock.fileno() for sock in record.sockets]
        pidfd = -1
        if record.process is not None:
            with contextlib.suppress(ProcessLookupError):
                pidfd = os.pidfd_open(record.process.pid)
                fds.append(pidfd)
        try:
            await link.request("put", fds=tuple(fds), entry=record.entry.to_json())
        finally:
            if pidfd >= 0:
                os.close(pidfd)

    def _lost(self, link: NameLink) -> None:
        if self._link is not link:
            return
        self._link = None
        if not self._closing and self._records:
            log.warning("the name service has ended: containers have no names until it is back")
            self._task(self._get_back())

    async def _get_back(self) -> None:
        pause = 0.1
        while self._records:
            try:
                await self._connected()
            except PydockerdError as error:
                log.warning("%s", error)
            else:
                log.info("the name service is back")
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _save(self, record: _Record) -> None:
        saved = record.saved()
        if saved is not None and not self._closing:
            self._worker.submit(_write, self._directory, saved)

    def _settle_files(self, wanted: dict[str, Saved | None]) -> None:
        """Raises OSError."""
        for container_id in state.names(self._directory):
            if wanted.get(container_id) is None:
                state.remove(self._directory, container_id)
        state.sweep(self._directory)
        for saved in wanted.values():
            if saved is not None:
                state.write(self._directory, saved)

    async def _open(self, namespace: int, ports: tuple[int, int] = sockets.NEW) -> Sockets:
        """Raises OSError.  The thread may still be at it when the caller has given up, and closed its descriptor."""
        ours = os.dup(namespace)
        future = self._worker.submit(_open_and_close, ours, ports)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if not future.cancel():
                future.add_done_callback(_discard)
            else:
                os.close(ours)
            raise

    async def _work(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._worker, function, *arguments)

    def _task(self, coroutine: Any) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class _Record:
    """One entry, as the service should have it."""

    def __init__(self, entry: NameEntry) -> None:
        self.entry = entry
        self.process: Process | None = None  # the container's init, once it runs
        self.sockets: Sockets | None = None  # until then, for a service that is killed meanwhile
        self.ports = sockets.NEW

    def take(self, found: Sockets) -> None:
        self.sockets, self.ports = found, found.ports

    def saved(self) -> Saved | None:
        return None if self.process is None else Saved(self.entry, self.process, self.ports)

    def close(self) -> None:
        if self.sockets is not None:
            self.sockets.close()
            self.sockets = None


def _open_and_close(namespace: int, ports: tuple[int, int]) -> Sockets:
    try:
        return sockets.open_in(namespace, ports)
    finally:
        os.close(namespace)


def _discard(future: Future[Sockets]) -> None:
    if future.exception() is None:
        future.result().close()


def _write(directory: Path, saved: Saved) -> None:
    try:
        state.write(directory, saved)
    except OSError as error:
        log.warning("container %s has no names after a restart of their service: %s", saved.entry.container_id, error)
