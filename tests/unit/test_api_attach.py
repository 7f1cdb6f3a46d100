"""Attach takes its connection over with every byte the client sent, and leaves other connections alone."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
from typing import Any

import pytest
from daemons import Daemon, until
from wire import frames, read_answer, read_head, read_to_end

UPGRADE = b"Connection: Upgrade\r\nUpgrade: tcp\r\n"
BODY = b'{"Detach":false}'
HEADS = {
    "upgrade": UPGRADE + b"Content-Length: 0\r\n\r\n",
    "upgrade with body": UPGRADE + b"Content-Length: 16\r\n\r\n" + BODY,
    "upgrade with chunked body": UPGRADE + b"Transfer-Encoding: chunked\r\n\r\n10\r\n" + BODY + b"\r\n0\r\n\r\n",
    "old": b"Content-Length: 0\r\n\r\n",
    "old without length": b"\r\n",
    "old with body": b"Content-Length: 16\r\n\r\n" + BODY,
    "old with chunked body": b"Transfer-Encoding: chunked\r\n\r\n10\r\n" + BODY + b"\r\n0\r\n\r\n",
}
ALL = "stream=1&stdin=1&stdout=1&stderr=1"


def request(head: bytes, container: str, query: str = ALL, version: str = "1.41", http: str = "1.1") -> bytes:
    return f"POST /v{version}/containers/{container}/attach?{query} HTTP/{http}\r\nHost: d\r\n".encode() + head


def reader(daemon: Daemon, *command: str, **config: Any) -> str:
    """A running container that reads its input to the end: by default it tells the input's digest then."""
    return daemon.run_detached(*(command or ("sha256sum",)), OpenStdin=True, StdinOnce=True, **config)


def digest(data: bytes) -> list[tuple[int, bytes]]:
    return [(1, hashlib.sha256(data).hexdigest().encode() + b"  -\n")]


def finish(client: socket.socket) -> list[tuple[int, bytes]]:
    """End the input; the output, in frames."""
    client.shutdown(socket.SHUT_WR)
    return frames(read_to_end(client))


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("size", [0, 5, 3_000_000])
def test_what_comes_with_the_request_and_behind_it_reaches_the_container(daemon: Daemon, kind: str, size: int) -> None:
    container = reader(daemon)
    early = os.urandom(size)
    with daemon.connect() as client:
        client.sendall(request(HEADS[kind], container) + early)
        head = read_head(client)
        assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\n" if "upgrade" in kind else b"HTTP/1.1 200 OK\r\n")
        assert b"\r\nContent-Type: application/vnd.docker.raw-stream\r\n" in head
        assert (b"\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n" in head) is ("upgrade" in kind)
        client.sendall(b"later")
        assert finish(client) == digest(early + b"later")


def test_a_request_that_arrives_byte_by_byte_is_taken_over_too(daemon: Daemon) -> None:
    container = reader(daemon)
    with daemon.connect() as client:
        for byte in request(HEADS["upgrade with chunked body"], container) + b"early":
            client.sendall(bytes([byte]))
        assert b" 101 " in read_head(client)
        assert finish(client) == digest(b"early")


def test_input_that_ends_together_with_the_request_is_seen_to_its_end(daemon: Daemon) -> None:
    answer = daemon.exchange(request(HEADS["upgrade"], reader(daemon)) + b"all of it", half_close=True)
    assert frames(answer.partition(b"\r\n\r\n")[2]) == digest(b"all of it")


def test_a_container_that_is_started_afterwards_gets_what_was_sent_before(daemon: Daemon) -> None:
    container = daemon.create("sha256sum", OpenStdin=True, StdinOnce=True)
    with daemon.connect() as client:
        client.sendall(request(HEADS["upgrade"], container) + b"before")
        assert b" 101 " in read_head(client)
        assert daemon.post(f"/containers/{container}/start").status == 204
        assert finish(client) == digest(b"before")


def test_an_attach_behind_pipelined_requests_is_answered_in_its_turn(daemon: Daemon) -> None:
    ping = b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n"
    container = reader(daemon)
    with daemon.connect() as client:
        client.sendall(ping * 3 + request(HEADS["old"], container) + b"in")
        assert [read_answer(client)[1] for _ in range(3)] == [b"OK"] * 3
        assert read_head(client).startswith(b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream")
        assert finish(client) == digest(b"in")


def test_an_attach_on_a_connection_that_was_used_before_works(daemon: Daemon) -> None:
    container = reader(daemon)
    with daemon.connect() as client:
        client.sendall(f"GET /v1.41/containers/{container}/json HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        head, body = read_answer(client)
        assert (b" 200 " in head, container.encode() in body) == (True, True)
        client.sendall(request(HEADS["upgrade"], container) + b"x")
        assert b" 101 " in read_head(client)
        assert finish(client) == digest(b"x")


def test_http_1_0_attaches_the_old_way(daemon: Daemon) -> None:
    answer = daemon.exchange(request(HEADS["old"], reader(daemon), http="1.0") + b"x", half_close=True)
    head, _, output = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert frames(output) == digest(b"x")


def test_expect_100_continue_is_answered_before_the_body_is_sent(daemon: Daemon) -> None:
    container = reader(daemon)
    with daemon.connect() as client:
        client.sendall(request(UPGRADE + b"Expect: 100-continue\r\nContent-Length: 16\r\n\r\n", container))
        assert read_head(client) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(BODY + b"early")
        assert b" 101 " in read_head(client)
        assert finish(client) == digest(b"early")


@pytest.mark.parametrize("kind", ["upgrade", "old"])
@pytest.mark.parametrize(
    ("version", "body"),
    [("1.41", b'{"message":"No such container: none"}\n'), ("1.10", b"No such container: none\n")],
)
def test_an_attach_that_is_refused_gets_an_ordinary_error_and_its_connection_ends(
    daemon: Daemon, kind: str, version: str, body: bytes
) -> None:
    answer = daemon.exchange(request(HEADS[kind], "none", version=version) + b"input that nobody reads")
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\n" + body)


def test_detach_keys_that_are_none_are_refused_before_the_connection_is_taken(daemon: Daemon) -> None:
    container = daemon.create("cat", OpenStdin=True)
    answer = daemon.exchange(request(HEADS["upgrade"], container, ALL + "&detachKeys=ctrl-%C3%A4"))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"invalid detach keys" in answer


def test_a_body_that_looks_like_an_attach_is_not_taken_for_one(daemon: Daemon) -> None:
    container = reader(daemon)
    body = request(HEADS["old"], container) + b"junk"
    head = b"POST /v1.41/containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: %d\r\n\r\n" % len(body)
    with daemon.connect() as client:
        client.sendall(head)
        client.sendall(body)
        assert read_head(client).startswith(b"HTTP/1.1 400 ")
    assert daemon.inspect(container)["State"]["Running"]
    daemon.delete(f"/containers/{container}?force=1")


# What is sent


@pytest.mark.parametrize(
    ("version", "framed", "content_type"),
    [("1.5", False, b"raw"), ("1.41", True, b"raw"), ("1.43", True, b"multiplexed")],
)
def test_old_versions_get_no_frames_and_new_ones_say_that_there_are(
    daemon: Daemon, version: str, framed: bool, content_type: bytes
) -> None:
    container = reader(daemon, "sh", "-c", "cat; sleep 0.05; echo bad >&2")
    answer = daemon.exchange(request(HEADS["upgrade"], container, version=version) + b"good\n", half_close=True)
    head, _, output = answer.partition(b"\r\n\r\n")
    assert b"\r\nContent-Type: application/vnd.docker." + content_type + b"-stream\r\n" in head + b"\r\n"
    assert (frames(output) == [(1, b"good\n"), (2, b"bad\n")]) if framed else (output == b"good\nbad\n")


def test_a_terminal_gets_no_frames(daemon: Daemon) -> None:
    container = daemon.create("sh", "-c", "read line; echo got $line", Tty=True, OpenStdin=True)
    with daemon.connect() as client:
        client.sendall(request(HEADS["upgrade"], container, version="1.43"))
        assert b"application/vnd.docker.raw-stream" in read_head(client)
        daemon.post(f"/containers/{container}/start")
        client.sendall(b"it\n")
        assert read_to_end(client) == b"it\r\ngot it\r\n"


@pytest.mark.parametrize(("wanted", "output"), [("stdout=1", [(1, b"good\n")]), ("stderr=1", [(2, b"bad\n")])])
def test_only_the_streams_that_were_asked_for_are_sent(
    daemon: Daemon, wanted: str, output: list[tuple[int, bytes]]
) -> None:
    container = reader(daemon, "sh", "-c", "cat; echo bad >&2")
    answer = daemon.exchange(
        request(HEADS["upgrade"], container, f"stream=1&stdin=1&{wanted}") + b"good\n", half_close=True
    )
    assert frames(answer.partition(b"\r\n\r\n")[2]) == output


# Clients that leave, and daemons that stop


def test_clients_that_vanish_leave_nothing_behind(daemon: Daemon) -> None:
    container = daemon.run_detached("cat", OpenStdin=True)
    before = daemon.resting()
    whole = request(HEADS["upgrade with body"], container)
    for cut in (10, 60, len(whole) - 3, None):
        client = daemon.connect()
        client.sendall(whole[:cut])
        client.close()
    with daemon.connect() as client:
        client.sendall(request(HEADS["upgrade"], container))
        read_head(client)
        until(lambda: daemon.held() == before)  # the connection is the monitor's now
    assert daemon.inspect(container)["State"]["Running"]
    daemon.delete(f"/containers/{container}?force=1")


def test_a_connection_that_was_taken_over_outlives_the_daemon(own_daemon: Daemon) -> None:
    for how in (signal.SIGTERM, signal.SIGKILL):
        container = reader(own_daemon, "cat")
        with own_daemon.connect() as client:
            client.sendall(request(HEADS["upgrade"], container) + b"before")
            read_head(client)
            assert frames(client.recv(1000)) == [(1, b"before")]
            own_daemon.stop(how)
            client.sendall(b"still here")
            assert finish(client) == [(1, b"still here")]
        own_daemon.start()
        assert own_daemon.wait(container) == 0
