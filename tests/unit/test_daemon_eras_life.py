"""Containers from start to end as the first year's clients ask for them, and pages of other origins."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemons import Daemon, until
from eras_house import TRAP, Old, ask_as, in_1_9, refused
from wire import frames, objects, read_head, read_to_end

CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "Origin, X-Requested-With, Content-Type, Accept",
    "Access-Control-Allow-Methods": "GET, POST, DELETE, PUT, OPTIONS",
}


# Start and its settings


@in_1_9
def test_settings_in_start_replace_those_of_before_and_are_kept(old: Old, tmp_path: Path) -> None:
    container = old.create("sh", "-c", "ls -d /a /b >/seen; ls -d /c >>/seen", Memory=8 << 20)
    path = f"/containers/{container}/start"

    def shown() -> tuple[object, object]:
        host = old.daemon.inspect(container)["HostConfig"]
        return host["Binds"], host["Memory"]

    assert old.post(path, {"Binds": [f"{tmp_path}:/a", f"{tmp_path}:/b"], "ContainerIDFile": "x"}).status == 204
    old.post(f"/containers/{container}/wait")
    assert shown() == ([f"{tmp_path}:/a", f"{tmp_path}:/b"], 8 << 20)
    assert old.post(path).status == 204  # without a body they stay
    old.post(f"/containers/{container}/wait")
    assert shown()[0] == [f"{tmp_path}:/a", f"{tmp_path}:/b"]
    assert old.post(path, {}).status == 204
    old.post(f"/containers/{container}/wait")
    assert shown()[0] == [f"{tmp_path}:/a", f"{tmp_path}:/b"]
    assert old.post(path, {"Binds": [f"{tmp_path}:/c"]}).status == 204
    old.post(f"/containers/{container}/wait")
    assert shown() == ([f"{tmp_path}:/c"], 8 << 20)
    assert old.daemon.inspect(container)["HostConfig"]["ContainerIDFile"] == ""
    assert old.post(path, {"Privileged": "false"}).status == 204
    old.post(f"/containers/{container}/wait")
    assert shown() == (None, 8 << 20)


def test_settings_in_start_outlive_the_daemon(own_daemon: Daemon, tmp_path: Path) -> None:
    old = Old(own_daemon, "1.9")
    (tmp_path / "file").write_text("bound")
    container = old.create("cat", "/b/file")
    assert old.post(f"/containers/{container}/start", {"Binds": [f"{tmp_path}:/b:ro"]}).status == 204
    old.post(f"/containers/{container}/wait")
    own_daemon.stop(9)
    own_daemon.start()
    assert old.inspect(container)["HostConfig"]["Binds"] == [f"{tmp_path}:/b:ro"]
    assert old.post(f"/containers/{container}/start").status == 204
    old.post(f"/containers/{container}/wait")
    assert own_daemon.logs(container) == b"boundbound"


@in_1_9
def test_settings_that_cannot_be_are_refused_by_name_and_nothing_changes(old: Old, tmp_path: Path) -> None:
    container = old.create("true")
    path = f"/containers/{container}/start"
    assert old.post(path, {"Binds": [f"{tmp_path}:/b"]}).status == 204
    old.post(f"/containers/{container}/wait")
    for body, word in (
        ({"Links": [5]}, "Links"), ({"PublishAllPorts": []}, "PublishAllPorts"),
        ({"PortBindings": {"80/tcp": [{"HostPort": "x"}]}}, '"x"'), ({"Binds": ["/a:/"]}, "'/'"),
        ({"Binds": "x"}, "'x'"), ({"Binds": [5]}, "Binds"),
    ):  # fmt: skip
        status, message = refused(old.post(path, body))
        assert (status in (400, 500), message.startswith("Cannot start container "), word in message) == (
            True, True, True
        ), message  # fmt: skip
    assert old.inspect(container)["HostConfig"]["Binds"] == [f"{tmp_path}:/b"]


@in_1_9
def test_a_bind_in_start_covers_a_volume_until_a_start_without_it(old: Old, tmp_path: Path) -> None:
    container = old.create("sh", "-c", "ls /data /more; echo x >/data/x", Volumes={"/data": {}, "/more": {}})
    path = f"/containers/{container}/start"
    before = old.inspect(container)["Volumes"]
    assert before.keys() == {"/data", "/more"}
    assert old.post(path, {"Privileged": False}).status == 204
    old.post(f"/containers/{container}/wait")
    assert old.inspect(container)["Volumes"] == before
    assert old.post(path, {"Binds": [f"{tmp_path}:/data"]}).status == 204
    old.post(f"/containers/{container}/wait")
    assert old.inspect(container)["Volumes"] == {"/data": str(tmp_path), "/more": before["/more"]}
    assert old.daemon.logs(container) == b"/data:\n\n/more:\n" * 2
    assert (tmp_path / "x").read_text() == "x\n"
    assert old.delete(f"/containers/{container}?v=1").status == 204
    assert not any(Path(source).exists() for source in before.values())  # the covered one, too


@in_1_9
def test_volumes_and_name_servers_of_create_stay_when_start_has_settings(old: Old, tmp_path: Path) -> None:
    source = old.create("true", query="?name=source", Volumes={"/data": {}})
    container = old.create("true", VolumesFrom="source:ro", Dns=["10.1.2.3"])
    assert old.post(f"/containers/{container}/start", {"Binds": [f"{tmp_path}:/b"]}).status == 204
    old.post(f"/containers/{container}/wait")
    shown = old.inspect(container)
    assert (shown["Config"]["VolumesFrom"], shown["Config"]["Dns"]) == ("source:ro", ["10.1.2.3"])
    volume = old.inspect(source)["Volumes"]["/data"]
    assert shown["Volumes"] == {"/data": volume, "/b": str(tmp_path)}
    assert shown["VolumesRW"] == {"/data": False, "/b": True}
    assert shown["HostConfig"]["Binds"] == [f"{tmp_path}:/b"]


def test_a_volume_that_start_would_have_to_make_is_refused_by_name(daemon: Daemon) -> None:
    container = daemon.create("true", host={"Binds": ["named:/kept"]})
    path = f"/containers/{container}/start"
    reply = daemon.post(path, {"Binds": ["other:/data"]}, version="1.23")
    assert (reply.status, b"a volume at /data that the container was not created with" in reply.data) == (400, True)
    assert daemon.post(path, {"Binds": ["named:/moved"]}, version="1.23").status == 204
    daemon.wait(container)
    assert [mount["Destination"] for mount in daemon.inspect(container)["Mounts"]] == ["/moved"]
    daemon.delete(f"/containers/{container}?v=1")
    daemon.delete("/volumes/named")


@in_1_9
def test_privileges_and_lxc_settings_of_start_have_their_effect(old: Old) -> None:
    container = old.create("sh", "-c", "grep CapEff /proc/self/status")
    body = {"Privileged": True, "LxcConf": [{"Key": "lxc.cgroup.cpu.shares", "Value": "77"}]}
    for given in (None, body, {"Privileged": False}):
        assert old.post(f"/containers/{container}/start", given).status == 204
        old.post(f"/containers/{container}/wait")
    plain, privileged, again = (int(line.split()[1], 16) for line in old.daemon.logs(container).splitlines())
    assert plain == again != privileged
    assert plain & privileged == plain


@in_1_9
def test_a_running_container_keeps_its_settings(old: Old, tmp_path: Path) -> None:
    container = old.run("sleep", "100")
    reply = old.post(f"/containers/{container}/start", {"Binds": [f"{tmp_path}:/b"]})
    message = f"Cannot start container {container}: The container {container} is already running."
    assert refused(reply) == (500, message)
    assert old.inspect(container)["HostConfig"]["Binds"] is None


@in_1_9
def test_a_body_of_start_that_is_not_called_json_is_not_read(old: Old) -> None:
    container = old.create("true")
    url = f"/v1.9/containers/{container}/start"
    reply = ask_as(old.daemon, url, {"Content-Type": "plain/text"}, b"not json", "POST")
    assert (reply.status, reply.data) == (204, b"")


@pytest.mark.parametrize("version", ["1.9", "1.15", "1.18", "1.23"])
def test_what_a_version_cannot_say_stays_when_it_starts_a_container(daemon: Daemon, version: str) -> None:
    container = daemon.create(
        "true", host={"PidsLimit": 50, "LogConfig": {"Type": "json-file"}, "RestartPolicy": {"Name": "on-failure"}}
    )
    reply = daemon.post(f"/containers/{container}/start", {"ContainerIDFile": "x"}, version=version)
    assert reply.status == 204, reply.data
    daemon.wait(container)
    host = daemon.inspect(container)["HostConfig"]
    assert (host["PidsLimit"], host["ContainerIDFile"], host["LogConfig"]["Type"]) == (50, "x", "json-file")
    says_network = version != "1.9"
    assert host["NetworkMode"] == ("default" if says_network else "none")
    assert host["RestartPolicy"]["Name"] == ("no" if says_network else "on-failure")
    daemon.delete(f"/containers/{container}")


@pytest.mark.parametrize("version", ["1.11", "1.23"])
def test_limits_in_a_start_count_where_they_are_named(daemon: Daemon, version: str) -> None:
    container = daemon.create("true", host={"Memory": 16 << 20})
    path = f"/containers/{container}/start"
    reply = daemon.post(path, {"Memory": 1000}, version=version)
    assert (reply.status, b"Minimum memory limit" in reply.data) == (400, True)
    assert daemon.post(path, {"Memory": 32 << 20}, version=version).status == 204
    assert daemon.wait(container) == 0
    assert daemon.inspect(container)["HostConfig"]["Memory"] == 32 << 20
    daemon.delete(f"/containers/{container}")


def test_a_log_that_somebody_waits_for_cannot_go_elsewhere(daemon: Daemon) -> None:
    container = daemon.create("echo", "hi")
    with daemon.connect() as client:
        client.sendall(f"POST /containers/{container}/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        read_head(client)
        body = {"LogConfig": {"Type": "none"}}
        reply = daemon.post(f"/containers/{container}/start", body, version="1.23")
        assert (reply.status, b"log driver cannot change now" in reply.data) == (409, True)
        assert daemon.post(f"/containers/{container}/start", {}, version="1.23").status == 204
        assert frames(read_to_end(client)) == [(1, b"hi\n")]
    assert daemon.post(f"/containers/{container}/start", body, version="1.23").status == 204
    daemon.wait(container)
    assert daemon.inspect(container)["HostConfig"]["LogConfig"]["Type"] == "none"
    daemon.delete(f"/containers/{container}")


@in_1_9
def test_a_command_that_is_not_there_cannot_be_started(old: Old) -> None:
    container = old.create("/no/such/thing")
    status, message = refused(old.post(f"/containers/{container}/start"))
    assert (status, message.startswith(f"Cannot start container {container}: ")) == (500, True)


# The end


@in_1_9
def test_stop_restart_and_kill_of_a_stopped_container_are_no_errors(old: Old) -> None:
    container = old.run("sh", "-c", TRAP)
    until(lambda: old.daemon.logs(container) == b"up\n")
    assert old.post(f"/containers/{container}/stop").status == 204  # ten seconds, unless it says otherwise
    assert old.inspect(container)["State"]["ExitCode"] == 3
    assert old.post(f"/containers/{container}/stop?t=1").status == 204
    assert old.post(f"/containers/{container}/kill").status == 204
    assert old.post(f"/containers/{container}/restart?t=1").status == 204
    assert old.inspect(container)["State"]["Running"] is True
    assert old.post(f"/containers/{container}/kill?signal=TERM").status == 204
    assert old.post(f"/containers/{container}/wait").json == {"StatusCode": 3}


@in_1_9
@pytest.mark.parametrize("signal", ["", "KILL", "9"])
def test_a_kill_waits_for_the_end(old: Old, signal: str) -> None:
    container = old.run("sleep", "100")
    assert old.post(f"/containers/{container}/kill?signal={signal}").status == 204
    assert old.inspect(container)["State"]["ExitCode"] == 137


@in_1_9
def test_changes_export_and_commit_work_as_ever(old: Old) -> None:
    container = old.run("sh", "-c", "echo hi >/new", NetworkDisabled=True)
    assert old.post(f"/containers/{container}/wait").json == {"StatusCode": 0}
    assert old.get(f"/containers/{container}/changes").json == [{"Path": "/new", "Kind": 1}]
    exported = old.get(f"/containers/{container}/export")
    assert (exported.status, exported.headers["Content-Type"]) == (200, "application/octet-stream")
    url = f"/v1.9/commit?container={container}&repo=made&comment=c&author=a"
    reply = ask_as(old.daemon, url, {"Content-Type": "application/json"}, b"{broken", "POST")
    assert (reply.status, reply.json.keys()) == (201, {"Id"})
    assert old.get("/images/made/json").json["comment"] == "c"
    old.daemon.delete("/images/made")


@in_1_9
def test_events_are_those_of_the_time(old: Old) -> None:
    begun = time.time()
    container = old.run("sleep", "100")
    old.daemon.post(f"/containers/{container}/pause")
    old.daemon.post(f"/containers/{container}/unpause")
    old.post(f"/containers/{container}/kill")
    old.delete(f"/containers/{container}")
    with old.daemon.connect() as client:
        client.sendall(f"GET /v1.9/events?since={begun:.9f} HTTP/1.0\r\n\r\n".encode())
        read_head(client)
        seen = b""
        while seen.count(b"}") < 5:
            seen += client.recv(65536)
    assert [event["status"] for event in objects(seen)] == [
        "create", "start", "kill", "die", "destroy"
    ]  # fmt: skip


# Pages of other origins


@pytest.fixture(scope="module")
def open_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    one = Daemon(tmp_path_factory.mktemp("cors"), "--api-enable-cors")
    one.start()
    one.import_busybox()
    yield one
    one.close()
    assert one.leftovers() == []


def cors_of(headers: http.client.HTTPMessage) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.startswith("Access-Control-")}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1.9/info", 200), ("GET", "/info", 200), ("GET", "/containers/none/json", 404),
        ("GET", "/v1.9/containers/none/json", 404), ("GET", "/nothing", 404), ("GET", "/v1.99/info", 400),
        ("POST", "/containers/create", 400), ("GET", "/events?since=1&until=2", 200), ("OPTIONS", "/anything", 200),
        ("OPTIONS", "/v1.9/containers/json", 200), ("HEAD", "/_ping", 200), ("GET", "/images/busybox/get", 200),
    ],
)  # fmt: skip
def test_with_cors_every_answer_carries_the_headers(open_daemon: Daemon, method: str, path: str, status: int) -> None:
    reply = open_daemon.ask(method, path)
    assert (reply.status, cors_of(reply.headers)) == (status, CORS)


def test_with_cors_the_answer_to_attach_and_a_304_carry_them_too(open_daemon: Daemon) -> None:
    container = open_daemon.run_detached("sleep", "100")
    for more, status in (("", 200), ("Connection: Upgrade\r\nUpgrade: tcp\r\n", 101)):
        with open_daemon.connect() as client:
            path = f"/containers/{container}/attach?stream=1&stdout=1"
            client.sendall(f"POST {path} HTTP/1.1\r\nHost: d\r\n{more}\r\n".encode())
            head = read_head(client).decode()
        assert head.startswith(f"HTTP/1.1 {status} ")
        assert all(f"\r\n{name}: {value}\r\n" in head for name, value in CORS.items())
    reply = open_daemon.post(f"/containers/{container}/start")
    assert (reply.status, cors_of(reply.headers)) == (304, CORS)


def test_without_cors_no_answer_carries_them_and_options_is_answered(daemon: Daemon) -> None:
    for method, path in (("GET", "/info"), ("OPTIONS", "/v1.9/info"), ("OPTIONS", "/x"), ("GET", "/x")):
        reply = daemon.ask(method, path)
        assert cors_of(reply.headers) == {}
        assert reply.status == (404 if (method, path) == ("GET", "/x") else 200)
