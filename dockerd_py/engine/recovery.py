"""What happens first in a daemon's life: the database is compared with what there is.

It adopts containers that run, takes in the exits that happened meanwhile, undoes what was half made and finishes
what was half removed.  It is idempotent, and it is what runs after a restart, a crash, a power loss and an upgrade
alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from typing import Any

from dockerd_py import wire
from dockerd_py.engine import forms, ipc, mounts, settings
from dockerd_py.engine.connecting import PLUGGING, UNPLUGGING, Connecting
from dockerd_py.engine.containers import Containers
from dockerd_py.engine.execs import Execs
from dockerd_py.engine.forkserver import SOCKET_NAME
from dockerd_py.engine.lifecycle import Lifecycle, log_names
from dockerd_py.engine.linking import UNLINKING, Linking
from dockerd_py.engine.model import Status
from dockerd_py.engine.networking import Networking
from dockerd_py.engine.networks import Networks
from dockerd_py.engine.record import LogPosition, Paths, Record, with_state
from dockerd_py.engine.updates import Updates
from dockerd_py.engine.volumes import Volumes
from dockerd_py.errors import PydockerdError
from dockerd_py.monitor import spool
from dockerd_py.monitor.spool import ExitRecord
from dockerd_py.runtime import files, monitors
from dockerd_py.runtime.monitors import Monitor
from dockerd_py.runtime.runtimes import Runtimes
from dockerd_py.store.containers import ContainerRow
from dockerd_py.store.store import Store
from dockerd_py.units.base import Units

log = logging.getLogger(__name__)

AT_ONCE = 32  # containers that are looked at side by side


class Recovery:
    def __init__(
        self,
        paths: Paths,
        store: Store,
        units: Units,
        runtimes: Runtimes,
        containers: Containers,
        lifecycle: Lifecycle,
        updates: Updates,
        execs: Execs,
        volumes: Volumes,
        networks: Networks,
        networking: Networking,
        connecting: Connecting,
        linking: Linking,
    ) -> None:
        self._paths = paths
        self._store = store
        self._units = units
        self._runtimes = runtimes
        self._containers = containers
        self._lifecycle = lifecycle
        self._updates = updates
        self._execs = execs
        self._volumes = volumes
        self._networks = networks
        self._networking = networking
        self._connecting = connecting
        self._linking = linking

    async def run(self) -> None:
        for directory in (self._paths.spool, self._paths.containers, self._paths.run, self._paths.runtime_root):
            directory.mkdir(mode=0o710, parents=True, exist_ok=True)
        await asyncio.gather(self._store.recover(), self._networks.open())
        found = [record_of(row, self._store.driver.name) for row in await self._store.containers.all()]
        for record, _ in found:
            self._containers.adopt(record)
        hidden = [record_of(row, "") for row in await self._store.containers.hidden()]
        for record, _ in sorted((*found, *hidden), key=_claim):
            self._networking.adopt(record)
        for record, _ in hidden:
            if record.state.pid and record.state.pid in await self._units.processes(record.scope):
                self._networking.runs_hidden(record)
        places = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(self._recover_one(record, more, places) for record, more in found))
        of_all_drivers = await self._store.containers.ids_of_all_drivers()
        await self._sweep(of_all_drivers)
        await self._volumes.recover(self._containers.records(), of_all_drivers)
        await self._networking.recover()
        for record, _ in found:
            if record.host.auto_remove and not record.state.active and record.state.status is not Status.CREATED:
                await self._containers.remove(record.id, volumes=True)

    async def _recover_one(self, record: Record, more: dict[str, Any], places: asyncio.Semaphore) -> None:
        phase = str(more.get("phase", ""))
        async with places:
            try:
                await self._recover(record, phase)
                if phase == "updating":
                    await self._updates.finish(record)
                elif phase == PLUGGING:
                    await self._connecting.finish(record)
                elif phase == UNPLUGGING:
                    await self._connecting.finish(record, forms.load_endpoints(more["before"]))
                elif phase == UNLINKING:
                    await self._linking.finish(record)
            except (PydockerdError, OSError) as error:
                log.error("%s: %s", record.id, error)

    async def _recover(self, record: Record, phase: str) -> None:
        if phase == "starting":
            files.sweep(self._paths.directory(record.id))
        monitor = monitors.connect(self._paths.monitor_socket(record.id))
        told: ExitRecord | None = None
        if monitor is not None:
            try:
                if await self._adopt(record, monitor):
                    return
            except asyncio.TimeoutError:
                if record.state.running:
                    # It lives, on a machine that is busy or with a disk that is.  What it has to tell will come.
                    log.warning("%s: its monitor is slow to answer", record.id)
                    await self._take_over(record, monitor)
                    return
                log.warning("%s: its monitor does not answer", record.id)
                monitor.close()
            except PydockerdError as error:
                log.warning("%s: its monitor does not answer: %s", record.id, error)
                monitor.close()
            if monitor.exited.done():
                told = monitor.exited.result()
        # A monitor writes its record before it lets go of its socket: without the one, there is the other.  On a full
        # disk it waits for somebody to tell.
        end = spool.read(str(self._paths.spool), record.id) or told
        if end is not None and end.epoch != record.log_end.epoch:
            end = None  # of an earlier start
        if record.state.running or (end is not None and phase == "starting"):
            await self._lifecycle.ended(record, end)
        elif phase == "starting":
            record.state = with_state(record, pid=0, error="the daemon ended while the container was starting")
            await self._lifecycle.save(record)
        spool.forget(str(self._paths.spool), record.id)  # the database may have had it already
        await self._lifecycle.clean_up(record)

    async def _adopt(self, record: Record, monitor: Monitor) -> bool:
        """Take over a living monitor.  False when it has no container (any more)."""
        state = await monitor.request("hello")
        if state["phase"] == "idle":
            self._lifecycle.adopt(record, monitor)
            return True
        if state["phase"] == "starting":
            state = await self._await_start(monitor)
        if state["phase"] != "running":
            # between its creation and its start: nobody has been told that it runs, so it does not
            await monitor.request("abort")
            await asyncio.wait_for(asyncio.shield(monitor.closed), monitors.REPLY_SECONDS)
            return False
        position = await monitor.request("position")
        record.log_end = LogPosition(position["epoch"], 0)
        if not record.state.running:
            record.state = with_state(
                record,
                status=Status.RUNNING,
                pid=state["pid"],
                started_at=state["started_at"],
                finished_at=0,
                exit_code=0,
                error="",
            )
            await self._lifecycle.save(record)
        await self._take_over(record, monitor)
        if state.get("names") != log_names(record):
            await self._lifecycle.tell_name(record)
        return True

    async def _take_over(self, record: Record, monitor: Monitor) -> None:
        record.cgroup = await self._units.control_group(record.scope) or ""
        if record.state.status is Status.PAUSED:
            await self._units.freeze(record.scope)
        else:
            await self._units.thaw(record.scope)  # a commit may have been under way, or the end of a pause
        self._lifecycle.adopt(record, monitor)
        self._networking.runs(record)
        await self._execs.adopt(record, monitor)

    async def _await_start(self, monitor: Monitor) -> dict[str, Any]:
        """The runtime's start takes milliseconds; see how it ended."""
        for _ in range(100):
            state = await monitor.request("hello")
            if state["phase"] != "starting":
                break
            await asyncio.sleep(0.02)
        return state

    async def _sweep(self, known: set[str]) -> None:
        """Take away what belongs to no container: run directories, scopes, exit records.

        Containers of another storage driver are hidden, and may even run: what is theirs stays for their return.
        """
        for entry in self._paths.run.iterdir():
            if entry.name in known:
                continue
            monitor = monitors.connect(str(entry / "monitor.sock")) if entry.is_dir() else None
            if monitor is not None:
                log.warning("%s: its container is not in the database; ending it", entry.name)
                try:
                    await monitor.request("abort")
                except (PydockerdError, asyncio.TimeoutError) as error:
                    log.error("%s: %s", entry.name, error)
                monitor.close()
            await self._units.remove(f"container-{entry.name}.scope")
            await asyncio.to_thread(ipc.unmount_below, entry)
            shutil.rmtree(entry, ignore_errors=True)
        for entry in self._paths.runtime_root.iterdir():
            if entry.name not in known:
                try:
                    await self._runtimes.forget(entry.name)
                except PydockerdError as error:
                    log.error("%s: %s", entry.name, error)
        for entry in self._paths.containers.iterdir():
            if entry.name not in known:
                shutil.rmtree(entry, ignore_errors=True)
        for path in wire.abandoned(str(self._paths.exec_root / SOCKET_NAME)):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        for entry in self._paths.spool.iterdir():
            if entry.name.partition(".")[0] not in known:
                entry.unlink()


def _claim(found: tuple[Record, dict[str, Any]]) -> int:
    """Who has an address that two rows name: those that run; then those whose start may be found to have come about,
    as theirs is the later row."""
    record, more = found
    if record.state.running:
        return 0
    return 1 if more.get("phase") == "starting" else 2


def record_of(row: ContainerRow, driver: str) -> tuple[Record, dict[str, Any]]:
    config, host, mounted, more = forms.load_settings(row.settings)
    state, extra = forms.load_state(row.state)
    argv = settings.command_of(config)
    record = Record(
        id=row.id,
        name=row.name,
        image_id=row.image_id,
        created=row.created,
        config=config,
        host=host,
        state=state,
        driver=driver,
        log_driver=more["log_driver"],
        path=argv[0],
        args=tuple(argv[1:]),
        runtime=more["runtime"],
        apparmor=extra.get("apparmor", ""),
        mounts=mounts.of_binds(host.binds) if mounted is None else mounted,
        log_end=LogPosition(extra.get("epoch", ""), extra.get("ordinal", 0)),
    )
    return record, extra
