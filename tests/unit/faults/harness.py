"""An operation, killed at each of its steps.

A `Scenario` says how an operation is prepared and asked for.  `Crashes` runs it once to its end to learn its steps
and what the daemon's directories look like before and after, and then once for each step, with a SIGKILL right before
it.  After each kill the daemon is started again, unless it lives, and everything has to be as before the operation or
as after it (see `picture`); as after it, if the client had its answer; and with `fsck` content either way.  Where a
monitor was killed, its container may also have been lost: it has ended then, and says so.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daemons import Daemon, until
from net_house import NetDaemon

from dockerd_py.engine.lifecycle import LOST
from dockerd_py.store import fsck
from dockerd_py.store.store import DATABASE_NAME
from faults.nursery import Nursery
from faults.picture import (
    Picture,
    differences,
    fork_servers,
    is_consistent,
    is_settled,
    monitors,
    picture,
    settled,
)

TRACER = Path(__file__).with_name("tracer.py")
_TOP = Path(__file__).parents[3]
NEVER = 1 << 30


@dataclass(frozen=True)
class Scenario:
    """One operation.  All functions are given a daemon that runs."""

    name: str
    arrange: Callable[[Daemon], None]
    """Make everything ready, from nothing and from whatever a run before has left."""
    act: Callable[[Daemon], None]
    """Ask for the operation and return when it is acknowledged; a daemon that dies makes it raise OSError or
    HTTPException, and an answer that it failed AssertionError, or Failed where another process's death may be why."""
    check: Callable[[Daemon, bool], None]
    """Use what there is, done (True) or not, so that it shows whether it works."""
    flags: tuple[str, ...] = ()
    of_container: bool = False
    """It is about a container that runs before or after, or both: fork server and monitors are traced, too."""


class Failed(Exception):
    """The daemon answered that it could not do what it was asked for."""


@dataclass(frozen=True)
class Crash:
    """One kill, and what happens meanwhile."""

    step: int  # from 1
    victims: str = "daemon"
    """``daemon``, whose helpers go on: a daemon that was started by hand.  ``*``: with all its helpers, as systemd
    does it.  Or the names of programs and helpers, separated by commas."""
    late: bool = False
    """Who is left goes on only when the next daemon is ready."""
    again: int = 0
    """The step before which the next daemon is killed, too, while it recovers; 0: it isn't."""

    def hits(self, name: str) -> bool:
        return "*" in self.victims or name in self.victims.split(",")


@dataclass
class Crashes:
    """A scenario on a daemon of its own."""

    scenario: Scenario
    daemon: Daemon
    nursery: Nursery
    steps: list[str] = field(default_factory=list)
    before: Picture = field(default_factory=dict)
    after: Picture = field(default_factory=dict)
    lost: list[Picture] = field(default_factory=list)  # before and after, when the container is lost
    _recovery: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        take_from(self.nursery, self.daemon)

    def record(self) -> None:
        """Run the operation once, undisturbed, when everything that a first time does has been done."""
        self.daemon.start()
        self.scenario.arrange(self.daemon)
        self.scenario.act(self.daemon)
        self.scenario.check(self.daemon, True)
        self.scenario.arrange(self.daemon)
        self.before = consistent(self.daemon)
        with self._traced() as traced:
            self.scenario.act(self.daemon)
            settled(self.daemon)
        self.steps = traced.steps
        self.after = consistent(self.daemon)
        assert self.before != self.after or self.scenario.of_container
        if self.scenario.of_container:
            self.lost = [self._lose(), self._lose(self.scenario.arrange)]

    def record_recovery(self, step: int) -> list[str]:
        """The steps of the start that follows a kill at ``step``."""
        self.crash(Crash(step, again=NEVER))
        return self._recovery

    def crash(self, crash: Crash) -> str:
        """Kill at one step, start again, and look.  What the step was this time, "" if there were fewer.

        AssertionError tells what is wrong.
        """
        self.scenario.arrange(self.daemon)
        found = consistent(self.daemon)
        assert found == self.before, differences(found, self.before)
        with self._traced(crash) as traced:
            answer = self._act(crash)
            traced.await_kill(answer is not None)
            if not traced.killed:
                assert answer, f"{self.scenario.name} failed and nobody was killed"
                return ""
            if crash.hits("daemon"):
                self.daemon.ended()
                if crash.again:
                    self._recovery = start_and_die(self.daemon, self.nursery, crash.again, crash.victims)
                self.daemon.start()
        self._look(f"{crash}: {traced.steps[-1]}", crash, acknowledged=bool(answer))
        return traced.steps[-1]

    def end(self) -> None:
        """Stop the daemon; nothing is left but its images, and the program ``fsck`` says so."""
        self.daemon.close()
        assert self.daemon.leftovers() == []
        argv = [*self.daemon.argv()[:3], "fsck", "-g", self.daemon.root, "--exec-root", self.daemon.run]
        done = subprocess.run(argv, capture_output=True, text=True, cwd=_TOP, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def _look(self, where: str, crash: Crash, *, acknowledged: bool) -> None:
        found = consistent(self.daemon)
        # A process that is killed as it begins may have been told of as started.
        lost = self.lost if crash.hits("monitor") or crash.hits("init") else []
        accepted = [self.after, *lost] if acknowledged else [self.before, self.after, *lost]
        answer = " was acknowledged, and then " if acknowledged else ": "
        assert found in accepted, f"{self.scenario.name}{answer}{where}\n{differences(found, self.after)}"
        if not crash.hits("monitor"):
            assert not any(text.endswith(LOST) for text in ends(self.daemon)), where
        wrong = checked(self.daemon)
        assert not wrong, "\n".join((where, *wrong))
        self.scenario.check(self.daemon, found in (self.after, *lost[:1]))

    def _act(self, crash: Crash) -> bool | None:
        """Whether it is done; None without an answer."""
        try:
            self.scenario.act(self.daemon)
        except TimeoutError as error:
            raise AssertionError(f"{self.scenario.name}, {crash}: there is no answer") from error
        except (OSError, http.client.HTTPException):
            return None
        except Failed:
            if crash.hits("daemon"):
                raise
            return False
        return True

    def _lose(self, arrange: Callable[[Daemon], None] | None = None) -> Picture:
        """The picture without the container that runs, if there is one."""
        if arrange is not None:
            arrange(self.daemon)
        for pid in monitors(self.daemon):
            os.kill(pid, signal.SIGKILL)
        return consistent(self.daemon)

    def _traced(self, crash: Crash | None = None) -> Traced:
        others = {}
        if self.scenario.of_container:
            others = dict.fromkeys(fork_servers(self.daemon), "fork server")
            others |= dict.fromkeys(monitors(self.daemon), "monitor")
        if crash is None:
            return Traced(self.daemon, others=others)
        return Traced(self.daemon, crash.step, crash.victims, late=crash.late, others=others)


def take_from(nursery: Nursery, daemon: Daemon) -> None:
    """From now on the daemon's processes are forked from the nursery."""
    daemon.spawn = nursery.spawn
    if isinstance(daemon, NetDaemon):
        daemon.spawn = functools.partial(nursery.spawn, namespace=daemon.host.fd)


def consistent(daemon: Daemon) -> Picture:
    """The picture of a daemon at rest, as soon as what it says of containers is true: it is told of their ends."""
    deadline = time.monotonic() + 15
    found: Picture = {}
    while time.monotonic() < deadline:
        settled(daemon)
        with contextlib.suppress(FileNotFoundError):  # the end of a container is under way
            found = picture(daemon)
            if is_consistent(found):
                return found
        time.sleep(0.02)
    said = daemon.log.read_text(errors="replace")[-3000:]
    raise AssertionError(f"not at rest: {found}\n{said}")


def ends(daemon: Daemon) -> list[str]:
    """How each container that does not run has ended: its exit code and what is said of it."""
    states = [daemon.inspect(one["Id"])["State"] for one in daemon.get("/containers/json?all=1").json]
    return [f"{state['ExitCode']} {state['Error']}" for state in states if not state["Running"]]


def start_and_die(daemon: Daemon, nursery: Nursery, step: int, victims: str = "daemon") -> list[str]:
    """Kill a daemon at a step of its start, or when it is ready.  The steps until then."""
    with open(daemon.log, "ab") as log:
        take_from(nursery, daemon)
        daemon.process = daemon.spawn(daemon.argv(), log, stopped=True)
    with Traced(daemon, step, victims) as traced:
        daemon.process.send_signal(signal.SIGCONT)
        traced.await_kill(daemon.await_ready())
    if traced.killed:
        daemon.ended()
    else:
        daemon.stop(signal.SIGKILL)
    return traced.steps


def stop_and_die(daemon: Daemon, step: int, victims: str = "daemon") -> list[str]:
    """Kill a daemon at a step of its stop, unless that has fewer.  The steps until then."""
    with Traced(daemon, step, victims) as traced:
        daemon.process.send_signal(signal.SIGTERM)
        daemon.ended()
    return traced.steps


def checked(daemon: Daemon) -> list[str]:
    """What ``fsck`` says of the store of a daemon at rest."""
    wrong: list[str] = []
    fsck.check(daemon.root, DATABASE_NAME, wrong.append)
    return wrong


class Traced:
    """A block in which a daemon's steps are counted, and it is perhaps killed at one of them.

    ``late``: the rest of what is traced goes on when the block ends.
    """

    def __init__(
        self,
        daemon: Daemon,
        step: int = 0,
        victims: str = "daemon",
        *,
        late: bool = False,
        others: Mapping[int, str] | None = None,
    ) -> None:
        """others: further processes that run already, and their names."""
        self.steps: list[str] = []
        self.killed = False
        self._daemon = daemon
        assert daemon.process is not None
        pids = {daemon.process.pid: "daemon", **(others or {})}
        self._argv = [
            *(sys.executable, "-I", "-S", os.fspath(TRACER), ",".join(f"{pids[pid]}={pid}" for pid in pids)),
            *(os.fspath(daemon.directory), str(step), victims, "late" if late else "soon"),
        ]

    def __enter__(self) -> Traced:
        self._tracer = subprocess.Popen(self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._tracer.stdout is not None
        self._output = self._tracer.stdout
        assert self._output.readline() == b"ready\n"
        return self

    def await_kill(self, answered: bool) -> None:
        """Until the daemon is dead; or, where it has done what was asked, has nothing left to do."""

        def said() -> object:
            return select.select([self._output], [], [], 0)[0]

        until(lambda: said() or (answered and is_settled(self._daemon)), 30)
        if not said():
            self._let_go()
        self._listen()

    def __exit__(self, *_: object) -> None:
        self._let_go()
        if not self.steps:
            self._listen()
        self._output.close()
        self._tracer.wait(20)

    def _let_go(self) -> None:
        assert self._tracer.stdin is not None
        self._tracer.stdin.close()

    def _listen(self) -> None:
        words: Any = json.loads(self._output.readline())
        self.steps, self.killed = words["steps"], words["killed"]
