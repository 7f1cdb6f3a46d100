"""The daemon's connections to one monitor: requests come in, each gets its reply, and events go to all of them.

As many clients as there are, some descriptors are left for the container's own sake: its end has to be written down.
"""

from __future__ import annotations

import os
import resource
import select
import socket
from collections.abc import Callable
from typing import Protocol

from dockerd_py import wire
from dockerd_py.monitor.loop import Loop

SPARE_FDS = 64

TOO_MANY = "the container has too many clients"

Reply = Callable[[wire.Message], None]


class Refused(Exception):
    """A request that can't be carried out; its text is the reply's error."""


class Handler(Protocol):
    def __call__(self, message: wire.Message, fds: list[int], later: Reply) -> wire.Message | None:
        """Carry out one request.  None: the reply comes by ``later``.  Takes what it uses out of ``fds``.

        Raises Refused, OSError, KeyError, TypeError and ValueError: they become the reply's error.
        """


class Control:
    def __init__(self, loop: Loop, path: str, handle: Handler, abandoned: Callable[[], None]) -> None:
        """``abandoned`` is called when the last connection has ended."""
        self._loop = loop
        self._path = path
        self._handle = handle
        self._abandoned = abandoned
        self._connections: dict[int, socket.socket] = {}
        self._fd_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FDS
        self._listener = wire.bind(path)
        loop.watch(self._listener.fileno(), select.EPOLLIN, self._accept)

    @property
    def connected(self) -> bool:
        return bool(self._connections)

    def add(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connections[connection.fileno()] = connection
        self._loop.watch(connection.fileno(), select.EPOLLIN, lambda _: self._request(connection))

    def broadcast(self, message: wire.Message) -> None:
        for connection in list(self._connections.values()):
            self._send(connection, message)

    def close(self) -> None:
        """Take no more requests, remove the socket, and end every connection."""
        self._listener.close()
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass  # whoever removed the container's directory did it
        for connection in self._connections.values():
            connection.close()

    def _accept(self, _: int) -> None:
        try:
            connection, _address = self._listener.accept()
        except OSError:  # it is gone again; or there is no descriptor left, and one that ends leaves one
            return
        if wire.peer_uid(connection) == os.geteuid():
            self.add(connection)
        else:
            connection.close()

    def _drop(self, connection: socket.socket) -> None:
        fd = connection.fileno()
        if self._connections.pop(fd, None) is None:
            return
        self._loop.unwatch(fd)
        connection.close()
        if not self._connections:
            self._abandoned()

    def _send(self, connection: socket.socket, message: wire.Message) -> None:
        if connection.fileno() not in self._connections:
            return
        try:
            wire.send(connection, message)
        except OSError:
            self._drop(connection)

    def _request(self, connection: socket.socket) -> None:
        try:
            message, fds = wire.receive(connection)
        except wire.DescriptorsLost as lost:
            self._send(connection, {"seq": lost.message.get("seq", 0), "error": TOO_MANY})
            return
        except (OSError, wire.ProtocolError):
            message, fds = None, []
        if message is None:
            self._drop(connection)
            return
        sequence = message.get("seq", 0)

        def later(reply: wire.Message) -> None:
            self._send(connection, {"seq": sequence, **reply})

        try:
            if fds and max(fds) >= self._fd_limit:  # the lowest that is free is given, so all below are taken
                raise Refused(TOO_MANY)
            reply = self._handle(message, fds, later)
        except (Refused, OSError, KeyError, TypeError, ValueError) as error:
            reply = {"error": str(error) or type(error).__name__}
        wire.close_all(fds)
        if reply is not None:
            later(reply)
