"""What clients of the first year's versions say, for the tests of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import wire
from daemons import Daemon, Reply

TRAP = "trap 'exit 3' TERM; echo up; while :; do sleep 0.02; done"


def minor(version: str) -> int:
    return int(version.partition(".")[2])


class Old:
    """A client of one version."""

    def __init__(self, daemon: Daemon, version: str) -> None:
        self.daemon = daemon
        self.version = version
        self.minor = minor(version)

    def get(self, path: str) -> Reply:
        return self.daemon.get(path, version=self.version)

    def post(self, path: str, body: object = None) -> Reply:
        return self.daemon.post(path, body, version=self.version)

    def delete(self, path: str) -> Reply:
        return self.daemon.call("DELETE", path, version=self.version)

    def create(self, *command: str, query: str = "", **config: Any) -> str:
        reply = self.post(f"/containers/create{query}", {"Image": "busybox", "Cmd": list(command), **config})
        assert reply.status == 201, reply.data
        return str(reply.json["Id"])

    def run(self, *command: str, **config: Any) -> str:
        container = self.create(*command, **config)
        reply = self.post(f"/containers/{container}/start")
        assert (reply.status, reply.data) == (204, b"")
        return container

    def inspect(self, container: str) -> dict[str, Any]:
        reply = self.get(f"/containers/{container}/json")
        assert reply.status == 200, reply.data
        return dict(reply.json)

    def listed(self, query: str = "all=1") -> dict[str, dict[str, Any]]:
        return {item["Id"]: item for item in self.get(f"/containers/json?{query}").json}


@pytest.fixture
def old(daemon: Daemon, request: pytest.FixtureRequest) -> Iterator[Old]:
    yield Old(daemon, request.param)
    for container in daemon.get("/containers/json?all=1").json:
        daemon.delete(f"/containers/{container['Id']}?force=1")


in_1_9 = pytest.mark.parametrize("old", ["1.9"], indirect=True)


def refused(reply: Reply) -> tuple[int, str]:
    """Status and sentence of a failure, which is text."""
    assert reply.headers["Content-Type"] == "text/plain"
    text = reply.data.decode()
    assert text.endswith("\n")
    return reply.status, text[:-1]


def ask_as(daemon: Daemon, url: str, headers: dict[str, str], body: bytes | None = None, method: str = "GET") -> Reply:
    connection = wire.UnixConnection(daemon.socket, 20)
    connection.request(method, url, body, headers)
    response = connection.getresponse()
    reply = Reply(response.status, response.read(), response.headers)
    connection.close()
    return reply
