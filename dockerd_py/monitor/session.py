"""One process of the container's with its standard streams: its output goes to a sink and to who is attached, and
their input goes to it."""

from __future__ import annotations

import errno
import os
import select
import socket

from dockerd_py.monitor.clients import Attached
from dockerd_py.monitor.loop import Loop
from dockerd_py.monitor.recorder import Sink
from dockerd_py.monitor.streams import Streams

READ_SIZE = 64 * 1024
DRAIN_SECONDS = 2.0  # how long output is awaited after the exit while something else holds the streams open
DRAIN_READS = 32  # the longest pipe that /proc/sys/fs/pipe-max-size allows by default, twice


class Session:
    """``stdin_once``: the input ends with that of its first client.  ``patient``: a client that reads nothing holds
    the process up for as long as it likes; else it is let go after a while.

    `settle` is to be called after each round of the loop.
    """

    def __init__(self, loop: Loop, streams: Streams, sink: Sink, *, stdin_once: bool, patient: bool) -> None:
        self._loop = loop
        self._sink = sink
        self._stdin_once = stdin_once
        self._patient = patient
        self._begun = False
        self._over = False
        self.streams = streams
        self.attached: list[Attached] = []

    def attach(
        self,
        sock: socket.socket,
        early: bytes,
        *,
        stdin: bool,
        streams: list[int],
        framed: bool,
        keys: list[int],
        hold: int | None = None,
    ) -> Attached:
        """Take a client's connection, with what it has sent already.  ``hold``: see `Attached`."""
        client = Attached(
            sock, stdin=stdin, streams=frozenset(streams), framed=framed, detach_keys=bytes(keys), hold=hold
        )
        if hold is not None:
            self._loop.watch(hold, select.EPOLLIN, lambda _: self._hold_ended(client, hold))
        if early and stdin:
            self.streams.queue_stdin(client.typed(early))
        self.attached.append(client)
        return client

    def begin(self) -> None:
        """The process exists and has its ends of the streams.  Until then nothing is read from them: what comes is
        the runtime's complaint, which its log has too."""
        self._begun = True
        self.streams.created()

    def finish(self) -> None:
        """Nothing more will be sent: let go of each client as soon as it has what is buffered for it."""
        self._over = True
        self.close_streams()

    def close_streams(self) -> None:
        for fd in (*self.streams.outputs().values(), self.streams.stdin_fd()):
            if fd is not None:
                self._loop.unwatch(fd)
        self.streams.close()

    def abandon(self) -> None:
        """Let go of everything at once; who gave a connection has something to say on it."""
        self.close_streams()
        for client in self.attached:
            self._loop.unwatch(client.sock.fileno())
            client.sock.close()
        self.attached.clear()

    @property
    def due(self) -> list[float]:
        """The times on the monotonic clock after which `settle` has something to do."""
        times = [client.lingers_until for client in self.attached]
        if not self._patient:
            times += [client.stalled_at for client in self.attached]
        return [at for at in times if at is not None]

    def settle(self, now: float) -> None:
        for client in tuple(self.attached):
            stalled_at = None if self._patient else client.stalled_at
            if stalled_at is not None and now >= stalled_at:
                client.gone = True
            if self._over and not client.buffer and client.part(now):
                client.gone = True
        self._pump_stdin()
        for client in tuple(self.attached):
            self._watch_client(client)
        self._watch_outputs()

    def drained(self, now: float, died_at: float) -> bool:
        """Read what is left of the output of a process that ended at ``died_at``; whether the sink has all of it."""
        late = now >= died_at + DRAIN_SECONDS
        for stream, fd in list(self.streams.outputs().items()):
            reads = 0
            while (late or not self._held_up()) and not self._sink.waits and reads < DRAIN_READS:
                reads += 1
                if not self._read_output(stream, fd):
                    break
        if late and not self._sink.waits:
            for stream, fd in list(self.streams.outputs().items()):
                self._end_output(stream, fd)
        return not self._sink.waits and not self.streams.outputs()

    # Output

    def _held_up(self) -> bool:
        return not self._begun or self._sink.waits or any(client.full for client in self.attached)

    def _watch_outputs(self) -> None:
        held_up = self._held_up()
        for stream, fd in self.streams.outputs().items():
            if held_up:
                self._loop.unwatch(fd)
            elif not self._loop.watches(fd):
                self._watch_output(stream, fd)

    def _watch_output(self, stream: int, fd: int) -> None:
        self._loop.watch(fd, select.EPOLLIN, lambda _: self._read_output(stream, fd))

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
        self._sink.take(stream, data)
        return True

    def _end_output(self, stream: int, fd: int) -> None:
        self._sink.end(stream)
        self._loop.unwatch(fd)
        self.streams.close_output(stream)

    # Input and clients

    def _pump_stdin(self) -> None:
        fd = self.streams.stdin_fd()
        if fd is None:
            return
        if not self.streams.flush_stdin():
            self._loop.watch(fd, select.EPOLLOUT, lambda _: None)  # each round ends here again
            return
        self._loop.unwatch(fd)
        if self.streams.stdin_ending:
            self.streams.close_stdin()

    def _watch_client(self, client: Attached) -> None:
        """Watch a client for just what it may do now; let go of it when it is gone."""
        fd = client.sock.fileno()
        if client.gone:
            self._close(client)
            self.attached.remove(client)
            self._input_ended(client)
            return
        if client.lingers_until is not None:
            self._loop.watch(fd, select.EPOLLIN, lambda _: None)  # each round ends here again
            return
        events = select.EPOLLOUT if client.buffer and not client.held else 0
        if not client.input_ended and self.streams.wants_stdin():
            events |= select.EPOLLIN
        self._loop.watch(fd, events, lambda seen: self._client_event(client, seen))

    def _client_event(self, client: Attached, events: int) -> None:
        if client.input_ended:
            client.happened(events)
            return
        client.happened(events & ~select.EPOLLHUP)  # input may be left to be read
        if events & (select.EPOLLIN | select.EPOLLHUP):
            data = client.read()
            if data is None:
                self._input_ended(client)
            elif client.wants_stdin:
                self.streams.queue_stdin(data)

    def _hold_ended(self, client: Attached, hold: int) -> None:
        self._loop.unwatch(hold)
        client.hold_ended()

    def _close(self, client: Attached) -> None:
        self._loop.unwatch(client.sock.fileno())
        if client.hold is not None:
            self._loop.unwatch(client.hold)
        client.close()

    def _input_ended(self, client: Attached) -> None:
        if client.input_ended:
            return
        client.input_ended = True
        if client.wants_stdin and self._stdin_once:
            self.streams.end_stdin()
