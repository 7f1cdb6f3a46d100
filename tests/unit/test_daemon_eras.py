"""The first year's containers: API 1.0 to 1.10 through a real daemon, what differs between them one version a test."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import pytest
from daemons import Daemon, until
from eras_house import TRAP, Old, ask_as, in_1_9, refused
from wire import frames, read_head, read_to_end

from dockerd_py.api.first_year import DEPRECATED_MAPPING

FIRST_YEAR = [f"1.{minor}" for minor in range(11)]
NEWEST = ["1.9", "1.10"]
"""The versions of the engines 0.8 and 0.9."""
AFTER = ["1.12", "1.23", "1.43"]


in_each_version = pytest.mark.parametrize("old", FIRST_YEAR, indirect=True)
in_the_newest = pytest.mark.parametrize("old", NEWEST, indirect=True)


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
