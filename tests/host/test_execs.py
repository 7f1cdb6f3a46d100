"""exec in a booted systemd: the processes are the scope's, limits hold for them, and the exit is told."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from hosttools import Api, Cli, systemctl, unit_property, wait_until


@pytest.fixture
def sleeper(pydocker: Cli, busybox: str) -> str:
    return pydocker.out("run", "-d", "--network", "none", busybox, "sleep", "600")


def start(api: Api, container: str, *command: str) -> tuple[str, int]:
    """The id and the pid of a detached exec."""
    exec_id = api.post(f"/containers/{container}/exec", {"Cmd": list(command)}).json["Id"]
    api.post(f"/exec/{exec_id}/start", {"Detach": True}).check()
    return exec_id, api.get(f"/exec/{exec_id}/json").json["Pid"]


def groups(pid: int) -> set[str]:
    """Its control groups, without the runtime's own: in a hierarchy that systemd does not use, it has none."""
    return set(Path(f"/proc/{pid}/cgroup").read_text().splitlines())


def test_an_execs_processes_are_in_the_containers_scope(api: Api, sleeper: str) -> None:
    init = api.get(f"/containers/{sleeper}/json").json["State"]["Pid"]
    _exec_id, pid = start(api, sleeper, "sleep", "601")
    assert groups(pid) == groups(init)
    wait_until(lambda: "sleep 601" in systemctl("status", f"container-{sleeper}.scope", check=False), 5, "status")


def test_an_exec_sees_the_scope_as_the_root_of_all_control_groups(pydocker: Cli, sleeper: str) -> None:
    lines = pydocker.out("exec", sleeper, "cat", "/proc/self/cgroup").splitlines()
    assert lines
    assert all(line.rpartition(":")[2] == "/" for line in lines)


def test_an_exec_joins_a_container_that_has_made_control_groups_of_its_own(api: Api, sleeper: str) -> None:
    scope = f"container-{sleeper}.scope"
    init = api.get(f"/containers/{sleeper}/json").json["State"]["Pid"]
    unified = not Path("/sys/fs/cgroup/systemd").is_dir()
    top = Path("/sys/fs/cgroup") if unified else Path("/sys/fs/cgroup/systemd")
    directory = top / unit_property(scope, "ControlGroup").lstrip("/")
    (directory / "own").mkdir()
    (directory / "own/cgroup.procs").write_text(str(init))
    if unified:  # from now on the scope's own group takes no process
        (directory / "cgroup.subtree_control").write_text("+pids")
    exec_id, pid = start(api, sleeper, "sleep", "602")
    place = next(group for group in groups(pid) if ("0::" if unified else ":name=systemd:") in group)
    assert scope in place
    assert place.endswith("/own")
    systemctl("stop", scope)
    wait_until(lambda: not api.get(f"/containers/{sleeper}/json").json["State"]["Running"], 15, "the end")
    assert api.get(f"/exec/{exec_id}/json").json["ExitCode"] in (137, 143)


def test_the_containers_limits_hold_for_its_execs(pydocker: Cli, busybox: str) -> None:
    limits = ["-m", "16m", "--memory-swap", "16m"]
    container = pydocker.out("run", "-d", "--network", "none", *limits, busybox, "sleep", "600")
    done = pydocker("exec", container, "dd", "if=/dev/zero", "of=/dev/null", "bs=80M", "count=1", check=False)
    assert done.returncode == 137
    assert pydocker.out("exec", container, "echo", "alive") == "alive"


def test_the_exit_of_an_exec_survives_a_restart_of_the_daemon(api: Api, pydocker: Cli, sleeper: str) -> None:
    with pydocker.start("exec", "-i", sleeper, "sh", "-c", "echo up; read line; echo $line; exit 9") as client:
        assert client.stdin is not None
        assert client.stdout is not None
        assert client.stdout.readline() == b"up\n"
        systemctl("restart", "pydockerd.service")
        client.stdin.write(b"typed\n")
        client.stdin.flush()
        assert client.stdout.read() == b"typed\n"
        assert client.wait(20) == 9


def test_a_killed_monitor_takes_its_execs_along(api: Api, sleeper: str) -> None:
    exec_id, pid = start(api, sleeper, "sleep", "603")
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), 15, "the end of the exec")
    wait_until(lambda: api.get(f"/exec/{exec_id}/json").json["ExitCode"] == 137, 5, "its exit code")


def test_execs_are_quick_to_follow_each_other(pydocker: Cli, api: Api, sleeper: str) -> None:
    for number in range(20):
        exec_id, _pid = start(api, sleeper, "sh", "-c", f"exit {number}")
        deadline = time.monotonic() + 5
        while (code := api.get(f"/exec/{exec_id}/json").json["ExitCode"]) is None:
            assert time.monotonic() < deadline
        assert code == number


def test_top_shows_the_scopes_processes(pydocker: Cli, api: Api, sleeper: str) -> None:
    start(api, sleeper, "sleep", "604")
    lines = pydocker.out("top", sleeper, "-eo", "pid,args").splitlines()
    assert {line.split(maxsplit=1)[1] for line in lines[1:]} == {"sleep 600", "sleep 604"}
