"""One container's questions: its two sockets, its TCP clients, its answers.

What a container can make the service do is bounded here: so many packets a round, so many clients, each for so long.
Further packets wait in the kernel's buffers, which are bounded, too.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable

from dockerd_py.nat.dns import message
from dockerd_py.nat.dns.directory import Directory
from dockerd_py.nat.dns.forward import Forwarder, Inside, Upstream, servers_of
from dockerd_py.nat.dns.loop import READ, WRITE, Loop
from dockerd_py.nat.dns.message import Query, Refusal
from dockerd_py.nat.dns.model import NameEntry
from dockerd_py.nat.dns.sockets import Sockets

log = logging.getLogger(__name__)

PACKETS_A_ROUND = 16
MAX_CLIENTS = 32
CLIENT_SECONDS = 10.0
PAUSE_SECONDS = 1.0  # without file descriptors


class Server:
    def __init__(self, loop: Loop, directory: Directory, forwarder: Forwarder, entry: NameEntry, own: Sockets) -> None:
        self.entry = entry
        self._loop = loop
        self._directory = directory
        self._own_sockets = own
        self.ports = own.ports
        self._inside = Inside(loop, own.out)
        self._upstream = Upstream(forwarder, servers_of(entry), self._inside)
        self._clients: set[_Client] = set()
        self._closed = False
        for sock in own:
            sock.setblocking(False)
        loop.watch(own.udp.fileno(), READ, self._packets)
        loop.watch(own.tcp.fileno(), READ, self._connections)

    def change(self, entry: NameEntry) -> None:
        """The directory has it already."""
        servers = servers_of(entry)
        if servers != self._upstream.servers:
            old = self._upstream
            self._upstream = Upstream(old.forwarder, servers, self._inside)
            old.close()
        self.entry = entry

    def close(self) -> None:
        """Let go of the namespace."""
        self._closed = True
        self._upstream.close()
        for client in list(self._clients):
            client.close()
        self._inside.close()
        for sock in self._own_sockets:
            self._loop.unwatch(sock.fileno())
        self._own_sockets.close()

    def answer(self, data: bytes, reply: Callable[[bytes], None], *, tcp: bool) -> None:
        """Call ``reply`` once, now or later, with what is to be sent; or never, for what is no question at all."""
        try:
            query = message.parse(data)
        except Refusal as refusal:
            if refusal.reply:
                reply(refusal.reply)
            return
        limit = message.MAX_MESSAGE if tcp else query.size
        records = self._own(query)
        if records is not None:
            reply(query.reply(message.NO_ERROR, records, limit))
        elif not self.entry.forwards:
            reply(query.reply(message.SERVER_FAILURE))
        else:
            self._upstream.ask(query, lambda asker, text: reply(asker.relay(text, limit)), tcp=tcp)

    def _own(self, query: Query) -> list[bytes] | None:
        """Records, none for a name of ours without that type; None for a name that is not ours."""
        if not query.name:
            return None
        address = message.reverse_address(query.name)
        if address:
            names = self._directory.names(self.entry, address)
            if not names:
                return None
            records = []
            for name in names if query.kind in (message.PTR, message.ANY) else ():
                with contextlib.suppress(ValueError):
                    records.append(message.pointer_record(name))
            return records
        found = self._directory.addresses(self.entry, query.name)
        if found is None:
            return None
        sizes = {message.A: (4,), message.AAAA: (16,), message.ANY: (4, 16)}.get(query.kind, ())
        return message.shuffled(message.address_record(each) for each in found if len(each) in sizes)

    def _packets(self, _events: int) -> None:
        for _ in range(PACKETS_A_ROUND):
            try:
                data, sender = self._own_sockets.udp.recvfrom(message.MAX_QUERY + 1)
            except OSError:  # none left, or the network's word about an answer of ours that nobody took
                return
            self.answer(data, lambda text, sender=sender: self._send(text, sender), tcp=False)  # type: ignore[misc]

    def _send(self, text: bytes, sender: tuple[str, int]) -> None:
        # a full buffer, an asker that is gone: the answer is lost as any packet may be
        with contextlib.suppress(OSError):
            self._own_sockets.udp.sendto(text, sender)

    def _connections(self, _events: int) -> None:
        if len(self._clients) >= MAX_CLIENTS:
            self._loop.unwatch(self._own_sockets.tcp.fileno())  # the next ones wait in the backlog
            return
        try:
            sock, _ = self._own_sockets.tcp.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            log.warning("no connection to %s is taken: %s", self.entry.container_id[:12], error)
            self._loop.unwatch(self._own_sockets.tcp.fileno())
            self._loop.later(PAUSE_SECONDS, self._listen)
            return
        self._clients.add(_Client(self._loop, self, sock))

    def gone(self, client: _Client) -> None:
        self._clients.discard(client)
        self._listen()

    def _listen(self) -> None:
        if not self._closed:
            self._loop.watch(self._own_sockets.tcp.fileno(), READ, self._connections)


class _Client:
    """One connection: a question at a time, and the next is read when its answer is written."""

    def __init__(self, loop: Loop, server: Server, sock: socket.socket) -> None:
        self._loop = loop
        self._server = server
        self._sock = sock
        self._in = bytearray()
        self._out = b""
        self._timer = loop.later(CLIENT_SECONDS, self.close)
        sock.setblocking(False)
        loop.watch(sock.fileno(), READ, self._readable)

    def close(self) -> None:
        if self._sock.fileno() < 0:
            return
        self._timer.cancel()
        self._loop.unwatch(self._sock.fileno())
        self._sock.close()
        self._server.gone(self)

    def _readable(self, _events: int) -> None:
        try:
            data = self._sock.recv(2 + message.MAX_QUERY - len(self._in))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._in += data
        self._next()

    def _next(self) -> None:
        if len(self._in) < 2:
            return
        size = int.from_bytes(self._in[:2], "big")
        if not 12 <= size <= message.MAX_QUERY:
            self.close()
            return
        if len(self._in) < 2 + size:
            return
        query = bytes(self._in[2 : 2 + size])
        del self._in[: 2 + size]
        self._loop.unwatch(self._sock.fileno())
        self._more_time()
        self._server.answer(query, self._reply, tcp=True)

    def _reply(self, text: bytes) -> None:
        if self._sock.fileno() < 0:
            return
        self._out = len(text).to_bytes(2, "big") + text
        self._more_time()
        self._loop.watch(self._sock.fileno(), WRITE, self._writable)

    def _more_time(self) -> None:
        self._timer.cancel()
        self._timer = self._loop.later(CLIENT_SECONDS, self.close)

    def _writable(self, _events: int) -> None:
        try:
            self._out = self._out[self._sock.send(self._out) :]
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not self._out:
            self._loop.watch(self._sock.fileno(), READ, self._readable)
            self._next()
