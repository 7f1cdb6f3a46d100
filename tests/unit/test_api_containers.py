"""/containers as its clients see it: settings, lists, filters, and the wait that answers twice."""

from __future__ import annotations

import json
import os
import platform
import signal
from pathlib import Path
from urllib.parse import quote

import pytest
from daemons import Daemon, until
from wire import read_head, read_to_end, read_until

from dockerd_py.api.system import go_architecture

TRAP = "trap 'exit 3' TERM; echo up; while :; do sleep 0.02; done"

# Create and inspect


@pytest.mark.parametrize("body", [None, {}, b"null"])
def test_a_create_without_a_body_is_refused(daemon: Daemon, body: object) -> None:
    reply = daemon.post("/containers/create", body)
    assert (reply.status, "Config cannot be empty" in reply.message) == (400, True)


def test_create_answers_with_the_id_and_what_the_user_should_know(daemon: Daemon) -> None:
    body = {"Image": "busybox", "Cmd": ["a"], "HostConfig": {"Memory": 8 << 20}}
    reply = daemon.ask("POST", "/v1.41/containers/create?name=/x1", body)
    assert (reply.status, reply.headers["Content-Type"]) == (201, "application/json")
    assert "There is no default network (--bridge=none)" in reply.json["Warnings"][0]
    shown = daemon.inspect(reply.json["Id"])
    assert (shown["Name"], shown["Config"]["Cmd"], shown["HostConfig"]["Memory"]) == ("/x1", ["a"], 8 << 20)


def test_the_first_year_has_flat_limits(daemon: Daemon) -> None:
    body = {"Image": "busybox", "Cmd": ["true"], "Memory": 600 << 10, "CpuShares": 5}
    container = daemon.post("/containers/create", body, version="1.9").json["Id"]
    host = daemon.inspect(container)["HostConfig"]
    assert (host["Memory"], host["CpuShares"]) == (600 << 10, 5)


def test_a_mount_whose_source_is_missing_is_refused_and_a_bind_is_not(daemon: Daemon, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    mount = {"Type": "bind", "Source": missing, "Target": "/t"}
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Mounts": [mount]}}
    reply = daemon.post("/containers/create", body)
    assert (reply.status, f"bind source path does not exist: {missing}" in reply.message) == (400, True)
    daemon.create("true", host={"Binds": [f"{missing}:/t"]})


@pytest.mark.parametrize(
    ("wanted", "status"),
    [(f"linux/{go_architecture(platform.machine())}", 201), ("linux", 201), ("linux/s390y", 400), ("windows", 400)],
)
def test_a_platform_of_another_machine_is_refused(daemon: Daemon, wanted: str, status: int) -> None:
    body = {"Image": "busybox", "Cmd": ["true"]}
    assert daemon.post(f"/containers/create?platform={wanted}", body).status == status


def test_inspect_shows_sizes_on_demand(daemon: Daemon) -> None:
    container = daemon.run_detached("dd", "if=/dev/zero", "of=/file", "bs=1M", "count=3")
    daemon.wait(container)
    assert "SizeRw" not in daemon.inspect(container)
    sizes = daemon.get(f"/containers/{container}/json?size=1").json
    assert 3 << 20 <= sizes["SizeRw"] < 4 << 20
    image = daemon.get("/images/busybox/json").json["Size"]
    assert sizes["SizeRootFs"] == sizes["SizeRw"] + image


# The list


def test_the_list_is_filtered_and_shows_names(daemon: Daemon) -> None:
    for one in daemon.get("/containers/json?all=1").json:
        daemon.delete(f"/containers/{one['Id']}?force=1")
    identity = daemon.create("true", name="new1", Labels={"k": "v"})
    daemon.wait(daemon.run_detached("sh", "-c", "exit 3", name="old1"))
    daemon.run_detached("sleep", "100", name="web1")

    def names(query: str = "", **filters: object) -> list[str]:
        spelled = f"&filters={quote(json.dumps(filters))}" if filters else ""
        return [one["Names"][0] for one in daemon.get(f"/containers/json?{query}{spelled}").json]

    assert names() == ["/web1"]
    assert names("all=1") == ["/web1", "/old1", "/new1"]
    assert names("limit=2") == ["/web1", "/old1"]
    assert names("all=true&before=old1") == ["/new1"]
    assert names("since=old1") == ["/web1"]
    assert names(status=["exited"]) == ["/old1"]
    assert names("all=1", exited={"3": True}, status={"running": False}) == ["/old1"]
    assert names("all=1", exited=["4"]) == names(exited=["3"]) == []
    assert names("all=1", name=["^/?o"]) == ["/old1"]
    assert names("all=1", ancestor=["busybox"], id=[identity[:20]]) == ["/new1"]
    assert names("all=1", ancestor=["nothing"]) == []
    assert names("all=1", label=["k=v"]) == names("all=1", label=["k"]) == ["/new1"]
    assert names("all=1", label=["k=w"]) == []
    item = daemon.get("/containers/json?size=1").json[0]
    assert (item["Image"], type(item["SizeRw"])) == ("busybox", int)
    assert item["Status"].startswith(("Up ", "Less than a second"))
    daemon.delete("/containers/web1?force=1")


def test_a_container_whose_image_has_another_name_now_shows_the_images_id(daemon: Daemon) -> None:
    daemon.import_busybox("moving")
    before = daemon.get("/images/moving/json").json["Id"]
    container = daemon.create("true", Image="moving")
    daemon.import_busybox("moving")
    (item,) = daemon.get(f'/containers/json?all=1&filters={{"id":["{container}"]}}').json
    assert (item["Image"], item["ImageID"]) == (before, before)
    daemon.delete(f"/containers/{container}")
    daemon.delete("/images/moving")
    daemon.delete(f"/images/{before}")


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ('{"nonsense":["x"]}', "invalid filter 'nonsense'"),
        ('{"status":["nonsense"]}', "invalid filter 'status=nonsense'"),
        ('{"publish":["80/ip"]}', "invalid filter 'publish=80/ip'"),
        ('{"expose":["90-80"]}', "invalid filter 'expose=90-80'"),
        ('{"isolation":["hyperv"]}', "the filter 'isolation' is not supported by this version"),
        ('{"exited":["x"]}', "invalid filter 'exited=x'"),
        ('{"name":["("]}', "invalid filter 'name=('"),
        ('{"name":5}', "invalid filter 'name': its values must be a list of strings"),
        ("name", "Bad parameter: filters is not valid JSON"),
    ],
)
def test_filters_that_cannot_be_used_are_refused_by_name(daemon: Daemon, filters: str, message: str) -> None:
    reply = daemon.get(f"/containers/json?filters={filters}")
    assert (reply.status, reply.message[: len(message)]) == (400, message)


# Changes of state


def test_what_is_done_already_is_304_without_a_body(daemon: Daemon) -> None:
    container = daemon.run_detached("sh", "-c", TRAP)
    until(lambda: daemon.logs(container) == b"up\n")
    for path, status in (("start", 304), ("stop?t=3", 204), ("stop", 304)):
        reply = daemon.post(f"/containers/{container}/{path}")
        assert (reply.status, reply.data) == (status, b"")


def test_the_first_year_knows_no_304(daemon: Daemon) -> None:
    container = daemon.run_detached("sh", "-c", TRAP, name="early")
    until(lambda: daemon.logs(container) == b"up\n")
    reply = daemon.post("/containers/early/start", version="1.9")
    assert (reply.status, reply.data[:43]) == (500, b"Cannot start container early: The container")
    assert daemon.post("/containers/early/stop", version="1.9").status == 204
    assert daemon.post("/containers/early/stop", version="1.9").status == 204


def test_restart_waits_as_long_as_it_is_told(daemon: Daemon) -> None:
    container = daemon.run_detached("sh", "-c", "trap 'sleep 0.3; exit 3' TERM; echo up; while :; do sleep 0.02; done")
    until(lambda: daemon.logs(container) == b"up\n")
    first = daemon.inspect(container)["State"]["StartedAt"]
    assert daemon.post(f"/containers/{container}/restart?t=-1").status == 204
    until(lambda: daemon.logs(container) == b"up\nup\n")
    state = daemon.inspect(container)["State"]
    assert (state["Running"], state["StartedAt"] > first) == (True, True)
    assert daemon.delete(f"/containers/{container}?force=1&v=False").status == 204


def test_resize_reaches_the_terminal(daemon: Daemon) -> None:
    script = "trap 'stty size; exit' WINCH; echo up; while :; do sleep 0.02; done"
    container = daemon.run_detached("sh", "-c", script, Tty=True)
    until(lambda: daemon.get(f"/containers/{container}/logs?stdout=1").data == b"up\r\n")
    assert daemon.post(f"/containers/{container}/resize?h=24&w=81").status == 200
    assert daemon.wait(container) == 0
    assert daemon.get(f"/containers/{container}/logs?stdout=1").data == b"up\r\n24 81\r\n"


@pytest.mark.parametrize("path", ["resize?h=x&w=80", "resize?h=24", "resize?h=24&w=70000", "stop?t=x", "restart?t=1.5"])
def test_numbers_that_are_none_are_refused(daemon: Daemon, path: str) -> None:
    container = daemon.create("true")
    reply = daemon.post(f"/containers/{container}/{path}")
    assert (reply.status, reply.message.startswith("Bad parameter: ")) == (400, True)


def test_settings_in_start_belong_to_old_versions_only(daemon: Daemon) -> None:
    container = daemon.create("true", host={"NetworkMode": ""})
    path = f"/containers/{container}/start"
    reply = daemon.post(path, {"Binds": ["/a:/b"]}, version="1.24")
    assert (reply.status, b"non-empty request body" in reply.data) == (400, True)
    empty = {"Binds": None, "LxcConf": [], "Privileged": False, "PortBindings": {}, "Links": None}
    assert daemon.post(path, empty, version="1.9").status == 204


# Wait


def test_the_head_of_wait_comes_before_the_exit(daemon: Daemon) -> None:
    container = daemon.create("sh", "-c", "exit 7")
    with daemon.connect() as client:
        path = f"/containers/{container}/wait?condition=next-exit"
        client.sendall(f"POST {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n".encode())
        head = read_head(client)
        assert head.startswith(b"HTTP/1.1 200 OK")
        assert b"Transfer-Encoding: chunked" in head
        assert daemon.post(f"/containers/{container}/start").status == 204
        body = b'{"StatusCode":7}\n'
        assert read_to_end(client) == b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def test_a_wait_for_the_removal_lasts_longer_than_the_exit(daemon: Daemon) -> None:
    container = daemon.create("sh", "-c", "exit 2")
    with daemon.connect() as client:
        client.sendall(f"POST /containers/{container}/wait?condition=removed HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        read_head(client)
        daemon.post(f"/containers/{container}/start")
        assert daemon.wait(container) == 2
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(10)
        daemon.delete(f"/containers/{container}")
        assert b'{"StatusCode":2}' in read_until(client, b"0\r\n\r\n")


def test_wait_tells_an_error_of_which_the_command_knows_nothing(daemon: Daemon) -> None:
    container = daemon.run_detached("sleep", "100")
    pid = daemon.inspect(container)["State"]["Pid"]
    monitor = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(monitor, signal.SIGKILL)
    error = {"Message": "its monitor ended before the container did"}
    assert daemon.post(f"/containers/{container}/wait").json == {"StatusCode": 255, "Error": error}


def test_wait_refuses_unknown_conditions_and_containers(daemon: Daemon) -> None:
    container = daemon.create("true")
    reply = daemon.post(f"/containers/{container}/wait?condition=never")
    assert (reply.status, reply.message) == (400, 'invalid condition: "never"')
    assert daemon.post("/containers/none/wait").status == 404


def test_a_client_that_leaves_ends_its_wait(daemon: Daemon) -> None:
    container = daemon.create("true")
    before = daemon.resting()
    clients = [daemon.connect() for _ in range(10)]
    for client in clients:
        client.sendall(f"POST /containers/{container}/wait?condition=removed HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        read_head(client)
    tasks, files, _ = daemon.held()
    assert tasks >= before[0] + 20  # each has a task for its connection and one for its wait
    assert files == before[1] + 10
    for client in clients:
        client.close()
    until(lambda: daemon.held() == before)
