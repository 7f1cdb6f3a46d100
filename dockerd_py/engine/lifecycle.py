"""From a created container to a running one, and from its exit to a clean end.

The start of a container, in the order in which a crash can undo it:

1. "starting" is written to the database;
2. the volumes and the root filesystem are mounted, the monitor is forked, and forks the gate;
3. the gate's process is put into the container's scope, with the limits that do not hit the OCI runtime;
4. the gate opens: the runtime creates the container, which is so born in the scope; then the other limits;
5. the runtime starts it, and "running" is written.

The end is the monitor's exit record, which it has written before it tells anybody.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path

from dockerd_py.config import Config
from dockerd_py.engine import confine, forms, health_model, ipc, joining, logsettings, signals
from dockerd_py.engine.confine import Confinement
from dockerd_py.engine.events import EventLog
from dockerd_py.engine.forkserver import ForkServerLauncher
from dockerd_py.engine.model import Container, State, Status
from dockerd_py.engine.netfiles import NetFiles
from dockerd_py.engine.networking import Networking
from dockerd_py.engine.plan import Planner
from dockerd_py.engine.record import LogPosition, Paths, Record, with_state
from dockerd_py.engine.resources import limits_of
from dockerd_py.engine.volumes import Volumes
from dockerd_py.errors import (
    AlreadyInState,
    Conflict,
    NetworkFailed,
    NoSuchContainer,
    PydockerdError,
    RuntimeFailed,
    TimedOut,
)
from dockerd_py.monitor import spool
from dockerd_py.monitor.spool import ExitRecord
from dockerd_py.monitor.supervisor import Config as MonitorConfig
from dockerd_py.runtime import crun
from dockerd_py.runtime.apparmor import AppArmor
from dockerd_py.runtime.monitors import Monitor, MonitorGone, RequestFailed
from dockerd_py.runtime.runtimes import Runtimes
from dockerd_py.store.files import store_error
from dockerd_py.store.store import Store
from dockerd_py.units.base import ScopeSpec, Units
from dockerd_py.wire import Message

log = logging.getLogger(__name__)

DEFAULT_STOP_SECONDS = 10
LOST_EXIT_CODE = 255
"""The exit code of a container whose end nobody saw: its monitor was killed, or the host went down."""
LOST = "its monitor ended before the container did"


class Lifecycle:
    def __init__(
        self,
        config: Config,
        paths: Paths,
        store: Store,
        units: Units,
        forks: ForkServerLauncher,
        events: EventLog,
        runtimes: Runtimes,
        volumes: Volumes,
        networking: Networking,
    ) -> None:
        self._config = config
        self._paths = paths
        self._store = store
        self._units = units
        self._forks = forks
        self._events = events
        self._runtimes = runtimes
        self._volumes = volumes
        self._networking = networking
        self._planner = Planner(paths)
        self._apparmor = AppArmor()
        self._tasks: set[asyncio.Task[None]] = set()
        self.on_exit: Callable[[Record], None] = lambda record: None
        self.on_change: Callable[[Record], None] = lambda record: None  # whether it runs, or is paused
        self.on_other_address: Callable[[Record], None] = lambda record: None  # or another name: who is linked to it?
        self.on_exec_event: Callable[[Record, Message], None] = lambda record, message: None
        self.on_monitor_end: Callable[[Record], None] = lambda record: None
        self.is_restarted: Callable[[Record, State], Awaitable[bool]] = _never
        self.find: Callable[[str], Record] = _nobody
        self.files = NetFiles(config.network, networking)

    def expect_start(self) -> None:
        """Whoever makes a container is about to start it: let what can be done before be done before."""
        self._in_background(self._units.expect_start())

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Start

    async def start(
        self, record: Record, *, again: bool = False, prepare: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """``again``: by its restart policy, not by somebody.  ``prepare`` runs once it is sure that it can start."""
        async with record.lock:
            if record.gone or record.removing:
                raise Conflict(f"container {record.name} is being removed")
            if record.state.status is Status.PAUSED:
                raise Conflict(f"cannot start the paused container {record.name}, try unpause instead")
            if record.state.running or (record.state.status is Status.RESTARTING and not again):
                raise AlreadyInState(f"container {record.name} is already running")
            if prepare is not None:
                await prepare()
            before = Status.EXITED if again else record.state.status
            restarts = record.state.restarts + 1 if again else 0
            record.state = with_state(record, restarts=restarts, stopped_by_hand=False)
            self._begin_epoch(record)
            try:
                self._networking.plan(record)
                await self.save(record, phase="starting")
                await asyncio.wait_for(self._start(record), self._config.start_timeout)
            except BaseException as error:
                failure: BaseException = error
                if isinstance(error, asyncio.TimeoutError):
                    failure = TimedOut(
                        f"container {record.name} did not start within {self._config.start_timeout} seconds"
                    )
                elif isinstance(error, OSError):
                    failure = store_error(f"container {record.name} cannot be started", error)
                await asyncio.shield(self._undo_start(record, failure, before))
                raise failure from error
            self._events.publish("container", "start", record.id, record.attributes())
            self.on_change(record)
            self.on_other_address(record)
            record.settle_restart(started=True)

    async def _start(self, record: Record) -> None:
        self._networking.begin(record)
        await self._volumes.mount(record)
        confined, monitor, root = await asyncio.gather(
            confine.work_out(record.host, self._apparmor),
            self._monitor(record),
            self._store.layers.mount_rw(record.id),
        )
        record.apparmor = confined.apparmor
        gate = await monitor.request("gate")
        limits = limits_of(record.host)
        scope = ScopeSpec(
            name=record.scope,
            description=f"Container {record.name} ({record.config.image or record.image_id[:12]})",
            slice=confine.slice_name(record.host.cgroup_parent),
            limits=limits,
            kill_signal=stop_signal(record),
            stop_timeout_usec=max(0, stop_seconds(record)) * 1_000_000,
            devices=confined.rules,
        )
        try:
            async with joining.opened(record.host.namespaces, record.host.network_mode, self.find) as joined:
                await self._make_scope_and_bundle(record, scope, int(gate["pid"]), root, confined, joined)
                created = await monitor.request("create", timeout=None)
            self._networking.handed_over(record, int(created["pid"]))
            if limits.pids or limits.cpu_quota_per_sec_usec:
                await self._units.apply_run_limits(record.scope, limits)
            await self._networking.publish(record)
            counter = self._units.oom_counter(record.scope, record.cgroup)
            started = await monitor.request("start", timeout=None, oom="" if counter is None else str(counter))
            if self._makes_groups(record):  # it has put what it knows of limits, which is nothing, in their place
                await self._units.apply_run_limits(record.scope, limits)
        except RequestFailed as error:
            raise crun.explain(error.log or str(error), record.path) from error
        except MonitorGone as error:
            raise RuntimeFailed(f"container {record.name} or its monitor was killed while it started") from error
        record.state = with_state(
            record,
            status=Status.RUNNING,
            pid=int(created["pid"]),
            exit_code=0,
            error="",
            oom_killed=False,
            started_at=int(started["started_at"]),
            finished_at=0,
            health=health_model.at_start(record.config.healthcheck, record.state.health),
        )
        await self.save(record)

    async def _make_scope_and_bundle(
        self, record: Record, scope: ScopeSpec, pid: int, root: Path, confined: Confinement, joined: Mapping[str, str]
    ) -> None:
        shm = await ipc.shm_of(record, self._paths, self.find)
        texts = await self.files.texts(record)

        async def write_bundle(cgroups_path: str = "") -> None:
            await self._planner.write_bundle(
                record, root, confined, joined=joined, shm=shm, texts=texts, cgroups_path=cgroups_path,
                network=await self._networking.namespace(record),
            )  # fmt: skip

        if self._makes_groups(record):
            record.cgroup = await self._units.start_scope(scope, pid)
            await write_bundle(record.cgroup)
        else:
            record.cgroup, _ = await asyncio.gather(self._units.start_scope(scope, pid), write_bundle())

    def _makes_groups(self, record: Record) -> bool:
        return isinstance(self._runtimes.get(record.runtime), crun.Runc)

    async def _undo_start(self, record: Record, failure: BaseException, status: Status) -> None:
        monitor, record.monitor = record.monitor, None
        if monitor is not None:
            try:
                await monitor.request("abort")
            except (PydockerdError, asyncio.TimeoutError) as error:
                log.debug("%s: the monitor was gone before it could undo the start: %s", record.id, error)
            monitor.close()
        if status is Status.EXITED and isinstance(failure, asyncio.CancelledError):
            record.state = with_state(record, status=status, pid=0)  # called off: what its last run was like stays true
        else:
            code = getattr(failure, "exit_code", 128)
            text = str(failure) if isinstance(failure, PydockerdError) else "the start was interrupted"
            record.state = with_state(record, status=status, pid=0, exit_code=code, error=text)
        await self.clean_up(record)
        spool.forget(str(self._paths.spool), record.id)  # what was killed while it started never ran
        await self.save(record)
        record.settle_exit()
        record.settle_restart(started=False)
        self.on_exit(record)

    async def monitor_for_attach(self, record: Record) -> Monitor:
        """The container's monitor; a new one, that waits for the container's start, when it has none."""
        self._begin_epoch(record)
        return await self._monitor(record)

    def _begin_epoch(self, record: Record) -> None:
        """Each start has an epoch of its own: it tells its log lines and its exit record from those of any other."""
        if record.monitor is None or record.monitor.closed.done():
            record.log_end = LogPosition(secrets.token_hex(8), 0)

    async def _monitor(self, record: Record) -> Monitor:
        if record.monitor is not None and not record.monitor.closed.done():
            return record.monitor
        run = self._paths.run_directory(record.id)
        run.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._paths.directory(record.id).mkdir(mode=0o700, exist_ok=True)
        runtime_log = str(run / "runtime.log")
        runtime = self._runtimes.get(record.runtime)
        monitor = await self._forks.spawn(
            MonitorConfig(
                id=record.id,
                directory=str(run),
                spool=str(self._paths.spool),
                create=runtime.create(
                    record.id,
                    bundle=str(run),
                    pid_file=str(run / "init.pid"),
                    log=runtime_log,
                    console_socket="console.sock" if record.config.tty else "",
                ),
                start=runtime.start(record.id, log=runtime_log),
                delete=runtime.delete(record.id, force=True, log=runtime_log),
                hide=self._planner.hidden_mount,
                tty=record.config.tty,
                open_stdin=record.config.open_stdin,
                stdin_once=record.config.stdin_once,
                height=record.host.console_size[0],
                width=record.host.console_size[1],
                epoch=record.log_end.epoch,
                log_driver=record.log_driver,
                log_path=str(self._paths.log_file(record.id, record.log_driver)),
                log_fields=log_fields(record),
                log_names=log_names(record),
                log_settings=logsettings.for_monitor(record),
            )
        )
        self.adopt(record, monitor)
        return monitor

    async def tell_name(self, record: Record) -> None:
        """Let the monitor write the container's present name into the log from now on."""
        if record.monitor is not None:
            try:
                await record.monitor.request("rename", fields=log_fields(record), names=log_names(record))
            except MonitorGone:
                log.debug("%s: its monitor was gone before it learnt the new name", record.id)

    def adopt(self, record: Record, monitor: Monitor) -> None:
        """Take ``monitor`` as the record's own and wait for its container's end."""
        record.monitor = monitor
        monitor.on_event = lambda message: self.on_exec_event(record, message)
        monitor.on_oom = lambda: self._events.publish("container", "oom", record.id, record.attributes())
        self._in_background(self._watch(record, monitor))

    # The end

    async def _watch(self, record: Record, monitor: Monitor) -> None:
        end = await monitor.exited
        self.on_monitor_end(record)
        async with record.lock:
            if record.monitor is not monitor:
                return  # a start that was undone; nothing ran
            if not record.state.running:  # it was attached to and never started
                record.monitor = None
                shutil.rmtree(self._paths.run_directory(record.id), ignore_errors=True)
                return
            await self.ended(record, end or spool.read(str(self._paths.spool), record.id))
            await monitor.closed
            await self.clean_up(record)
            record.monitor = None
        self.on_exit(record)

    async def ended(self, record: Record, end: ExitRecord | None) -> None:
        """Write down a container's end, and tell everybody; ``end`` is None when nobody saw it."""
        if end is None:
            log.error("%s: its monitor was killed; stopping what is left of the container", record.id)
            await self._units.kill(record.scope, signal.SIGKILL)
            record.state = with_state(
                record,
                status=Status.EXITED,
                pid=0,
                exit_code=LOST_EXIT_CODE,
                finished_at=time.time_ns(),
                error=LOST,
            )
        else:
            record.state = with_state(
                record,
                status=Status.EXITED,
                pid=0,
                exit_code=end.exit_code,
                finished_at=end.finished_at,
                oom_killed=end.oom_killed,
            )
            record.log_end = LogPosition(end.epoch, end.ordinal)
        record.state = with_state(record, health=health_model.at_end(record.state.health))
        record.begin_end()
        self._networking.ended(record)
        try:
            await self._record_end(record)
        finally:
            record.settle_exit()

    async def _record_end(self, record: Record) -> None:
        self.on_change(record)
        if await self.is_restarted(record, record.state):
            record.state = with_state(record, status=Status.RESTARTING)
        await self.save(record)
        spool.forget(str(self._paths.spool), record.id)
        seconds = max(0, record.state.finished_at - record.state.started_at) // 1_000_000_000
        attributes = record.attributes(exitCode=str(record.state.exit_code), execDuration=str(seconds))
        self._events.publish("container", "die", record.id, attributes)

    async def clean_up(self, record: Record) -> None:
        """Release what a container holds while it runs.  What cannot be released is logged, and keeps nothing else."""
        record.cgroup = ""
        for release in (
            partial(self._units.remove, record.scope),
            partial(self._runtimes.forget, record.id),
            partial(ipc.release_shm, record, self._paths),
            partial(self._store.layers.unmount_rw, record.id),
            partial(self._volumes.unmount, record.id),
            partial(self._networking.release, record),
            partial(self._remove_run_directory, record.id),
        ):
            try:
                await release()
            except PydockerdError as error:
                log.error("%s: %s; recovery will try again at the next start", record.id, error)

    async def _remove_run_directory(self, container_id: str) -> None:
        directory = self._paths.run_directory(container_id)
        shutil.rmtree(directory, ignore_errors=True)
        if directory.exists():  # a runtime that was killed has left a mount, or an exec was being prepared
            await asyncio.to_thread(ipc.unmount_below, directory)
            shutil.rmtree(directory, ignore_errors=True)

    async def give_up_restart(self, record: Record, *, stopped_by_hand: bool) -> None:
        """A container that waits for its policy's restart has ended for good.  The caller holds its lock."""
        if record.state.status is Status.RESTARTING:
            record.state = with_state(record, status=Status.EXITED, stopped_by_hand=stopped_by_hand)
            await self.save(record)
        record.settle_restart(started=False)

    async def save(self, record: Record, **more: str) -> None:
        await self._store.containers.update_state(record.id, self.state_of(record, **more))

    def state_of(self, record: Record, **more: object) -> str:
        """What the database keeps of it.  more: ``phase``, while something is under way that recovery has to know."""
        known = {"epoch": record.log_end.epoch, "ordinal": record.log_end.ordinal, "apparmor": record.apparmor}
        return forms.dump_state(record.state, **known, **more)

    def rewrite_hosts(self, record: Record) -> None:
        """A running container's networks, or addresses of those that it is linked to, have changed."""
        try:
            self.files.rewrite_hosts(record, self._paths)
        except (OSError, NetworkFailed) as error:
            log.error("%s: its hosts file cannot be written: %s", record.id, error)

    async def close(self) -> None:
        """Let go of everything; the containers run on."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _nobody(ref: str) -> Record:
    raise NoSuchContainer(ref)


def stop_signal(record: Record | Container) -> int:
    return signals.parse(record.config.stop_signal or "TERM")


def stop_seconds(record: Record | Container) -> int:
    timeout = record.config.stop_timeout
    return DEFAULT_STOP_SECONDS if timeout is None else timeout


def log_names(record: Record) -> list[str]:
    """Under which names ``journalctl -u container-…`` finds the lines."""
    return [record.id, record.id[:12], record.name]


def log_fields(record: Record) -> dict[str, str]:
    """The journal fields of every line, as Docker's journald driver names them."""
    short, tag = record.id[:12], logsettings.tag_of(record)
    return {
        **logsettings.journal_fields(record.config, record.host.log_options),
        "CONTAINER_ID": short,
        "CONTAINER_ID_FULL": record.id,
        "CONTAINER_NAME": record.name,
        "CONTAINER_TAG": tag,
        "IMAGE_NAME": record.config.image or record.image_id,
        "SYSLOG_IDENTIFIER": tag,
    }


async def _never(_record: Record, _state: State) -> bool:
    return False
