"""Restart policies and pauses beside systemd's own commands."""

from __future__ import annotations

import time

import pytest
from hosttools import Api, Cli, journal, systemctl, unit_property, wait_until


def state(api: Api, container: str) -> dict[str, object]:
    found: dict[str, object] = api.get(f"/containers/{container}/json").json
    inner: dict[str, object] = found["State"]  # type: ignore[assignment]
    return {**inner, "RestartCount": found["RestartCount"]}


@pytest.mark.parametrize("policy", ["always", "unless-stopped", "on-failure"])
def test_no_policy_revives_what_an_administrator_stopped(api: Api, pydocker: Cli, busybox: str, policy: str) -> None:
    options = ["--network", "none", "--restart", policy]
    script = "trap 'exit 9' TERM; while :; do sleep 0.05; done"
    container = pydocker.out("run", "-d", *options, busybox, "sh", "-c", script)
    time.sleep(0.3)
    systemctl("stop", f"container-{container}.scope")
    wait_until(lambda: state(api, container)["Status"] == "exited", 10, "the container has ended for good")
    time.sleep(1.5)
    now = state(api, container)
    assert (now["Status"], now["ExitCode"], now["RestartCount"]) == ("exited", 9, 0)


def test_what_was_killed_otherwise_comes_back(api: Api, pydocker: Cli, busybox: str) -> None:
    container = pydocker.out("run", "-d", "--network", "none", "--restart", "always", busybox, "sleep", "600")
    first = state(api, container)["Pid"]
    systemctl("kill", "-s", "KILL", f"container-{container}.scope")
    wait_until(lambda: state(api, container)["RestartCount"] == 1, 10, "it was started again")
    wait_until(lambda: state(api, container)["Pid"] not in (0, first), 10, "it runs again")
    assert unit_property(f"container-{container}.scope", "ActiveState") == "active"


def test_a_restart_of_the_service_counts_as_no_end(api: Api, pydocker: Cli, busybox: str) -> None:
    options = ["--network", "none", "--restart", "always"]
    running = pydocker.out("run", "-d", *options, busybox, "sleep", "600")
    stopped = pydocker.out("run", "-d", *options, busybox, "sleep", "600")
    pydocker("stop", "-t", "0", stopped)
    before = state(api, running)["Pid"]
    systemctl("restart", "pydockerd")
    wait_until(lambda: state(api, stopped)["Status"] == "running", 10, "the stopped one is back, as its policy says")
    now = state(api, running)
    assert (now["Pid"], now["RestartCount"]) == (before, 0)


def test_a_paused_container_is_a_frozen_scope(api: Api, pydocker: Cli, busybox: str) -> None:
    script = "while :; do echo x; sleep 0.02; done"
    container = pydocker.out("run", "-d", "--network", "none", busybox, "sh", "-c", script)
    wait_until(lambda: pydocker.out("logs", container), 5, "it writes")
    pydocker("pause", container)
    time.sleep(0.2)
    before = pydocker.out("logs", container)
    time.sleep(0.4)
    assert pydocker.out("logs", container) == before
    systemctl("restart", "pydockerd")
    assert state(api, container)["Status"] == "paused"
    assert pydocker.out("logs", container) == before
    pydocker("unpause", container)
    wait_until(lambda: pydocker.out("logs", container) != before, 5, "it goes on")


def test_the_journal_knows_a_new_name(api: Api, pydocker: Cli, busybox: str) -> None:
    options = ["-i", "--name", "journal-old", "--network", "none"]
    container = pydocker.out("run", "-d", *options, busybox, "sh", "-c", "echo before; read word; echo after")
    pydocker("rename", "journal-old", "journal-new")
    pydocker("attach", "journal-new", input="go\n", timeout=20)


    wait_until(lambda: journal("-u", "container-journal-new") == ["after"], 10, "what came later is under the new name")
    assert journal("-u", "container-journal-old") == ["before"]
    assert journal("-u", f"container-{container}") == ["before", "after"]
