"""The log of one start of a container: its output as numbered records, written down and sent to who follows."""

from __future__ import annotations

import select
import socket
import time
from typing import Protocol

from dockerd_py.monitor.clients import Follower
from dockerd_py.monitor.journalwriter import JournalWriter
from dockerd_py.monitor.lines import LineSplitter, Piece
from dockerd_py.monitor.logwriters import LogWriter
from dockerd_py.monitor.loop import Loop


class Sink(Protocol):
    """Where a session's output goes beside its clients."""

    @property
    def waits(self) -> bool:
        """Whether no more may be given to it now."""

    def take(self, stream: int, data: bytes) -> None: ...

    def end(self, stream: int) -> None: ...


class Nowhere:
    """The output of what is not logged."""

    waits = False

    def take(self, stream: int, data: bytes) -> None:
        pass

    def end(self, stream: int) -> None:
        pass


class Recorder:
    """A `Sink`.  While a record is unwritten it takes no more: a slow log slows its writer, and nothing is lost."""

    def __init__(self, loop: Loop, log: LogWriter, epoch: str) -> None:
        self._loop = loop
        self._log = log
        self._epoch = epoch
        self._splitters = {1: LineSplitter(), 2: LineSplitter()}
        self.followers: list[Follower] = []
        self.ordinal = 0
        self.waits = False

    def take(self, stream: int, data: bytes) -> None:
        self._record(stream, self._splitters[stream].feed(data))

    def end(self, stream: int) -> None:
        self._record(stream, self._splitters[stream].finish())

    def follow(self, sock: socket.socket) -> None:
        self.followers.append(Follower(sock))

    def position(self) -> dict[str, object]:
        """Where the log stands now."""
        return {"epoch": self._epoch, "ordinal": self.ordinal, "mark": self._log.mark(), "time": time.time_ns()}

    def unrecorded(self) -> dict[int, bytes]:
        """What each stream has given that is in no record yet: the beginning of a line."""
        return {stream: splitter.rest for stream, splitter in self._splitters.items() if splitter.rest}

    def rename(self, fields: dict[str, str], names: list[str]) -> None:
        if isinstance(self._log, JournalWriter):
            self._log.set_fields(fields, names)

    @property
    def due(self) -> float | None:
        """The time.monotonic() after which `settle` has something to do though no descriptor tells so."""
        return self._log.retry_at() if self.waits else None

    def settle(self, now: float) -> None:
        due = self.due
        if due is not None and now >= due:
            self.flush()
        for follower in tuple(self.followers):
            self._watch(follower)

    def flush(self) -> None:
        before = self._log.wait_fd()
        self.waits = not self._log.flush()
        fd = self._log.wait_fd()
        if before is not None and before != fd:
            self._loop.forget(before)  # the writer has closed it
        if fd is None:
            return
        if self.waits:
            self._loop.watch(fd, select.EPOLLOUT, lambda _: self.flush())
        else:
            self._loop.unwatch(fd)

    def finish(self) -> None:
        """Tell the followers that nothing more comes."""
        for follower in self.followers:
            follower.end()

    def close(self) -> None:
        self._log.close()

    def _record(self, stream: int, pieces: list[Piece]) -> None:
        if not pieces:
            return
        when = time.time_ns()
        first = self.ordinal + 1
        self.ordinal += len(pieces)
        self._log.add(stream, when, first, pieces)
        for follower in self.followers:
            follower.records(stream, when, first, pieces)
        self.flush()

    def _watch(self, follower: Follower) -> None:
        fd = follower.sock.fileno()
        if follower.gone:
            self._loop.unwatch(fd)
            follower.close()
            self.followers.remove(follower)
            return
        self._loop.watch(fd, select.EPOLLOUT if follower.buffer else 0, follower.happened)
