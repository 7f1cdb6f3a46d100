"""Questions to upstream servers, from the network namespace of the service, which is the host's.

Every attempt has a socket of its own, connected, so its port is one that the kernel has chosen and only packets of that
server come in; id and question are compared, too (RFC 5452).  The same question of one container that is being asked
already waits for that answer: no container makes more than one of them, and servers that ask us again what we have
asked them (a forwarder in a container that is its own upstream server) wait for themselves until the time-out, instead
of going round.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import resource
import select
import socket
from collections.abc import Callable
from typing import NamedTuple

from dockerd_py.nat.dns import message, redirect
from dockerd_py.nat.dns.loop import READ, WRITE, Loop, Timer
from dockerd_py.nat.dns.message import Query
from dockerd_py.nat.dns.model import NameEntry

ATTEMPT_SECONDS = 1.5
ATTEMPTS = 3  # in all, so that the asker has its answer within the 5 seconds that resolvers wait; or one a server
MAX_SERVERS = 6
MAX_WAITING = 256  # of one container
MAX_ALL = 4096
SPARE = 8  # what each container may have beyond that
PORT = 53

Reply = Callable[[Query, bytes], None]


class Server(NamedTuple):
    family: socket.AddressFamily
    address: tuple[str, int] | tuple[str, int, int, int]
    inside: bool = False  # asked from the container's namespace


def servers_of(entry: NameEntry) -> tuple[Server, ...]:
    """Where to send to.  Left out is what is no address, or of an interface that is not there, and what cannot be:
    ourselves, and the container's ::1."""
    found: list[Server] = []
    for text in entry.servers:
        name, _, zone = text.partition("%")
        with contextlib.suppress(ValueError, OSError):
            given = ipaddress.ip_address(name)
            address = getattr(given, "ipv4_mapped", None) or given
            # to the kernel, the address of nobody is the asker's own loopback
            inside = entry.own_loopback and (address.is_loopback or address.is_unspecified)
            if address.version == 4:
                name = "127.0.0.1" if inside and address.is_unspecified else str(address)
                if not (inside and name == redirect.ADDRESS):
                    found.append(Server(socket.AF_INET, (name, PORT), inside))
            elif not inside:
                found.append(Server(socket.AF_INET6, (name, PORT, 0, _index(zone))))
    return tuple(found[:MAX_SERVERS])


class Inside:
    """One socket in a container's namespace, by which its own loopback is asked."""

    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        """The socket stays the caller's, who closes it after `close`."""
        self._loop = loop
        self._sock = sock
        self._takers: dict[int, Callable[[bytes, object], None]] = {}
        loop.watch(sock.fileno(), READ, self._readable)

    def close(self) -> None:
        self._loop.unwatch(self._sock.fileno())

    def send(self, query: Query, server: Server, take: Callable[[bytes, object], None]) -> int:
        """Have ``take`` called with each packet of that number, and its sender, until `forget`.  Raises OSError."""
        number = _number()
        while number in self._takers:
            number = _number()
        self._sock.sendto(query.upstream(number), server.address)
        self._takers[number] = take
        return number

    def forget(self, number: int) -> None:
        self._takers.pop(number, None)

    def _readable(self, _events: int) -> None:
        try:
            answer, sender = self._sock.recvfrom(message.MAX_MESSAGE)
        except OSError:
            return
        take = self._takers.get(int.from_bytes(answer[:2], "big"))
        if take is not None:
            take(answer, sender)


class Forwarder:
    """What containers have asked upstream and not been told yet."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.waiting = 0  # askers, of all containers

    @property
    def busy(self) -> bool:
        """Each question may take a descriptor for each attempt: half of them stay free for who comes next."""
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return self.waiting >= min(MAX_ALL, most // (2 * MAX_SERVERS))


class Upstream:
    """The upstream servers of one container."""

    def __init__(self, forwarder: Forwarder, servers: tuple[Server, ...], inside: Inside) -> None:
        self.servers = servers
        self.inside = inside
        self.forwarder = forwarder
        self._jobs: dict[object, _Job] = {}
        self._waiting = 0

    def ask(self, query: Query, reply: Reply, *, tcp: bool) -> None:
        """Call ``reply`` once, later or at once, with ``query`` and an answer for `Query.relay` to fit to its asker."""
        if not self.servers:
            reply(query, query.reply(message.NO_SUCH_NAME))
            return
        allowed = SPARE if self.forwarder.busy else MAX_WAITING
        if self._waiting >= allowed:
            reply(query, query.reply(message.REFUSED))
            return
        self._waiting += 1
        self.forwarder.waiting += 1
        key = (query.key, tcp)
        job = self._jobs.get(key)
        if job is None:
            job = self._jobs[key] = _Job(self, query, lambda: self._done(key), tcp=tcp)
            job.waiting.append((query, reply))
            job.next()
        else:
            job.waiting.append((query, reply))

    def close(self) -> None:
        """Forget all questions; nobody gets a reply."""
        for job in list(self._jobs.values()):
            count = len(job.waiting)
            job.waiting.clear()
            job.finish(None)
            self._waiting -= count
            self.forwarder.waiting -= count

    def _done(self, key: object) -> None:
        job = self._jobs.pop(key)
        self._waiting -= len(job.waiting)
        self.forwarder.waiting -= len(job.waiting)


class _Job:
    """One question and its attempts."""

    def __init__(self, upstream: Upstream, query: Query, done: Callable[[], None], *, tcp: bool) -> None:
        self.waiting: list[tuple[Query, Reply]] = []
        self._loop = upstream.forwarder.loop
        self._inside = upstream.inside
        self._numbers: list[int] = []  # of the packets to servers inside
        self._query = query
        self._tcp = tcp
        self._on_done = done
        self._servers = list(upstream.servers)  # those that have not failed, the next one first
        self._left = max(ATTEMPTS, len(upstream.servers))
        self._open: dict[int, socket.socket] = {}
        self._timer: Timer | None = None
        self._refused: bytes | None = None  # a server's answer that is none, while another may do better
        self._ended = False

    def next(self) -> None:
        """Another attempt, if there is one left."""
        if self._timer is not None:
            self._timer.cancel()
        while not self._ended:
            if not self._left or not self._servers:
                self.finish(self._refused)
                return
            self._left -= 1
            server = self._servers.pop(0)
            self._servers.append(server)
            try:
                self._send(server)
            except OSError:
                self._servers.remove(server)
                continue
            self._timer = self._loop.later(ATTEMPT_SECONDS, self.next)
            return

    def finish(self, answer: bytes | None) -> None:
        """Close everything; tell all who wait.  None: no server has answered."""
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        for fd in list(self._open):
            self._close(fd)
        for number in self._numbers:
            self._inside.forget(number)
        self._on_done()
        waiting, self.waiting = self.waiting, []
        for query, reply in waiting:
            reply(query, query.reply(message.SERVER_FAILURE) if answer is None else answer)

    def _send(self, server: Server) -> None:
        """Raises OSError."""
        if server.inside:
            self._send_inside(server)
            return
        sock = socket.socket(server.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        number = _number()
        try:
            sock.connect(server.address)
            sock.send(self._query.upstream(number))
        except OSError:
            sock.close()
            raise
        self._open[sock.fileno()] = sock
        self._loop.watch(sock.fileno(), READ, lambda _events: self._readable(sock, server, number))

    def _send_inside(self, server: Server) -> None:
        """Raises OSError."""

        def take(answer: bytes, sender: object) -> None:
            if sender == server.address and self._query.answers(answer, number):
                self._take(answer, server)

        number = self._inside.send(self._query, server, take)
        self._numbers.append(number)

    def _readable(self, sock: socket.socket, server: Server, number: int) -> None:
        try:
            answer = sock.recv(message.MAX_MESSAGE)
        except BlockingIOError:
            return
        except OSError:  # the ICMP messages that say: nobody is there
            self._failed(sock, server)
            return
        if not self._query.answers(answer, number):
            return  # somebody else's, or late, or forged: the right one may still come
        self._close(sock.fileno())
        if message.is_truncated(answer) and self._tcp:
            try:
                self._connect(server)
            except OSError:
                self._failed(None, server)
            return
        self._take(answer, server)

    def _take(self, answer: bytes, server: Server) -> None:
        if message.code_of(answer) in (message.SERVER_FAILURE, message.REFUSED, message.NOT_IMPLEMENTED):
            self._refused = answer
            self._failed(None, server)
        else:
            self.finish(answer)

    def _failed(self, sock: socket.socket | None, server: Server) -> None:
        if sock is not None:
            self._close(sock.fileno())
        with contextlib.suppress(ValueError):
            self._servers.remove(server)
        self.next()

    def _connect(self, server: Server) -> None:
        """Ask again, by TCP.  Raises OSError."""
        sock = socket.socket(server.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        with contextlib.suppress(BlockingIOError):
            try:
                sock.connect(server.address)
            except BlockingIOError:
                raise
            except OSError:
                sock.close()
                raise
        number = _number()
        query = self._query.upstream(number)
        exchange = _Stream(len(query).to_bytes(2, "big") + query)

        def ready(events: int) -> None:
            try:
                answer = exchange.go_on(sock, events)
            except (OSError, EOFError):
                self._failed(sock, server)
                return
            if exchange.sent:
                self._loop.watch(sock.fileno(), READ, ready)
            if answer is not None:
                if self._query.answers(answer, number):
                    self._close(sock.fileno())
                    self._take(answer, server)
                else:
                    self._failed(sock, server)

        self._open[sock.fileno()] = sock
        self._loop.watch(sock.fileno(), WRITE, ready)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.later(ATTEMPT_SECONDS, self.next)

    def _close(self, fd: int) -> None:
        sock = self._open.pop(fd, None)
        if sock is not None:
            self._loop.unwatch(fd)
            sock.close()


class _Stream:
    """One message out and one in, each behind its length (RFC 1035 4.2.2)."""

    def __init__(self, out: bytes) -> None:
        self._out = out
        self._in = bytearray()

    @property
    def sent(self) -> bool:
        return not self._out

    def go_on(self, sock: socket.socket, events: int) -> bytes | None:
        """The answer, once it is whole.  Raises OSError, EOFError."""
        with contextlib.suppress(BlockingIOError):
            if self._out and events & (WRITE | select.EPOLLERR | select.EPOLLHUP):
                self._out = self._out[sock.send(self._out) :]
            if not self._out:
                data = sock.recv(2 + message.MAX_MESSAGE - len(self._in))
                if not data:
                    raise EOFError
                self._in += data
        size = int.from_bytes(self._in[:2], "big") if len(self._in) >= 2 else None
        if size is not None and len(self._in) >= 2 + size:
            return bytes(self._in[2 : 2 + size])
        return None


def _number() -> int:
    return int.from_bytes(os.urandom(2), "big")


def _index(zone: str) -> int:
    return socket.if_nametoindex(zone) if zone else 0
