"""Pause, unpause and rename, against a real daemon."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest
from daemons import Daemon, until

COUNT = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.02; done"



@pytest.fixture
def counting(daemon: Daemon) -> Iterator[str]:
    container = daemon.run_detached("sh", "-c", COUNT)
    until(lambda: daemon.logs(container))
    yield container
    daemon.delete(f"/containers/{container}?force=1")


def status(daemon: Daemon, container: str) -> str:
    return str(daemon.inspect(container)["State"]["Status"])


def stands_still(daemon: Daemon, container: str) -> bool:
    time.sleep(0.1)
    before = daemon.logs(container)
    time.sleep(0.3)
    return daemon.logs(container) == before


def test_a_paused_container_stands_still_and_goes_on(daemon: Daemon, counting: str) -> None:
    assert daemon.post(f"/containers/{counting}/pause").status == 204
    assert stands_still(daemon, counting)
    state = daemon.inspect(counting)["State"]
    assert (state["Status"], state["Running"], state["Paused"]) == ("paused", True, True)
    assert daemon.get("/containers/json").json[0]["Status"].endswith("(Paused)")
    assert daemon.get("/info").json["ContainersPaused"] == 1
    assert daemon.post(f"/containers/{counting}/unpause").status == 204
    before = len(daemon.logs(counting))
    until(lambda: len(daemon.logs(counting)) > before)
    assert status(daemon, counting) == "running"


def test_what_does_not_fit_a_state_is_refused_and_says_why(daemon: Daemon, counting: str) -> None:
    assert daemon.post(f"/containers/{counting}/unpause").status == 409
    daemon.post(f"/containers/{counting}/pause")
    for request, words in (("pause", "already paused"), ("start", "try unpause"), ("attach?stream=1", "paused")):
        reply = daemon.post(f"/containers/{counting}/{request}")
        assert (reply.status, words in reply.json["message"]) == (409, True), reply.data
    assert daemon.delete(f"/containers/{counting}").status == 409
    created = daemon.create("true")
    assert daemon.post(f"/containers/{created}/pause").status == 409
    daemon.delete(f"/containers/{created}")


@pytest.mark.parametrize(("how", "code"), [("stop?t=5", 143), ("kill", 137), ("kill?signal=TERM", 143)])
def test_a_paused_container_can_be_ended(daemon: Daemon, how: str, code: int) -> None:
    container = daemon.run_detached("sh", "-c", "trap 'exit 143' TERM; echo ready; while :; do sleep 0.05; done")
    until(lambda: daemon.logs(container))
    daemon.post(f"/containers/{container}/pause")
    assert daemon.post(f"/containers/{container}/{how}").status == 204
    assert daemon.wait(container) == code
    daemon.delete(f"/containers/{container}")


def test_a_paused_container_can_be_removed_by_force(daemon: Daemon) -> None:
    container = daemon.run_detached("sleep", "100")
    daemon.post(f"/containers/{container}/pause")
    assert daemon.delete(f"/containers/{container}?force=1").status == 204


def test_a_commit_leaves_a_paused_container_paused(daemon: Daemon, counting: str) -> None:
    daemon.post(f"/containers/{counting}/pause")
    image = daemon.post(f"/commit?container={counting}").json["Id"]
    assert status(daemon, counting) == "paused"
    assert stands_still(daemon, counting)
    daemon.delete(f"/images/{image}")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_paused_container_stays_so_through_a_restart_of_the_daemon(own_daemon: Daemon, how: int) -> None:
    container = own_daemon.run_detached("sh", "-c", COUNT)
    until(lambda: own_daemon.logs(container))
    own_daemon.post(f"/containers/{container}/pause")
    own_daemon.stop(how)
    own_daemon.start()
    assert status(own_daemon, container) == "paused"
    assert stands_still(own_daemon, container)
    own_daemon.post(f"/containers/{container}/unpause")
    before = len(own_daemon.logs(container))
    until(lambda: len(own_daemon.logs(container)) > before)


def test_a_container_gets_another_name(daemon: Daemon) -> None:
    container = daemon.create("true", name="old")
    other = daemon.create("true", name="other")
    assert daemon.post(f"/containers/{container}/rename?name=new").status == 204
    assert daemon.inspect("new")["Id"] == container
    assert daemon.get("/containers/old/json").status == 404
    for name, status_code, words in (
        ("other", 409, "already in use"), ("new", 400, "same name"), ("", 400, "empty"), ("a/b", 400, "a/b"),
    ):  # fmt: skip
        reply = daemon.post(f"/containers/{container}/rename?name={name}")
        assert (reply.status, words in reply.json["message"]) == (status_code, True), reply.data
    assert daemon.inspect(container)["Name"] == "/new"
    again = daemon.create("true", name="old")
    for each in (container, other, again):
        daemon.delete(f"/containers/{each}")


def test_a_new_name_outlives_the_daemon(own_daemon: Daemon) -> None:
    container = own_daemon.run_detached("sleep", "100", name="old")
    own_daemon.post(f"/containers/{container}/rename?name=new")
    own_daemon.stop(signal.SIGKILL)
    own_daemon.start()
    assert own_daemon.inspect("new")["Id"] == container
    assert own_daemon.get("/containers/old/json").status == 404
