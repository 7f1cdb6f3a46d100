"""Attach over a WebSocket, with aiohttp's client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from daemons import Daemon

Talk = Callable[[aiohttp.ClientWebSocketResponse], Awaitable[bytes]]


def talk(daemon: Daemon, path: str, what: Talk) -> bytes:
    async def main() -> bytes:
        connector = aiohttp.UnixConnector(path=str(daemon.socket))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.ws_connect(f"http://localhost{path}", max_msg_size=0) as connection,
        ):
            return await asyncio.wait_for(what(connection), 60)

    return asyncio.run(main())


async def everything(connection: aiohttp.ClientWebSocketResponse) -> bytes:
    data = b""
    async for message in connection:
        assert message.type is aiohttp.WSMsgType.BINARY
        data += message.data
    return data


@pytest.mark.parametrize("version", ["/v1.43", "/v1.9", ""])
def test_output_comes_unframed_and_the_end_is_the_container_s(daemon: Daemon, version: str) -> None:
    container = daemon.create("sh", "-c", "echo out; echo err >&2")

    async def run(connection: aiohttp.ClientWebSocketResponse) -> bytes:
        await asyncio.to_thread(daemon.post, f"/containers/{container}/start")
        return await everything(connection)

    data = talk(daemon, f"{version}/containers/{container}/attach/ws?stream=1&stdout=1&stderr=1", run)
    assert sorted(data.splitlines()) == [b"err", b"out"]
    daemon.delete(f"/containers/{container}")


def test_input_goes_in_as_bytes_or_as_text(daemon: Daemon) -> None:
    container = daemon.run_detached("sh", "-c", "read a; read b; echo $b $a; exit 3", OpenStdin=True)

    async def run(connection: aiohttp.ClientWebSocketResponse) -> bytes:
        await connection.send_bytes(b"one\n")
        await connection.send_str("two\n")
        return await everything(connection)

    data = talk(daemon, f"/v1.43/containers/{container}/attach/ws?stream=1&stdin=1&stdout=1", run)
    assert data == b"two one\n"
    assert daemon.wait(container) == 3
    daemon.delete(f"/containers/{container}")


def test_much_output_arrives_whole(daemon: Daemon) -> None:
    container = daemon.create("sh", "-c", "head -c 20000000 /dev/zero")

    async def run(connection: aiohttp.ClientWebSocketResponse) -> bytes:
        await asyncio.to_thread(daemon.post, f"/containers/{container}/start")
        return await everything(connection)

    assert talk(daemon, f"/v1.43/containers/{container}/attach/ws?stream=1&stdout=1", run) == bytes(20_000_000)
    daemon.delete(f"/containers/{container}")


def test_a_client_that_goes_leaves_the_container_and_the_daemon_as_they_were(daemon: Daemon) -> None:
    container = daemon.run_detached("sleep", "100", OpenStdin=True)
    before = daemon.resting()

    async def run(connection: aiohttp.ClientWebSocketResponse) -> bytes:
        await connection.close()
        return b""

    for _ in range(3):
        talk(daemon, f"/v1.43/containers/{container}/attach/ws?stream=1&stdin=1&stdout=1", run)
    assert daemon.resting() == before
    assert daemon.inspect(container)["State"]["Running"]
    daemon.delete(f"/containers/{container}?force=1")


def test_what_is_no_websocket_or_no_container_is_told_by_a_status(daemon: Daemon) -> None:
    container = daemon.create("true")
    assert daemon.get(f"/containers/{container}/attach/ws?stream=1").status == 400
    assert daemon.get("/containers/nobody/attach/ws?stream=1").status == 404
    daemon.delete(f"/containers/{container}")
