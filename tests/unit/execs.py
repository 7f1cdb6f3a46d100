"""Execs against a real daemon, as tests need them."""

from __future__ import annotations

import json
import socket
from typing import Any, NamedTuple

from daemons import Daemon
from wire import Reply, frames, read_head

UPGRADE = "Connection: Upgrade\r\nUpgrade: tcp\r\n"


class Done(NamedTuple):
    exit_code: int | None
    output: list[tuple[int, bytes]]

    def text(self, stream: int = 1) -> str:
        return b"".join(data for one, data in self.output if one == stream).decode()


def create(daemon: Daemon, container: str, *command: str, **config: Any) -> str:
    reply = try_create(daemon, container, *command, **config)
    assert reply.status == 201, reply.data
    return str(reply.json["Id"])


def try_create(daemon: Daemon, container: str, *command: str, **config: Any) -> Reply:
    settings = {"Cmd": list(command), "AttachStdout": True, "AttachStderr": True, **config}
    return daemon.post(f"/containers/{container}/exec", settings)


def inspect(daemon: Daemon, exec_id: str) -> Any:
    reply = daemon.get(f"/exec/{exec_id}/json")
    assert reply.status == 200, reply.data
    return reply.json


def detach(daemon: Daemon, exec_id: str) -> Reply:
    return daemon.post(f"/exec/{exec_id}/start", {"Detach": True})


def run(daemon: Daemon, container: str, *command: str, **config: Any) -> Done:
    """To its end, without a terminal."""
    exec_id = create(daemon, container, *command, **config)
    reply = daemon.post(f"/exec/{exec_id}/start", {"Detach": False, "Tty": False})
    assert reply.status == 200, reply.data
    return Done(inspect(daemon, exec_id)["ExitCode"], frames(reply.data))


def connect(daemon: Daemon, exec_id: str, *, version: str = "1.43", early: bytes = b"", **body: Any) -> socket.socket:
    """Start it, on a connection that is a stream from now on."""
    data = json.dumps({"Detach": False, "Tty": False, **body}).encode()
    connection = daemon.connect()
    head = f"POST /v{version}/exec/{exec_id}/start HTTP/1.1\r\nHost: d\r\n{UPGRADE}Content-Length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data + early)
    answer = read_head(connection)
    assert answer.startswith(b"HTTP/1.1 101 UPGRADED"), answer
    return connection
