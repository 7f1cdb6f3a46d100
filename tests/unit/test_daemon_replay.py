"""Attach with logs=1: the log first, then what comes, with nothing lost, doubled or in another order."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
import docker
import pytest
from daemons import Daemon, until
from wire import frames, read_exactly, read_head, read_to_end

BOTH = "stdout=1&stderr=1"
COUNT = "i=0; while [ $i -lt {0} ]; do echo $i; i=$((i+1)); done"


@contextmanager
def attached(daemon: Daemon, container: str, query: str, version: str = "1.43") -> Iterator[socket.socket]:
    with daemon.connect(60) as client:
        client.sendall(
            f"POST /v{version}/containers/{container}/attach?{query} HTTP/1.1\r\nHost: d\r\n"
            "Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode()
        )
        head = read_head(client)
        assert b" 101 " in head, head + client.recv(1000)
        yield client


def everything(daemon: Daemon, container: str, query: str, version: str = "1.43") -> bytes:
    with attached(daemon, container, query, version) as client:
        return read_to_end(client)


def payloads(data: bytes, stream: int = 1) -> bytes:
    return b"".join(payload for number, payload in frames(data) if number == stream)


def read_frames(client: socket.socket, end: bytes) -> bytes:
    """Frames up to one whose payload ends so; the payloads."""
    found = b""
    while not found.endswith(end):
        found += read_exactly(client, int.from_bytes(read_exactly(client, 8)[4:], "big"))
    return found


@pytest.fixture(scope="module")
def ended(daemon: Daemon) -> str:
    container = daemon.run_detached("sh", "-c", "echo out; sleep 0.1; echo err >&2; sleep 0.1; printf end")
    daemon.wait(container)
    return container


@pytest.mark.parametrize(
    ("streams", "output"),
    [
        (BOTH, [(1, b"out\n"), (2, b"err\n"), (1, b"end")]),
        ("stdout=1", [(1, b"out\n"), (1, b"end")]),
        ("stderr=1", [(2, b"err\n")]),
        ("", []),
    ],
)
def test_without_stream_the_log_of_the_streams_asked_for_is_all(
    daemon: Daemon, ended: str, streams: str, output: list[tuple[int, bytes]]
) -> None:
    assert frames(everything(daemon, ended, f"logs=1&{streams}")) == output


@pytest.mark.parametrize(("version", "framed"), [("1.0", False), ("1.5", False), ("1.6", True), ("1.10", True)])
def test_clients_of_the_first_year_read_logs_so(daemon: Daemon, ended: str, version: str, framed: bool) -> None:
    data = everything(daemon, ended, f"logs=1&{BOTH}", version)
    if framed:
        data = payloads(data[:12]) + payloads(data, 2) + payloads(data[-11:])
    assert data == b"out\nerr\nend"


@pytest.mark.parametrize("version", ["1.4", "1.6"])
def test_who_starts_before_it_attaches_is_not_kept_by_a_container_that_has_ended(
    daemon: Daemon, ended: str, version: str
) -> None:
    assert b"err\n" in everything(daemon, ended, f"logs=1&stream=1&stdin=1&{BOTH}", version)


def test_an_attach_to_neither_log_nor_stream_ends_at_once(daemon: Daemon) -> None:
    container = daemon.run_detached("sleep", "100")
    assert everything(daemon, container, BOTH) == b""
    daemon.delete(f"/containers/{container}?force=1")


def test_a_log_that_cannot_be_read_is_refused_before_the_connection_is_taken(daemon: Daemon) -> None:
    container = daemon.create("true", host={"LogConfig": {"Type": "none"}})
    reply = daemon.post(f"/containers/{container}/attach?logs=1&stream=1&stdout=1")
    assert (reply.status, "does not support reading" in reply.message) == (501, True)
    daemon.delete(f"/containers/{container}")


def test_a_paused_containers_log_can_be_had(daemon: Daemon) -> None:
    container = daemon.run_detached("sh", "-c", "echo here; exec sleep 100")
    until(lambda: daemon.logs(container) == b"here\n")
    assert daemon.post(f"/containers/{container}/pause").status == 204
    assert payloads(everything(daemon, container, f"logs=1&{BOTH}")) == b"here\n"
    assert daemon.post(f"/containers/{container}/attach?logs=1&stream=1&stdout=1").status == 409
    daemon.delete(f"/containers/{container}?force=1")


def test_a_terminals_log_comes_raw(daemon: Daemon) -> None:
    container = daemon.run_detached("sh", "-c", "echo one; read line; echo two", Tty=True, OpenStdin=True)
    until(lambda: b"one" in daemon.get(f"/containers/{container}/logs?stdout=1").data)
    with attached(daemon, container, f"logs=1&stream=1&stdin=1&{BOTH}") as client:
        assert read_exactly(client, 5) == b"one\r\n"
        client.sendall(b"go\r")
        assert read_to_end(client) == b"go\r\ntwo\r\n"
    daemon.delete(f"/containers/{container}")


def test_a_line_that_has_begun_before_is_whole(daemon: Daemon) -> None:
    script = "echo first; printf be; printf er >&2; read go; printf gun; printf ror >&2"
    container = daemon.run_detached("sh", "-c", script, OpenStdin=True)
    until(lambda: daemon.logs(container) == b"first\n")
    time.sleep(0.2)  # what has begun is nowhere to be seen
    with attached(daemon, container, f"logs=1&stream=1&stdin=1&{BOTH}") as client:
        client.sendall(b"\n")
        data = read_to_end(client)
    assert (payloads(data), payloads(data, 2)) == (b"first\nbegun", b"error")
    daemon.delete(f"/containers/{container}")


def test_the_stream_goes_on_exactly_where_the_log_ends(daemon: Daemon) -> None:
    """Attached to again and again while it writes as fast as it can, each time from the first line to the last."""
    both = f"i=0; while [ $i -lt 60000 ]; do echo $i; echo $i >&2; i=$((i+1)); done; echo {'x' * 70_000}"
    container = daemon.create("sh", "-c", both)
    wanted = b"".join(b"%d\n" % number for number in range(60_000))
    daemon.post(f"/containers/{container}/start")
    rounds = 0
    while daemon.inspect(container)["State"]["Running"]:
        data = everything(daemon, container, f"logs=1&stream=1&{BOTH}", version="1.9")
        assert payloads(data) == wanted + b"x" * 70_000 + b"\n"
        assert payloads(data, 2) == wanted
        rounds += 1
    assert rounds
    daemon.delete(f"/containers/{container}")


@pytest.mark.parametrize("logs", ["", "logs=1&"])
def test_several_clients_at_once_get_the_same(daemon: Daemon, logs: str) -> None:
    container = daemon.create("sh", "-c", "read go; " + COUNT.format(30_000), OpenStdin=True)
    query = f"{logs}stream=1&stdin=1&{BOTH}"
    wanted = b"".join(b"%d\n" % number for number in range(30_000))
    with (
        attached(daemon, container, query) as one,
        attached(daemon, container, query) as two,
        attached(daemon, container, query) as vanishing,
    ):
        daemon.post(f"/containers/{container}/start")
        two.sendall(b"\n")
        assert read_exactly(vanishing, 1000)
        vanishing.close()
        with attached(daemon, container, f"logs=1&stream=1&{BOTH}") as late:
            found = [payloads(read_to_end(client)) for client in (one, two, late)]
    assert found == [wanted] * 3
    daemon.delete(f"/containers/{container}")


def test_input_goes_in_while_the_log_comes(daemon: Daemon) -> None:
    script = COUNT.format(100_000) + "; sha256sum"
    container = daemon.run_detached("sh", "-c", script, OpenStdin=True, StdinOnce=True)
    until(lambda: daemon.logs(container, "stdout=1&tail=1") == b"99999\n", 30)
    given = bytes(range(256)) * 20_000
    with attached(daemon, container, f"logs=1&stream=1&stdin=1&{BOTH}") as client:
        client.sendall(given[:100_000])
        assert read_frames(client, b"\n99999\n").startswith(b"0\n1\n2\n")
        client.sendall(given[100_000:])
        client.shutdown(socket.SHUT_WR)
        assert payloads(read_to_end(client)) == hashlib.sha256(given).hexdigest().encode() + b"  -\n"
    daemon.delete(f"/containers/{container}")


def test_a_container_that_is_started_again_is_waited_for(daemon: Daemon) -> None:
    container = daemon.run_detached("sh", "-c", "echo again")
    daemon.wait(container)
    with attached(daemon, container, f"logs=1&stream=1&{BOTH}") as client:
        assert read_frames(client, b"again\n") == b"again\n"
        assert daemon.post(f"/containers/{container}/start").status == 204
        assert payloads(read_to_end(client)) == b"again\n"
    daemon.delete(f"/containers/{container}")


def test_a_client_that_reads_nothing_does_not_stop_the_container(daemon: Daemon) -> None:
    container = daemon.run_detached("sh", "-c", "head -c 9000000 /dev/zero | tr '\\0' '\\n'; sleep 100")
    until(lambda: daemon.logs(container, "stdout=1&tail=1") == b"\n", 30)
    with attached(daemon, container, f"logs=1&stream=1&{BOTH}"):
        before = daemon.held()
        assert daemon.post(f"/containers/{container}/stop?t=0").status == 204
        daemon.delete(f"/containers/{container}")
    until(lambda: daemon.held() < before)


def test_a_client_that_stops_reading_in_the_last_round_is_let_go(daemon: Daemon) -> None:
    """The log is short enough to be the last round, and too long for the connection: the container writes on."""
    script = "head -c 250000 /dev/zero | tr '\\0' '\\n'; sleep 1; head -c 6000000 /dev/zero; exit 4"
    container = daemon.run_detached("sh", "-c", script)
    until(lambda: daemon.logs(container, "stdout=1&tail=1") == b"\n", 30)
    with attached(daemon, container, f"logs=1&stream=1&{BOTH}"):
        assert daemon.wait(container) == 4
    daemon.delete(f"/containers/{container}")


def test_clients_that_vanish_leave_nothing_behind(daemon: Daemon) -> None:
    container = daemon.run_detached("sh", "-c", COUNT.format(100_000) + "; exec sleep 100")
    until(lambda: daemon.logs(container, "stdout=1&tail=1") == b"99999\n", 30)
    before = daemon.resting()
    for query in (f"logs=1&{BOTH}", f"logs=1&stream=1&{BOTH}"):
        for size in (0, 1000, 300_000):
            with attached(daemon, container, query) as client:
                client.recv(size)
    assert daemon.resting() == before
    assert daemon.inspect(container)["State"]["Running"]
    daemon.delete(f"/containers/{container}?force=1")


def test_a_daemon_that_is_killed_meanwhile_does_not_hold_the_container(own_daemon: Daemon) -> None:
    script = COUNT.format(100_000) + "; read go; head -c 5000000 /dev/zero; exit 6"
    for number in (signal.SIGKILL, signal.SIGTERM):
        container = own_daemon.run_detached("sh", "-c", script, OpenStdin=True)
        until(lambda container=container: own_daemon.logs(container, "stdout=1&tail=1") == b"99999\n", 30)  # type: ignore[misc]
        with attached(own_daemon, container, f"logs=1&stream=1&{BOTH}") as client:
            own_daemon.stop(number)
            read_to_end(client)
        own_daemon.start()
        with attached(own_daemon, container, f"stream=1&stdin=1&{BOTH}") as client:
            client.sendall(b"\n")
            assert payloads(read_to_end(client)) == bytes(5_000_000)
        assert own_daemon.wait(container) == 6


def test_a_websocket_gets_the_log_first_too(daemon: Daemon) -> None:
    script = COUNT.format(50_000) + "; read go; echo $go"
    container = daemon.run_detached("sh", "-c", script, OpenStdin=True)
    until(lambda: daemon.logs(container, "stdout=1&tail=1") == b"49999\n", 30)

    async def main() -> bytes:
        data = b""
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=str(daemon.socket))) as session,
            session.ws_connect(
                f"http://localhost/v1.43/containers/{container}/attach/ws?logs=1&stream=1&stdin=1&stdout=1"
            ) as connection,
        ):
            async for message in connection:
                data += message.data
                if data.endswith(b"\n49999\n"):
                    await connection.send_bytes(b"over\n")
        return data

    wanted = b"".join(b"%d\n" % number for number in range(50_000)) + b"over\n"
    assert asyncio.run(asyncio.wait_for(main(), 60)) == wanted
    daemon.delete(f"/containers/{container}")


def test_docker_py_attaches_with_and_without_the_log(daemon: Daemon) -> None:
    client = docker.DockerClient(base_url=f"unix://{daemon.socket}", version="1.43")
    container = client.containers.create("busybox", ["sh", "-c", "echo out; echo err >&2; exec sleep 100"])
    stream = container.attach(stream=True, logs=False, demux=True)
    container.start()
    assert {next(stream), next(stream)} == {(b"out\n", None), (None, b"err\n")}
    until(lambda: len(container.logs()) == 8)
    assert container.attach(stream=False, logs=True, stdout=True, stderr=False) == b"out\n"
    later = container.attach(stream=True, logs=True, stdout=True, stderr=False)
    assert next(later) == b"out\n"
    container.kill()
    assert list(later) == []
    assert list(stream) == []
    container.remove()
    client.close()
