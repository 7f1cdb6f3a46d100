"""What nobody foresaw: the one thing that a real engine has to be made to do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import wire
from wire import read_to_end

from dockerd_py.api.server import ApiServer
from dockerd_py.config import Config, NetworkConfig
from dockerd_py.engine.engine import Engine


@contextlib.asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[tuple[Engine, Path]]:
    """An engine in this process, and the socket at which it is served."""
    before = os.getcwd()
    path = directory / "api.sock"
    config = Config(
        root=directory / "root", exec_root=directory / "run", pidfile=None, network=NetworkConfig(bridge="none")
    )
    engine = await Engine.open(config)
    api = ApiServer(engine)
    try:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        await api.start([listener])
        yield engine, path
    finally:
        await api.stop()
        await engine.close()
        os.chdir(before)  # the engine works in its root


@pytest.mark.parametrize("failure", [ZeroDivisionError("secret"), ConnectionRefusedError("secret"), KeyError("secret")])
def test_an_unforeseen_failure_is_a_500_whose_id_is_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, failure: Exception
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as (engine, path):

            async def fail(*_args: object, **_settings: object) -> None:
                raise failure

            monkeypatch.setattr(engine.containers, "create", fail)
            body = {"Image": "busybox", "Cmd": ["true"]}
            reply = await asyncio.to_thread(wire.ask, path, "POST", "/v1.43/containers/create", body)
            assert reply.status == 500
            match = re.fullmatch(r"internal error ([0-9a-f]{8}): the daemon's log has the details", reply.message)
            assert match is not None
            assert match[1] in caplog.text
            assert repr(failure).partition("(")[0] + ": " in caplog.text
            old = await asyncio.to_thread(wire.ask, path, "POST", "/v1.11/containers/create", body)
            assert (old.status, old.headers["Content-Type"]) == (500, "text/plain")
            assert old.data.startswith(b"internal error ")
            ping = await asyncio.to_thread(wire.ask, path, "GET", "/_ping")
            assert ping.status == 200

    asyncio.run(main())


def test_a_failure_in_the_middle_of_an_answer_ends_the_connection_without_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as (engine, path):

            async def break_off(*_args: object, **_settings: object) -> AsyncIterator[object]:
                await asyncio.sleep(0)
                await asyncio.sleep(0.05)
                raise ZeroDivisionError
                yield

            monkeypatch.setattr(engine.events, "subscribe", break_off)
            answer = await asyncio.to_thread(exchange, path, b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200 OK")
            assert not answer.endswith(b"0\r\n\r\n")
            assert "ZeroDivisionError" in caplog.text

    asyncio.run(main())


def exchange(path: Path, data: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(data)
        return read_to_end(client)
