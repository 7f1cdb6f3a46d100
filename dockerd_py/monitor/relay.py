"""A container's published ports: what reaches the host's sockets is relayed to the container's address.

TCP keeps half-closed connections and resets; UDP has one socket a client, so that each gets its own answers.  What is
buffered is bounded: of a connection nothing is read before what was read has been sent.  All of it shares one turn of
the monitor's loop with the container's streams: a flood on a port does not hold up the log.  SCTP ports are only held.

Imported by the monitor of a container that has ports, at the first of them.
"""

from __future__ import annotations

import errno
import resource
import select
import socket
import struct
import time
from collections import OrderedDict

from dockerd_py.monitor.control import SPARE_FDS
from dockerd_py.monitor.loop import Handler, Loop

EVENTS = 8  # handled in one turn of the monitor's loop
ACCEPTS = 4  # of one port at once
DATAGRAMS = 8
BUFFER = 128 * 1024  # for one reading; the rest of it that a slow peer does not take is kept
LEAST_BUFFER = 4096
BUFFERED = 32 * 1024 * 1024  # what is kept for slow peers: no more a connection than its share of this
UDP_CLIENTS = 1024  # beyond these, the one that has been silent longest is forgotten
UDP_SECONDS = 90.0  # of silence in both directions
RETRY_SECONDS = 0.1  # when there were too many connections, or no descriptors
LINGER_SECONDS = 10.0  # how long, after the container's end, a client may take nothing of what it sent
LINGER_MOST = 300.0  # and in all, though it takes a little now and then
SYN_RETRIES = 4  # some 30 seconds
KEEPALIVE = (120, 15, 4)  # seconds of silence, between probes; probes: a peer that is gone frees its descriptors

IP_PKTINFO = 8  # ip(7); the socket module has no name for it before Python 3.14

RESET = struct.pack("ii", 1, 0)  # struct linger: close(2) resets the connection

_GONE = select.EPOLLHUP | select.EPOLLERR


class Relay:
    """`settle` is to be called when `due` is past, and whenever; everything else comes by the monitor's loop."""

    def __init__(self, outer: Loop) -> None:
        self._outer = outer
        self.loop = Loop()
        self._buffer: memoryview | None = None
        self.connections: set[_Connection] = set()
        self.clients: OrderedDict[tuple[int, tuple[object, ...], bytes], _UdpClient] = OrderedDict()
        # the last quarter is for who attaches, and for execs
        self._fds = (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FDS) * 3 // 4
        self._ports: list[socket.socket] = []
        self._listeners: list[_Listener] = []
        self._retry_at: float | None = None
        self.ended = False
        self.released = 0.0
        self.progressed = 0.0  # on the monotonic clock; counts after the container's end only
        outer.watch(self.loop.fileno(), select.EPOLLIN, lambda _: self.turn())

    def add(self, sock: socket.socket, protocol: str, address: str, port: int) -> None:
        """Relay what comes to ``sock``, which this takes.  Raises ValueError, OSError: it is closed then."""
        try:
            if self.ended:
                raise ValueError("the container has ended")
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            socket.inet_pton(family, address)
            sock.setblocking(False)
            if protocol == "tcp":
                self._listeners.append(_Listener(self, sock, (address, port), family))
            elif protocol == "udp":
                _UdpPort(self, sock, (address, port), family)
            elif protocol != "sctp":
                raise ValueError(f"cannot relay {protocol}")
        except (ValueError, OSError):
            sock.close()
            raise
        self._ports.append(sock)

    def turn(self) -> None:
        self.loop.turn(0, EVENTS)

    @property
    def due(self) -> list[float]:
        """The times on the monotonic clock after which `settle` has something to do."""
        times = [] if self._retry_at is None else [self._retry_at]
        if self.clients:
            times.append(next(iter(self.clients.values())).used + UDP_SECONDS)
        return times

    def settle(self, now: float) -> None:
        while self.clients:
            client = next(iter(self.clients.values()))
            if now < client.used + UDP_SECONDS:
                break
            self.forget(client)
        if self._retry_at is not None and now >= self._retry_at:
            self._retry_at = None
            for listener in self._listeners:
                listener.listen()

    @property
    def full(self) -> bool:
        return 2 * len(self.connections) + len(self.clients) >= self._fds

    @property
    def buffer(self) -> memoryview:
        """For one reading at a time.  Ports that nobody uses cost no memory for it."""
        if self._buffer is None:
            self._buffer = memoryview(bytearray(BUFFER))
        return self._buffer

    @property
    def share(self) -> memoryview:
        """Where one connection may read to."""
        return self.buffer[: max(LEAST_BUFFER, min(BUFFER, BUFFERED // (2 * len(self.connections) or 1)))]

    def pause(self) -> None:
        """Accept nothing for a moment: clients wait in the kernel's queue."""
        self._retry_at = time.monotonic() + RETRY_SECONDS
        for listener in self._listeners:
            self.loop.unwatch(listener.sock.fileno())

    def remember(self, client: _UdpClient) -> None:
        self.clients[client.key] = client
        while len(self.clients) > UDP_CLIENTS:
            self.forget(next(iter(self.clients.values())))

    def forget(self, client: _UdpClient) -> None:
        del self.clients[client.key]
        client.close()

    def release(self) -> None:
        """The container has ended: give the ports back at once.  Connections get what is under way to the client."""
        self.ended = True
        self._retry_at = None
        for client in list(self.clients.values()):
            self.forget(client)
        for sock in self._ports:
            self.loop.unwatch(sock.fileno())
            sock.close()
        self._ports.clear()
        self._listeners.clear()
        for connection in list(self.connections):
            connection.target_ended()
        self.released = self.progressed = time.monotonic()

    def lingers(self, now: float) -> bool:
        """After `release`: whether a client still takes something of what the container sent."""
        return bool(self.connections) and now < min(self.progressed + LINGER_SECONDS, self.released + LINGER_MOST)

    def close(self) -> None:
        """Give the ports back and reset the connections."""
        self.release()
        for connection in list(self.connections):
            connection.reset()
        self._outer.unwatch(self.loop.fileno())
        self.loop.close()


class _Listener:
    def __init__(self, relay: Relay, sock: socket.socket, target: tuple[str, int], family: int) -> None:
        self._relay = relay
        self._target = target
        self._family = family
        self.sock = sock
        _set_up(sock)  # accepted sockets have what the listening one has: tcp(7)
        self.listen()

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
            _Connection.open(self._relay, client, self._target, self._family)


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


class _Connection:
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
        _Connection(relay, client, sock)

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


class _UdpPort:
    """One UDP socket of the host's."""

    def __init__(self, relay: Relay, sock: socket.socket, target: tuple[str, int], family: int) -> None:
        self._relay = relay
        self._target = target
        self._family = family
        self.sock = sock
        # an answer has to come from the address that was asked, of which the host may have several
        if sock.family == socket.AF_INET6:
            self._level, option, self._kind = socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, socket.IPV6_PKTINFO
        else:
            self._level, option, self._kind = socket.IPPROTO_IP, IP_PKTINFO, IP_PKTINFO
        sock.setsockopt(self._level, option, 1)
        relay.loop.watch(sock.fileno(), select.EPOLLIN, self._receive)

    def _receive(self, _: int) -> None:
        relay = self._relay
        now = time.monotonic()
        for _ in range(DATAGRAMS):
            try:
                count, ancillary, _flags, address = self.sock.recvmsg_into([relay.buffer], 64)
            except BlockingIOError:
                return
            except OSError:
                continue  # an error that some earlier answer met: ip(7)
            asked = self._asked(ancillary)
            client = relay.clients.get((self.sock.fileno(), address, asked))
            if client is None:
                client = self._make_client(address, asked)
                if client is None:
                    continue
            client.send(relay.buffer[:count], now)

    def _asked(self, ancillary: list[tuple[int, int, bytes]]) -> bytes:
        """What sendmsg(2) is to be told for an answer from the address that was asked; b"" to choose one itself."""
        for level, kind, data in ancillary:
            if (level, kind) != (self._level, self._kind):
                continue
            if self._level == socket.IPPROTO_IPV6:  # struct in6_pktinfo: address, index of the interface
                return b"" if data[0] == 0xFF else data
            return bytes(4) + data[4:8] + bytes(4)  # struct in_pktinfo: index, local address, destination
        return b""

    def _make_client(self, address: tuple[object, ...], asked: bytes) -> _UdpClient | None:
        try:
            sock = socket.socket(self._family, socket.SOCK_DGRAM)
        except OSError:
            return None  # no descriptor is left; datagrams may be lost
        try:
            sock.setblocking(False)
            sock.connect(self._target)
        except OSError:
            sock.close()
            return None
        ancillary = [(self._level, self._kind, asked)] if asked else []
        client = _UdpClient(self._relay, sock, self.sock, address, ancillary, (self.sock.fileno(), address, asked))
        self._relay.remember(client)
        return client


class _UdpClient:
    """One client of a port, with a socket of its own towards the container."""

    def __init__(
        self,
        relay: Relay,
        sock: socket.socket,
        port: socket.socket,
        address: tuple[object, ...],
        ancillary: list[tuple[int, int, bytes]],
        key: tuple[int, tuple[object, ...], bytes],
    ) -> None:
        self._relay = relay
        self._sock = sock
        self._port = port
        self._address = address
        self._ancillary = ancillary
        self.key = key
        self.used = 0.0  # on the monotonic clock
        relay.loop.watch(sock.fileno(), select.EPOLLIN, self._receive)

    def send(self, data: memoryview, now: float) -> None:
        self.used = now
        self._relay.clients.move_to_end(self.key)
        for _ in range(2):
            try:
                self._sock.send(data)
                return
            except ConnectionRefusedError:
                continue  # that was an earlier one, which nobody took; this one was not sent: udp(7)
            except OSError:
                return  # datagrams may be lost

    def _receive(self, _: int) -> None:
        buffer = self._relay.buffer
        self.used = time.monotonic()
        self._relay.clients.move_to_end(self.key)
        for _ in range(DATAGRAMS):
            try:
                count = self._sock.recv_into(buffer)
            except BlockingIOError:
                return
            except OSError:
                continue  # nobody listens there at the moment
            try:
                self._port.sendmsg([buffer[:count]], self._ancillary, 0, self._address)
            except OSError:
                continue  # datagrams may be lost

    def close(self) -> None:
        self._relay.loop.unwatch(self._sock.fileno())
        self._sock.close()
