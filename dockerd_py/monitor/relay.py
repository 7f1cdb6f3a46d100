"""A container's published ports: what reaches the host's sockets is relayed to the container's address.

TCP keeps half-closed connections and resets (`relaytcp`); UDP has one socket a client, so that each gets its own
answers (`relayudp`).  What is buffered is bounded: of a connection nothing is read before what was read has been sent.
All of it shares one turn of the monitor's loop with the container's streams: a flood on a port does not hold up the
log.  SCTP ports are only held.

Imported by the monitor of a container that has ports, at the first of them.
"""

from __future__ import annotations

import resource
import select
import socket
import time
from collections import OrderedDict

from dockerd_py.monitor.control import SPARE_FDS
from dockerd_py.monitor.loop import Loop
from dockerd_py.monitor.relaytcp import Connection, Listener
from dockerd_py.monitor.relayudp import UdpClient, UdpPort

EVENTS = 8  # handled in one turn of the monitor's loop
BUFFER = 128 * 1024  # for one reading; the rest of it that a slow peer does not take is kept
LEAST_BUFFER = 4096
BUFFERED = 32 * 1024 * 1024  # what is kept for slow peers: no more a connection than its share of this
UDP_CLIENTS = 1024  # beyond these, the one that has been silent longest is forgotten
UDP_SECONDS = 90.0  # of silence in both directions
RETRY_SECONDS = 0.1  # when there were too many connections, or no descriptors
LINGER_SECONDS = 10.0  # how long, after the container's end, a client may take nothing of what it sent
LINGER_MOST = 300.0  # and in all, though it takes a little now and then


class Relay:
    """`settle` is to be called when `due` is past, and whenever; everything else comes by the monitor's loop."""

    def __init__(self, outer: Loop) -> None:
        self._outer = outer
        self.loop = Loop()
        self._buffer: memoryview | None = None
        self.connections: set[Connection] = set()
        self.clients: OrderedDict[tuple[int, tuple[object, ...], bytes], UdpClient] = OrderedDict()
        # the last quarter is for who attaches, and for execs
        self._fds = (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FDS) * 3 // 4
        self._ports: list[Listener | UdpPort | HeldPort] = []
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
            socket.inet_pton(_family(address), address)
            sock.setblocking(False)
            if protocol == "tcp":
                self._ports.append(Listener(self, sock, (address, port), _family(address)))
            elif protocol == "udp":
                self._ports.append(UdpPort(self, sock, (address, port), _family(address)))
            elif protocol == "sctp":
                self._ports.append(HeldPort(sock))
            else:
                raise ValueError(f"cannot relay {protocol}")
        except (ValueError, OSError):
            sock.close()
            raise

    def aim(self, address: str) -> None:
        """From now on all ports lead to this address; what led to the old one is reset.  Raises ValueError, OSError."""
        family = _family(address)
        socket.inet_pton(family, address)
        self._let_go()
        for connection in list(self.connections):
            connection.reset()
        for port in self._ports:
            port.aim(address, family)

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
            for listener in self._listeners():
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
        for listener in self._listeners():
            self.loop.unwatch(listener.sock.fileno())

    def remember(self, client: UdpClient) -> None:
        self.clients[client.key] = client
        while len(self.clients) > UDP_CLIENTS:
            self.forget(next(iter(self.clients.values())))

    def forget(self, client: UdpClient) -> None:
        del self.clients[client.key]
        client.close()

    def release(self) -> None:
        """The container has ended: give the ports back at once.  Connections get what is under way to the client."""
        self.ended = True
        self._retry_at = None
        self._let_go()
        for port in self._ports:
            self.loop.unwatch(port.sock.fileno())
            port.sock.close()
        self._ports.clear()
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

    def _let_go(self) -> None:
        for client in list(self.clients.values()):
            self.forget(client)

    def _listeners(self) -> list[Listener]:
        return [port for port in self._ports if isinstance(port, Listener)]


class HeldPort:
    """A port that is not relayed."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def aim(self, address: str, family: int) -> None:
        """Nothing leads anywhere."""


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
