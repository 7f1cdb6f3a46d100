"""The Remote API's ground: versions, errors in the form of each time, and requests in all the forms that HTTP has."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import time
from pathlib import Path

import pytest
from daemons import Daemon
from wire import UnixConnection, read_answer, read_head, read_to_end

from dockerd_py.api.call import MAX_JSON_BODY

# Versions and paths


@pytest.mark.parametrize("path", ["/_ping", "/v1.11/_ping", "/v1.43/_ping"])
def test_ping_tells_the_api_version_in_its_headers(daemon: Daemon, path: str) -> None:
    reply = daemon.ask("GET", path)
    assert (reply.status, reply.data) == (200, b"OK")
    assert reply.headers["Api-Version"] == "1.43"
    assert reply.headers["Docker-Experimental"] == "false"
    assert reply.headers["OSType"] == "linux"
    assert reply.headers["Server"].startswith("pydockerd/")
    assert reply.headers["Cache-Control"] == "no-cache, no-store, must-revalidate"
    assert reply.headers["Pragma"] == "no-cache"
    assert reply.headers["Content-Length"] == "2"
    head = daemon.ask("HEAD", path)
    assert (head.status, head.data) == (200, b"")
    assert {k: v for k, v in head.headers.items() if k != "Date"} == {
        k: v for k, v in reply.headers.items() if k != "Date"
    }


def test_the_answer_to_head_is_a_head_alone(daemon: Daemon) -> None:
    request = b"HEAD /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
    assert daemon.exchange(request).endswith(b"\r\n\r\n")


def test_a_newer_client_is_told_the_newest_version(daemon: Daemon) -> None:
    for version in ("1.44", "1.99", "2.0"):
        reply = daemon.ask("GET", f"/v{version}/info")
        message = f"client version {version} is too new. Maximum supported API version is 1.43"
        assert (reply.status, reply.json) == (400, {"message": message})


def test_version_1_10_is_newer_than_1_9(daemon: Daemon) -> None:
    assert daemon.ask("GET", "/v1.10/info").status == 200
    reply = daemon.ask("GET", "/v0.9/info")
    assert (reply.status, b"(client : 0.9, server: 1.43)" in reply.data) == (404, True)


@pytest.mark.parametrize("path", ["/", "/nothing", "/v1..2/info", "/v1/info", "/v1.2.3/info", "/v/info", "//info"])
def test_unknown_paths_are_pages_not_found(daemon: Daemon, path: str) -> None:
    reply = daemon.ask("GET", path)
    assert (reply.status, reply.json) == (404, {"message": "page not found"})


def test_a_known_path_with_another_method_is_not_found(daemon: Daemon) -> None:
    assert daemon.ask("DELETE", "/info").status == 404
    assert daemon.ask("GET", "/containers/x/attach/ws").status == 404


def test_info_and_version_hold_what_the_clients_print(daemon: Daemon) -> None:
    version = daemon.ask("GET", "/version").json
    keys = {"Version", "ApiVersion", "MinAPIVersion", "GitCommit", "GoVersion", "Os", "Arch", "KernelVersion"}
    assert keys <= set(version)
    assert version["Components"][0]["Details"]["ApiVersion"] == "1.43"
    assert version["Components"][1]["Name"] == "crun"
    info = daemon.ask("GET", "/info").json
    assert (info["OSType"], info["Swarm"]["LocalNodeState"]) == ("linux", "inactive")
    assert info["DockerRootDir"] == str(daemon.root)
    assert info["NCPU"] > 0
    assert [key for key, _value in info["DriverStatus"]] == ["Backing Filesystem"]


# Errors


def test_errors_are_json_today_and_text_in_the_first_year(daemon: Daemon) -> None:
    reply = daemon.ask("GET", "/v1.24/containers/none/json")
    assert (reply.status, reply.headers["Content-Type"]) == (404, "application/json")
    assert reply.json == {"message": "No such container: none"}
    for version in ("1.10", "1.23"):
        reply = daemon.ask("GET", f"/v{version}/containers/none/json")
        assert (reply.status, reply.headers["Content-Type"]) == (404, "text/plain")
        assert reply.data == b"No such container: none\n"


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"\xff{}", b"[" * 100_000, b'{"Env": ["\\ud800"]}'])
def test_a_broken_body_is_a_bad_request(daemon: Daemon, body: bytes) -> None:
    reply = daemon.post("/containers/create", body)
    assert reply.status == 400, reply.data


def test_a_body_that_is_too_long_is_refused_and_the_daemon_lives_on(daemon: Daemon) -> None:
    reply = daemon.post("/containers/create", b" " * (MAX_JSON_BODY + 1))
    assert (reply.status, "longer than" in reply.message) == (400, True)
    assert daemon.get("/_ping").status == 200


def test_a_request_that_is_no_http_gets_a_400_and_no_traceback(daemon: Daemon) -> None:
    written = daemon.log.stat().st_size
    for garbage in (b"garbage\r\n\r\n", b"\x16\x03\x01\r\n\r\n"):
        assert b" 400 " in daemon.exchange(garbage).split(b"\r\n")[0]
    assert daemon.get("/_ping").status == 200
    log = daemon.log.read_bytes()[written:]
    assert b"a request that is not HTTP" in log
    assert b"Traceback" not in log
    assert b"ERROR" not in log


# Forms of a request


def test_a_body_needs_no_content_type(daemon: Daemon) -> None:
    body = b'{"Image":"busybox","Cmd":["true"]}'
    head = b"POST /containers/create HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    assert daemon.exchange(head % len(body) + body).startswith(b"HTTP/1.1 201 ")


def test_a_body_may_come_in_chunks(daemon: Daemon) -> None:
    reply = daemon.post("/containers/create", iter([b'{"Image":"busy', b'box",', b'"Cmd":["true"]}']))
    assert (reply.status, set(reply.json)) == (201, {"Id", "Warnings"})


def test_a_request_that_arrives_byte_by_byte_is_answered(daemon: Daemon) -> None:
    body = b'{"Image":"busybox","Cmd":["true"]}'
    request = b"POST /v1.41/containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: %d\r\n\r\n" % len(body)
    with daemon.connect() as client:
        for byte in request + body:
            client.sendall(bytes([byte]))
        assert b" 201 " in read_head(client)


def test_broken_chunks_are_a_bad_request(daemon: Daemon) -> None:
    request = b"POST /containers/create HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n"
    with daemon.connect() as client:
        client.sendall(request + b"4\r\nhalf\r\nzz\r\nx")
        assert read_head(client).split(b" ", 2)[1] == b"400"


def test_expect_100_continue_is_answered_before_the_body_is_sent(daemon: Daemon) -> None:
    body = b'{"Image":"busybox","Cmd":["true"]}'
    with daemon.connect() as client:
        client.sendall(b"POST /containers/create HTTP/1.1\r\nHost: d\r\n")
        client.sendall(b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
        assert read_head(client) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(body)
        assert b" 201 " in read_head(client)


def test_a_request_that_asks_for_an_upgrade_elsewhere_is_answered_as_if_it_did_not(daemon: Daemon) -> None:
    ask = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    body = b'{"Image":"busybox","Cmd":["true"]}'
    create = b"POST /containers/create HTTP/1.1\r\nHost: d\r\n" + ask + b"Content-Length: %d\r\n\r\n" % len(body)
    with daemon.connect() as client:
        for _ in range(3):
            client.sendall(create)
            client.sendall(body)
            head, answer = read_answer(client)
            assert b" 201 " in head
            assert len(json.loads(answer)["Id"]) == 64


def test_many_requests_share_one_connection(daemon: Daemon) -> None:
    client = UnixConnection(daemon.socket, 20)
    client.connect()
    connection = client.sock
    for _ in range(50):
        client.request("GET", "/_ping")
        assert client.getresponse().read() == b"OK"
    assert client.sock is connection
    client.close()


def test_requests_that_are_sent_at_once_are_answered_in_their_order(daemon: Daemon) -> None:
    paths = (b"/_ping", b"/nothing", b"/v1.99/info")
    requests = b"".join(b"GET " + path + b" HTTP/1.1\r\nHost: d\r\n\r\n" for path in paths)
    with daemon.connect() as client:
        client.sendall(requests)
        assert [read_answer(client)[0].split(b" ")[1] for _ in paths] == [b"200", b"404", b"400"]


def test_tcp_is_served_like_unix(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    one = Daemon(tmp_path, "-H", f"tcp://127.0.0.1:{port}")
    one.start()
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    client.request("GET", "/_ping")
    assert client.getresponse().read() == b"OK"
    client.close()
    one.close()
    assert one.leftovers() == []


# The end


def test_a_stop_ends_waits_and_streams_promptly(own_daemon: Daemon) -> None:
    container = own_daemon.run_detached("sleep", "100")
    paths = (f"POST /containers/{container}/wait", "GET /events", f"GET /containers/{container}/logs?follow=1&stdout=1")
    clients = [own_daemon.connect() for _ in paths]
    for client, path in zip(clients, paths, strict=True):
        client.sendall(f"{path} HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        assert b" 200 " in read_head(client)
    begun = time.monotonic()
    assert own_daemon.stop(signal.SIGTERM) == 0
    assert time.monotonic() - begun < 1.5
    for client in clients:
        assert read_to_end(client) == b""
        client.close()
