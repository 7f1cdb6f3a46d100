"""The monitor's children: who waits for the end of which, and who was left over.

The runtime's calls leave processes behind: an intermediate of its own, and, when a call is killed half way, what it
was about to start.  All of them become the monitor's children, as it is their subreaper.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from dockerd_py.pids import children_of, is_dead

PATIENCE = 2.0  # seconds between two looks at a call of the runtime

Ended = Callable[[int], None]
"""Called with the wait status (waitpid(2))."""


class Call:
    """A call of the runtime that is under way."""

    def __init__(self) -> None:
        self.look_at = time.monotonic() + PATIENCE
        self.dead: list[int] = []  # children of its own that had ended at the last look


class Children:
    def __init__(self) -> None:
        self._waiting: dict[int, Ended] = {}
        self._calls: dict[int, Call] = {}  # of those of `_waiting` that are calls of the runtime
        self._reaped: dict[int, int] = {}  # ended while a call was under way, which may still name them
        self._to_sweep = False

    def __bool__(self) -> bool:
        """Whether somebody's end is awaited."""
        return bool(self._waiting)

    def call(self, pid: int, ended: Ended) -> None:
        """Await the end of ``pid``, a call of the runtime."""
        self._calls[pid] = Call()
        self._waiting[pid] = ended

    def expect(self, pid: int, ended: Ended) -> bool:
        """Await the end of ``pid``, which a call of the runtime has started.  True when it has ended already:
        ``ended`` is called by `settle` then."""
        self._waiting[pid] = ended
        return pid in self._reaped

    def settle(self, pid: int) -> None:
        """Tell of the end of ``pid`` that came before it was expected."""
        if pid in self._reaped and pid in self._waiting:
            self._waiting.pop(pid)(self._reaped.pop(pid))

    def forget_all(self) -> None:
        self._waiting.clear()
        self._calls.clear()

    def reap(self) -> None:
        """Collect everybody who has ended, and call who waits for them."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            ended = self._waiting.pop(pid, None)
            if ended is not None:
                ended(status)
            elif self._calls:
                self._reaped[pid] = status
            if self._calls.pop(pid, None) is not None or self._to_sweep:
                self._clean()

    @property
    def due(self) -> list[float]:
        return [call.look_at for call in self._calls.values()]

    def watch(self, now: float) -> None:
        """Kill calls that will never end: what the runtime has forked was killed, and it waits for a word from there.

        It reaps its children at once otherwise; one that has ended and is there at two looks tells.
        """
        for pid, call in self._calls.items():
            if now < call.look_at:
                continue
            dead = [child for child in children_of(pid) if is_dead(child)]
            if set(dead) & set(call.dead):
                kill(pid)
            call.dead = dead
            call.look_at = now + PATIENCE

    def sweep(self) -> None:
        """Kill those that a failed call of the runtime has left, as soon as no other call is under way."""
        self._to_sweep = True
        self._clean()

    def _clean(self) -> None:
        if self._calls:
            return
        self._reaped.clear()  # their pids may be given to others from now on
        if self._to_sweep:
            strangers = [pid for pid in children_of(os.getpid()) if pid not in self._waiting]
            for pid in strangers:
                kill(pid)
            # What one of them has forked meanwhile becomes our child with its end, when this looks again.
            self._to_sweep = bool(strangers)


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to a child of ours: one that was not reaped yet keeps its pid."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
