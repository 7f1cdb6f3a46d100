"""What a container changed, and images made of it, through the API of a real daemon and its clients."""

from __future__ import annotations

import io
import subprocess
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import docker
import pytest
from clients import DOCKERS
from daemons import Daemon, until

MAKE_CHANGES = (
    "mkdir -p /new/deep && echo 1 >/new/deep/file && echo more >>/etc/passwd && rm /etc/group && rm -r /home/ann "
    "&& chmod 700 /tmp && ln -s /etc/passwd /link && ln /new/deep/file /new/hard"
)


@pytest.fixture(params=["overlay", "vfs"], scope="module")
def each_driver(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    one = Daemon(tmp_path_factory.mktemp("commit"), "-s", request.param)
    one.start()
    one.import_busybox()
    yield one
    one.close()
    assert one.leftovers() == []


def diff(daemon: Daemon, container: str) -> list[tuple[str, str]]:
    reply = daemon.get(f"/containers/{container}/changes")
    assert reply.status == 200, reply.data
    return [("CAD"[change["Kind"]], change["Path"]) for change in reply.json or []]


def commit(daemon: Daemon, container: str, query: str = "", body: Any = None) -> str:
    reply = daemon.post(f"/commit?container={container}&{query}", body)
    assert reply.status == 201, reply.data
    return str(reply.json["Id"])


def client(daemon: Daemon, *argv: str, program: list[str]) -> str:
    command = [*program, "-H", f"unix://{daemon.socket}", *argv]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_changes_are_listed_as_docker_lists_them(each_driver: Daemon) -> None:
    container = each_driver.run_detached("sh", "-c", MAKE_CHANGES)
    each_driver.wait(container)
    assert diff(each_driver, container) == [
        ("C", "/etc"),
        ("D", "/etc/group"),
        ("C", "/etc/passwd"),
        ("C", "/home"),
        ("D", "/home/ann"),
        ("A", "/link"),
        ("A", "/new"),
        ("A", "/new/deep"),
        ("A", "/new/deep/file"),
        ("A", "/new/hard"),
        ("C", "/tmp"),
    ]


def test_a_container_that_did_nothing_changed_nothing(each_driver: Daemon) -> None:
    container = each_driver.run_detached("true")
    each_driver.wait(container)
    assert diff(each_driver, container) == []
    assert each_driver.get(f"/containers/{container}/changes").json is None


def test_a_directory_made_anew_is_the_sum_of_what_differs(each_driver: Daemon) -> None:
    first = each_driver.run_detached("sh", "-c", "mkdir -p /d/sub; echo 1 >/d/a; echo 2 >/d/b; echo 3 >/d/sub/c")
    each_driver.wait(first)
    image = commit(each_driver, first, "repo=opaque")
    script = "rm -r /d && mkdir -p /d/sub && echo 11 >/d/a && echo new >/d/n"
    second = each_driver.run_detached("sh", "-c", script, Image=image)
    each_driver.wait(second)
    wanted = [("C", "/d"), ("C", "/d/a"), ("D", "/d/b"), ("A", "/d/n"), ("C", "/d/sub"), ("D", "/d/sub/c")]
    assert diff(each_driver, second) == wanted
    third = commit(each_driver, second)
    code, out = each_driver.run_to_end("sh", "-c", "cd /d; find . | sort; cat a", Image=third)
    assert (code, out) == (0, b".\n./a\n./n\n./sub\n11\n")


def test_an_image_holds_what_the_container_changed(each_driver: Daemon) -> None:
    container = each_driver.run_detached("sh", "-c", MAKE_CHANGES)
    each_driver.wait(container)
    image = commit(each_driver, container, "repo=made&tag=v1&comment=why&author=Ann")
    parent = each_driver.get("/images/busybox/json").json
    made = each_driver.get("/images/made:v1/json").json
    assert made["Id"] == image
    assert made["Parent"] == parent["Id"]
    assert made["Container"] == container
    assert made["ContainerConfig"]["Cmd"] == ["sh", "-c", MAKE_CHANGES]
    assert (made["Comment"], made["Author"]) == ("why", "Ann")
    assert made["RootFS"]["Layers"][:-1] == parent["RootFS"]["Layers"]
    assert made["Architecture"] == parent["Architecture"]
    script = (
        "cat /new/hard; tail -1 /etc/passwd; ls /etc/group /home/ann; stat -c '%a %h' /tmp /new/hard; readlink /link"
    )
    code, out = each_driver.run_to_end("sh", "-c", script, Image="made:v1")
    assert b"1\nmore\n" in out
    assert b"/etc/group: No such file" in out
    assert b"/home/ann: No such file" in out
    assert b"700 " in out
    assert b"644 2\n/etc/passwd\n" in out
    assert code == 0


def test_the_settings_are_the_containers_with_the_given_ones_over_them(daemon: Daemon) -> None:
    container = daemon.create("sleep", "9", Env=["A=1", "B=2"], WorkingDir="/tmp", Hostname="h", Labels={"k": "v"})
    body = {"Cmd": ["echo", "new"], "Env": ["B=3"], "Volumes": {"/v": {}}, "PortSpecs": ["80"]}
    query = "changes=EXPOSE%2081&changes=LABEL%20x=y&changes=USER%20ann"
    config = daemon.get(f"/images/{commit(daemon, container, query, body)}/json").json["Config"]
    assert config["Cmd"] == ["echo", "new"]
    assert config["Env"] == ["A=1", "B=3"]
    assert config["WorkingDir"] == "/tmp"
    assert config["Labels"] == {"k": "v", "x": "y"}
    assert config["User"] == "ann"
    assert config["Volumes"] == {"/v": {}}
    assert set(config["ExposedPorts"]) == {"80/tcp", "81/tcp"}
    assert config["Hostname"] == ""


def test_an_image_without_changes_has_the_parents_layers(daemon: Daemon) -> None:
    container = daemon.create("true")
    image = daemon.get(f"/images/{commit(daemon, container)}/json").json
    assert image["RootFS"] == daemon.get("/images/busybox/json").json["RootFS"]
    daemon.delete(f"/images/{image['Id']}")
    assert daemon.run_to_end("echo", "still there") == (0, b"still there\n")


def test_before_1_10_the_given_settings_are_all_there_is(daemon: Daemon) -> None:
    container = daemon.create("sleep", "9", Env=["A=1"])
    reply = daemon.post(f"/commit?container={container}", {"Cmd": ["true"]}, version="1.9")
    assert len(reply.json["Id"]) == 64
    config = daemon.get(f"/images/{reply.json['Id']}/json").json["Config"]
    assert (config["Cmd"], config["Env"]) == (["true"], [])


def test_a_running_container_stands_still_while_it_is_committed(daemon: Daemon) -> None:
    container = daemon.run_detached("sh", "-c", "dd if=/dev/zero of=/big bs=1M count=64; i=0; while :; do i=$((i+1)); "
                                    "echo $i >/count; echo $i >/count2; done")  # fmt: skip
    time.sleep(1)
    for _ in range(3):
        image = commit(daemon, container)
        _, out = daemon.run_to_end("sh", "-c", "cat /count /count2", Image=image)
        # Between the two writes, or in the middle of one, it may have been stopped: never further apart.
        numbers = [int(line) for line in out.split()]
        assert len(numbers) < 2 or 0 <= numbers[0] - numbers[1] <= 1
    before = daemon.inspect(container)["State"]
    assert before["Running"]
    assert not before["Paused"]
    daemon.delete(f"/containers/{container}?force=1")


def test_a_commit_that_is_refused_lets_the_container_run_on(daemon: Daemon) -> None:
    container = daemon.run_detached("sleep", "100")
    for query, status in (("repo=UPPER", 400), ("changes=RUN%20x", 400), ("repo=a&tag=-x", 400)):
        assert daemon.post(f"/commit?container={container}&{query}").status == status
    assert daemon.post("/commit?container=nosuch").status == 404
    assert daemon.post("/commit").status == 400
    daemon.delete(f"/containers/{container}?force=1")


def test_layer_128_is_refused(own_daemon: Daemon) -> None:
    image = "busybox"
    depth = 1
    container = own_daemon.create("true")
    while depth < 127:
        if depth in (124, 125):
            for version in ("1.8", "1.9", "1.10", "1.24"):
                body = {"Image": image, "Cmd": ["true"]}
                reply = own_daemon.call("POST", "/containers/create", body, version=version)
                refused = depth == 125 and version in ("1.9", "1.10")
                assert reply.status == (500 if refused else 201), reply.data
                assert (b"Cannot create container with more than 127 parents" in reply.data) == refused
        tar = _tar_with(f"file{depth}")
        assert own_daemon.call("PUT", f"/containers/{container}/archive?path=/", tar).status == 200
        image = commit(own_daemon, container)
        own_daemon.delete(f"/containers/{container}")
        container = own_daemon.create("sh", "-c", "ls /file* | wc -l", Image=image)
        depth += 1
    own_daemon.post(f"/containers/{container}/start")
    own_daemon.wait(container)
    assert own_daemon.logs(container) == b"126\n"
    reply = own_daemon.post(f"/commit?container={container}")
    assert reply.status == 400
    assert "max depth exceeded" in reply.message
    assert "127 layers" in reply.message


def _tar_with(name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


@pytest.mark.parametrize("program", DOCKERS)
def test_the_docker_command_line_commits_and_shows_changes(daemon: Daemon, program: list[str]) -> None:
    container = daemon.run_detached("sh", "-c", "echo hi >/hello")
    daemon.wait(container)
    assert client(daemon, "diff", container, program=program) == "A /hello\n"
    out = client(daemon, "commit", "-m", "msg", "-a", "me", "-c", "CMD cat /hello", container, "cli:1", program=program)
    assert out.startswith("sha256:")
    assert client(daemon, "run", "--rm", "--network=none", "cli:1", program=program) == "hi\n"
    client(daemon, "rmi", "cli:1", program=program)


def test_docker_py_commits_and_shows_changes(daemon: Daemon) -> None:
    one = docker.DockerClient(base_url=f"unix://{daemon.socket}")
    container = one.containers.create("busybox", "true", network_mode="none")
    assert not container.diff()
    image = container.commit("frompy", tag="x", message="m", changes="ENV A=1\nLABEL b=c", conf={"User": "ann"})
    assert image.tags == ["frompy:x"]
    assert image.attrs["Config"]["Env"] == ["A=1"]
    assert image.labels == {"b": "c"}
    assert image.attrs["Config"]["User"] == "ann"
    container.remove()
    image.remove()
    one.close()


def test_commits_copies_and_removals_at_once_end_in_something_whole(daemon: Daemon) -> None:
    containers = [daemon.run_detached("sh", "-c", f"echo {n % 3} >/file; sleep 100") for n in range(6)]
    until(lambda: all(daemon.get(f"/containers/{c}/archive?path=/file").status == 200 for c in containers))

    def work(number: int) -> tuple[int, Any]:
        container = containers[number % 6]
        if number >= 18:
            return daemon.delete(f"/containers/{container}?force=1").status, None
        reply = daemon.post(f"/commit?container={container}")
        return reply.status, reply.json.get("Id")

    with ThreadPoolExecutor(24) as pool:
        results = list(pool.map(work, range(24)))
    assert {status for status, _ in results[:18]} <= {201, 404, 409}
    assert {status for status, _ in results[18:]} == {204}
    assert any(status == 201 for status, _ in results)
    for status, identity in results[:18]:
        if status == 201:
            code, out = daemon.run_to_end("cat", "/file", Image=identity)
            assert (code, out[-1:]) == (0, b"\n")
            assert out[:-1] in (b"0", b"1", b"2")
