"""Logs as they are read back: frames, times, chosen parts, and readers that leave or stand still."""

from __future__ import annotations

import re
import time
from datetime import datetime, timezone

import pytest
from daemons import Daemon, until
from wire import frames, read_head, read_to_end

TIME = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"
SCRIPT = "echo one; sleep 0.02; echo two >&2; sleep 0.02; echo three; sleep 0.02; printf 'no end'"
LINES = [(1, b"one\n"), (2, b"two\n"), (1, b"three\n"), (1, b"no end")]


@pytest.fixture(scope="module")
def written(daemon: Daemon) -> str:
    """A container that has said `LINES`."""
    container = daemon.run_detached("sh", "-c", SCRIPT)
    daemon.wait(container)
    return container


def read(daemon: Daemon, container: str, query: str = "stdout=1&stderr=1", version: str = "1.43") -> bytes:
    reply = daemon.get(f"/containers/{container}/logs?{query}", version=version)
    assert reply.status == 200, reply.data
    return reply.data


def epoch(stamp: bytes) -> str:
    """``2026-01-31T12:00:00.000000001Z`` as seconds with nine digits."""
    whole, _, fraction = stamp.decode().rstrip("Z").partition(".")
    return f"{int(datetime.fromisoformat(whole).replace(tzinfo=timezone.utc).timestamp())}.{fraction}"


# Forms


@pytest.mark.parametrize(
    ("version", "content_type"), [("1.43", "multiplexed"), ("1.42", "multiplexed"), ("1.41", "raw")]
)
def test_each_line_is_a_frame(daemon: Daemon, written: str, version: str, content_type: str) -> None:
    reply = daemon.get(f"/containers/{written}/logs?stdout=1&stderr=1", version=version)
    assert reply.headers["Content-Type"] == f"application/vnd.docker.{content_type}-stream"
    assert frames(reply.data) == LINES


def test_a_terminal_has_no_frames(daemon: Daemon) -> None:
    container = daemon.run_detached("sh", "-c", SCRIPT, Tty=True)
    daemon.wait(container)
    reply = daemon.get(f"/containers/{container}/logs?stdout=1")
    assert reply.headers["Content-Type"] == "application/vnd.docker.raw-stream"
    assert reply.data == b"one\r\ntwo\r\nthree\r\nno end"


def test_timestamps_and_details_stand_before_each_line(daemon: Daemon, written: str) -> None:
    for query, prefix in (
        ("timestamps=1", TIME + b" "),
        ("details=1", b" "),
        ("timestamps=1&details=1", TIME + b"  "),
        ("timestamps=0&details=false", b""),
    ):
        found = frames(read(daemon, written, f"stdout=1&stderr=1&{query}"))
        assert len(found) == len(LINES)
        for (stream, data), (expected, line) in zip(found, LINES, strict=True):
            assert stream == expected
            assert re.fullmatch(prefix + line, data), data


def test_a_long_line_in_pieces_has_its_time_once(daemon: Daemon) -> None:
    container = daemon.run_detached("sh", "-c", "head -c 50000 /dev/zero | tr '\\0' x; echo; echo short")
    daemon.wait(container)
    found = frames(read(daemon, container, "stdout=1&timestamps=1"))
    assert len(found) > 2
    text = b"".join(data for _stream, data in found)
    assert re.fullmatch(TIME + b" x{50000}\n" + TIME + b" short\n", text)


def test_an_empty_log_is_an_empty_answer(daemon: Daemon) -> None:
    container = daemon.create("true")
    reply = daemon.get(f"/containers/{container}/logs?stdout=1")
    assert (reply.status, reply.data) == (200, b"")
    assert reply.headers["Content-Type"] == "application/vnd.docker.multiplexed-stream"


# Choice


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("stdout=1&stderr=0", [LINES[0], *LINES[2:]]),
        ("stderr=true", [LINES[1]]),
        ("stdout=1&stderr=1&tail=all", LINES),
        ("stdout=1&stderr=1&tail=-1", LINES),
        ("stdout=1&stderr=1&tail=2", LINES[2:]),
        ("stdout=1&tail=3", [LINES[0], *LINES[2:]]),
        ("stdout=1&stderr=1&tail=0", []),
        ("stdout=1&stderr=1&since=4000000000", []),
        ("stdout=1&stderr=1&until=1000000000.5", []),
    ],
)
def test_streams_and_the_tail_are_chosen(
    daemon: Daemon, written: str, query: str, expected: list[tuple[int, bytes]]
) -> None:
    assert frames(read(daemon, written, query)) == expected


def test_since_and_until_are_exact_to_the_nanosecond(daemon: Daemon, written: str) -> None:
    stamped = frames(read(daemon, written, "stdout=1&stderr=1&timestamps=1"))
    times = [data.split(b" ")[0] for _stream, data in stamped]
    assert times == sorted(set(times))
    for spell in (epoch, bytes.decode):
        second, third = spell(times[1]), spell(times[2])
        assert frames(read(daemon, written, f"stdout=1&stderr=1&since={second}&until={third}")) == LINES[1:3]
    seconds, _, fraction = epoch(times[1]).partition(".")
    later = f"{seconds}.{int(fraction) + 1:09}"
    assert frames(read(daemon, written, f"stdout=1&stderr=1&since={later}")) == LINES[2:]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "Bad parameters: you must choose at least one stream"),
        ("stdout=1&tail=x", "Bad parameter: tail must be a number"),
        ("stdout=1&since=x", "Bad parameter: since must be"),
    ],
)
def test_bad_options_are_refused(daemon: Daemon, written: str, query: str, message: str) -> None:
    reply = daemon.get(f"/containers/{written}/logs?{query}")
    assert (reply.status, reply.message.startswith(message)) == (400, True)
    assert daemon.get("/containers/none/logs?stdout=1").status == 404


# Following


def test_following_shows_what_is_there_at_once_then_what_comes_and_ends_with_the_container(daemon: Daemon) -> None:
    container = daemon.run_detached("sh", "-c", "echo old; read line; echo $line", OpenStdin=True)
    until(lambda: daemon.logs(container) == b"old\n")
    with daemon.connect() as client:
        path = f"/v1.41/containers/{container}/logs?stdout=1&follow=1"
        client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())  # so old that the body comes without chunks
        read_head(client)
        assert frames(client.recv(1000)) == [(1, b"old\n")]
        with daemon.connect() as typist:
            path = f"/v1.41/containers/{container}/attach?stream=1&stdin=1"
            typist.sendall(f"POST {path} HTTP/1.1\r\nHost: d\r\n\r\nnew\n".encode())
            assert frames(client.recv(1000)) == [(1, b"new\n")]
        assert read_to_end(client) == b""
    assert daemon.wait(container) == 0


def test_the_head_comes_before_there_is_a_line(daemon: Daemon) -> None:
    container = daemon.run_detached("sleep", "100")
    with daemon.connect() as client:
        client.sendall(f"GET /containers/{container}/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        assert b" 200 " in read_head(client)
    daemon.delete(f"/containers/{container}?force=1")


def test_a_client_that_leaves_is_followed_for_no_more(daemon: Daemon) -> None:
    container = daemon.run_detached("sh", "-c", "echo up; sleep 100")
    until(lambda: daemon.logs(container) == b"up\n")
    before = daemon.resting()
    clients = [daemon.connect() for _ in range(10)]
    for client in clients:
        client.sendall(f"GET /containers/{container}/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        read_head(client)
        assert b"up\n" in client.recv(1000)
    tasks, files, _ = daemon.held()
    assert tasks >= before[0] + 20
    assert files >= before[1] + 20  # the client's connection, and one to the monitor
    for client in clients:
        client.close()
    until(lambda: daemon.held() == before)
    daemon.delete(f"/containers/{container}?force=1")


# Slow readers


def bytes_read(daemon: Daemon) -> int:
    """How much the daemon has read from files since it began."""
    assert daemon.process is not None
    with open(f"/proc/{daemon.process.pid}/io") as file:
        return int(file.readline().split()[1])


@pytest.mark.parametrize("follow", [0, 1])
def test_a_reader_that_stands_still_does_not_fill_the_memory(daemon: Daemon, follow: int) -> None:
    size = 10_000_000
    line = "0123456789" * 20
    end = "sleep 100" if follow else "true"
    container = daemon.run_detached("sh", "-c", f"yes {line} | head -c {size}; echo end >&2; {end}")
    until(lambda: daemon.logs(container, "stderr=1&tail=1") == b"end\n")
    before = daemon.resting()
    begun = bytes_read(daemon)
    with daemon.connect() as client:
        path = f"/containers/{container}/logs?stdout=1&follow={follow}"
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        read_head(client)
        time.sleep(0.3)
        taken = bytes_read(daemon)
        assert 0 < taken - begun < size / 2
        time.sleep(0.3)
        assert bytes_read(daemon) - taken < 1000
    until(lambda: daemon.held() == before)
    daemon.delete(f"/containers/{container}?force=1")


def test_a_reader_that_is_slow_gets_every_line(daemon: Daemon) -> None:
    container = daemon.run_detached("seq", "100000")
    daemon.wait(container)
    received = bytearray()
    with daemon.connect() as client:
        client.sendall(f"GET /containers/{container}/logs?stdout=1 HTTP/1.0\r\n\r\n".encode())
        read_head(client)
        for _ in range(5):
            received += client.recv(100_000)
            time.sleep(0.05)
        received += read_to_end(client)
    text = b"".join(data for _stream, data in frames(bytes(received)))
    assert text == b"".join(b"%d\n" % number for number in range(1, 100_001))
