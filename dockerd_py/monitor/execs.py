"""Further processes in the container (exec), each with its own streams and client.  Their output is not logged.

Such a process begins as a child that moves itself into the control groups of the container's init; then it becomes a
call of the runtime, which so starts the process in the container's scope: detached, and as a child of this monitor.
Its end is told by an event and remembered for a daemon that was not there: the last `REMEMBERED` of them.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Callable

from dockerd_py import wire
from dockerd_py.monitor.children import Children, kill
from dockerd_py.monitor.clients import read_memfd
from dockerd_py.monitor.control import Refused, Reply
from dockerd_py.monitor.gate import Gate
from dockerd_py.monitor.loop import Loop
from dockerd_py.monitor.ociruntime import failure, read_pid
from dockerd_py.monitor.recorder import Nowhere
from dockerd_py.monitor.session import DRAIN_SECONDS, Session
from dockerd_py.monitor.streams import Streams, Terminal

REMEMBERED = 256
PAGE = 512  # execs in one message, which so stays below its limit


class Exec:
    def __init__(self, identity: str, session: Session, pid: int, log: str, pid_file: str, reply: Reply) -> None:
        self.id = identity
        self.session = session
        self.phase = "starting"  # starting, running, exited
        self.pid = pid
        self.started_at = time.time_ns()
        self.exit_code = 0
        self.finished_at = 0
        self.died_at = 0.0  # on the monotonic clock
        self.reply: Reply | None = reply  # to the request that starts it
        self._log = log
        self._pid_file = pid_file

    def failure(self, status: int) -> wire.Message:
        return failure(status, self._log)

    def read_pid(self) -> int:
        return read_pid(self._pid_file)

    def describe(self) -> wire.Message:
        return {
            "id": self.id,
            "phase": self.phase,
            "pid": self.pid,
            "started_at": self.started_at,
            "exit_code": self.exit_code,
            "finished_at": self.finished_at,
        }


class Execs:
    def __init__(self, loop: Loop, children: Children, tell: Callable[[wire.Message], None]) -> None:
        """``tell`` sends an event to every daemon that is connected."""
        self._loop = loop
        self._children = children
        self._tell = tell
        self._execs: dict[str, Exec] = {}
        self._parting: list[Session] = []  # of processes that have ended: clients still get their last output
        self._finished: deque[wire.Message] = deque(maxlen=REMEMBERED)

    def __bool__(self) -> bool:
        """Whether there is any that has not ended."""
        return bool(self._execs)

    # Requests: the fields and the errors as `Control` wants them

    def start(self, message: wire.Message, fds: list[int], reply: Reply) -> None:
        """Fork the child.  Its client, if there is one, gets all of its output."""
        identity = message["exec"]
        if identity in self._execs:
            raise Refused(f"exec {identity} exists already")
        if message["console"]:
            height, width = message["size"]
            streams: Streams = Terminal(
                open_stdin=message["stdin"], path=message["console"], height=height, width=width
            )
        else:
            streams = Streams(open_stdin=message["stdin"], wanted=message["streams"])
        session = Session(self._loop, streams, Nowhere(), stdin_once=True, patient=True)
        try:
            gate = Gate(
                message["argv"],
                streams.child_fds(),
                log=message["log"],
                groups=message["groups"],
                directory=message.get("directory", ""),
            )
        except OSError:
            session.abandon()
            raise
        one = self._execs[identity] = Exec(
            identity, session, gate.pid, message["log"], message["pid_file"], reply
        )
        self._children.call(gate.pid, lambda status: self._called(one, status))
        if fds:
            client = socket.socket(fileno=fds.pop(0))
            early = read_memfd(fds.pop(0)) if fds else b""
            session.attach(
                client,
                early,
                stdin=message["stdin"],
                streams=message["streams"],
                framed=message["framed"],
                keys=message["keys"],
            )
        gate.open()

    def abort(self, identity: str) -> None:
        """Undo a start that whoever asked for it has given up, also one that has just succeeded."""
        one = self._execs.get(identity)
        if one is None:
            return
        if one.phase == "starting":
            self._drop(one)
        elif not one.died_at:
            kill(one.pid)

    def kill(self, identity: str, number: int) -> None:
        os.kill(self._get(identity, "running").pid, number)

    def resize(self, identity: str, height: int, width: int) -> None:
        one = self._execs.get(identity)
        if one is None:
            raise Refused(f"exec {identity} has ended")
        one.session.streams.resize(height, width)

    def describe(self, begin: int) -> wire.Message:
        """Those that there are, and the last that have ended: one page of them, from ``begin`` on."""
        every = [*self._finished, *(one.describe() for one in self._execs.values())]
        end = begin + PAGE
        return {"execs": every[begin:end], "next": end if end < len(every) else None}

    # Their lives

    def end(self) -> None:
        """The container has ended: so do they, also those that share no process namespace with it."""
        for one in list(self._execs.values()):
            if one.phase == "running":
                if not one.died_at:
                    kill(one.pid)
            else:
                self._drop(one)

    @property
    def due(self) -> list[float]:
        now = time.monotonic()
        dead = [at for one in self._execs.values() if one.died_at and (at := one.died_at + DRAIN_SECONDS) > now]
        return dead + [at for session in self._parting for at in session.due]

    def settle(self, now: float) -> None:
        """After each round of the loop."""
        for one in list(self._execs.values()):
            one.session.settle(now)
            if one.died_at and one.session.drained(now, one.died_at):
                self._finish(one)
        for session in tuple(self._parting):
            session.settle(now)
            if not session.attached:
                self._parting.remove(session)

    def sessions(self) -> list[Session]:
        """All that may still have clients."""
        return [*(one.session for one in self._execs.values()), *self._parting]

    def _get(self, identity: str, phase: str) -> Exec:
        one = self._execs.get(identity)
        if one is None or one.phase != phase or one.died_at:
            raise Refused(f"exec {identity} is {'exited' if one is None or one.died_at else one.phase}, not {phase}")
        return one

    def _called(self, one: Exec, status: int) -> None:
        """The call of the runtime that starts ``one`` has ended."""
        if self._execs.get(one.id) is not one:
            self._children.sweep()  # dropped: what it may have started before it was killed goes, too
            return
        if status != 0:
            self._fail(one, one.failure(status))
            return
        try:
            pid = one.read_pid()
            one.session.begin()
        except (OSError, ValueError) as error:
            self._fail(one, {"error": f"the OCI runtime has not done its part: {error}", "log": ""})
            return
        one.phase = "running"
        one.pid = pid
        self._children.expect(pid, lambda status: self._died(one, status))
        self._answer(one, {"pid": one.pid, "started_at": one.started_at})
        self._children.settle(pid)

    def _fail(self, one: Exec, reply: wire.Message) -> None:
        del self._execs[one.id]
        one.session.abandon()
        self._children.sweep()
        self._answer(one, reply)

    def _drop(self, one: Exec) -> None:
        del self._execs[one.id]
        kill(one.pid)
        one.session.abandon()
        self._answer(one, {"error": "the container, or whoever wanted it, has ended"})

    @staticmethod
    def _answer(one: Exec, reply: wire.Message) -> None:
        if one.reply is not None:
            one.reply(reply)
            one.reply = None

    def _died(self, one: Exec, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        one.exit_code = code if code >= 0 else 128 - code
        one.finished_at = time.time_ns()
        one.died_at = time.monotonic()

    def _finish(self, one: Exec) -> None:
        """Its last output is on its way: tell of its end before its clients see that of their connection."""
        one.phase = "exited"
        del self._execs[one.id]
        self._finished.append(one.describe())
        self._tell({"event": "exec_exit", **one.describe()})
        one.session.finish()
        if one.session.attached:
            self._parting.append(one.session)
