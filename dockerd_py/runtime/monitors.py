"""The daemon's side of the monitors: asking the fork server for one, and talking with it."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from dockerd_py import wire
from dockerd_py.errors import PydockerdError, RuntimeFailed
from dockerd_py.monitor import PROTOCOL_VERSION, stamp
from dockerd_py.monitor.spool import ExitRecord
from dockerd_py.monitor.supervisor import Config
from dockerd_py.wirelink import Link

log = logging.getLogger(__name__)

REPLY_SECONDS = 10.0
BATCHES_AT_ONCE = 32
"""Of ports: a monitor drops a connection whose socket is full of replies that nobody takes."""


class Relayed(NamedTuple):
    """A port of the host's, and where what reaches it goes."""

    fd: int  # the host's socket, which holds the port
    protocol: str
    address: str  # the container's
    port: int


class MonitorGone(RuntimeFailed):
    """The monitor ended, or was killed, before it answered."""


class ForkServerGone(RuntimeFailed):
    """Nobody listens at the fork server's socket, or it ended, or its child, before there was a monitor."""


class RequestFailed(PydockerdError):
    """The monitor answered with an error.  ``log`` is what the OCI runtime wrote, None if it was not called."""

    def __init__(self, text: str, log_text: str | None = None) -> None:
        super().__init__(text)
        self.log = log_text


class Monitor(Link):
    """One connection to a monitor.

    ``exited`` is done when the container has ended: with its record, or with None when the connection ended
    without one (the monitor has aborted a start, or was killed).  When it has ended, ``closed``, the monitor has
    nothing left to do.  ``on_event`` is called with every event about an exec.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.pid = 0
        self.on_event: Callable[[wire.Message], None] = lambda message: None
        self.on_oom: Callable[[], None] = lambda: None
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self.exited: asyncio.Future[ExitRecord | None] = self._loop.create_future()

    async def request(
        self, op: str, *, fds: tuple[int, ...] = (), timeout: float | None = REPLY_SECONDS, **fields: Any
    ) -> wire.Message:
        """Ask and await the reply.

        Raises RequestFailed with the monitor's sentence, MonitorGone, or asyncio.TimeoutError.
        """
        reply = await self.ask(op, fds=fds, timeout=timeout, **fields)
        if reply is None:
            raise MonitorGone("the container's monitor has ended")
        if "error" in reply:
            raise RequestFailed(str(reply["error"]), reply.get("log"))
        return reply

    async def publish(self, ports: Sequence[Relayed]) -> None:
        """Hand the host's sockets over; the caller closes its own copies.  Raises what `request` raises: some may have
        been taken then, and are given back by ``unpublish`` or with the start."""
        batches = [ports[at : at + wire.MAX_FDS] for at in range(0, len(ports), wire.MAX_FDS)]
        for at in range(0, len(batches), BATCHES_AT_ONCE):
            requests = (
                self.request(
                    "publish",
                    fds=tuple(port.fd for port in batch),
                    ports=[{"protocol": port.protocol, "address": port.address, "port": port.port} for port in batch],
                )
                for batch in batches[at : at + BATCHES_AT_ONCE]
            )
            # all are awaited, even after a failure: what was taken is given back after it
            for reply in await asyncio.gather(*requests, return_exceptions=True):
                if isinstance(reply, BaseException):
                    raise reply

    def close(self) -> None:
        """Let go of the connection; the monitor lives on if it has a container."""
        if self.closed.done():
            return
        super().close()
        if not self.exited.done():
            self.exited.set_result(None)
        if not self.ready.done():
            self.ready.set_exception(MonitorGone("the container's monitor has ended"))
            self.ready.exception()  # nobody may be waiting, which is no fault

    def _take(self, message: wire.Message) -> None:
        event = message.pop("event", None)
        if event == "ready":
            self.pid = int(message["pid"])
            if not self.ready.done():
                self.ready.set_result(None)
        elif event == "oom":
            self.on_oom()
        elif event == "exit":
            if not self.exited.done():
                self.exited.set_result(ExitRecord(**message))
        elif event is not None:
            self.on_event({"event": event, **message})
        elif "error" in message and "seq" not in message and not self.ready.done():
            self.ready.set_exception(RuntimeFailed(f"the fork server refused: {message['error']}"))


class ForkServer:
    """The service that forks monitors, known by its socket."""

    def __init__(self, path: str) -> None:
        self.path = path

    async def spawn(self, config: Config) -> Monitor:
        """A new monitor.  Raises RuntimeFailed when the fork server can't be reached, or fails."""
        try:
            sock = wire.connect(self.path)
        except OSError as error:
            raise ForkServerGone(f"cannot reach the fork server at {self.path}: {error.strerror}") from error
        try:
            wire.send(sock, {"op": "monitor", "version": PROTOCOL_VERSION, "config": config._asdict()})
        except OSError as error:
            sock.close()
            raise ForkServerGone(f"cannot reach the fork server at {self.path}: {error.strerror}") from error
        monitor = Monitor(sock)
        try:
            await asyncio.wait_for(asyncio.shield(monitor.ready), REPLY_SECONDS)
        except MonitorGone:
            raise ForkServerGone(f"the fork server at {self.path} ended before there was a monitor") from None
        except asyncio.TimeoutError:
            monitor.close()
            raise RuntimeFailed(f"the fork server at {self.path} does not answer") from None
        except PydockerdError:
            monitor.close()
            raise
        return monitor

    def renew(self) -> bool:
        """Let a fork server of another version become ours.  True when it does: it is back in a moment.

        Blocks for a moment.  Raises OSError when nobody is there.
        """
        with wire.connect(self.path) as sock:
            sock.settimeout(REPLY_SECONDS)
            wire.send(sock, {"op": "renew", "code": stamp.of_code()})
            try:
                message, fds = wire.receive(sock)
            except ConnectionResetError:
                return True
            wire.close_all(fds)
        if message is not None and "error" in message:
            log.warning("the fork server is of an older version and stays so: %s", message["error"])
        return message is None

    def is_alive(self) -> bool:
        try:
            wire.connect(self.path).close()
        except OSError:
            return False
        return True


def connect(path: str) -> Monitor | None:
    """A connection to the living monitor whose socket is at ``path``; None when there is none."""
    try:
        sock = wire.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    return Monitor(sock)
