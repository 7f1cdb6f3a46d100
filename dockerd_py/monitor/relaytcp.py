"""Published TCP ports: a connection to the container for each that a client makes."""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from typing import TYPE_CHECKING

from dockerd_py.monitor.loop import Handler

if TYPE_CHECKING:
    from dockerd_py.monitor.relay import Relay

ACCEPTS = 4  # of one port at once
SYN_RETRIES = 4  # some 30 seconds
KEEPALIVE = (120, 15, 4)  # seconds of silence, between probes; probes: a peer that is gone frees its descriptors

RESET = struct.pack("ii", 1, 0)  # struct linger: close(2) resets the connection

_GONE = select.EPOLLHUP | select.EPOLLERR


class Listener:
    def __init__(self, relay: Relay, sock: socket.socket, target: tuple[str, int], family: int) -> None:
        self._relay = relay
        self._target = target
        self._family = family
        self.sock = sock
        _set_up(sock)  # accepted sockets have what the listening one has: tcp(7)
        self.listen()

    def aim(self, address: str, family: int) -> None:
        self._target, self._family = (address, self._target[1]), family

    def listen(self) -> None:
        self._relay.loop.watch(self.sock.fileno(), select.EPOLLIN, self._accept)

    def _accept(self, _: int) -> None:
        for _ in range(ACCEPTS):
            if self._relay.full:
                self._relay.pause()
                return
            try:
                client, _address = self.sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._relay.pause()
                    return
                continue  # of the connection that was to be accepted: accept(2)
            Connection.open(self._relay, client, self._target, self._family)


def _set_up(sock: socket.socket) -> None:
    idle, interval, probes = KEEPALIVE
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, probes)


class _Direction:
    """What goes from one end of a connection to the other."""

    __slots__ = ("ended", "rest", "sink", "source")

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.rest = b""  # read, and not sent yet
        self.ended = False  # and the sink knows

    def pump(self, buffer: memoryview) -> bool:
        """Send what is left, or read once and send that.  Whether anything was sent.  Raises OSError for a reset."""
        if self.rest:
            return self.flush()
        if self.ended:
            return False
        try:
            count = self.source.recv_into(buffer)
        except BlockingIOError:
            return False
        if not count:
            self.ended = True
            self.sink.shutdown(socket.SHUT_WR)
            return True
        sent = self._send(buffer[:count])
        if sent < count:
            self.rest = bytes(buffer[sent:count])
        return sent > 0

    def flush(self) -> bool:
        sent = self._send(memoryview(self.rest))
        self.rest = self.rest[sent:]
        return sent > 0

    def _send(self, data: memoryview) -> int:
        try:
            return self.sink.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0


class Connection:
    """One TCP connection of a client's, and the one to the container that goes with it."""

    @staticmethod
    def open(relay: Relay, client: socket.socket, target: tuple[str, int], family: int) -> None:
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError:
            _reset(client)
            relay.pause()  # there is no descriptor left
            return
        sock.setblocking(False)
        client.setblocking(False)
        _set_up(sock)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, SYN_RETRIES)
        if sock.connect_ex(target) not in (0, errno.EINPROGRESS):
            _reset(client)
            sock.close()
            return
        Connection(relay, client, sock)

    def __init__(self, relay: Relay, client: socket.socket, target: socket.socket) -> None:
        self._relay = relay
        self._client = client
        self._target = target
        self._connected = False
        self._in = _Direction(client, target)
        self._out = _Direction(target, client)
        relay.connections.add(self)
        self._watch_for_connect()

    def _watch_for_connect(self) -> None:
        loop = self._relay.loop
        loop.watch(self._target.fileno(), select.EPOLLOUT, self._connect_ended)
        loop.watch(self._client.fileno(), 0, lambda _: self.reset())  # only of its reset are we told

    def _connect_ended(self, _: int) -> None:
        if self._target.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0:
            self.reset()
            return
        self._connected = True
        self._watch()

    def _from_client(self, events: int) -> None:
        if events & _GONE and (self._in.rest or self._in.ended):
            self.reset()  # there is nothing to be read now that would tell us
            return
        self._happened(events, self._in, self._out)

    def _from_target(self, events: int) -> None:
        if events & _GONE and self._out.ended:
            self.reset()
        elif events & _GONE and self._out.rest:
            self._relay.loop.unwatch(self._target.fileno())  # what it has sent is still for the client
        else:
            self._happened(events, self._out, self._in)

    def _happened(self, events: int, read: _Direction, written: _Direction) -> None:
        moved = False
        try:
            if events & select.EPOLLOUT and written.rest:
                moved = written.flush()
            if events & (select.EPOLLIN | _GONE):
                moved |= read.pump(self._relay.share)
        except OSError:
            self.reset()
            return
        if moved and self._relay.ended:
            self._relay.progressed = time.monotonic()
        self._watch()

    def _watch(self) -> None:
        """Watch each end for just what can be done with it now; let go of a connection that is over."""
        if self._out.ended and (self._in.ended or self._relay.ended):
            self._close()
            return
        self._watch_end(self._client, self._in, self._out, self._from_client)
        self._watch_end(self._target, self._out, self._in, self._from_target)

    def _watch_end(self, end: socket.socket, read: _Direction, written: _Direction, handler: Handler) -> None:
        events = 0 if read.rest or read.ended else select.EPOLLIN
        if written.rest:
            events |= select.EPOLLOUT
        if events or not written.ended:
            self._relay.loop.watch(end.fileno(), events, handler)
        else:
            # once both sides have ended theirs epoll(7) tells so again and again
            self._relay.loop.unwatch(end.fileno())

    def target_ended(self) -> None:
        """The container has ended: nothing but what it has sent is of interest."""
        if self._connected:
            self._watch()
        else:
            self.reset()

    def reset(self) -> None:
        """Both ends see that something went wrong."""
        for end in (self._client, self._target):
            self._relay.loop.unwatch(end.fileno())
            _reset(end)
        self._relay.connections.discard(self)

    def _close(self) -> None:
        for end in (self._client, self._target):
            self._relay.loop.unwatch(end.fileno())
            end.close()
        self._relay.connections.discard(self)


def _reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()
