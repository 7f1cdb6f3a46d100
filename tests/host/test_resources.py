"""Limits of a running container are those of its scope, whoever changes them."""

from __future__ import annotations

import os
import time

import pytest
from hosttools import Api, Cli, systemctl, unit_property, wait_until

MIB = 1 << 20


@pytest.fixture
def sleeper(pydocker: Cli, busybox: str) -> str:
    limits = ["-m", "64m", "--memory-swap", "64m", "--pids-limit", "50"]
    return pydocker.out("run", "-d", "--network", "none", *limits, busybox, "sleep", "600")


def test_update_changes_the_properties_of_the_scope(pydocker: Cli, any_docker: Cli, sleeper: str) -> None:
    scope = f"container-{sleeper}.scope"
    any_docker("update", "-m", "128m", "--memory-swap", "256m", "--cpus", "0.5", "--pids-limit", "20", sleeper)
    shown = [unit_property(scope, name) for name in ("MemoryMax", "CPUQuotaPerSecUSec", "TasksMax")]
    assert shown == [str(128 * MIB), "500ms", "20"]
    pydocker("update", "-m", "32m", "--memory-swap", "32m", "--pids-limit", "-1", sleeper)
    assert unit_property(scope, "MemoryMax") == str(32 * MIB)
    assert unit_property(scope, "TasksMax") == "infinity"
    systemctl("daemon-reload")
    assert unit_property(scope, "MemoryMax") == str(32 * MIB)


def test_what_an_administrator_sets_is_honoured_and_shown(pydocker: Cli, sleeper: str) -> None:
    systemctl("set-property", "--runtime", f"container-{sleeper}.scope", f"MemoryMax={48 * MIB}")
    shown = pydocker.out("stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", sleeper)
    assert "48MiB" in shown or "50.3" in shown, shown
    assert shown.split()[-1] == "1"


def test_processors_are_chosen_and_nothing_is_left_behind(api: Api, pydocker: Cli, busybox: str) -> None:
    if (os.cpu_count() or 1) < 2:
        pytest.skip("one processor leaves no choice")
    container = pydocker.out("run", "-d", "--network", "none", "--cpuset-cpus", "1", busybox, "sleep", "600")
    pid = api.get(f"/containers/{container}/json").json["State"]["Pid"]
    assert os.sched_getaffinity(pid) == {1}
    pydocker("update", "--cpuset-cpus", "0", container)
    assert os.sched_getaffinity(pid) == {0}
    pydocker("rm", "-f", container)
    for place, _directories, _files in os.walk("/sys/fs/cgroup"):
        assert container not in place


def test_a_container_killed_for_want_of_memory_says_so(api: Api, pydocker: Cli, busybox: str) -> None:
    limits = ["-m", "16m", "--memory-swap", "16m"]
    container = pydocker.out("run", "-d", "--network", "none", *limits, busybox, "sh", "-c", "exec tail /dev/zero")
    wait_until(lambda: not api.get(f"/containers/{container}/json").json["State"]["Running"], 20, "it has ended")
    state = api.get(f"/containers/{container}/json").json["State"]
    assert (state["ExitCode"], state["OOMKilled"]) == (137, True)
    time.sleep(0.1)
    assert unit_property(f"container-{container}.scope", "LoadState") == "not-found"
