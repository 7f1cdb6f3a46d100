"""wait, restart, kill, stop, rename, prune, events and the filters of ps: as unmodified clients use them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import docker
import pytest
from clients import DOCKERS
from daemons import Daemon, until
from wire import UnixConnection

OURS = [
    sys.executable,
    "-c",
    "import sys; sys.argv[0] = 'pydocker'\nfrom dockerd_py.cli.main import main\nsys.exit(main())",
]
PROGRAMS = [OURS, *DOCKERS]


@pytest.fixture
def client(daemon: Daemon) -> Iterator[docker.DockerClient]:
    one = docker.DockerClient(base_url=f"unix://{daemon.socket}", version="1.43")
    yield one
    one.close()


@pytest.fixture(autouse=True)
def nobody_left(daemon: Daemon) -> Iterator[None]:
    yield
    for container in daemon.get("/containers/json?all=1").json:
        daemon.delete(f"/containers/{container['Id']}?force=1")


def call(daemon: Daemon, program: list[str], *argv: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ, "DOCKER_HOST": f"unix://{daemon.socket}", "PYTHONPATH": str(Path(__file__).parents[2])
    }  # fmt: skip
    return subprocess.run(
        [*program, *argv], capture_output=True, text=True, timeout=60, env=environment, check=False, input=""
    )


def ok(daemon: Daemon, program: list[str], *argv: str) -> list[str]:
    done = call(daemon, program, *argv)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def happened(daemon: Daemon, since: float, **filters: list[str]) -> list[dict[str, Any]]:
    query = f"since={since:.9f}&until={time.time():.9f}&filters={quote(json.dumps(filters))}"
    reply = daemon.get(f"/events?{query}")
    assert reply.status == 200, reply.data
    return [json.loads(line) for line in reply.data.splitlines()]


def actions(daemon: Daemon, since: float, **filters: list[str]) -> list[str]:
    return [event["Action"] for event in happened(daemon, since, **filters)]


class Waiting:
    """A wait under way; it has begun when this is made."""

    def __init__(self, daemon: Daemon, container: str, condition: str) -> None:
        self.connection = UnixConnection(daemon.socket, 30)
        self.connection.request("POST", f"/v1.43/containers/{container}/wait?condition={condition}")
        self.response = self.connection.getresponse()
        self.answer: Any = None
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        self.answer = json.loads(self.response.read())
        self.connection.close()

    @property
    def ended(self) -> bool:
        return not self.thread.is_alive()

    def code(self) -> int:
        self.thread.join(20)
        return int(self.answer["StatusCode"])


# wait


def test_not_running_is_true_at_once_of_what_never_ran_and_of_what_has_ended(daemon: Daemon) -> None:
    container = daemon.create("sh", "-c", "exit 3")
    assert daemon.post(f"/containers/{container}/wait?condition=not-running").json["StatusCode"] == 0
    daemon.post(f"/containers/{container}/start")
    assert daemon.wait(container) == 3
    assert daemon.wait(container) == 3


def test_next_exit_waits_for_an_exit_that_is_to_come(daemon: Daemon) -> None:
    container = daemon.create("sh", "-c", "exit 3")
    daemon.post(f"/containers/{container}/start")
    daemon.wait(container)
    waiting = Waiting(daemon, container, "next-exit")
    assert not waiting.ended
    daemon.post(f"/containers/{container}/start")
    assert waiting.code() == 3


def test_removed_waits_for_the_removal_and_tells_the_exit_code(daemon: Daemon) -> None:
    container = daemon.run_detached("sh", "-c", "exit 4")
    daemon.wait(container)
    waiting = Waiting(daemon, container, "removed")
    assert not waiting.ended
    daemon.delete(f"/containers/{container}")
    assert waiting.code() == 4


def test_every_condition_ends_with_a_container_that_removes_itself(daemon: Daemon) -> None:
    container = daemon.create("sh", "-c", "exit 5", host={"AutoRemove": True})
    waits = [Waiting(daemon, container, condition) for condition in ("next-exit", "removed")]
    daemon.post(f"/containers/{container}/start")
    assert [wait.code() for wait in waits] == [5, 5]
    until(lambda: daemon.get(f"/containers/{container}/json").status == 404)


def test_a_restart_policy_does_not_hide_an_exit_from_who_waits(daemon: Daemon) -> None:
    container = daemon.create("sh", "-c", "exit 6", host={"RestartPolicy": {"Name": "always"}})
    waits = [Waiting(daemon, container, condition) for condition in ("next-exit", "removed")]
    daemon.post(f"/containers/{container}/start")
    assert waits[0].code() == 6
    until(lambda: daemon.inspect(container)["RestartCount"] > 1)
    assert not waits[1].ended
    daemon.delete(f"/containers/{container}?force=1")
    assert waits[1].code() in (6, 137)  # it may have run just then


def test_a_condition_that_is_none_is_refused(daemon: Daemon) -> None:
    container = daemon.create("true")
    reply = daemon.post(f"/containers/{container}/wait?condition=tomorrow")
    assert (reply.status, reply.message) == (400, 'invalid condition: "tomorrow"')


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_command_line_waits(daemon: Daemon, program: list[str]) -> None:
    first = daemon.run_detached("sh", "-c", "sleep 0.2; exit 7")
    second = daemon.run_detached("sh", "-c", "exit 8")
    assert ok(daemon, program, "wait", first, second) == ["7", "8"]


def test_docker_py_waits_for_each_condition(client: docker.DockerClient) -> None:
    container = client.containers.create("busybox", ["sh", "-c", "exit 9"], network_mode="none")
    container.start()
    assert container.wait(condition="not-running")["StatusCode"] == 9
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(container.wait(condition="removed")["StatusCode"]))
    thread.start()
    time.sleep(0.2)
    container.remove()
    thread.join(10)
    assert codes == [9]


# restart, stop, kill


def test_a_restart_tells_of_both_its_parts(daemon: Daemon) -> None:
    container = daemon.run_detached("sleep", "1000", StopSignal="KILL")
    begun = time.time()
    assert daemon.post(f"/containers/{container}/restart").status == 204
    assert actions(daemon, begun) == ["kill", "die", "stop", "start", "restart"]
    daemon.post(f"/containers/{container}/kill")
    begun = time.time()
    assert daemon.post(f"/containers/{container}/restart").status == 204
    assert actions(daemon, begun) == ["start", "restart"]


def test_a_container_that_removes_itself_survives_a_restart(daemon: Daemon) -> None:
    container = daemon.run_detached("sleep", "1000", host={"AutoRemove": True})
    before = daemon.inspect(container)["State"]["Pid"]
    for _ in range(3):
        assert daemon.post(f"/containers/{container}/restart?t=0").status == 204
    assert daemon.inspect(container)["State"]["Pid"] != before
    daemon.post(f"/containers/{container}/kill")
    until(lambda: daemon.get(f"/containers/{container}/json").status == 404)


def test_one_that_removes_itself_goes_when_its_restart_fails(daemon: Daemon) -> None:
    container = daemon.run_detached("sh", "-c", "rm /bin/sh && echo gone; exec sleep 1000", host={"AutoRemove": True})
    until(lambda: daemon.logs(container) == b"gone\n")
    assert daemon.post(f"/containers/{container}/restart?t=0").status >= 400
    until(lambda: daemon.get(f"/containers/{container}/json").status == 404)


def trap(daemon: Daemon, name: str, **options: Any) -> str:
    """A container that ends with code 42 on one signal and ignores others."""
    script = f"trap 'exit 42' {name}; echo ready; while :; do sleep 0.05; done"
    container = daemon.run_detached("sh", "-c", script, **options)
    until(lambda: daemon.logs(container) == b"ready\n")
    return container


@pytest.mark.parametrize(
    ("spelling", "name"),
    [("USR1", "USR1"), ("SIGUSR1", "USR1"), ("sigusr1", "USR1"), ("10", "USR1"), ("15", "TERM"),
     (str(signal.SIGRTMIN + 3), str(signal.SIGRTMIN + 3)), ("RTMIN+3", str(signal.SIGRTMIN + 3)),
     ("SIGRTMAX-2", str(signal.SIGRTMAX - 2)), ("STKFLT", "16")],
)  # fmt: skip
def test_any_signal_is_sent_by_name_or_number(daemon: Daemon, spelling: str, name: str) -> None:
    container = trap(daemon, name)
    begun = time.time()
    assert daemon.post(f"/containers/{container}/kill?signal={quote(spelling)}").status == 204
    assert daemon.wait(container) == 42
    (event, *_) = happened(daemon, begun, event=["kill"])
    assert event["Actor"]["Attributes"]["signal"].isdecimal()


@pytest.mark.parametrize("spelling", ["0", "65", "-1", "NOPE", "RTMIN+31", "1.5"])
def test_what_is_no_signal_is_refused(daemon: Daemon, spelling: str) -> None:
    container = daemon.run_detached("sleep", "1000")
    reply = daemon.post(f"/containers/{container}/kill?signal={quote(spelling)}")
    assert (reply.status, reply.message) == (400, f"Invalid signal: {spelling}")


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_command_line_kills_and_stops(daemon: Daemon, program: list[str]) -> None:
    by_kill, by_stop, by_time = trap(daemon, "USR2"), trap(daemon, "USR2", StopSignal="SIGUSR2"), trap(daemon, "USR2")
    ok(daemon, program, "kill", "-s", "USR2", by_kill)
    ok(daemon, program, "stop", by_stop)
    begun = time.time()
    ok(daemon, program, "stop", "-t", "0", by_time)
    assert time.time() - begun < 8
    assert [daemon.wait(one) for one in (by_kill, by_stop, by_time)] == [42, 42, 137]
    done = call(daemon, program, "kill", by_kill)
    assert done.returncode == 1
    assert "is not running" in done.stderr
    assert ok(daemon, program, "stop", by_kill) == [by_kill]


def test_stop_takes_the_signal_and_the_time_that_it_is_given(daemon: Daemon) -> None:
    container = trap(daemon, "USR2", StopTimeout=1000)
    assert daemon.post(f"/containers/{container}/stop?signal=USR2").status == 204
    assert daemon.wait(container) == 42
    stubborn = trap(daemon, "USR2", StopTimeout=1)
    assert daemon.post(f"/containers/{stubborn}/stop").status == 204
    assert daemon.wait(stubborn) == 137
    assert daemon.post(f"/containers/{stubborn}/stop").status == 304


# rename


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_new_name_is_everywhere_and_the_host_name_stays(daemon: Daemon, program: list[str]) -> None:
    container = daemon.run_detached("sh", "-c", "sleep 1000", name="before")
    daemon.create("true", name="taken")
    begun = time.time()
    ok(daemon, program, "rename", "before", "after")
    assert ok(daemon, program, "ps", "--format", "{{.Names}}") == ["after"]
    shown = daemon.inspect("after")
    assert (shown["Name"], shown["Config"]["Hostname"]) == ("/after", container[:12])
    assert daemon.get("/containers/before/json").status == 404
    (event,) = happened(daemon, begun, event=["rename"])
    assert event["Actor"]["Attributes"] | {"image": ""} == {"image": "", "name": "after", "oldName": "/before"}
    done = call(daemon, program, "rename", "after", "taken")
    assert done.returncode == 1
    assert 'The container name "/taken" is already in use' in done.stderr
    daemon.delete(f"/containers/{container}?force=1")
    daemon.delete("/containers/taken")


# prune


@pytest.mark.parametrize("program", PROGRAMS)
def test_prune_removes_what_does_not_run_and_tells(daemon: Daemon, program: list[str]) -> None:
    running = daemon.run_detached("sleep", "1000")
    paused = daemon.run_detached("sleep", "1000")
    daemon.post(f"/containers/{paused}/pause")
    created, kept = daemon.create("true"), daemon.create("true", Labels={"keep": "yes"})
    ended = daemon.run_detached("true")
    daemon.wait(ended)
    begun = time.time()
    out = ok(daemon, program, "container", "prune", "-f", "--filter", "label!=keep")
    assert {created, ended} <= set(out)
    assert {one["Id"] for one in daemon.get("/containers/json?all=1").json} == {running, paused, kept}
    assert actions(daemon, begun) == ["destroy", "destroy", "prune"]
    (told,) = happened(daemon, begun, event=["prune"])
    assert (told["Type"], set(told["Actor"]["Attributes"])) == ("container", {"reclaimed"})


# events


def test_a_filter_names_a_container_or_a_volume_by_the_beginning_of_its_name(daemon: Daemon) -> None:
    begun = time.time()
    one = daemon.create("true", name="nap-one")
    daemon.create("true", name="other")
    daemon.post("/volumes/create", {"Name": "store-one"})
    daemon.delete("/volumes/store-one")
    assert [event["id"] for event in happened(daemon, begun, container=["nap"])] == [one]
    assert actions(daemon, begun, volume=["store-one"]) == actions(daemon, begun, volume=["store"])
    assert actions(daemon, begun, volume=["store"]) == ["create", "destroy"]
    assert actions(daemon, begun, network=["bridge"]) == []
    assert actions(daemon, begun, image=[one[:12]]) == []
    assert actions(daemon, begun, scope=["swarm"]) == []
    assert len(actions(daemon, begun, scope=["local"], type=["container"])) == 2


def test_until_alone_tells_what_is_remembered(daemon: Daemon) -> None:
    container = daemon.create("true", name="remembered")
    filters = quote(json.dumps({"container": [container]}))
    reply = daemon.get(f"/events?until={time.time():.9f}&filters={filters}")
    assert [json.loads(line)["Action"] for line in reply.data.splitlines()] == ["create"]


def test_since_after_until_is_refused(daemon: Daemon) -> None:
    reply = daemon.get("/events?since=20&until=10")
    assert (reply.status, reply.message) == (400, "`since` time (20) cannot be after `until` time (10)")


def test_a_death_tells_how_long_it_ran(daemon: Daemon) -> None:
    begun = time.time()
    container = daemon.run_detached("sh", "-c", "sleep 1; exit 3")
    daemon.wait(container)
    (event,) = happened(daemon, begun, event=["die"], container=[container])
    assert event["Actor"]["Attributes"]["exitCode"] == "3"
    assert event["Actor"]["Attributes"]["execDuration"] in ("1", "2")


def test_nothing_is_lost_or_doubled_between_history_and_stream_under_load(daemon: Daemon) -> None:
    begun = time.time()
    container = daemon.create("true", name="n0")
    total = 400
    seen: list[list[str]] = []

    def follow() -> None:
        connection = UnixConnection(daemon.socket, 30)
        filters = quote(json.dumps({"event": ["rename"]}))
        connection.request("GET", f"/v1.43/events?since={begun:.9f}&filters={filters}")
        response = connection.getresponse()
        names: list[str] = []
        while names[-1:] != [f"n{total}"]:
            names.append(json.loads(response.readline())["Actor"]["Attributes"]["name"])
        seen.append(names)
        response.close()
        connection.close()

    threads = []
    for number in range(1, total + 1):
        assert daemon.post(f"/containers/{container}/rename?name=n{number}").status == 204
        if number % 50 == 25:
            threads.append(threading.Thread(target=follow))
            threads[-1].start()
    for thread in threads:
        thread.join(30)
    assert seen == [[f"n{number}" for number in range(1, total + 1)]] * len(threads)


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_command_line_shows_events_by_filter(daemon: Daemon, program: list[str]) -> None:
    begun = f"{time.time():.9f}"
    daemon.wait(daemon.run_detached("true", name="shown", Labels={"a": "b"}))
    daemon.create("true", name="hidden")
    argv = ["events", "--since", begun, "--until", f"{time.time():.9f}", "--format", "{{.Action}}"]
    assert ok(daemon, program, *argv, "-f", "container=shown") == ["create", "start", "die"]
    assert ok(daemon, program, *argv, "-f", "label=a=b", "-f", "event=die") == ["die"]
    assert ok(daemon, program, *argv, "-f", "type=volume") == []
    assert ok(daemon, program, *argv, "-f", "event=create") == ["create", "create"]


# ps


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_list_is_filtered_as_dockers_is(daemon: Daemon, program: list[str]) -> None:
    old = daemon.run_detached("sh", "-c", "exit 3", name="old")
    daemon.wait(old)
    mounted = {"Binds": ["data:/data"]}
    web = daemon.run_detached("sleep", "1000", name="web", host=mounted, ExposedPorts={"80/tcp": {}, "53/udp": {}})
    new = daemon.create("true", name="new", Labels={"k": "v"})

    def names(*filters: str, every: bool = True) -> list[str]:
        argv = [word for text in filters for word in ("-f", text)]
        return ok(daemon, program, "ps", *(["-a"] * every), "--format", "{{.Names}}", *argv)

    assert names("exited=3") == ["old"]
    assert names("exited=3", every=False) == []
    assert names("status=exited", every=False) == names("status=exited") == ["old"]
    assert names("status=created", "status=running") == ["new", "web"]
    assert names("before=web") == ["old"]
    assert names("since=web") == ["new"]
    assert names("since=old", every=False) == ["web"]
    assert names("volume=data") == names("volume=/data") == ["web"]
    assert names("network=none") == ["new", "web", "old"]
    assert names("network=host") == []
    assert names("expose=80") == names("expose=50-60/udp") == ["web"]
    assert names("expose=81") == names("publish=80") == []
    assert names("label=k") == names("label=k=v") == ["new"]
    assert names("name=e") == ["new", "web"]
    assert names("name=^/?old$") == names("name=^/old$") == ["old"]
    assert names(f"id={new[:8]}", f"id={web[:8]}") == ["new", "web"]
    assert names("is-task=false") == ["new", "web", "old"]
    assert names("is-task=true") == []
    assert names("health=none", every=False) == ["web"]


def test_ancestor_is_an_image_or_one_that_it_was_made_from(daemon: Daemon) -> None:
    source = daemon.create("true", name="source")
    child = daemon.post(f"/commit?container={source}&repo=child").json["Id"]
    container = daemon.create("true", Image="child", name="of-child")

    def found(ref: str) -> set[str]:
        reply = daemon.get(f"/containers/json?all=1&filters={quote(json.dumps({'ancestor': [ref]}))}")
        return {one["Id"] for one in reply.json}

    assert found("busybox") == {source, container}
    assert found("child") == found(child) == {container}
    assert found("nothing") == set()
    daemon.delete(f"/containers/{container}")
    daemon.delete("/images/child")
