"""One container's monitor: its parent, the owner of its standard streams, the writer of its log and exit record.

A single thread.  The daemon talks to it over SOCK_SEQPACKET connections (`wire`); each request carries ``op`` and
gets one reply with the same ``seq``:

============  ======================================  ===========================================================
op            request                                 reply
============  ======================================  ===========================================================
hello                                                 version, phase, pid, started_at, exit, names
gate                                                  pid: a child that waits to become ``create``
create                                                pid: the container's init
start         oom: the file that counts kills, or ""  started_at (ns)
abort                                                 (the half-made container is taken away; the monitor ends)
kill          signal
attach        stdin, streams, framed, keys; fds:      epoch, ordinal, mark: where the log stood before the first
              connection[, memfd of early bytes]      byte that this client gets
attach_held   the same; fds: connection, the reading  the same, and what stands in no record yet is the first
              end of a pipe[, memfd]                  that it gets, once a byte has come through the pipe; it is
                                                      let go when the pipe ends without one
follow        fds: socket                             the same, before the first record
position                                              the same, now
resize        height, width
rename        fields, names
publish       ports: [{protocol, address, port}]:     (what reaches the sockets is relayed to there, until the
              the container's; fds: sockets of the    container ends: they are closed before that is told)
              host's, one each
unpublish                                             (all ports are given back, their connections reset)
exec          exec: an id; groups: the files by       pid, started_at: of the process that the call has started
              which the control groups are joined;
              argv, log, pid_file: the runtime's
              call; console: the path of a
              terminal's socket or "", size;
              stdin, streams, framed, keys;
              fds: [connection[, memfd]]
exec_abort    exec                                    (the start is undone, also when it was done)
exec_kill     exec, signal
exec_resize   exec, height, width
execs         begin: 0, or next of the last reply     execs: [{id, phase, pid, started_at, exit_code,
                                                      finished_at}], next: a number, or null at the end
============  ======================================  ===========================================================

A reply with ``error`` says what failed.  Three events go to every connection: ``{"event": "oom"}`` when memory ran
short and something was killed for it; ``{"event": "exit", ...}`` when the container has ended, after its last line and
its exit record are safe, and then the monitor ends; ``{"event": "exec_exit", ...}`` when an exec has ended, before its
client sees the end.  A monitor whose container was never started ends when its last connection and client are gone.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import socket
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from dockerd_py import wire
from dockerd_py.monitor import PROTOCOL_VERSION, parting, spool
from dockerd_py.monitor.children import Children, kill
from dockerd_py.monitor.clients import Client, read_memfd
from dockerd_py.monitor.control import Control, Refused, Reply
from dockerd_py.monitor.drivers import make
from dockerd_py.monitor.execs import Execs
from dockerd_py.monitor.logwriters import RETRY_SECONDS
from dockerd_py.monitor.loop import Loop
from dockerd_py.monitor.ociruntime import OciRuntime
from dockerd_py.monitor.oom import OomWatch
from dockerd_py.monitor.recorder import Recorder
from dockerd_py.monitor.session import DRAIN_SECONDS, Session
from dockerd_py.monitor.streams import Streams, Terminal

if TYPE_CHECKING:
    from dockerd_py.monitor.relay import Relay

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
        self.start_call = 0  # a process; 0: there was none yet, or it was given up
        self.died_at = 0.0  # on the monotonic clock
        self.exit: spool.ExitRecord | None = None
        self.record_retry_at: float | None = None  # the disk is full, and nobody is there to be told
        self.done = False
        self.asked_to_go = False
        log = make(
            config.log_driver,
            path=config.log_path,
            fields=config.log_fields,
            names=config.log_names,
            epoch=config.epoch,
            settings=config.log_settings,
        )
        self.recorder = Recorder(self.loop, log, config.epoch)
        self.children = Children()
        self.names = config.log_names
        self.oom: OomWatch | None = None
        self.relay: Relay | None = None  # of a container that has published ports
        self._prepare_process()
        self.session = Session(
            self.loop, self._make_streams(), self.recorder, stdin_once=config.stdin_once, patient=False
        )
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
        self.execs = Execs(self.loop, self.children, self.control.broadcast)
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
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGTERM, self._ask_to_go)
        self.loop.watch(wake_read, select.EPOLLIN, lambda _: self._reap(wake_read))

    def _ask_to_go(self, *_: object) -> None:
        self.asked_to_go = True

    def _make_streams(self) -> Streams:
        config = self.config
        if not config.tty:
            return Streams(open_stdin=config.open_stdin)
        path = os.path.join(config.directory, "console.sock")
        return Terminal(open_stdin=config.open_stdin, path=path, height=config.height, width=config.width)

    def _timeout(self) -> float:
        """Seconds until something is due though no descriptor tells so; -1: never."""
        due = [self.recorder.due, self.record_retry_at, *self.session.due, *self.execs.due, *self.children.due]
        if self.relay is not None:
            due += self.relay.due
        now = time.monotonic()
        if self.died_at and now < self.died_at + DRAIN_SECONDS:
            due.append(self.died_at + DRAIN_SECONDS)
        times = [at for at in due if at is not None]
        return max(0.0, min(times) - now) if times else -1

    def _settle(self) -> None:
        """After each round: write what is due, let go of who is gone, decide who is read from."""
        now = time.monotonic()
        self.recorder.settle(now)
        self.session.settle(now)
        self.execs.settle(now)
        self.children.watch(now)
        if self.relay is not None:
            self.relay.settle(now)
        if self.died_at and not self.done:
            self._finish(now)
        elif self.phase == "idle" and not self.control.connected and not self.session.attached:
            self.done = True

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
                self.children.call(self.pid, lambda status: self._created(status, later))
                self.runtime.open_gate()
                return None
            case "start":
                self._expect("created")
                self.phase = "starting"
                self.started_at = time.time_ns()  # before anything that the container may do
                self.oom = OomWatch(self.loop, message.get("oom", ""), self._oom_killed)
                self.start_call = self.runtime.start()
                self.children.call(self.start_call, lambda status: self._started(status, later))
                return None
            case "abort":
                self._abort()
                return {}
            case "kill":
                self._expect("running")
                os.kill(self.pid, message["signal"])
                return {}
            case "attach":
                return self._attach(message, fds, held=False)
            case "attach_held":
                return self._attach(message, fds, held=True)
            case "follow":
                return self._follow(fds)
            case "position":
                return self.recorder.position()
            case "resize":
                self.session.streams.resize(message["height"], message["width"])
                return {}
            case "rename":
                self.names = message["names"]
                self.recorder.rename(message["fields"], message["names"])
                return {}
            case "publish":
                self._publish(message, fds)
                return {}
            case "aim":
                if self.relay is None:
                    raise Refused("the container has no published ports")
                self.relay.aim(message["address"])
                return {}
            case "unpublish":
                self._unpublish()
                return {}
            case str(op) if op.startswith("exec"):
                return self._dispatch_exec(op, message, fds, later)
            case op:
                raise Refused(f"this monitor (version {PROTOCOL_VERSION}) does not know {op!r}")

    def _dispatch_exec(self, op: str, message: wire.Message, fds: list[int], later: Reply) -> wire.Message | None:
        match op:
            case "exec":
                self._expect("running")
                self.execs.start(message, fds, later)
                return None
            case "exec_abort":
                self.execs.abort(message["exec"])
                return {}
            case "exec_kill":
                self.execs.kill(message["exec"], message["signal"])
                return {}
            case "exec_resize":
                self.execs.resize(message["exec"], message["height"], message["width"])
                return {}
            case "execs":
                return self.execs.describe(message["begin"])
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

    def _attach(self, message: wire.Message, fds: list[int], *, held: bool) -> wire.Message:
        if len(fds) < 1 + held:
            raise Refused("attach needs a connection" + " and a pipe" * held)
        connection = socket.socket(fileno=fds.pop(0))
        hold = fds.pop(0) if held else None
        client = self.session.attach(
            connection,
            read_memfd(fds.pop(0)) if fds else b"",
            stdin=bool(message["stdin"]) and self.config.open_stdin,
            streams=message["streams"],
            framed=bool(message["framed"]) and not self.config.tty,
            keys=message["keys"],
            hold=hold,
        )
        if held:
            for stream, data in self.recorder.unrecorded().items():
                client.output(stream, data)
        return self.recorder.position()

    def _follow(self, fds: list[int]) -> wire.Message:
        if not fds:
            raise Refused("follow needs a socket")
        self.recorder.follow(socket.socket(fileno=fds.pop(0)))
        return self.recorder.position()

    def _publish(self, message: wire.Message, fds: list[int]) -> None:
        ports = message["ports"]
        if self.died_at or len(ports) != len(fds):
            raise Refused("the container has exited" if self.died_at else "publish needs a socket for each port")
        if self.relay is None:
            try:
                from dockerd_py.monitor.relay import Relay  # noqa: PLC0415 - most monitors have no use for its memory
            except ImportError as error:  # the program was taken away
                raise Refused(str(error)) from error
            self.relay = Relay(self.loop)
        for port in ports:
            self.relay.add(socket.socket(fileno=fds.pop(0)), port["protocol"], port["address"], port["port"])

    def _unpublish(self) -> None:
        if self.relay is not None:
            self.relay.close()
            self.relay = None

    def _abandoned(self) -> None:
        if self.phase in ("gated", "creating", "created"):
            self._abort()  # nobody will ever start it

    # The container's life

    def _make_gate(self) -> wire.Message:
        self._expect("idle")
        self.phase = "gated"
        self.pid = self.runtime.gate(self.session.streams.child_fds())
        return {"pid": self.pid}

    def _created(self, status: int, reply: Reply) -> None:
        if status != 0:
            self._fail(status, reply)
            return
        self.session.begin()
        self.pid = self.runtime.init_pid()
        self.phase = "created"
        self.children.expect(self.pid, self._died)
        reply({"pid": self.pid})
        self.children.settle(self.pid)

    def _started(self, status: int, reply: Reply) -> None:
        given_up = self.start_call == 0
        if status != 0 and not given_up:
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
        if self.relay is not None:
            self.relay.release()
        self.execs.end()

    def _finish(self, now: float) -> None:
        """The container is dead: when its last output is in the log, write down its end and tell everybody."""
        if self.phase == "starting" and self.start_call and now >= self.died_at + DRAIN_SECONDS:
            kill(self.start_call)  # killed right at its beginning: the runtime waits for its init, which is no more
            self.start_call = 0
        if self.children or self.execs or not self.session.drained(now, self.died_at):
            return
        assert self.exit is not None
        self.exit = self.exit._replace(ordinal=self.recorder.ordinal)
        if not self._write_down(self.exit, now):
            return
        self.phase = "exited"
        self.recorder.finish()
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

    def _reap(self, wake_fd: int) -> None:
        os.read(wake_fd, 4096)
        self.children.reap()

    def _abort(self) -> None:
        """Undo a start that will not come to anything, and end."""
        if self.phase == "exited":
            return
        made = self.phase not in ("idle", "gated")
        self.phase = "exited"
        self._unpublish()
        self.children.forget_all()
        self.runtime.kill_everything()
        if made:
            self.runtime.delete()
        self.done = True

    def _part(self) -> None:
        """Give clients the rest of their output, as long as they take it, and leave nothing behind."""
        self.control.close()
        sessions = [self.session, *self.execs.sessions()]
        clients: list[Client] = [client for session in sessions for client in session.attached]
        clients += self.recorder.followers
        parting.part(clients, self.relay, lambda: self.asked_to_go)
        parting.drain(self.recorder)
        self.recorder.close()
