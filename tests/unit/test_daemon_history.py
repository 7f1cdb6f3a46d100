"""How images came to be, what everything takes, cleaning up, insert: a real daemon, docker's clients, and our own."""

from __future__ import annotations

import functools
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import docker
import pytest
from clients import DOCKERS
from daemons import Daemon

REPOSITORY = Path(__file__).parents[2]
OURS = [
    sys.executable,
    "-c",
    "import sys; sys.argv[0] = 'pydocker'\nfrom dockerd_py.cli.main import main\nsys.exit(main())",
]


def client(daemon: Daemon, program: list[str], *args: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [*program, "-H", f"unix://{daemon.socket}", *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def commit(daemon: Daemon, base: str, script: str, name: str = "", query: str = "") -> str:
    container = daemon.run_detached("sh", "-c", script, Image=base)
    assert daemon.wait(container) == 0
    reply = daemon.post(f"/commit?container={container}&repo={name}&{query}")
    assert reply.status == 201, reply.data
    daemon.delete(f"/containers/{container}")
    return str(reply.json["Id"])


def names(daemon: Daemon) -> set[str]:
    return {tag for image in daemon.get("/images/json").json for tag in image["RepoTags"]}


@pytest.fixture
def family(daemon: Daemon) -> Iterator[tuple[str, str, str]]:
    """The ids of busybox, a nameless child of its with a megabyte, and that one's child, named top."""
    base = daemon.get("/images/busybox/json").json["Id"]
    middle = commit(daemon, base, "dd if=/dev/zero of=/mega bs=1M count=1", query="comment=mega")
    top = commit(daemon, middle, "echo 1 >/small", "top")
    yield base, middle, top
    daemon.delete("/images/top")
    daemon.delete(f"/images/{middle}")


def test_the_history_tells_each_step(daemon: Daemon, family: tuple[str, str, str]) -> None:
    base, middle, top = family
    steps = daemon.get("/images/top/history").json
    assert [step["Id"] for step in steps] == [top, middle, base]
    assert [step["Tags"] for step in steps] == [["top:latest"], None, ["busybox:latest"]]
    assert [step["Size"] for step in steps][:2] == [2, 1 << 20]
    assert steps[1]["Comment"] == "mega"
    assert steps[1]["CreatedBy"] == "sh -c dd if=/dev/zero of=/mega bs=1M count=1"
    assert steps[0]["Created"] >= steps[1]["Created"] >= steps[2]["Created"] > 1_600_000_000
    assert daemon.get("/images/nosuch/history").status == 404
    old = daemon.get("/images/top/history", version="1.9").json
    assert old[0]["Id"] == top.removeprefix("sha256:")
    assert "Comment" not in old[0]


@pytest.mark.parametrize("program", [OURS, *DOCKERS])
def test_history_on_the_command_line(daemon: Daemon, family: tuple[str, str, str], program: list[str]) -> None:
    base, middle, top = family
    lines = client(daemon, program, "history", "top").splitlines()
    assert lines[0].split() == ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
    assert lines[1].startswith(top[7:19])
    assert "1.05MB" in lines[2]
    assert "mega" in lines[2]
    assert client(daemon, program, "history", "-q", "--no-trunc", "top").split() == [top, middle, base]
    assert client(daemon, program, "history", "--format", "{{.Size}}", "top").split()[0] == "2B"


def test_images_as_a_tree_and_as_a_graph(daemon: Daemon, family: tuple[str, str, str]) -> None:
    base, middle, top = (identity[7:19] for identity in family)
    lines = client(daemon, OURS, "images", "--tree").splitlines()
    assert [line.partition(" Virtual")[0] for line in lines] == [f"└─{base}", f"  └─{middle}", f"    └─{top}"]
    assert lines[0].endswith(" Tags: busybox:latest")
    assert client(daemon, OURS, "images", "-t", "top").startswith(f"└─{top}")
    graph = client(daemon, OURS, "images", "--viz")
    assert f' "{base}" -> "{middle}"\n' in graph
    assert f' base -> "{base}" [style=invis]\n' in graph
    assert f'"{top}" [label="{top}\\ntop:latest"' in graph
    assert graph.startswith("digraph docker {")


def test_images_are_chosen_by_filters(daemon: Daemon, family: tuple[str, str, str]) -> None:
    def listed(**filters: list[str]) -> set[str]:
        reply = daemon.get(f"/images/json?filters={quote(json.dumps(filters))}")
        assert reply.status == 200, reply.data
        return {image["Id"] for image in reply.json}

    base, _, top = family
    assert listed() == {base, top}
    assert listed(reference=["to*"]) == {top}
    assert listed(before=["top"]) == {base}
    assert listed(since=["busybox"]) == {top}
    assert listed(dangling=["true"]) == set()
    assert listed(until=["1h"]) == set()
    assert len(daemon.get("/images/json?all=1").json) == 3
    labelled = commit(daemon, "busybox", "true", "labelled", "changes=LABEL%20a=b")
    assert listed(label=["a"]) == listed(label=["a=b"]) == {labelled}
    assert listed(label=["a=c"]) == set()
    daemon.delete("/images/labelled")


def test_a_name_with_the_beginning_of_an_id(daemon: Daemon, family: tuple[str, str, str]) -> None:
    base, _, top = family
    assert daemon.get(f"/images/top:{top[7:19]}/json").json["Id"] == top
    assert daemon.get(f"/images/top:{base[7:19]}/json").status == 404
    # A tag that looks like the beginning of another image's id wins over it.
    prefix = base[7:19]
    assert daemon.post(f"/images/top/tag?repo=x&tag={prefix}").status == 201
    assert daemon.post("/images/busybox/tag?repo=x&tag=other").status == 201
    assert daemon.get(f"/images/x:{prefix}/json").json["Id"] == top
    assert daemon.post(f"/images/top/tag?repo={prefix}").status == 201
    assert daemon.get(f"/images/{prefix}/json").json["Id"] == top
    for name in (f"x:{prefix}", "x:other", prefix):
        assert daemon.delete(f"/images/{name}").status == 200


def test_a_tag_is_moved_or_not_as_the_version_has_it(daemon: Daemon, family: tuple[str, str, str]) -> None:
    for version, query, status in (
        ("1.9", "", 201), ("1.18", "", 409), ("1.18", "&force=1", 201), ("1.43", "", 201), ("1.43", "&force=0", 201),
    ):  # fmt: skip
        daemon.post("/images/busybox/tag?repo=movable")
        assert daemon.post(f"/images/top/tag?repo=movable{query}", version=version).status == status
    daemon.delete("/images/movable")


def test_what_everything_takes(daemon: Daemon, family: tuple[str, str, str]) -> None:
    container = daemon.run_detached("sh", "-c", "echo 12345 >/file", Image="top")
    daemon.wait(container)
    usage = daemon.get("/system/df").json
    sizes = {image["Id"]: image for image in usage["Images"]}
    base, middle, top = family
    assert usage["LayersSize"] == sizes[base]["Size"] + (1 << 20) + 2
    assert sizes[top]["SharedSize"] == sizes[middle]["SharedSize"] == sizes[middle]["Size"]
    assert (sizes[top]["Containers"], sizes[base]["Containers"]) == (1, 0)
    assert usage["Containers"][0]["SizeRw"] == 6
    assert usage["Volumes"] == usage["BuildCache"] == []
    assert set(daemon.get("/system/df?type=volume").json) == {"Volumes"}
    assert daemon.get("/system/df?type=nonsense").status == 400
    shared = {image["Id"]: image["SharedSize"] for image in daemon.get("/images/json?shared-size=1").json}
    assert shared[top] == sizes[middle]["Size"]
    for program in (OURS, *DOCKERS):
        lines = [line.split() for line in client(daemon, program, "system", "df").splitlines()]
        assert lines[0] == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
        assert lines[1][:3] == ["Images", "3", "1"]
        assert lines[2][:4] == ["Containers", "1", "0", "6B"]
    daemon.delete(f"/containers/{container}")


def test_pruning_containers_leaves_those_that_run(daemon: Daemon) -> None:
    running = daemon.run_detached("sleep", "100")
    done = daemon.run_detached("sh", "-c", "echo 123 >/x")
    daemon.wait(done)
    kept = daemon.create("true", Labels={"keep": "1"})

    def prune(**filters: list[str]) -> Any:
        reply = daemon.post(f"/containers/prune?filters={quote(json.dumps(filters))}")
        assert reply.status == 200, reply.data
        return reply.json

    assert prune(until=["1h"])["ContainersDeleted"] is None
    assert prune(**{"label!": ["keep"]}) == {"ContainersDeleted": [done], "SpaceReclaimed": 4}
    assert prune(label=["keep=1"])["ContainersDeleted"] == [kept]
    assert [one["Id"] for one in daemon.get("/containers/json?all=1").json] == [running]
    assert daemon.post('/containers/prune?filters={"nonsense":["x"]}').status == 400
    daemon.delete(f"/containers/{running}?force=1")


def test_pruning_images_takes_what_nothing_needs(daemon: Daemon) -> None:
    nameless = commit(daemon, "busybox", "dd if=/dev/zero of=/mega bs=1M count=1")
    used = commit(daemon, "busybox", "echo 1 >/used")
    container = daemon.create("true", Image=used)
    named = commit(daemon, "busybox", "echo 1 >/named", "named")
    reply = daemon.post("/images/prune").json
    assert reply == {"ImagesDeleted": [{"Deleted": nameless}], "SpaceReclaimed": 1 << 20}
    assert daemon.get("/images/named/json").status == 200
    daemon.post("/images/named/tag?repo=named&tag=two")
    daemon.post("/images/busybox/tag?repo=kept")
    guard = daemon.create("true")
    reply = daemon.post(f'/images/prune?filters={quote(json.dumps({"dangling": {"false": True}}))}').json
    assert {"Deleted": named} in reply["ImagesDeleted"]
    assert {"Untagged": "named:two"} in reply["ImagesDeleted"]
    assert names(daemon) == {"busybox:latest", "kept:latest"} | {tag for tag in names(daemon) if tag.startswith("<")}
    for one in (container, guard):
        daemon.delete(f"/containers/{one}")
    daemon.delete(f"/images/{used}")
    daemon.delete("/images/kept")


@pytest.mark.parametrize("program", [OURS, *DOCKERS])
def test_pruning_on_the_command_line(daemon: Daemon, program: list[str]) -> None:
    container = daemon.create("true")
    assert container in client(daemon, program, "container", "prune", "-f")
    nameless = commit(daemon, "busybox", "echo 1 >/x")
    out = client(daemon, program, "image", "prune", "-f")
    assert f"deleted: {nameless}" in out
    assert "Total reclaimed space: 2B" in out


def test_docker_py_sees_history_and_prunes(daemon: Daemon) -> None:
    one = docker.DockerClient(base_url=f"unix://{daemon.socket}")
    assert len(one.images.get("busybox").history()) == 1
    assert one.containers.prune()["ContainersDeleted"] is None
    assert one.images.prune()["ImagesDeleted"] is None
    assert len(one.df()["Images"]) == 1
    one.close()


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("web")
    (directory / "file").write_text("from the web\n")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(directory)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_file_from_the_web_is_inserted(daemon: Daemon, web: str) -> None:
    before = {one["Id"] for one in daemon.get("/containers/json?all=1").json}
    identity = client(daemon, OURS, "insert", "busybox", f"{web}/file", "/new/place").strip()
    assert daemon.run_to_end("cat", "/new/place", Image=identity) == (0, b"from the web\n")
    parent = daemon.get("/images/busybox/json").json
    made = daemon.get(f"/images/{identity}/json").json
    assert (made["Parent"], made["Config"]["Cmd"]) == (parent["Id"], parent["Config"]["Cmd"])
    reply = daemon.post(f"/images/busybox/insert?url={web}/file&path=/etc/passwd", version="1.9")
    assert b"/etc/passwd exists" in reply.data
    reply = daemon.post(f"/images/busybox/insert?url={web}/nothing&path=/x", version="1.9")
    assert b"404" in reply.data
    assert daemon.post(f"/images/nosuch/insert?url={web}/file&path=/x", version="1.9").status == 404
    assert daemon.post(f"/images/busybox/insert?url={web}/file&path=/x").status == 404
    for one in daemon.get("/containers/json?all=1").json:
        if one["Id"] not in before and one["Image"] == identity:
            daemon.delete(f"/containers/{one['Id']}")
    assert {one["Id"] for one in daemon.get("/containers/json?all=1").json if "insert" in one["Command"]} == set()


def test_pydocker_commits_and_shows_changes(daemon: Daemon) -> None:
    container = daemon.run_detached("sh", "-c", "echo hi >/hello")
    daemon.wait(container)
    assert client(daemon, OURS, "diff", container) == "A /hello\n"
    options = ["-m", "msg", "-a", "me", "-c", "ENV A=1", "--run", '{"Cmd": ["cat", "/hello"]}']
    identity = client(daemon, OURS, "commit", *options, container, "ours:1").strip()
    image = daemon.get("/images/ours:1/json").json
    assert (image["Id"], image["Comment"], image["Author"]) == (identity, "msg", "me")
    assert image["Config"]["Env"] == ["A=1"]
    made = daemon.post("/containers/create", {"Image": "ours:1", "HostConfig": {"NetworkMode": "none"}}).json["Id"]
    daemon.post(f"/containers/{made}/start")
    daemon.wait(made)
    assert daemon.logs(made) == b"hi\n"
    for one in (made, container):
        daemon.delete(f"/containers/{one}")
    daemon.delete("/images/ours:1")
