"""One container's monitor: its parent, the owner of its standard streams, the writer of its log and exit record.

A single thread.  The daemon talks to it over SOCK_SEQPACKET connections (`wire`); each request carries ``op`` and
gets one reply with the same ``seq``:

========  ==========================================  ===========================================================
op        request                                     reply
========  ==========================================  ===========================================================
hello                                                 version, phase, pid, started_at, exit, names
gate                                                  pid: a child that waits to become ``create``
create                                                pid: the container's init
start     oom: the file that counts kills, or ""      started_at (ns)
abort                                                 (the half-made container is taken away; the monitor ends)
kill      signal
attach    stdin, streams, framed, keys; fds:          epoch, ordinal, mark: where the log stood before the first
          connection[, memfd of early bytes]          byte that this client gets
follow    fds: socket                                 the same, before the first record
position                                              the same, now
resize    height, width
rename    fields, names
========  ==========================================  ===========================================================

A reply with ``error`` says what failed.  Two events go to every connection: ``{"event": "oom"}`` when memory ran short
and something was killed for it, and ``{"event": "exit", ...}`` when the container has ended, after its last line and
its exit record are safe; then the monitor ends.  A monitor whose container was never started ends when its last
connection and client are gone.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from dockerd_py.monitor import PROTOCOL_VERSION, spool, wire
from dockerd_py.monitor.clients import Attached, Client, Follower, read_memfd
from dockerd_py.monitor.control import Control, Refused, Reply
from dockerd_py.monitor.drivers import make
from dockerd_py.monitor.journalwriter import JournalWriter
from dockerd_py.monitor.lines import LineSplitter, Piece
from dockerd_py.monitor.logwriters import RETRY_SECONDS
from dockerd_py.monitor.loop import Loop
from dockerd_py.monitor.ociruntime import OciRuntime
from dockerd_py.monitor.oom import OomWatch
from dockerd_py.monitor.streams import Streams, Terminal

READ_SIZE = 64 * 1024
DRAIN_SECONDS = 2.0  # how long output is awaited after the exit while something else holds the streams open
PARTING_SECONDS = 10.0  # how long clients may take for the last output

PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36

class Config(NamedTuple):
    """What the daemon says of a container when it asks for its monitor."""

    id: str
    directory: str  # of the run time: the bundle, the sockets, the runtime's log
    spool: str
    create: list[str]  # the three calls of the OCI runtime
    start: list[str]
    delete: list[str]
    hide: str  # a mount that the runtime must not see, or ""
    tty: bool
    open_stdin: bool
    stdin_once: bool
    height: int
    width: int
    epoch: str
    log_driver: str
    log_path: str
    log_fields: dict[str, str]
    log_names: list[str]
    log_settings: dict[str, Any] = {}  # noqa: RUF012 - never changed


class Supervisor:
    def __init__(self, config: Config, control: socket.socket) -> None:
        self.config = config
        self.loop = Loop()
        self.phase = "idle"  # idle, gated, creating, created, starting, running, exited
        self.pid = 0
        self.started_at = 0
        self.died_at = 0.0  # on the monotonic clock
        self.exit: spool.ExitRecord | None = None
        self.record_retry_at: float | None = None  # the disk is full, and nobody is there to be told
        self.done = False
        self.attached: list[Attached] = []
        self.followers: list[Follower] = []
        self.splitters = {1: LineSplitter(), 2: LineSplitter()}
        self.ordinal = 0
        self.log = make(
            config.log_driver,
            path=config.log_path,
            fields=config.log_fields,
            names=config.log_names,
            epoch=config.epoch,
            settings=config.log_settings,
        )
        self.log_waits = False
        self.names = config.log_names
        self.oom: OomWatch | None = None
        self.waiting: dict[int, Callable[[int], None]] = {}  # child -> what to do with its wait status
        self.reaped: dict[int, int] = {}  # children that nobody waited for (yet)
        self._prepare_process()
        self.streams = self._make_streams()
        self.runtime = OciRuntime(
            create=config.create,
            start=config.start,
            delete=config.delete,
            directory=config.directory,
            hide=config.hide,
        )
        path = os.path.join(config.directory, "monitor.sock")
        self.control = Control(self.loop, path, self._dispatch, self._abandoned)
        self.control.add(control)
        wire.send(control, {"event": "ready", "pid": os.getpid()})

    def run(self) -> None:
        while not self.done:
            self.loop.turn(self._timeout())
            self._settle()
        self._part()

    def _prepare_process(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "cannot become a subreaper")
        libc.prctl(PR_SET_NAME, b"pydockerd-mon", 0, 0, 0)
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        # At shutdown everybody is asked to go; a monitor goes when its container has.
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        self.loop.watch(wake_read, select.EPOLLIN, lambda _: self._reap(wake_read))

    def _make_streams(self) -> Streams:
        config = self.config
        if not config.tty:
            return Streams(open_stdin=config.open_stdin)
        path = os.path.join(config.directory, "console.sock")
        return Terminal(open_stdin=config.open_stdin, path=path, height=config.height, width=config.width)

    def _timeout(self) -> float:
        """Seconds until something is due though no descriptor tells so; -1: never."""
        due = [self.log.retry_at() if self.log_waits else None, *(client.stalled_at for client in self.attached)]
        now = time.monotonic()
        if self.died_at and now < self.died_at + DRAIN_SECONDS:
            due.append(self.died_at + DRAIN_SECONDS)
        due.append(self.record_retry_at)
        times = [at for at in due if at is not None]
        return max(0.0, min(times) - now) if times else -1

    def _settle(self) -> None:
        """After each round: write what is due, let go of who is gone, decide who is read from."""
        now = time.monotonic()
        retry_at = self.log.retry_at() if self.log_waits else None
        if retry_at is not None and now >= retry_at:
            self._flush_log()
        for client in self.attached:
            stalled_at = client.stalled_at
            if stalled_at is not None and now >= stalled_at:
                client.gone = True
        self._pump_stdin()
        for listening in (*self.attached, *self.followers):
            self._watch_client(listening)
        self._watch_outputs()
        if self.died_at:
            self._finish(now)
        elif self.phase == "idle" and not self.control.connected and not self.attached:
            self.done = True

    # Output

    def _watch_outputs(self) -> None:
        # until the container is created, what comes is the runtime's complaint, which its log has too
        early = self.phase in ("idle", "gated", "creating")
        held_up = early or self.log_waits or any(client.full for client in self.attached)
        for stream, fd in self.streams.outputs().items():
            if held_up:
                self.loop.unwatch(fd)
            elif not self.loop.watches(fd):
                self._watch_output(stream, fd)

    def _watch_output(self, stream: int, fd: int) -> None:
        self.loop.watch(fd, select.EPOLLIN, lambda _: self._read_output(stream, fd))

    def _read_output(self, stream: int, fd: int) -> bool:
        """Take what is there.  False at the end of the stream, or when there is nothing now."""
        try:
            data = os.read(fd, READ_SIZE)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EIO:  # a terminal whose other side is closed
                raise
            data = b""
        if not data:
            self._end_output(stream, fd)
            return False
        for client in self.attached:
            client.output(stream, data)
        self._record(stream, self.splitters[stream].feed(data))
        return True

    def _end_output(self, stream: int, fd: int) -> None:
        self._record(stream, self.splitters[stream].finish())
        self.loop.unwatch(fd)
        self.streams.close_output(stream)

    def _record(self, stream: int, pieces: list[Piece]) -> None:
        if not pieces:
            return
        when = time.time_ns()
        first = self.ordinal + 1
        self.ordinal += len(pieces)
        self.log.add(stream, when, first, pieces)
        for follower in self.followers:
            follower.records(stream, when, first, pieces)
        self._flush_log()

    def _flush_log(self) -> None:
        before = self.log.wait_fd()
        self.log_waits = not self.log.flush()
        fd = self.log.wait_fd()
        if before is not None and before != fd:
            self.loop.forget(before)  # the writer has closed it
        if fd is None:
            return
        if self.log_waits:
            self.loop.watch(fd, select.EPOLLOUT, lambda _: self._flush_log())
        else:
            self.loop.unwatch(fd)

    # Input and clients

    def _pump_stdin(self) -> None:
        fd = self.streams.stdin_fd()
        if fd is None:
            return
        if not self.streams.flush_stdin():
            self.loop.watch(fd, select.EPOLLOUT, lambda _: None)  # each round ends here again
            return
        self.loop.unwatch(fd)
        if self.streams.stdin_ending:
            self.streams.close_stdin()

    def _watch_client(self, client: Client) -> None:
        """Watch a client for just what it may do now; let go of it when it is gone."""
        fd = client.sock.fileno()
        if client.gone:
            self.loop.unwatch(fd)
            client.close()
            if isinstance(client, Attached):
                self.attached.remove(client)
                self._input_ended(client)
            elif isinstance(client, Follower):
                self.followers.remove(client)
            return
        events = select.EPOLLOUT if client.buffer else 0
        if isinstance(client, Attached) and not client.input_ended and self.streams.wants_stdin():
            events |= select.EPOLLIN
        self.loop.watch(fd, events, lambda seen: self._client_event(client, seen))

    def _client_event(self, client: Client, events: int) -> None:
        if events & select.EPOLLERR:
            client.gone = True
        if events & select.EPOLLOUT:
            client.flush()
        if not isinstance(client, Attached) or client.input_ended:
            client.gone = client.gone or bool(events & select.EPOLLHUP)
        elif events & (select.EPOLLIN | select.EPOLLHUP):
            data = client.read()
            if data is None:
                self._input_ended(client)
            elif client.wants_stdin:
                self.streams.queue_stdin(data)

    def _input_ended(self, client: Attached) -> None:
        if client.input_ended:
            return
        client.input_ended = True
        if client.wants_stdin and self.config.stdin_once:
            self.streams.end_stdin()

    # The daemon's requests

    def _dispatch(self, message: wire.Message, fds: list[int], later: Reply) -> wire.Message | None:
        """Carry out one request; None when the reply comes later.  Takes what it uses out of ``fds``."""
        match message["op"]:
            case "hello":
                return self._describe()
            case "gate":
                return self._make_gate()
            case "create":
                self._expect("gated")
                self.phase = "creating"
                self.waiting[self.pid] = lambda status: self._created(status, later)
                self.runtime.open_gate()
                return None
            case "start":
                self._expect("created")
                self.phase = "starting"
                self.started_at = time.time_ns()  # before anything that the container may do
                self.oom = OomWatch(self.loop, message.get("oom", ""), self._oom_killed)
                self.waiting[self.runtime.start()] = lambda status: self._started(status, later)
                return None
            case "abort":
                self._abort()
                return {}
            case "kill":
                self._expect("running")
                os.kill(self.pid, message["signal"])
                return {}
            case "attach":
                return self._attach(message, fds)
            case "follow":
                return self._follow(fds)
            case "position":
                return self._position()
            case "resize":
                self.streams.resize(message["height"], message["width"])
                return {}
            case "rename":
                self.names = message["names"]
                if isinstance(self.log, JournalWriter):
                    self.log.set_fields(message["fields"], message["names"])
                return {}
            case op:
                raise Refused(f"this monitor (version {PROTOCOL_VERSION}) does not know {op!r}")

    def _expect(self, phase: str) -> None:
        if self.phase != phase or self.died_at:
            raise Refused(f"the container is {'exited' if self.died_at else self.phase}, not {phase}")

    def _describe(self) -> wire.Message:
        return {
            "version": PROTOCOL_VERSION,
            "phase": self.phase,
            "pid": self.pid,
            "started_at": self.started_at,
            "exit": self.exit._asdict() if self.exit else None,
            "names": self.names,
        }

    def _attach(self, message: wire.Message, fds: list[int]) -> wire.Message:
        if not fds:
            raise Refused("attach needs a connection")
        client = Attached(
            socket.socket(fileno=fds.pop(0)),
            stdin=bool(message["stdin"]) and self.config.open_stdin,
            streams=frozenset(message["streams"]),
            framed=bool(message["framed"]) and not self.config.tty,
            detach_keys=bytes(message["keys"]),
        )
        if fds:
            early = read_memfd(fds.pop(0))
            if early and client.wants_stdin:
                self.streams.queue_stdin(client.typed(early))
        self.attached.append(client)
        return self._position()

    def _follow(self, fds: list[int]) -> wire.Message:
        if not fds:
            raise Refused("follow needs a socket")
        self.followers.append(Follower(socket.socket(fileno=fds.pop(0))))
        return self._position()

    def _position(self) -> wire.Message:
        return {"epoch": self.config.epoch, "ordinal": self.ordinal, "mark": self.log.mark()}

    def _abandoned(self) -> None:
        if self.phase in ("gated", "creating", "created"):
            self._abort()  # nobody will ever start it

    # The container's life

    def _make_gate(self) -> wire.Message:
        self._expect("idle")
        self.phase = "gated"
        self.pid = self.runtime.gate(self.streams.child_fds())
        return {"pid": self.pid}

    def _created(self, status: int, reply: Reply) -> None:
        if status != 0:
            self._fail(status, reply)
            return
        self.streams.created()
        self.pid = self.runtime.init_pid()
        self.phase = "created"
        self.waiting[self.pid] = self._died
        reply({"pid": self.pid})
        if self.pid in self.reaped:
            self._died(self.reaped.pop(self.pid))

    def _started(self, status: int, reply: Reply) -> None:
        if status != 0:
            self._fail(status, reply)
            return
        self.phase = "running"
        reply({"started_at": self.started_at})

    def _fail(self, status: int, reply: Reply) -> None:
        failure = self.runtime.failure(status)
        self._abort()
        reply(failure)

    def _oom_killed(self) -> None:
        if not self.died_at:
            self.control.broadcast({"event": "oom"})

    def _died(self, status: int) -> None:
        """The container's init has been reaped."""
        if self.phase not in ("running", "starting"):
            self._abort()  # killed before it began
            return
        code = os.waitstatus_to_exitcode(status)
        self.exit = spool.ExitRecord(
            id=self.config.id,
            exit_code=code if code >= 0 else 128 - code,
            finished_at=time.time_ns(),
            oom_killed=self.oom is not None and self.oom.killed,
            epoch=self.config.epoch,
            ordinal=0,
        )
        self.died_at = time.monotonic()

    def _finish(self, now: float) -> None:
        """The container is dead: when its last output is in the log, write down its end and tell everybody."""
        if self.waiting or not self._drained(now):
            return
        assert self.exit is not None
        self.exit = self.exit._replace(ordinal=self.ordinal)
        if not self._write_down(self.exit, now):
            return
        self.phase = "exited"
        for follower in self.followers:
            follower.end()
        self.control.broadcast({"event": "exit", **self.exit._asdict()})
        self.runtime.delete()
        self.done = True

    def _write_down(self, record: spool.ExitRecord, now: float) -> bool:
        """Whether the end is on the disk, or will be by the daemon: its database keeps room for a full disk."""
        try:
            spool.write(self.config.spool, record)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            spool.forget(self.config.spool, record.id)
            self.record_retry_at = now + RETRY_SECONDS
            return self.control.connected
        return True

    def _drained(self, now: float) -> bool:
        """Read what is left of the output; whether all of it is in the log."""
        for stream, fd in list(self.streams.outputs().items()):
            while not self.log_waits and self._read_output(stream, fd):
                pass
        if not self.log_waits and now >= self.died_at + DRAIN_SECONDS:
            for stream, fd in list(self.streams.outputs().items()):
                self._end_output(stream, fd)
        return not self.log_waits and not self.streams.outputs()

    def _reap(self, wake_fd: int) -> None:
        os.read(wake_fd, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            handler = self.waiting.pop(pid, None)
            if handler is not None:
                handler(status)
            elif self.phase != "exited":
                self.reaped[pid] = status  # an intermediate of the runtime's, or an init whose pid is not known yet

    def _abort(self) -> None:
        """Undo a start that will not come to anything, and end."""
        if self.phase == "exited":
            return
        made = self.phase not in ("idle", "gated")
        self.phase = "exited"
        self.waiting.clear()
        self.runtime.kill_everything()
        if made:
            self.runtime.delete()
        self.done = True

    def _part(self) -> None:
        """Give clients the rest of their output, as long as they take it, and leave nothing behind."""
        self.control.close()
        deadline = time.monotonic() + PARTING_SECONDS
        clients: list[Client] = [*self.attached, *self.followers]
        while clients and time.monotonic() < deadline:
            for client in clients:
                client.flush()
            clients = [client for client in clients if client.buffer and not client.gone]
            if clients:
                select.select([], [client.sock for client in clients], [], 1.0)
        while self.log_waits and time.monotonic() < deadline:
            time.sleep(0.01)
            self._flush_log()
        self.log.close()
