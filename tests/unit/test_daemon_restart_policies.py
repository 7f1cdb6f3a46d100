"""Restart policies, against a real daemon."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from clients import DOCKERS
from daemons import Daemon, until

COUNTER = 'echo run; n=$(cat /n 2>/dev/null || echo 0); n=$((n+1)); echo $n > /n; '


def policy(name: str, times: int = 0) -> dict[str, object]:
    return {"RestartPolicy": {"Name": name, "MaximumRetryCount": times}}


def restarts(daemon: Daemon, container: str) -> int:
    return int(daemon.inspect(container)["RestartCount"])


def status(daemon: Daemon, container: str) -> str:
    return str(daemon.inspect(container)["State"]["Status"])


def test_on_failure_is_tried_as_often_as_said_and_no_more(daemon: Daemon) -> None:
    container = daemon.run_detached("sh", "-c", "echo run; exit 3", host=policy("on-failure", 2))
    until(lambda: status(daemon, container) == "exited")
    assert restarts(daemon, container) == 2
    assert daemon.inspect(container)["State"]["ExitCode"] == 3
    assert daemon.logs(container) == b"run\n" * 3
    daemon.delete(f"/containers/{container}")


def test_on_failure_ends_with_a_success(daemon: Daemon) -> None:
    container = daemon.run_detached("sh", "-c", COUNTER + "[ $n = 3 ]", host=policy("on-failure"))
    until(lambda: status(daemon, container) == "exited")
    assert restarts(daemon, container) == 2
    assert daemon.inspect(container)["State"]["ExitCode"] == 0
    assert daemon.get(f"/containers/{container}/json").json["HostConfig"]["RestartPolicy"]["Name"] == "on-failure"
    daemon.delete(f"/containers/{container}")


@pytest.mark.parametrize("name", ["always", "unless-stopped"])
def test_it_comes_back_until_it_is_stopped(daemon: Daemon, name: str) -> None:
    container = daemon.run_detached("sh", "-c", "sleep 0.1", host=policy(name))
    until(lambda: restarts(daemon, container) >= 2)
    listed = daemon.get("/containers/json").json
    assert container in [each["Id"] for each in listed]  # also between two starts
    assert daemon.post(f"/containers/{container}/stop?t=0").status == 204
    count = restarts(daemon, container)
    time.sleep(1)
    assert status(daemon, container) == "exited"
    assert restarts(daemon, container) == count
    assert daemon.post(f"/containers/{container}/start").status == 204
    until(lambda: 0 < restarts(daemon, container) < count + 1)
    assert daemon.post(f"/containers/{container}/kill").status in (204, 409)
    daemon.delete(f"/containers/{container}?force=1")


def test_a_container_that_waits_for_its_restart_says_so_and_can_be_stopped(daemon: Daemon) -> None:
    container = daemon.run_detached("sh", "-c", "exit 4", host=policy("always"))
    until(lambda: restarts(daemon, container) >= 4)
    time.sleep(0.5)  # its start is over, and the next one is further away than that
    until(lambda: status(daemon, container) == "restarting")
    state = daemon.inspect(container)["State"]
    assert (state["Running"], state["Restarting"], state["Pid"], state["ExitCode"]) == (True, True, 0, 4)
    listed = daemon.get('/containers/json?filters={"status":["restarting"]}').json
    assert [(each["Id"], each["State"]) for each in listed] == [(container, "restarting")]
    assert listed[0]["Status"].startswith("Restarting (4) ")
    assert daemon.delete(f"/containers/{container}").status == 409
    assert daemon.post(f"/containers/{container}/pause").status == 409
    assert daemon.post(f"/containers/{container}/start").status == 304
    assert daemon.post(f"/containers/{container}/stop").status == 204
    assert status(daemon, container) == "exited"
    time.sleep(2)
    assert status(daemon, container) == "exited"
    assert daemon.delete(f"/containers/{container}").status == 204


def test_a_removal_by_force_ends_the_restarts(daemon: Daemon) -> None:
    container = daemon.run_detached("sh", "-c", "exit 4", host=policy("always"))
    until(lambda: restarts(daemon, container) >= 2)
    assert daemon.delete(f"/containers/{container}?force=1").status == 204
    assert daemon.get(f"/containers/{container}/json").status == 404


def test_following_logs_goes_on_through_restarts(daemon: Daemon) -> None:
    container = daemon.create("sh", "-c", COUNTER + "echo $n; [ $n = 3 ]", host=policy("on-failure"))
    daemon.post(f"/containers/{container}/start")
    assert daemon.logs(container, "stdout=1&follow=1") == b"run\n1\nrun\n2\nrun\n3\n"
    daemon.delete(f"/containers/{container}")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (policy("sometimes"), "unknown policy 'sometimes'"),
        (policy("always", 3), "maximum retry count can only be used with 'on-failure'"),
        (policy("on-failure", -1), "cannot be negative"),
        ({**policy("always"), "AutoRemove": True}, "AutoRemove"),
    ],
)
def test_a_policy_that_is_none_is_refused_by_name(daemon: Daemon, settings: dict[str, object], words: str) -> None:
    reply = daemon.post(
        "/containers/create", {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none", **settings}}
    )
    assert reply.status == 400
    assert words in reply.json["message"]


def test_policies_go_on_after_the_daemon_was_killed(own_daemon: Daemon) -> None:
    always = own_daemon.run_detached("sh", "-c", "exit 1", host=policy("always"))
    stopped = own_daemon.run_detached("sleep", "100", host=policy("unless-stopped"))
    stopped_always = own_daemon.run_detached("sleep", "100", host=policy("always"))
    ends_meanwhile = own_daemon.run_detached("sh", "-c", "sleep 0.7; exit 1", host=policy("on-failure", 1))
    for container in (stopped, stopped_always):
        own_daemon.post(f"/containers/{container}/stop?t=0")
    until(lambda: status(own_daemon, always) == "restarting")
    own_daemon.stop(signal.SIGKILL)
    time.sleep(1)
    own_daemon.start()
    before = restarts(own_daemon, always)
    until(lambda: restarts(own_daemon, always) > before)
    until(lambda: status(own_daemon, stopped_always) == "running")  # as Docker does: until the daemon starts anew
    assert status(own_daemon, stopped) == "exited"
    until(lambda: restarts(own_daemon, ends_meanwhile) == 1)


@pytest.mark.parametrize(("flag", "comes_back"), [("-r=true", True), ("-r=false", False)])
def test_what_ran_when_the_host_went_down_comes_back_where_the_daemon_is_told_so(
    tmp_path: Path, flag: str, comes_back: bool
) -> None:
    daemon = Daemon(tmp_path)
    daemon.start(*("-D", flag))
    try:
        daemon.import_busybox()
        ran = daemon.run_detached("sleep", "100")
        ended, _ = daemon.create("true"), daemon.create("true", name="never-started")
        _crash_host(daemon, ran)
        daemon.start(*("-D", flag))
        until(lambda: status(daemon, ran) == ("running" if comes_back else "exited"))
        assert status(daemon, ended) == "created"
    finally:
        daemon.close()
    assert daemon.leftovers() == []


def test_a_first_year_client_has_its_containers_back(own_daemon: Daemon) -> None:
    reply = own_daemon.ask("POST", "/v1.9/containers/create", {"Image": "busybox", "Cmd": ["sleep", "100"]})
    old = reply.json["Id"]
    assert own_daemon.ask("POST", f"/v1.9/containers/{old}/start").status == 204
    new = own_daemon.run_detached("sleep", "100")
    _crash_host(own_daemon, old, new)
    own_daemon.start()
    until(lambda: status(own_daemon, old) == "running")
    assert status(own_daemon, new) == "exited"


def _crash_host(daemon: Daemon, *containers: str) -> None:
    """Kill the daemon, the monitors and the containers, as a power cut does."""
    pids = [daemon.inspect(container)["State"]["Pid"] for container in containers]
    daemon.stop(signal.SIGKILL)
    for pid in pids:
        os.kill(int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]), signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
        until(lambda pid=pid: not Path(f"/proc/{pid}").exists())


@pytest.mark.parametrize("docker", DOCKERS)
def test_the_docker_command_line_sets_a_policy(daemon: Daemon, docker: list[str]) -> None:
    argv = [*docker, "-H", f"unix://{daemon.socket}", "run", "-d", "--network", "none", "--restart", "on-failure:1"]
    done = subprocess.run([*argv, "busybox", "sh", "-c", "exit 2"], check=True, capture_output=True, text=True)
    container = done.stdout.strip()
    until(lambda: status(daemon, container) == "exited")
    assert restarts(daemon, container) == 1
    daemon.delete(f"/containers/{container}")
