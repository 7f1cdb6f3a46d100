"""The Remote API over a real socket: versions, errors, streams, and clients that leave."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from api_engine import IMAGE_ID, Served, eventually, make_container, make_image, read_head, serving

from dockerd_py.api.call import MAX_JSON_BODY
from dockerd_py.engine.model import ContainerConfig, HostConfig, Progress, State, Status, WaitResult
from dockerd_py.errors import Conflict


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as running:
        yield running


# Versions, paths and errors


@pytest.mark.parametrize("path", ["/_ping", "/v1.0/_ping", "/v1.43/_ping"])
def test_ping_tells_the_api_version_in_its_headers(served: Served, path: str) -> None:
    response, body = served.call("GET", path)
    assert (response.status, body) == (200, b"OK")
    assert response.headers["Api-Version"] == "1.43"
    assert response.headers["Docker-Experimental"] == "false"
    assert response.headers["OSType"] == "linux"
    assert response.headers["Server"].startswith("pydockerd/")
    assert response.headers["Cache-Control"] == "no-cache, no-store, must-revalidate"
    assert response.headers["Pragma"] == "no-cache"
    head, nothing = served.call("HEAD", path)
    assert (head.status, nothing) == (200, b"")
    assert head.headers["Api-Version"] == "1.43"


def test_a_newer_client_is_told_the_newest_version(served: Served) -> None:
    response, body = served.call("GET", "/v1.99/info")
    assert response.status == 400
    assert json.loads(body) == {"message": "client version 1.99 is too new. Maximum supported API version is 1.43"}


def test_version_1_10_is_newer_than_1_9(served: Served) -> None:
    assert served.call("GET", "/v1.10/info")[0].status == 200
    assert served.call("GET", "/v0.9/info")[0].status == 400


@pytest.mark.parametrize("path", ["/", "/nothing", "/v1..2/info", "/v1/info", "/v1.2.3/info", "/v/info", "//info"])
def test_unknown_paths_are_pages_not_found(served: Served, path: str) -> None:
    response, body = served.call("GET", path)
    assert (response.status, json.loads(body)) == (404, {"message": "page not found"})


def test_a_known_path_with_another_method_is_not_found(served: Served) -> None:
    assert served.call("DELETE", "/info")[0].status == 404
    assert served.call("GET", "/containers/x/attach/ws")[0].status == 404


def test_errors_are_json_today_and_text_in_the_first_year(served: Served) -> None:
    response, body = served.call("GET", "/v1.24/containers/none/json")
    assert (response.status, response.headers["Content-Type"]) == (404, "application/json")
    assert json.loads(body) == {"message": "No such container: none"}
    response, body = served.call("GET", "/v1.10/containers/none/json")
    assert (response.status, response.headers["Content-Type"]) == (404, "text/plain")
    assert body == b"No such container: none\n"


def test_an_unforeseen_failure_is_a_500_whose_id_is_in_the_log(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    served.engine.containers.fail = ZeroDivisionError("secret")
    response, body = served.call("POST", "/containers/create", {"Image": "busybox"})
    message = json.loads(body)["message"]
    assert response.status == 500
    assert "secret" not in message
    match = re.fullmatch(r"internal error ([0-9a-f]{8}): the daemon's log has the details", message)
    assert match is not None
    assert match[1] in caplog.text
    assert "ZeroDivisionError: secret" in caplog.text


def test_an_engine_that_loses_a_connection_of_its_own_is_a_500_and_no_silence(served: Served) -> None:
    served.engine.containers.fail = ConnectionRefusedError("the monitor")
    assert served.call("POST", "/containers/create", {"Image": "busybox"})[0].status == 500


def test_what_is_done_already_is_304_without_a_body(served: Served) -> None:
    served.engine.containers.put(make_container(state=State(Status.RUNNING, started_at=1)))
    response, body = served.call("POST", "/containers/nice_name/start")
    assert (response.status, body) == (304, b"")
    assert served.call("POST", "/containers/nice_name/stop?t=3")[0].status == 204
    assert served.call("POST", "/containers/nice_name/stop")[0].status == 304
    assert served.engine.containers.asked == [("stop", "nice_name", 3), ("stop", "nice_name", None)]


def test_the_first_year_knows_no_304(served: Served) -> None:
    served.engine.containers.put(make_container(state=State(Status.RUNNING, started_at=1)))
    response, body = served.call("POST", "/v1.9/containers/nice_name/start")
    assert (response.status, body[:35]) == (500, b"Cannot start container nice_name: c")
    assert served.call("POST", "/v1.9/containers/nice_name/stop")[0].status == 204
    assert served.call("POST", "/v1.9/containers/nice_name/stop")[0].status == 204


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"\xff{}", b"[" * 100_000, b'{"Env": ["\\ud800"]}'])
def test_a_broken_body_is_a_bad_request(served: Served, body: bytes) -> None:
    response, answer = served.call("POST", "/containers/create", body)
    assert response.status == 400, answer


def test_a_body_that_is_too_long_is_refused_and_the_server_lives_on(served: Served) -> None:
    response, answer = served.call("POST", "/containers/create", b" " * (MAX_JSON_BODY + 1))
    assert (response.status, b"longer than" in answer) == (400, True)
    assert served.call("GET", "/_ping")[0].status == 200


def test_a_body_needs_no_content_type(served: Served) -> None:
    head = b"POST /containers/create HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: 19\r\n\r\n"
    answer = served.exchange(head + b'{"Image":"busybox"}')
    assert answer.startswith(b"HTTP/1.1 201 ")


def test_expect_100_continue_is_answered(served: Served) -> None:
    with served.connect() as client:
        client.sendall(b"POST /containers/create HTTP/1.1\r\nHost: d\r\n")
        client.sendall(b"Expect: 100-continue\r\nContent-Length: 13\r\n\r\n")
        assert read_head(client) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b'{"Image":"x"}')
        assert b" 201 " in read_head(client)


def test_a_request_that_is_no_http_gets_a_400_and_no_traceback(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    for garbage in (b"garbage\r\n\r\n", b"\x16\x03\x01\r\n\r\n"):
        assert b" 400 " in served.exchange(garbage).split(b"\r\n")[0]
    assert caplog.records == []
    assert served.call("GET", "/_ping")[0].status == 200


def test_a_create_without_a_body_is_refused(served: Served) -> None:
    for body in (None, {}, b"null"):
        response, answer = served.call("POST", "/containers/create", body)
        assert (response.status, b"Config cannot be empty" in answer) == (400, True)


# Containers


def test_create_passes_the_settings_on_and_answers_201(served: Served) -> None:
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Memory": 8 << 20}}
    answer = served.json("POST", "/v1.41/containers/create?name=/x", body)
    assert answer == {"Id": next(iter(served.engine.containers.all)), "Warnings": ["a warning"]}
    expected = ContainerConfig(image="busybox", cmd=("true",)), HostConfig(memory=8 << 20)
    assert served.engine.containers.asked == [("create", *expected, "/x", 6 << 20)]


def test_the_first_year_has_flat_limits_and_a_lower_minimum(served: Served) -> None:
    served.json("POST", "/v1.9/containers/create", {"Image": "busybox", "Memory": 600 << 10, "CpuShares": 5})
    _, _, host, _, minimum = served.engine.containers.asked[0]
    assert (host, minimum) == (HostConfig(memory=600 << 10, cpu_shares=5), 512 << 10)


def test_a_mount_whose_source_is_missing_is_refused_and_a_bind_is_not(served: Served, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    mount = {"Type": "bind", "Source": missing, "Target": "/t"}
    response, body = served.call("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Mounts": [mount]}})
    assert (response.status, f"bind source path does not exist: {missing}".encode() in body) == (400, True)
    served.json("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Binds": [f"{missing}:/t"]}})


def test_a_platform_of_another_machine_is_refused(served: Served) -> None:
    assert served.call("POST", "/containers/create?platform=linux/amd64", {"Image": "busybox"})[0].status == 201
    assert served.call("POST", "/containers/create?platform=linux/s390x", {"Image": "busybox"})[0].status == 400
    assert served.call("POST", "/containers/create?platform=windows", {"Image": "busybox"})[0].status == 400


def test_the_list_is_filtered_and_shows_names(served: Served) -> None:
    put = served.engine.containers.put
    put(make_container(id="b" * 64, name="web", created=5, state=State(Status.RUNNING, started_at=time.time_ns())))
    put(make_container(id="c" * 64, name="old", created=4, state=State(Status.EXITED, exit_code=3, finished_at=1)))
    put(make_container(id="d" * 64, name="new", created=3))

    def names(query: str) -> list[str]:
        return [one["Names"][0] for one in served.json("GET", f"/containers/json?{query}")]

    assert names("") == ["/web"]
    assert names("all=1") == ["/web", "/old", "/new"]
    assert names("limit=2") == ["/web", "/old"]
    assert names("all=true&before=old") == ["/new"]
    assert names("since=old") == ["/web"]
    assert names('filters={"status":["exited"]}') == ["/old"]
    assert names('filters={"exited":{"3":true},"status":{"running":false}}') == ["/old"]
    assert names('all=1&filters={"name":["^/?o"]}') == ["/old"]
    assert names('all=1&filters={"ancestor":["busybox"],"id":["d"]}') == ["/new"]
    assert names('all=1&filters={"ancestor":["nothing"]}') == []
    item = served.json("GET", "/containers/json?size=1")[0]
    assert (item["Image"], item["SizeRw"]) == ("busybox", 10)
    assert item["Status"].startswith("Up ")


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ('{"nonsense":["x"]}', "invalid filter 'nonsense'"),
        ('{"status":["nonsense"]}', "invalid filter 'status=nonsense'"),
        ('{"publish":["80"]}', "the filter 'publish' is not supported by this version"),
        ('{"exited":["x"]}', "invalid filter 'exited=x'"),
        ('{"name":["("]}', "invalid filter 'name=('"),
        ('{"name":5}', "invalid filter 'name': its values must be a list of strings"),
        ("name", "Bad parameter: filters is not valid JSON"),
    ],
)
def test_filters_that_cannot_be_used_are_refused_by_name(served: Served, filters: str, message: str) -> None:
    response, body = served.call("GET", f"/containers/json?filters={filters}")
    assert (response.status, json.loads(body)["message"][: len(message)]) == (400, message)


def test_kill_remove_resize_and_restart_pass_their_parameters_on(served: Served) -> None:
    served.engine.containers.put(make_container())
    assert served.call("POST", "/containers/nice_name/kill?signal=HUP")[0].status == 204
    assert served.call("POST", "/containers/nice_name/kill")[0].status == 204
    assert served.call("POST", "/containers/nice_name/restart?t=-1")[0].status == 204
    assert served.call("POST", "/containers/nice_name/resize?h=24&w=80")[0].status == 200
    assert served.call("POST", "/containers/nice_name/resize?h=x&w=80")[0].status == 400
    assert served.call("POST", "/containers/nice_name/stop?t=x")[0].status == 400
    assert served.call("DELETE", "/containers/nice_name?force=1&v=False")[0].status == 204
    identity = "a" * 64
    assert served.engine.containers.asked == [
        ("kill", identity, "HUP"),
        ("kill", identity, "SIGKILL"),
        ("restart", "nice_name", -1),
        ("resize", "nice_name", 24, 80),
        ("remove", "nice_name", True, False),
    ]


def test_settings_in_start_belong_to_old_versions_only(served: Served) -> None:
    served.engine.containers.put(make_container())
    response, body = served.call("POST", "/v1.24/containers/nice_name/start", {"Binds": ["/a:/b"]})
    assert (response.status, b"non-empty request body" in body) == (400, True)
    response, body = served.call("POST", "/v1.9/containers/nice_name/start", {"Binds": ["/a:/b"]})
    assert (response.status, body.endswith(b"give them to create\n")) == (400, True)
    empty = {"Binds": None, "LxcConf": [], "Privileged": False, "PortBindings": {}, "Links": None}
    assert served.call("POST", "/v1.9/containers/nice_name/start", empty)[0].status == 204


# Wait


def test_the_head_of_wait_comes_before_the_exit(served: Served) -> None:
    served.engine.containers.put(make_container())
    with served.connect() as client:
        client.sendall(b"POST /containers/nice_name/wait?condition=next-exit HTTP/1.1\r\nHost: d\r\n\r\n")
        assert read_head(client).startswith(b"HTTP/1.1 200 OK")
        future = served.engine.containers.exits["a" * 64]
        served.do(future.set_result, WaitResult(7))
        answer = b""
        while b"StatusCode" not in answer:
            answer += client.recv(1000)
        assert b'{"StatusCode":7}' in answer


def test_wait_tells_an_error_and_refuses_unknown_conditions(served: Served) -> None:
    served.engine.containers.put(make_container())
    future = served.run(_future(WaitResult(128, "lost")))
    served.engine.containers.exits["a" * 64] = future
    assert served.json("POST", "/containers/nice_name/wait") == {"StatusCode": 128, "Error": {"Message": "lost"}}
    assert served.call("POST", "/containers/nice_name/wait?condition=never")[0].status == 400
    assert served.call("POST", "/containers/none/wait")[0].status == 404


async def _future(result: WaitResult) -> Any:
    import asyncio

    future = asyncio.get_running_loop().create_future()
    future.set_result(result)
    return future


def test_a_client_that_leaves_ends_its_wait(served: Served) -> None:
    served.engine.containers.put(make_container())
    with served.connect() as client:
        client.sendall(b"POST /containers/nice_name/wait HTTP/1.1\r\nHost: d\r\n\r\n")
        read_head(client)
    eventually(lambda: served.engine.containers.waits_cancelled == 1)


def test_stopping_the_server_ends_waits_and_streams_promptly(served: Served) -> None:
    served.engine.containers.put(make_container())
    clients = [served.connect() for _ in range(3)]
    for client, path in zip(
        clients,
        ("POST /containers/nice_name/wait", "GET /events", "GET /containers/nice_name/logs?follow=1&stdout=1"),
        strict=True,
    ):
        client.sendall(f"{path} HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        read_head(client)
    begun = time.monotonic()
    served.run(served.server.stop())
    assert time.monotonic() - begun < 1.5
    for client in clients:
        assert client.recv(100) == b""
        client.close()


# Events


def test_events_are_history_and_then_what_happens(served: Served) -> None:
    publish = served.engine.events.publish
    begun = time.time()
    served.do(publish, "container", "create", "a" * 64, {"name": "one", "image": "busybox"})
    served.do(publish, "image", "tag", IMAGE_ID, {"name": "busybox:latest"})
    client = http.client.HTTPConnection("localhost")
    client.sock = served.connect()
    client.request("GET", f"/v1.41/events?since={begun - 1:.9f}&filters=" + '{"type":["container"]}')
    response = client.getresponse()
    first = json.loads(response.readline())
    assert first | {"time": 0, "timeNano": 0} == {
        "status": "create",
        "id": "a" * 64,
        "from": "busybox",
        "Type": "container",
        "Action": "create",
        "Actor": {"ID": "a" * 64, "Attributes": {"name": "one", "image": "busybox"}},
        "scope": "local",
        "time": 0,
        "timeNano": 0,
    }
    served.do(publish, "container", "start", "a" * 64, {"name": "one", "image": "busybox"})
    assert json.loads(response.readline())["Action"] == "start"
    assert served.engine.events.listeners == 1
    response.close()
    client.close()
    eventually(lambda: served.engine.events.listeners == 0)


def test_nothing_that_happens_after_the_head_of_events_is_missed(served: Served) -> None:
    for _ in range(20):
        with served.connect() as client:
            client.sendall(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n")
            read_head(client)
            served.do(served.engine.events.publish, "container", "die", "a" * 64, {"exitCode": "1"})
            answer = b""
            while b"exitCode" not in answer:
                answer += client.recv(1000)


def test_events_end_at_until_and_filters_choose(served: Served) -> None:
    attributes = {"name": "one", "image": "i:1", "k": "v"}
    for action in ("create", "die"):
        served.do(served.engine.events.publish, "container", action, "a" * 64, attributes)
    url = f"/events?since=1&until={time.time() + 0.3:.6f}&filters="

    def actions(filters: dict[str, list[str]]) -> list[str]:
        _, body = served.call("GET", url + json.dumps(filters).replace(" ", ""))
        return [json.loads(line)["Action"] for line in body.splitlines()]

    assert actions({}) == ["create", "die"]
    assert actions({"event": ["die"]}) == ["die"]
    assert actions({"container": ["one"], "image": ["i"], "label": ["k=v"]}) == ["create", "die"]
    assert actions({"container": ["two"]}) == []
    assert actions({"label": ["k=w"]}) == []


# Images


def test_an_import_streams_its_body_and_answers_with_the_id(served: Served) -> None:
    url = "/v1.41/images/create?fromSrc=-&repo=a&tag=b&message=m&changes=CMD+x&changes=ENV+a=b"
    response, body = served.call("POST", url, iter([b"x" * 100_000] * 80))
    assert response.status == 200
    assert body == b'{"status":"sha256:' + IMAGE_ID.encode() + b'"}\r\n'
    assert served.engine.images.received == 8_000_000
    settings = {"repo": "a", "tag": "b", "message": "m", "changes": ("CMD x", "ENV a=b"), "origin": "-"}
    assert served.engine.images.asked == [("import", settings)]


def test_progress_is_told_while_an_import_goes_on(served: Served) -> None:
    served.engine.images.progress = [Progress("Importing", "", 10, 20), Progress("Importing", "", 20, 20)]
    _, body = served.call("POST", "/images/create?fromSrc=-", b"tar")
    lines = [json.loads(line) for line in body.split(b"\r\n") if line]
    assert lines[0] == {"status": "Importing", "progressDetail": {"current": 10, "total": 20}}
    assert lines[-1] == {"status": f"sha256:{IMAGE_ID}"}


def test_a_failure_before_the_first_message_is_an_ordinary_error(served: Served) -> None:
    response, body = served.call("POST", "/images/create?fromSrc=-", b"")
    assert (response.status, json.loads(body)) == (400, {"message": "the archive is empty"})


def test_a_failure_after_it_is_the_last_message(served: Served) -> None:
    served.engine.images.progress = [Progress("Importing", "", 10)]
    served.engine.images.fail_after_progress = True
    response, body = served.call("POST", "/images/create?fromSrc=-", b"")
    assert response.status == 200
    assert json.loads(body.split(b"\r\n")[-2]) == {
        "errorDetail": {"message": "this is no tar"},
        "error": "this is no tar",
    }


@pytest.mark.parametrize(
    "start",
    [b"Content-Length: 1000\r\n\r\nhalf", b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"],
)
def test_an_upload_that_breaks_off_fails_the_import(served: Served, start: bytes) -> None:
    with served.connect() as client:
        client.sendall(b"POST /images/create?fromSrc=- HTTP/1.1\r\nHost: d\r\n" + start)
        eventually(lambda: served.engine.images.received == 4)
    eventually(lambda: served.engine.images.broke_off is not None)


def test_broken_chunks_are_a_bad_request(served: Served) -> None:
    request = b"POST /images/create?fromSrc=- HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n"
    request += b"4\r\nhalf\r\nzz\r\nx"
    with served.connect() as client:
        client.sendall(request)
        assert read_head(client).split(b" ", 2)[1] == b"400"


def test_pulls_are_refused_in_words(served: Served) -> None:
    response, body = served.call("POST", "/images/create?fromImage=busybox&tag=latest")
    message = "pulling images is not supported by this version; import one with fromSrc"
    assert (response.status, json.loads(body)) == (400, {"message": message})


def test_names_of_images_may_hold_slashes_and_escapes(served: Served) -> None:
    served.engine.images.all.append(make_image(id="9" * 64, tags=("host:5000/a/b:c",)))
    for name in ("host:5000/a/b:c", "host:5000%2Fa%2Fb:c", "sha256:999"):
        assert served.json("GET", f"/v1.41/images/{name}/json")["Id"] == "sha256:" + "9" * 64
    assert served.call("POST", "/images/host:5000/a/b:c/tag?repo=x/y&tag=1")[0].status == 201
    assert served.engine.images.asked == [("tag", "9" * 64, "x/y", "1", True)]
    assert served.json("DELETE", "/images/host:5000/a/b:c?noprune=1") == [
        {"Untagged": "host:5000/a/b:c"},
        {"Deleted": "sha256:" + "9" * 64},
    ]
    assert served.engine.images.asked[-1] == ("remove", "host:5000/a/b:c", False, False)


def test_parents_without_a_name_are_listed_only_on_demand(served: Served) -> None:
    served.engine.images.all = [
        make_image(id="3" * 64, parent_id="4" * 64),
        make_image(id="4" * 64, tags=()),
        make_image(id="5" * 64, tags=()),
    ]
    assert [one["Id"][7] for one in served.json("GET", "/images/json")] == ["3", "5"]
    assert [one["Id"][7] for one in served.json("GET", "/images/json?all=1")] == ["3", "4", "5"]
    assert [one["Id"][7] for one in served.json("GET", '/images/json?filters={"dangling":["true"]}')] == ["5"]
    assert [one["Id"][7] for one in served.json("GET", '/images/json?filters={"reference":["busy*"]}')] == ["3"]
    assert served.json("GET", "/images/json")[1]["RepoTags"] == []
    assert served.json("GET", "/v1.41/images/json")[1]["RepoTags"] == ["<none>:<none>"]


def test_info_and_version_hold_what_the_clients_print(served: Served) -> None:
    version = served.json("GET", "/version")
    assert {"Version", "ApiVersion", "MinAPIVersion", "GitCommit", "GoVersion", "Os", "Arch", "KernelVersion"} <= set(
        version
    )
    assert (version["Arch"], version["Components"][0]["Details"]["ApiVersion"]) == ("amd64", "1.43")
    info = served.json("GET", "/info")
    assert (info["OSType"], info["NCPU"], info["Swarm"]["LocalNodeState"]) == ("linux", 2, "inactive")
    assert info["DriverStatus"] == [["Backing Filesystem", "extfs"]]


def test_many_requests_share_one_connection(served: Served) -> None:
    client = http.client.HTTPConnection("localhost")
    client.sock = connection = served.connect()
    for _ in range(50):
        client.request("GET", "/_ping")
        assert client.getresponse().read() == b"OK"
    assert client.sock is connection
    client.close()


def test_tcp_is_served_like_unix(served: Served) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    served.run(served.server.start([listener]))
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    client.request("GET", "/_ping")
    assert client.getresponse().read() == b"OK"
    client.close()


def test_a_conflict_keeps_its_status_and_sentence(served: Served) -> None:
    served.engine.containers.fail = Conflict("taken")
    response, body = served.call("POST", "/containers/create", {"Image": "busybox"})
    assert (response.status, json.loads(body)) == (409, {"message": "taken"})


def test_inspect_shows_sizes_on_demand(served: Served) -> None:
    served.engine.containers.put(replace(make_container(), name="n"))
    assert "SizeRw" not in served.json("GET", "/containers/n/json")
    assert served.json("GET", "/containers/n/json?size=1")["SizeRootFs"] == 20
