"""Further processes in running containers (exec).

An exec lives in memory.  The one that knows its end is the container's monitor, which is the process's parent: it
tells of it at once, and a daemon that is started again asks for those that run and those that have ended meanwhile.
What has ended is forgotten after KEPT_SECONDS, what was never started with its container, and no more than KEPT of
both are remembered.

The start: the monitor gets the client's connection and forks a child, which moves itself into the container's scope and
becomes the runtime's call, which starts the process.  What the runtime reads is written when the exec is created.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import posixpath
import socket
import time
from dataclasses import replace
from signal import SIGKILL

from dockerd_py import ids
from dockerd_py.config import Config
from dockerd_py.engine import attach
from dockerd_py.engine.containers import Containers
from dockerd_py.engine.ending import KILL_SECONDS
from dockerd_py.engine.events import EventLog
from dockerd_py.engine.execplan import TOKEN, ExecPlanner
from dockerd_py.engine.execstate import ExecState, Phase, check_container, snapshot
from dockerd_py.engine.lifecycle import Lifecycle
from dockerd_py.engine.model import STDERR, STDOUT, Exec, ExecConfig, RunResult
from dockerd_py.engine.record import Paths, Record
from dockerd_py.errors import (
    BadParameter,
    Conflict,
    NoSuchExec,
    NotRunning,
    NotSupported,
    PydockerdError,
    RuntimeFailed,
    TimedOut,
)
from dockerd_py.runtime import crun
from dockerd_py.runtime.monitors import Monitor, MonitorGone, RequestFailed
from dockerd_py.runtime.runtimes import Runtimes
from dockerd_py.units.base import Units
from dockerd_py.wire import Message

log = logging.getLogger(__name__)

KEPT_SECONDS = 300.0
KEPT = 2048
STARTS_AT_ONCE = 8  # of those that the engine runs for itself
RESIZE_SECONDS = 10.0  # that a resize waits for the start
FAILED_EXIT_CODE = 126  # of what could not be started for another reason than the command
LOST_EXIT_CODE = 137
_READ_SIZE = 65536


class Execs:
    def __init__(
        self,
        config: Config,
        paths: Paths,
        containers: Containers,
        lifecycle: Lifecycle,
        units: Units,
        events: EventLog,
        runtimes: Runtimes,
    ) -> None:
        self._config = config
        self._containers = containers
        self._lifecycle = lifecycle
        self._units = units
        self._events = events
        self._planner = ExecPlanner(paths, runtimes)
        self._by_id: dict[str, ExecState] = {}
        self._places = asyncio.Semaphore(STARTS_AT_ONCE)
        lifecycle.on_exec_event = self._told
        lifecycle.on_monitor_end = self._container_ended

    # What a user asks

    def create(self, ref: str, config: ExecConfig) -> str:
        """Prepare a process; its id.

        Raises NoSuchContainer; NotRunning and Conflict for a container that does not run, or is paused;
        BadParameter for the settings.
        """
        record = self._containers.record(ref)
        check_container(record)
        if not config.cmd:
            raise BadParameter("No exec command specified")
        if config.working_dir and not posixpath.isabs(config.working_dir):
            raise BadParameter(
                f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path"
            )
        attach.detach_keys(config.detach_keys)
        self._forget_old()
        exec_id = self._new_id()
        one = self._by_id[exec_id] = ExecState(exec_id, record, config, self._prepare(record, exec_id, config))
        record.exec_ids.append(exec_id)
        self._lifecycle.expect_start()
        self._publish(one, f"exec_create: {one.command}")
        return exec_id

    def get(self, exec_id: str) -> Exec:
        """Raises NoSuchExec."""
        return snapshot(self._exec(exec_id))

    async def inspect(self, exec_id: str) -> Exec:
        """As `get`, after everything that has already happened to it.  Raises NoSuchExec."""
        one = self._exec(exec_id)
        await self._catch_up(one)
        return snapshot(one)

    def check_start(self, exec_id: str) -> Exec:
        """What `start` would refuse, before a connection is given away for it."""
        one = self._exec(exec_id)
        if one.phase is Phase.EXITED:
            raise Conflict(f"Error: Exec command {exec_id} has already run")
        if one.phase is not Phase.CREATED:
            raise Conflict(f"Error: Exec command {exec_id} is already running")
        check_container(one.record)
        return snapshot(one)

    async def start(
        self,
        exec_id: str,
        fd: int | None = None,
        early: bytes = b"",
        *,
        framed: bool = True,
        console_size: tuple[int, int] = (0, 0),
    ) -> None:
        """Start the process; returns once it runs.

        fd: a client's connection, or None for a process without streams.  It gets the output, ``framed`` or raw, and
        gives the input, ``early`` first.  It stays the caller's to close.
        Raises NoSuchExec, Conflict, NotRunning, BadParameter (the user), CommandNotFound, CommandNotExecutable,
        RuntimeFailed, TimedOut.  The exec has ended then, with an exit code.
        """
        self.check_start(exec_id)
        one = self._by_id[exec_id]
        one.phase = Phase.STARTING
        seconds = self._config.start_timeout
        work = asyncio.ensure_future(self._start(one, fd, early, framed, console_size))
        try:
            # not wait_for: before Python 3.12 it forgets a cancellation that comes in the same moment as the result
            done, _ = await asyncio.wait((work,), timeout=seconds)
            if not done:
                raise TimedOut(f"exec {exec_id} did not start within {seconds} seconds")
            work.result()
        except BaseException as error:
            work.cancel()
            await asyncio.shield(self._undo(one, work, error))
            raise
        one.phase = Phase.RUNNING
        self._publish(one, f"exec_start: {one.command}")
        if one.early_end is not None:
            self._ended(one, int(one.early_end["exit_code"]))
        one.begun.set_result(None)

    async def resize(self, exec_id: str, height: int, width: int) -> None:
        """Set the size of its terminal, in characters; one that is about to be started is waited for.

        Raises NoSuchExec; Conflict without a terminal; NotRunning; TimedOut.
        """
        one = self._exec(exec_id)
        check_container(one.record)
        if not one.begun.done():
            await asyncio.wait((one.begun,), timeout=RESIZE_SECONDS)
        monitor = one.record.monitor
        if not one.begun.done():
            raise TimedOut(f"exec {exec_id} was not started within {RESIZE_SECONDS:g} seconds")
        if one.phase is not Phase.RUNNING or monitor is None:
            raise NotRunning(f"exec {exec_id} is not running")
        try:
            await monitor.request("exec_resize", exec=exec_id, height=height, width=width)
        except RequestFailed as error:
            raise Conflict(f"cannot resize: {error}") from error
        except MonitorGone:
            raise NotRunning(f"exec {exec_id} is not running") from None

    async def run(self, ref: str, config: ExecConfig, *, timeout: float, limit: int = 4096) -> RunResult:
        """Run a process to its end, without a client.  After ``timeout`` seconds it is killed.

        No more than STARTS_AT_ONCE are started at once; the time that one waits for this does not count.  It is
        forgotten when it has ended; one that runs when the daemon ends is ended by the next.
        limit: bytes of the output that are kept; the rest is read and thrown away.
        Raises as `create` and `start` do.
        """
        async with self._places:
            one = self._by_id[self.create(ref, replace(config, unattended=True))]
            begun = time.monotonic()
            output = bytearray()
            work = asyncio.ensure_future(self._collect(one, output, limit))
            try:
                await asyncio.wait((work, one.begun), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                await self._give_up(one, work)
                raise
        try:
            done, _ = await asyncio.wait((work,), timeout=max(0.0, begun + timeout - time.monotonic()))
            if not done:
                await self._kill(one)
                await asyncio.wait((work,), timeout=KILL_SECONDS)
            if work.done():
                work.result()
        finally:
            await self._give_up(one, work)
        return RunResult(LOST_EXIT_CODE if one.exit_code is None else one.exit_code, bytes(output), not done)

    # After a restart

    async def adopt(self, record: Record, monitor: Monitor) -> None:
        """Take over the execs of a container that has run on without a daemon."""
        configs = dict(self._planner.known(record))
        found: list[Message] = []
        begin: int | None = 0
        while begin is not None:
            try:
                reply = await monitor.request("execs", begin=begin)
            except (PydockerdError, asyncio.TimeoutError) as error:  # of an older version, it cannot have any
                log.info("%s: its execs are not known: %s", record.id, error)
                return
            found += reply["execs"]
            begin = reply["next"]
        for message in found:
            config = configs.get(message["id"])
            if config is None or message["phase"] not in ("running", "exited") or message["id"] in self._by_id:
                continue
            if not config.unattended:
                self._take_over(record, message, config)
            elif message["phase"] == "running":
                await self._send_kill(monitor, message["id"])
        self._planner.clear(record, {one.id for one in self._by_id.values() if one.record is record})

    def _take_over(self, record: Record, message: Message, config: ExecConfig) -> None:
        one = self._by_id[message["id"]] = ExecState(message["id"], record, config, None, Phase.RUNNING, message["pid"])
        one.begun.set_result(None)
        if message["phase"] == "running":
            record.exec_ids.append(one.id)
        else:
            one.phase, one.exit_code = Phase.EXITED, message["exit_code"]
            one.ended_at = time.monotonic() - max(0.0, time.time() - message["finished_at"] / 1e9)

    # The start

    async def _start(
        self, one: ExecState, fd: int | None, early: bytes, framed: bool, console_size: tuple[int, int]
    ) -> None:
        record, config = one.record, one.config
        monitor = record.monitor
        if monitor is None:
            raise NotRunning(f"Container {record.id} is not running")
        try:
            assert one.prepared is not None
            await asyncio.shield(one.prepared)
            if all(console_size) and console_size != config.console_size:
                await asyncio.to_thread(self._planner.write, record, one.id, config, console_size)
            reply = await self._request(one, monitor, fd, early, framed, console_size)
        except RequestFailed as error:
            if "does not know" in str(error):
                raise NotSupported(
                    f"container {record.name} was started by an older version, whose monitor knows no exec: "
                    "restart pydockerd-monitor.service, then the container"
                ) from error
            if error.log is None:
                raise NotRunning(f"Container {record.id} is not running: {error}") from error
            raise crun.explain(error.log or str(error), config.cmd[0], crun.EXEC_FAILED) from error
        except (MonitorGone, FileNotFoundError):
            raise NotRunning(f"Container {record.id} is not running") from None
        one.pid = int(reply["pid"])
        self._planner.started(record, one.id)

    async def _request(
        self,
        one: ExecState,
        monitor: Monitor,
        fd: int | None,
        early: bytes,
        framed: bool,
        console_size: tuple[int, int],
    ) -> Message:
        config, record = one.config, one.record
        call = self._planner.call(record, one.id, config)
        streams = [STDOUT] * config.attach_stdout + [STDERR] * config.attach_stderr
        with contextlib.ExitStack() as stack:
            return await monitor.request(
                "exec",
                fds=() if fd is None else stack.enter_context(attach.connection(fd, early)),
                timeout=None,
                exec=one.id,
                groups=self._units.groups_of(record.scope, record.state.pid),
                argv=call.argv,
                log=call.log,
                pid_file=call.pid_file,
                console=call.console,
                directory=call.directory,
                size=console_size if all(console_size) else config.console_size,
                stdin=config.attach_stdin and fd is not None,
                streams=[] if fd is None else streams,
                framed=framed,
                keys=list(attach.detach_keys(config.detach_keys)) if config.tty or config.detach_keys else [],
            )

    def _prepare(self, record: Record, exec_id: str, config: ExecConfig) -> asyncio.Future[None]:
        work = asyncio.ensure_future(asyncio.to_thread(self._planner.write, record, exec_id, config, (0, 0)))
        work.add_done_callback(lambda done: done.cancelled() or done.exception())  # `start` tells of it, if it comes
        return work

    async def _undo(self, one: ExecState, work: asyncio.Future[None], error: BaseException) -> None:
        await asyncio.gather(work, return_exceptions=True)
        monitor = one.record.monitor
        if monitor is not None:
            with contextlib.suppress(PydockerdError, asyncio.TimeoutError):  # it is gone, and all with it
                await monitor.request("exec_abort", exec=one.id)
        self._planner.forget(one.record, one.id)
        others = (other for other in self._by_id.values() if other.record is one.record and other is not one)
        if not any(other.phase is Phase.STARTING for other in others):
            await asyncio.to_thread(self._planner.sweep, one.record)
        code = getattr(error, "exit_code", FAILED_EXIT_CODE)
        one.pid = 0
        self._end(one, code if code != RuntimeFailed.exit_code else FAILED_EXIT_CODE)
        one.begun.set_result(None)

    async def _collect(self, one: ExecState, output: bytearray, limit: int) -> None:
        """Start it, read its output to the end, and await its exit code."""
        ours, theirs = socket.socketpair()
        with ours:
            ours.setblocking(False)
            with theirs:
                await self.start(one.id, theirs.fileno(), framed=False)
            while data := await asyncio.get_running_loop().sock_recv(ours, _READ_SIZE):
                output += data[: limit - len(output)]
        await self._catch_up(one)

    async def _give_up(self, one: ExecState, work: asyncio.Future[None]) -> None:
        if not work.done():
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            await asyncio.shield(self._kill(one))
        if one.phase is not Phase.RUNNING:
            self._forget(one)

    async def _kill(self, one: ExecState) -> None:
        monitor = one.record.monitor
        if monitor is not None and one.phase is Phase.RUNNING:
            await self._send_kill(monitor, one.id)

    @staticmethod
    async def _send_kill(monitor: Monitor, exec_id: str) -> None:
        with contextlib.suppress(PydockerdError, asyncio.TimeoutError):  # it has ended meanwhile
            await monitor.request("exec_kill", exec=exec_id, signal=int(SIGKILL))

    # The end

    async def _catch_up(self, one: ExecState) -> None:
        """What the monitor has told is known once it has answered a question that came later."""
        if one.phase is Phase.STARTING:
            await asyncio.wait((one.begun,))
        monitor = one.record.monitor
        if one.phase is Phase.RUNNING and monitor is not None:
            with contextlib.suppress(PydockerdError, asyncio.TimeoutError):  # its end tells enough
                await monitor.request("position")

    def _told(self, record: Record, message: Message) -> None:
        one = self._by_id.get(message["id"])
        if one is None or message["event"] != "exec_exit":
            return
        if one.phase is Phase.STARTING:
            one.early_end = message
        elif one.phase is Phase.RUNNING:
            self._ended(one, int(message["exit_code"]))

    def _container_ended(self, record: Record) -> None:
        for exec_id in tuple(record.exec_ids):
            one = self._by_id[exec_id]
            if one.phase is Phase.RUNNING:  # its monitor was killed
                self._ended(one, LOST_EXIT_CODE)
            elif one.phase is Phase.STARTING and one.early_end is None:
                one.early_end = {"exit_code": LOST_EXIT_CODE}  # if it was started at all
            elif one.phase is Phase.CREATED:
                record.exec_ids.remove(exec_id)
                del self._by_id[exec_id]

    def _ended(self, one: ExecState, exit_code: int) -> None:
        self._end(one, exit_code)
        self._publish(one, "exec_die", exitCode=str(exit_code))

    def _end(self, one: ExecState, exit_code: int) -> None:
        one.phase = Phase.EXITED
        one.exit_code = exit_code
        one.ended_at = time.monotonic()
        with contextlib.suppress(ValueError):
            one.record.exec_ids.remove(one.id)

    # Memory

    def _exec(self, exec_id: str) -> ExecState:
        self._forget_old()
        try:
            return self._by_id[exec_id]
        except KeyError:
            raise NoSuchExec(exec_id) from None

    def _new_id(self) -> str:
        tokens = {exec_id[:TOKEN] for exec_id in self._by_id}
        while (exec_id := ids.new_id())[:TOKEN] in tokens:
            pass
        return exec_id

    def _forget_old(self) -> None:
        since = time.monotonic() - KEPT_SECONDS
        resting = [one for one in self._by_id.values() if one.phase in (Phase.CREATED, Phase.EXITED)]
        surplus = len(resting) - KEPT
        for index, one in enumerate(resting):  # the oldest first
            if index < surplus or (one.phase is Phase.EXITED and one.ended_at < since):
                self._forget(one)

    def _forget(self, one: ExecState) -> None:
        self._by_id.pop(one.id, None)
        self._planner.forget(one.record, one.id)
        with contextlib.suppress(ValueError):
            one.record.exec_ids.remove(one.id)

    def _publish(self, one: ExecState, action: str, **more: str) -> None:
        self._events.publish("container", action, one.record.id, one.record.attributes(execID=one.id, **more))
