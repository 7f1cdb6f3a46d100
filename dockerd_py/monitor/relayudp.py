"""Published UDP ports: a socket to the container for each client, by which its answers are known."""

from __future__ import annotations

import select
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dockerd_py.monitor.relay import Relay

DATAGRAMS = 8  # of one port at once

IP_PKTINFO = 8  # ip(7); the socket module has no name for it before Python 3.14


class UdpPort:
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

    def aim(self, address: str, family: int) -> None:
        self._target, self._family = (address, self._target[1]), family

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

    def _make_client(self, address: tuple[object, ...], asked: bytes) -> UdpClient | None:
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
        client = UdpClient(self._relay, sock, self.sock, address, ancillary, (self.sock.fileno(), address, asked))
        self._relay.remember(client)
        return client


class UdpClient:
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
