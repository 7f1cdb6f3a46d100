"""The first year's containers: API 1.0 to 1.10 through a real daemon, what differs between them one version a test."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wire
from daemons import Daemon, Reply, until
from wire import frames, objects, read_head, read_to_end

from dockerd_py.api.first_year import DEPRECATED_MAPPING

FIRST_YEAR = [f"1.{minor}" for minor in range(11)]
NEWEST = ["1.9", "1.10"]
"""The versions of the engines 0.8 and 0.9."""
AFTER = ["1.12", "1.23", "1.43"]
TRAP = "trap 'exit 3' TERM; echo up; while :; do sleep 0.02; done"
CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "Origin, X-Requested-With, Content-Type, Accept",
    "Access-Control-Allow-Methods": "GET, POST, DELETE, PUT, OPTIONS",
}


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


in_each_version = pytest.mark.parametrize("old", FIRST_YEAR, indirect=True)
in_the_newest = pytest.mark.parametrize("old", NEWEST, indirect=True)
in_1_9 = pytest.mark.parametrize("old", ["1.9"], indirect=True)


def refused(reply: Reply) -> tuple[int, str]:
    """Status and sentence of a failure, which is text."""
    assert reply.headers["Content-Type"] == "text/plain"
    text = reply.data.decode()
    assert text.endswith("\n")
    return reply.status, text[:-1]


# The table of versions


def test_1_0_tells_progress_as_plain_text(daemon: Daemon) -> None:
    archive = daemon.directory / "tiny.tar"
    subprocess.run(["tar", "-cf", archive, "-C", "/", "etc/hostname"], check=True)
    reply = daemon.post("/images/create?fromSrc=-&repo=plain", archive.read_bytes(), version="1.0")
    assert (reply.status, reply.headers.get_content_type()) == (200, "text/plain")
    assert re.fullmatch(r"([^{}\n]*\r\n)*[0-9a-f]{64}\r\n", reply.data.decode())
    daemon.delete("/images/plain")


@pytest.mark.parametrize("version", FIRST_YEAR[1:])
def test_from_1_1_on_progress_is_json_without_a_separator_until_1_9(daemon: Daemon, version: str) -> None:
    archive = daemon.directory / "tiny.tar"
    subprocess.run(["tar", "-cf", archive, "-C", "/", "etc/hostname"], check=True)
    reply = daemon.post("/images/create?fromSrc=-&repo=json", archive.read_bytes(), version=version)
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/json")
    decoder, at, messages = json.JSONDecoder(), 0, []
    text = reply.data.decode()
    while at < len(text):
        message, at = decoder.raw_decode(text, at)
        messages.append(message)
        is_progress = message.keys() & {"progress", "progressDetail"}
        separator = "\r\n" if version == "1.10" and not is_progress else ""
        assert text[at:].startswith(separator or "{") or at == len(text)
        at += len(separator)
    assert re.fullmatch("[0-9a-f]{64}", messages[-1]["status"])
    daemon.delete("/images/json")


def test_1_2_has_auth_which_is_refused_by_name_as_there_is_no_registry_yet(daemon: Daemon) -> None:
    body = {"username": "a", "password": "b", "email": "c"}
    assert refused(daemon.post("/auth", body, version="1.2")) == (
        500, "logging in to a registry is not supported by this version"
    )  # fmt: skip
    assert daemon.post("/auth", body).status == 400


@pytest.mark.parametrize("old", FIRST_YEAR[3:], indirect=True)
def test_from_1_3_on_start_takes_settings_and_lists_show_sizes(old: Old, tmp_path: Path) -> None:
    container = old.create("sh", "-c", "cat /b/file >/copy")
    (tmp_path / "file").write_text("bound")
    assert old.post(f"/containers/{container}/start", {"Binds": [f"{tmp_path}:/b"]}).status == 204
    assert old.post(f"/containers/{container}/wait").json == {"StatusCode": 0}
    assert "SizeRw" not in old.listed()[container]
    sized = old.listed("all=1&size=1")[container]
    assert (sized["SizeRw"], sized["SizeRootFs"] > sized["SizeRw"]) == (5, True)


@in_each_version
def test_events_name_the_image_from_1_4_on(old: Old) -> None:
    begun = time.time()
    container = old.create("true")
    text = old.get(f"/events?since={begun:.9f}&until={time.time():.9f}").data.decode()
    assert not text.endswith("\n")
    event = json.loads(text)
    expected = {"status": "create", "id": container, "time": event["time"]}
    assert event == (expected | {"from": "busybox"} if old.minor >= 4 else expected)


@in_each_version
def test_ports_are_a_text_until_1_4_and_a_list_from_1_5_on(old: Old) -> None:
    container = old.run("sleep", "100", ExposedPorts={"80/tcp": {}}, PortSpecs=["53/udp"])
    shown = old.listed()[container]["Ports"]
    ports = old.inspect(container)["NetworkSettings"]
    assert ports["Ports"] == {"53/udp": None, "80/tcp": None}
    if old.minor < 5:
        assert shown == "53/udp, 80/tcp"
        assert ports["PortMapping"] == {"Tcp": {}, "Udp": {}}
    else:
        assert shown == [{"PublicPort": 53, "Type": "udp"}, {"PublicPort": 80, "Type": "tcp"}]
        assert ports["PortMapping"] is None
    quiet = old.create("true", ExposedPorts={"80/tcp": {}})
    assert old.listed()[quiet]["Ports"] == ("" if old.minor < 5 else [])


@in_each_version
def test_attach_is_raw_until_1_5_and_in_frames_from_1_6_on(old: Old) -> None:
    container = old.create("sh", "-c", "echo out; echo err >&2", AttachStdout=True)
    with old.daemon.connect() as client:
        path = f"/v{old.version}/containers/{container}/attach?stream=1&stdout=1&stderr=1"
        client.sendall(f"POST {path} HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        head = read_head(client)
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"Content-Type: application/vnd.docker.raw-stream\r\n" in head
        assert b"Transfer-Encoding" not in head
        old.post(f"/containers/{container}/start")
        data = read_to_end(client)
    if old.minor < 6:
        assert sorted(data.splitlines()) == [b"err", b"out"]
    else:
        assert sorted(frames(data)) == [(1, b"out\n"), (2, b"err\n")]


@in_each_version
def test_inspect_shows_the_host_config_from_1_8_on_and_the_exec_driver_in_1_10(old: Old, tmp_path: Path) -> None:
    container = old.create("true", Memory=8 << 20, Env=["A=b"], ExposedPorts={"80/tcp": {}})
    old.post(f"/containers/{container}/start", {"Binds": [f"{tmp_path}:/b:ro"]})
    shown = old.inspect(container)
    keys = {
        "ID", "Created", "Path", "Args", "Config", "State", "Image", "NetworkSettings", "ResolvConfPath",
        "HostnamePath", "HostsPath", "Name", "Driver", "Volumes", "VolumesRW",
    }  # fmt: skip
    more = ({"HostConfig"} if old.minor >= 8 else set()) | ({"ExecDriver"} if old.minor >= 10 else set())
    assert shown.keys() == keys | more
    assert (shown["ID"], shown["Path"], shown["Args"]) == (container, "true", [])
    assert re.fullmatch("[0-9a-f]{64}", shown["Image"])
    assert shown["Name"].startswith("/")
    assert shown["State"].keys() == {"Running", "Pid", "ExitCode", "StartedAt", "FinishedAt", "Ghost"}
    assert shown["State"]["Ghost"] is False
    assert shown["Config"].keys() == {
        "Hostname", "Domainname", "User", "Memory", "MemorySwap", "CpuShares", "AttachStdin", "AttachStdout",
        "AttachStderr", "PortSpecs", "ExposedPorts", "Tty", "OpenStdin", "StdinOnce", "Env", "Cmd", "Dns", "Image",
        "Volumes", "VolumesFrom", "WorkingDir", "Entrypoint", "NetworkDisabled", "OnBuild",
    }  # fmt: skip
    assert (shown["Config"]["Memory"], shown["Config"]["Hostname"]) == (8 << 20, container[:12])
    assert shown["NetworkSettings"].keys() == {
        "IPAddress", "IPPrefixLen", "Gateway", "Bridge", "PortMapping", "Ports"
    }  # fmt: skip
    assert (shown["Volumes"], shown["VolumesRW"]) == ({"/b": str(tmp_path)}, {"/b": False})
    if old.minor >= 8:
        assert shown["HostConfig"] == {
            "Binds": [f"{tmp_path}:/b:ro"], "ContainerIDFile": "", "LxcConf": None, "Privileged": False,
            "PortBindings": {}, "Links": None, "PublishAllPorts": False,
        }  # fmt: skip
    if old.minor >= 10:
        assert shown["ExecDriver"] == "crun"


@pytest.mark.parametrize("version", AFTER)
def test_from_1_12_on_inspect_says_id(daemon: Daemon, version: str) -> None:
    container = daemon.create("true")
    shown = daemon.get(f"/containers/{container}/json", version=version).json
    assert (shown["Id"], "ID" in shown) == (container, False)
    daemon.delete(f"/containers/{container}")


@in_the_newest
def test_force_removes_a_running_container_from_1_10_on(old: Old) -> None:
    container = old.run("sh", "-c", TRAP)
    until(lambda: old.daemon.logs(container) == b"up\n")
    begun = time.time()
    reply = old.delete(f"/containers/{container}?force=1")
    if old.minor < 10:
        assert refused(reply) == (406, "Impossible to remove a running container, please stop it first")
        return
    assert (reply.status, reply.data) == (204, b"")
    events = old.daemon.get(f"/events?since={begun - 1:.9f}&until={time.time():.9f}").data.splitlines()
    (died,) = (one for one in map(json.loads, events) if one["Action"] == "die" and one["id"] == container)
    assert died["Actor"]["Attributes"]["exitCode"] == "3"  # it was asked to end, not killed


@in_the_newest
def test_without_force_a_running_container_stays(old: Old) -> None:
    container = old.run("sleep", "100")
    hint = " or use -f" if old.minor >= 10 else ""
    message = f"Impossible to remove a running container, please stop it first{hint}"
    assert refused(old.delete(f"/containers/{container}")) == (406, message)


@in_the_newest
def test_on_build_is_read_from_1_10_on(old: Old) -> None:
    container = old.create("true", OnBuild=["RUN true"])
    assert old.inspect(container)["Config"]["OnBuild"] is None  # it is for images: a container has none
    reply = old.post("/containers/create", {"Image": "busybox", "Cmd": ["true"], "OnBuild": 5})
    assert reply.status == (400 if old.minor >= 10 else 201)


@pytest.mark.parametrize("version", FIRST_YEAR)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/_ping"), ("GET", "/containers/one/logs?stdout=1"), ("POST", "/containers/one/pause"),
        ("POST", "/containers/one/rename?name=two"), ("GET", "/containers/one/stats"),
        ("POST", "/containers/one/update"), ("GET", "/containers/one/archive?path=/"), ("POST", "/containers/prune"),
        ("GET", "/system/df"), ("GET", "/images/get?names=busybox"),
    ],
)  # fmt: skip
def test_what_came_later_is_not_there(daemon: Daemon, version: str, method: str, path: str) -> None:
    if not daemon.get("/containers/json?all=1").json:
        daemon.create("true", name="one")
    reply = daemon.call(method, path, version=version)
    assert refused(reply) == (404, "page not found")


# Transport


def ask_as(daemon: Daemon, url: str, headers: dict[str, str], body: bytes | None = None, method: str = "GET") -> Reply:
    connection = wire.UnixConnection(daemon.socket, 20)
    connection.request(method, url, body, headers)
    response = connection.getresponse()
    reply = Reply(response.status, response.read(), response.headers)
    connection.close()
    return reply


def test_a_client_of_another_version_is_told_so_in_its_own_words(daemon: Daemon) -> None:
    message = "client and server don't have same version (client : 1.99, server: 1.43)"
    reply = ask_as(daemon, "/v1.99/info", {"User-Agent": "Docker-Client/0.8.1"})
    assert refused(reply) == (404, message)
    assert ask_as(daemon, "/v1.99/info", {"User-Agent": "Docker-Client/20.10.24 (linux)"}).status == 400
    assert refused(daemon.ask("GET", "/v0.0/info"))[0] == 404


def test_1_1_is_not_1_10(daemon: Daemon) -> None:
    container = daemon.create("true")
    shown = {version: Old(daemon, version).inspect(container) for version in ("1.1", "1.10")}
    assert ("ExecDriver" in shown["1.1"], "ExecDriver" in shown["1.10"]) == (False, True)


@in_1_9
def test_statuses_follow_from_the_sentences(old: Old) -> None:
    old.create("true", query="?name=taken")
    expected = [
        (old.post("/containers/none/start"), 404, "No such container: none"),
        (old.post("/containers/none/wait"), 404, "No such container: none"),
        (old.post("/containers/create", {"Image": "none"}), 404, "No such image: none (tag: latest)"),
        (old.post("/containers/create", {"Image": "a:5/b:c"}), 404, "No such image: a:5/b (tag: c)"),
        (old.post("/containers/create", {"Image": "busybox", "Cmd": ["a"], "Memory": 524287}), 500,
         "Minimum memory limit allowed is 512k"),
        (old.post("/containers/create?name=a/b", {"Image": "busybox", "Cmd": ["a"]}), 500, "Invalid container name"),
        (old.post("/containers/create", {"Image": "busybox"}), 500, "No command specified"),
        (old.post("/containers/taken/kill?signal=NONE"), 500, "Invalid signal: NONE"),
        (old.post("/containers/taken/resize?h=x&w=5"), 500, "h and w must be numbers"),
        (old.post("/containers/taken/copy", {"Resource": ""}), 500, "Path cannot be empty"),
        (ask_as(old.daemon, "/v1.9/containers/taken/copy", {"Content-Type": "plain/text"}, b"{}", "POST"), 500,
         "Content-Type must be application/json"),
        (old.delete("/containers/taken?link=1"), 409, "Conflict, cannot remove the default name of the container"),
        (old.get("/nothing"), 404, "page not found"),
        (old.post("/commit?container=none"), 404, "No such container: none"),
    ]  # fmt: skip
    for reply, status, beginning in expected:
        found = refused(reply)
        assert (found[0], found[1][: len(beginning)]) == (status, beginning)


@in_1_9
def test_a_taken_name_is_told_with_its_holder(old: Old) -> None:
    holder = old.create("true", query="?name=taken")
    reply = old.post("/containers/create?name=/taken", {"Image": "busybox", "Cmd": ["true"]})
    assert refused(reply) == (409, (
        f"Conflict, The name taken is already assigned to {holder[:12]}. You have to delete (or rename) that container "
        "to be able to assign taken to a container again."
    ))  # fmt: skip


@in_1_9
def test_a_name_of_both_an_image_and_a_container_is_a_conflict(old: Old) -> None:
    old.create("true", query="?name=busybox")
    assert refused(old.get("/containers/busybox/json")) == (409, "Conflict between containers and images")
    assert refused(old.get("/images/busybox/json")) == (409, "Conflict between containers and images")
    assert old.daemon.get("/containers/busybox/json").status == 200
    assert old.daemon.get("/images/busybox/json").status == 200


@in_1_9
def test_values_are_typed_loosely(old: Old) -> None:
    body = {"Tty": "False", "OpenStdin": 1, "StdinOnce": "none", "AttachStdin": "yes", "Memory": 8388608.0,
            "CpuShares": "7", "MemorySwap": "x", "Cmd": "true", "Env": None, "Entrypoint": []}  # fmt: skip
    reply = old.post("/containers/create", {"Image": "busybox", **body, "Unknown": {"a": 1}})
    assert reply.status == 201, reply.data
    config = old.inspect(reply.json["Id"])["Config"]
    assert [config[key] for key in ("Tty", "OpenStdin", "StdinOnce", "AttachStdin")] == [False, True, False, True]
    assert [config[key] for key in ("Memory", "CpuShares", "MemorySwap", "Cmd")] == [8 << 20, 7, 0, ["true"]]


@in_1_9
def test_numbers_that_are_none_are_0_and_unknown_words_of_a_query_are_nothing(old: Old) -> None:
    container = old.create("true")
    assert list(old.listed("all=1&limit=x&trunc_cmd=0&only_ids=1")) == [container]
    assert old.listed("all=False") == {}


@in_1_9
def test_a_post_needs_no_content_type_and_may_have_the_first_clients_own(old: Old) -> None:
    container = old.run("sleep", "100")
    for headers in ({}, {"Content-Type": "plain/text"}, {"X-Registry-Auth": "!"}):
        reply = ask_as(old.daemon, f"/v1.9/containers/{container}/restart?t=0", headers, method="POST")
        assert reply.status == 204, reply.data


@in_each_version
def test_info_and_version_have_their_keys_and_numbers_for_truth(old: Old) -> None:
    info = old.get("/info").json
    assert info.keys() == {
        "Containers", "Images", "Driver", "DriverStatus", "MemoryLimit", "SwapLimit", "IPv4Forwarding", "Debug", "NFd",
        "NGoroutines", "ExecutionDriver", "NEventsListener", "KernelVersion", "IndexServerAddress", "InitSha1",
        "InitPath",
    }  # fmt: skip
    assert (info["Debug"], type(info["Debug"])) == (1, int)
    assert all(type(info[key]) is int for key in ("MemoryLimit", "SwapLimit", "IPv4Forwarding", "NFd"))
    assert old.get("/version").json.keys() == {"Version", "GitCommit", "GoVersion", "Os", "Arch", "KernelVersion"}


# List


@in_each_version
def test_the_list_has_the_keys_and_states_of_its_time(old: Old) -> None:
    before = old.create("true")
    ended = old.run("sh", "-c", "exit 7")
    old.post(f"/containers/{ended}/wait")
    up = old.run("sleep", "100")
    items = old.get("/containers/ps?all=1").json
    assert [item["Id"] for item in items] == [up, ended, before]
    assert all(
        item.keys() == {"Id", "Names", "Image", "Command", "Created", "Status", "Ports"} for item in items
    )
    assert re.fullmatch("Up (Less than a|[0-9]+) seconds?", items[0]["Status"])
    assert [item["Status"] for item in items[1:]] == ["Exit 7", "Exit 0"]
    assert [item["Command"] for item in items] == ["sleep 100", "sh -c exit 7", "true"]
    assert items[0]["Image"] == "busybox:latest"
    assert list(old.listed("")) == [up]
    assert list(old.listed("limit=2")) == [up, ended]
    assert list(old.listed(f"since={before}")) == [up, ended]
    assert list(old.listed(f"before={ended[:12]}")) == [before]
    assert list(old.listed("limit=-1")) == [up]


@in_1_9
def test_a_paused_container_is_up(old: Old) -> None:
    container = old.run("sleep", "100")
    old.daemon.post(f"/containers/{container}/pause")
    assert re.fullmatch(r"Up [^(]*", old.listed()[container]["Status"])


# Create


@in_1_9
def test_create_answers_with_an_id_and_warnings_or_null(old: Old) -> None:
    reply = old.post("/containers/create", {"Image": "busybox", "Cmd": ["true"], "NetworkDisabled": True})
    assert (reply.status, reply.json["Warnings"]) == (201, None)
    body = {"Image": "busybox", "Cmd": ["true"], "NetworkDisabled": True, "PortSpecs": ["8080:80", "53/udp"]}
    reply = old.post("/containers/create", body)
    assert reply.json["Warnings"] == [DEPRECATED_MAPPING]
    assert old.inspect(reply.json["Id"])["Config"]["ExposedPorts"] == {"53/udp": {}, "80/tcp": {}}


@in_1_9
def test_flat_limits_reach_the_container(old: Old) -> None:
    container = old.create("true", Memory=600 << 10, MemorySwap=-1, CpuShares=5)
    host = old.daemon.inspect(container)["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["CpuShares"]) == (600 << 10, -1, 5)


@in_1_9
def test_the_images_command_stays_behind_another_entry_point(old: Old) -> None:
    helper = old.create("true")
    body = {"Cmd": ["from", "image"], "Tty": True}
    assert old.post(f"/commit?container={helper}&repo=command", body).status == 201
    reply = old.post("/containers/create", {"Image": "command", "Entrypoint": ["echo"]})
    shown = old.inspect(reply.json["Id"])
    assert (shown["Path"], shown["Args"], shown["Config"]["Tty"]) == ("echo", ["from", "image"], True)
    old.delete(f"/containers/{reply.json['Id']}")
    old.daemon.delete("/images/command")


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
