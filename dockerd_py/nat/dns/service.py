"""The program: who its containers are, and the daemon's connection.

Messages (`wire`), with the version in the first one, "hello"; each has a number, "seq", that its reply has, too, with
"error" where it failed:

=======  ========================================  =========================================
hello    version                                   code (`stamp`)
put      entry; `Sockets`, and a pidfd if there    in place of what there was
         is one
change   entry                                     known: whether there was one; idempotent
started  id; a pidfd                               no reply
forget   id                                        its sockets are closed
list     after                                     entries: [id, digest, has a pidfd, ports]
leave    -                                         the program ends; what starts it starts it again
=======  ========================================  =========================================

An entry ends with the process of its pidfd.  One without goes with the connection that it came by: a start that was
not completed.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dockerd_py import wire
from dockerd_py.nat.dns import privileges, sockets, stamp, state
from dockerd_py.nat.dns.directory import Directory
from dockerd_py.nat.dns.forward import Forwarder
from dockerd_py.nat.dns.loop import READ, Loop
from dockerd_py.nat.dns.model import EntryError, NameEntry, digest
from dockerd_py.nat.dns.server import Server
from dockerd_py.nat.dns.sockets import Sockets

log = logging.getLogger(__name__)

VERSION = 1
PAGE = 1000  # entries in a reply to "list"
MESSAGES_A_ROUND = 32


class Container:
    def __init__(self, server: Server, owner: Connection | None) -> None:
        self.server = server
        self.owner = owner  # while there is no pidfd
        self.pidfd = -1


class Service:
    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.containers: dict[str, Container] = {}
        self._directory = Directory()
        self._forwarder = Forwarder(loop)

    def restore(self, directory: Path) -> None:
        """Open the sockets of all containers that have a file and run."""
        for saved in state.read(directory):
            if isinstance(saved, EntryError):
                log.warning("%s", saved)
                continue
            container_id = saved.entry.container_id
            try:
                pidfd, namespace = saved.process.open()
                try:
                    self.put(saved.entry, sockets.open_in(namespace, saved.ports), None)
                finally:
                    os.close(namespace)
                    if container_id not in self.containers:
                        os.close(pidfd)
            except ProcessLookupError:
                continue  # it has ended; the daemon takes the file away
            except (OSError, ValueError) as error:
                log.warning("no names for container %s: %s", container_id[:12], error)
                continue
            self.attend(container_id, pidfd)

    def put(self, entry: NameEntry, found: Sockets, owner: Connection | None) -> None:
        """Raises ValueError; the sockets are closed then."""
        self.forget(entry.container_id)
        try:
            self._directory.put(entry)
            server = Server(self.loop, self._directory, self._forwarder, entry, found)
        except BaseException:
            found.close()
            raise
        self.containers[entry.container_id] = Container(server, owner)

    def change(self, entry: NameEntry) -> bool:
        """Raises ValueError."""
        container = self.containers.get(entry.container_id)
        if container is None:
            return False
        self._directory.put(entry)
        container.server.change(entry)
        return True

    def attend(self, container_id: str, pidfd: int) -> None:
        """End the entry with that process.  The descriptor is taken over."""
        container = self.containers.get(container_id)
        if container is None:
            os.close(pidfd)
            return
        if container.pidfd >= 0:
            self.loop.unwatch(container.pidfd)
            os.close(container.pidfd)
        container.pidfd, container.owner = pidfd, None

        def ended(_events: int) -> None:
            if self.containers.get(container_id) is container:
                self.forget(container_id)

        self.loop.watch(pidfd, READ, ended)

    def forget(self, container_id: str) -> None:
        """Fine when there is none."""
        container = self.containers.pop(container_id, None)
        if container is None:
            return
        if container.pidfd >= 0:
            self.loop.unwatch(container.pidfd)
            os.close(container.pidfd)
        self._directory.remove(container_id)
        container.server.close()

    def abandon(self, owner: Connection) -> None:
        """Its connection has ended: so have the starts that it has not completed."""
        for container_id in [key for key, each in self.containers.items() if each.owner is owner]:
            self.forget(container_id)


class Connection:
    """A daemon's."""

    def __init__(self, service: Service, sock: socket.socket) -> None:
        self._service = service
        self._sock = sock
        sock.setblocking(False)
        service.loop.watch(sock.fileno(), READ, self._readable)

    def _readable(self, _events: int) -> None:
        for _ in range(MESSAGES_A_ROUND):
            if self._sock.fileno() < 0:
                return
            try:
                text, fds = wire.receive(self._sock)
            except BlockingIOError:
                return
            except (OSError, wire.ProtocolError) as error:
                log.warning("the daemon's connection is cut: %s", error)
                text, fds = None, []
            if text is None:
                self._close()
                return
            self._take(text, fds)

    def _take(self, text: wire.Message, fds: list[int]) -> None:
        reply: wire.Message | None
        try:
            reply = self._do(text, fds)
        except (OSError, ValueError, KeyError, TypeError) as error:
            reply = {"error": str(error) or repr(error)}
        finally:
            wire.close_all(fds)
        if reply is None:
            return
        try:
            wire.send(self._sock, {"seq": text.get("seq"), **reply})
        except OSError as error:  # it is gone, or reads none of a thousand replies
            log.warning("the daemon's connection is cut: %s", error)
            self._close()

    def _do(self, text: wire.Message, fds: list[int]) -> wire.Message | None:
        """What is taken over is taken out of ``fds``.  Raises OSError, ValueError, KeyError, TypeError."""
        service = self._service
        match text.get("op"):
            case "hello" if text["version"] == VERSION:
                return {"code": stamp.CODE}
            case "put":
                entry = NameEntry.from_json(text["entry"])
                udp, tcp, out = (socket.socket(fileno=fd) for fd in (fds.pop(0), fds.pop(0), fds.pop(0)))
                service.put(entry, Sockets(udp, tcp, out), self)
                if fds:
                    service.attend(entry.container_id, fds.pop(0))
                return {}
            case "change":
                return {"known": service.change(NameEntry.from_json(text["entry"]))}
            case "started":
                service.attend(text["id"], fds.pop(0))
                return None
            case "forget":
                service.forget(text["id"])
                return {}
            case "list":
                return {"entries": self._list(text["after"])}
            case "leave":
                service.loop.stop()
                return None
            case other:
                raise ValueError(f"this name service speaks version {VERSION}, which has no {other!r}")

    def _list(self, after: str) -> list[Any]:
        containers = self._service.containers
        page = sorted(key for key in containers if key > after)[:PAGE]
        return [[key, digest((it := containers[key]).server.entry), it.pidfd >= 0, it.server.ports] for key in page]

    def _close(self) -> None:
        if self._sock.fileno() < 0:
            return
        self._service.loop.unwatch(self._sock.fileno())
        self._sock.close()
        self._service.abandon(self)


def serve(path: str, *, lifeline: int | None, ready: Callable[[], None]) -> None:
    """Serve until "leave", or until ``lifeline`` (the read end of a pipe that a daemon holds) reports its end.

    ``path`` is the socket for the daemon; the files are in the directory `state.DIRECTORY` beside it.  Raises OSError.
    """
    loop = Loop()
    service = Service(loop)
    directory = Path(path).parent / state.DIRECTORY
    directory.mkdir(mode=0o700, exist_ok=True)
    root = os.geteuid()
    service.restore(directory)
    listener = wire.bind(path)
    listener.setblocking(False)
    privileges.drop(directory)

    def connection(_events: int) -> None:
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            log.warning("no connection of a daemon is taken: %s", error)
            return
        if wire.peer_uid(sock) == root:
            Connection(service, sock)
        else:
            sock.close()

    loop.watch(listener.fileno(), READ, connection)
    if lifeline is not None:
        loop.watch(lifeline, READ, lambda _events: loop.stop())
    ready()
    loop.run()
