"""Attach takes its connection over with every byte the client sent, and leaves other connections alone."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_engine import Served, eventually, make_container, read_head, read_to_end, serving

UPGRADE = b"Connection: Upgrade\r\nUpgrade: tcp\r\n"
PATH = b"/v1.41/containers/nice_name/attach?stream=1&stdin=1&stdout=1"
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


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as running:
        running.engine.containers.put(make_container())
        yield running


def request(head: bytes, path: bytes = PATH, version: bytes = b"1.1") -> bytes:
    return b"POST " + path + b" HTTP/" + version + b"\r\nHost: d\r\n" + head


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("size", [0, 5, 3_000_000])
def test_what_comes_with_the_request_and_behind_it_reaches_the_container(served: Served, kind: str, size: int) -> None:
    early = os.urandom(size)
    with served.connect() as client:
        client.sendall(request(HEADS[kind]) + early)
        head = read_head(client)
        assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\n" if "upgrade" in kind else b"HTTP/1.1 200 OK\r\n")
        assert b"\r\nContent-Type: application/vnd.docker.raw-stream\r\n" in head
        client.sendall(b"later")
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client).endswith(b"<%d>" % (size + 5))


def test_a_request_that_arrives_byte_by_byte_is_taken_over_too(served: Served) -> None:
    with served.connect() as client:
        for byte in request(HEADS["upgrade with chunked body"]) + b"early":
            client.sendall(bytes([byte]))
        assert b" 101 " in read_head(client)
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client).endswith(b"<5>")


def test_input_that_ends_together_with_the_request_is_seen_to_its_end(served: Served) -> None:
    answer = served.exchange(request(HEADS["upgrade"]) + b"all of it", half_close=True)
    assert answer.endswith(b"ALL OF IT<9>")


def test_an_attach_behind_pipelined_requests_is_answered_in_its_turn(served: Served) -> None:
    ping = b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n"
    answer = served.exchange(ping * 3 + request(HEADS["old"]) + b"in", half_close=True)
    assert answer.count(b"HTTP/1.1 200 OK") == 4
    assert answer.endswith(b"<2>")


def test_an_attach_on_a_connection_that_was_used_before_works(served: Served) -> None:
    with served.connect() as client:
        client.sendall(b'POST /v1.41/containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: 13\r\n\r\n{"Image":"x"}')
        head = read_head(client)
        assert b" 201 " in head
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while length:
            length -= len(client.recv(length))
        client.sendall(request(HEADS["upgrade"]) + b"x")
        assert b" 101 " in read_head(client)
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client).endswith(b"<1>")


def test_http_1_0_attaches_the_old_way(served: Served) -> None:
    answer = served.exchange(request(HEADS["old"], version=b"1.0") + b"x", half_close=True)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b"<1>")


def test_expect_100_continue_is_answered_before_the_body_is_sent(served: Served) -> None:
    with served.connect() as client:
        client.sendall(request(UPGRADE + b"Expect: 100-continue\r\nContent-Length: 16\r\n\r\n"))
        assert read_head(client) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(BODY + b"early")
        assert b" 101 " in read_head(client)
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client).endswith(b"<5>")


@pytest.mark.parametrize("kind", ["upgrade", "old"])
def test_an_attach_that_is_refused_gets_an_ordinary_error_and_its_connection_ends(served: Served, kind: str) -> None:
    answer = served.exchange(request(HEADS[kind], b"/v1.41/containers/none/attach?stream=1"))
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b'{"message":"No such container: none"}\n')


def test_a_body_that_looks_like_an_attach_is_not_taken_for_one(served: Served) -> None:
    body = request(HEADS["old"]) + b"junk"
    head = b"POST /v1.41/containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: %d\r\n\r\n" % len(body)
    with served.connect() as client:
        client.sendall(head)
        client.sendall(body)
        assert read_head(client).startswith(b"HTTP/1.1 400 ")
        assert served.engine.containers.attached == []


def test_a_request_that_asks_for_an_upgrade_elsewhere_is_answered_as_if_it_did_not(served: Served) -> None:
    ask = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    body = b'{"Image":"x"}'
    create = b"POST /containers/create HTTP/1.1\r\nHost: d\r\n" + ask + b"Content-Length: 13\r\n\r\n"
    with served.connect() as client:
        for _ in range(3):
            client.sendall(create)
            client.sendall(body)
            head = read_head(client)
            assert b" 201 " in head
            client.recv(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))


def test_a_terminal_and_old_versions_get_no_frames_and_new_ones_say_so(served: Served) -> None:
    for path, framed, content_type in (
        (b"/v1.5/containers/nice_name/attach?stdout=1", False, b"raw"),
        (b"/v1.41/containers/nice_name/attach?stdout=1", True, b"raw"),
        (b"/v1.43/containers/nice_name/attach?stdout=1", True, b"multiplexed"),
    ):
        answer = served.exchange(request(HEADS["upgrade"], path), half_close=True)
        assert b"\r\nContent-Type: application/vnd.docker." + content_type + b"-stream\r\n" in answer
        assert served.engine.containers.attached[-1][0].multiplexed is framed
    served.engine.containers.put(make_container(config=make_container().config.__class__(tty=True)))
    answer = served.exchange(request(HEADS["upgrade"], b"/v1.43/containers/nice_name/attach?stdout=1"), half_close=True)
    assert b"raw-stream" in answer
    assert served.engine.containers.attached[-1][0].multiplexed is False


def test_clients_that_vanish_leave_nothing_behind(served: Served) -> None:
    for cut in (10, 60, len(request(HEADS["upgrade with body"])) - 3, None):
        client = served.connect()
        client.sendall(request(HEADS["upgrade with body"])[:cut])
        client.close()
    with served.connect() as client:
        client.sendall(request(HEADS["upgrade"]))
        read_head(client)
    eventually(lambda: not served.server._fronts)


def test_a_connection_that_was_taken_over_is_forgotten_and_stays_open(served: Served) -> None:
    with served.connect() as client:
        client.sendall(request(HEADS["upgrade"]))
        read_head(client)
        eventually(lambda: not served.server._fronts)
        served.run(served.server.stop())
        client.sendall(b"still here")
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client).endswith(b"<10>")
