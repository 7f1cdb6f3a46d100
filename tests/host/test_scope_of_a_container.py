"""A container is a scope: systemd's tools see it, limit it and end it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hosttools import Api, Cli, run, systemctl, unit_property, wait_until


@pytest.fixture
def sleeper(pydocker: Cli, busybox: str) -> str:
    """The id of a running container."""
    return pydocker.out("run", "-d", "--network", "none", busybox, "sleep", "600")


def test_the_containers_processes_are_in_its_scope(api: Api, sleeper: str) -> None:
    pid = api.get(f"/containers/{sleeper}/json").json["State"]["Pid"]
    scope = f"container-{sleeper}.scope"
    assert systemctl("is-active", scope) == "active"
    assert unit_property(scope, "Slice") == "machine.slice"
    assert unit_property(scope, "Delegate") == "yes"
    group = unit_property(scope, "ControlGroup")
    assert f"name=systemd:{group}" in Path(f"/proc/{pid}/cgroup").read_text()
    assert run("systemctl", "whoami", str(pid), check=False).stdout.strip() in (scope, "")


def test_inside_the_container_the_scope_is_the_root_of_all_control_groups(pydocker: Cli, busybox: str) -> None:
    lines = pydocker.out("run", "--rm", "--network", "none", busybox, "cat", "/proc/self/cgroup").splitlines()
    assert lines
    assert all(line.rpartition(":")[2] == "/" for line in lines)


def test_limits_are_properties_of_the_scope(pydocker: Cli, busybox: str) -> None:
    limits = ["-m", "64m", "--pids-limit", "50", "--cpus", "0.5", "-c", "512"]
    container = pydocker.out("run", "-d", "--network", "none", *limits, busybox, "sleep", "600")
    scope = f"container-{container}.scope"
    assert unit_property(scope, "MemoryMax") == str(64 << 20)
    assert unit_property(scope, "TasksMax") == "50"
    assert unit_property(scope, "CPUQuotaPerSecUSec") == "500ms"


@pytest.mark.parametrize(
    ("limits", "script", "expected"),
    [
        (["-m", "8m", "--memory-swap", "8m"], "dd if=/dev/zero of=/dev/null bs=40M count=1", 137),
        (["--pids-limit", "4"], "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; wait", 2),
    ],
)
def test_limits_bite(pydocker: Cli, busybox: str, limits: list[str], script: str, expected: int) -> None:
    done = pydocker("run", "--rm", "--network", "none", *limits, busybox, "sh", "-c", script, check=False)
    assert done.returncode == expected


def test_a_cpu_limit_bites(api: Api, pydocker: Cli, busybox: str) -> None:
    loop = "while :; do :; done"
    container = pydocker.out("run", "-d", "--network", "none", "--cpus", "0.2", busybox, "sh", "-c", loop)
    pid = api.get(f"/containers/{container}/json").json["State"]["Pid"]

    def used() -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before, begun = used(), time.monotonic()
    time.sleep(2)
    assert (used() - before) / 100 / (time.monotonic() - begun) < 0.35


def test_set_property_works_on_a_running_container(sleeper: str) -> None:
    scope = f"container-{sleeper}.scope"
    systemctl("set-property", "--runtime", scope, f"MemoryMax={32 << 20}")
    group = unit_property(scope, "ControlGroup")
    assert Path(f"/sys/fs/cgroup/memory{group}/memory.limit_in_bytes").read_text().strip() == str(32 << 20)


def test_systemctl_stop_is_a_stop(api: Api, pydocker: Cli, busybox: str) -> None:
    script = "trap 'exit 9' USR1; while :; do sleep 0.05; done"
    options = ["--network", "none", "--stop-signal", "USR1"]
    container = pydocker.out("run", "-d", *options, busybox, "sh", "-c", script)
    time.sleep(0.3)
    systemctl("stop", f"container-{container}.scope")
    wait_until(lambda: not _running(api, container), 10, "the container has ended")
    assert api.get(f"/containers/{container}/json").json["State"]["ExitCode"] == 9


def test_the_scope_is_gone_when_the_container_is(api: Api, sleeper: str) -> None:
    api.post(f"/containers/{sleeper}/kill").check()
    scope = f"container-{sleeper}.scope"
    wait_until(lambda: unit_property(scope, "LoadState") == "not-found", 10, "the scope is gone")


def test_the_devices_of_the_host_are_out_of_reach(pydocker: Cli, busybox: str) -> None:
    script = "mknod /disk b 7 0 && dd if=/disk of=/dev/null bs=512 count=1"
    done = pydocker("run", "--rm", "--network", "none", busybox, "sh", "-c", script, check=False)
    assert done.returncode != 0
    assert "not permitted" in done.stderr


def test_nothing_is_left_of_a_container_that_was_removed(pydocker: Cli, busybox: str, no_leftovers: None) -> None:
    container = pydocker.out("run", "-d", "--network", "none", busybox, "sleep", "600")
    pydocker("rm", "-f", container)
    assert container not in systemctl("list-units", "--all", "--plain", "container-*")
    assert not Path(f"/var/lib/pydockerd/containers/{container}").exists()
    assert not Path(f"/run/pydockerd/containers/{container}").exists()


def _running(api: Api, container: str) -> bool:
    return bool(api.get(f"/containers/{container}/json").json["State"]["Running"])
