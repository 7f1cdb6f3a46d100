"""Limits, their change on a running container, what it uses, and what happens when memory runs short."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clients import DOCKERS
from daemons import Daemon, until

from dockerd_py.units import hierarchy

MIB = 1 << 20
HUNGRY = "head -c 200m /dev/zero | tail > /dev/null"


@pytest.fixture
def sleeper(daemon: Daemon) -> Iterator[str]:
    container = daemon.run_detached("sleep", "100", host={"Memory": 64 * MIB, "MemorySwap": 64 * MIB, "PidsLimit": 50})
    yield container
    daemon.delete(f"/containers/{container}?force=1")


def limit(daemon: Daemon, container: str, v1: str, v2: str = "") -> str:
    """A file of the container's control group."""
    pid = daemon.inspect(container)["State"]["Pid"]
    where = hierarchy.of_controller(hierarchy.current(pid), v1.partition(".")[0])
    if where is None:
        pytest.skip(f"no controller for {v1}")
    return (where.own / (v1 if where.version == 1 else v2)).read_text().strip()


def update(daemon: Daemon, container: str, **change: Any) -> int:
    return daemon.post(f"/containers/{container}/update", change).status


def test_limits_change_while_it_runs(daemon: Daemon, sleeper: str) -> None:
    assert update(daemon, sleeper, Memory=128 * MIB, MemorySwap=256 * MIB, CpuShares=512, PidsLimit=20) == 200
    assert limit(daemon, sleeper, "memory.limit_in_bytes", "memory.max") == str(128 * MIB)
    assert limit(daemon, sleeper, "cpu.shares", "cpu.weight") in ("512", "50")
    assert limit(daemon, sleeper, "pids.max", "pids.max") == "20"
    host = daemon.inspect(sleeper)["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (128 * MIB, 256 * MIB, 20)
    assert update(daemon, sleeper, Memory=32 * MIB, MemorySwap=32 * MIB, PidsLimit=-1) == 200
    assert limit(daemon, sleeper, "memory.limit_in_bytes", "memory.max") == str(32 * MIB)
    assert limit(daemon, sleeper, "pids.max", "pids.max") == "max"
    assert update(daemon, sleeper, NanoCpus=500_000_000) == 200
    assert limit(daemon, sleeper, "cpu.cfs_quota_us", "cpu.max").split()[0] == "50000"
    assert update(daemon, sleeper, CpuQuota=20_000) == 400  # beside NanoCpus


def test_a_limit_that_is_not_said_stays(daemon: Daemon, sleeper: str) -> None:
    assert update(daemon, sleeper, CpuShares=100) == 200
    assert limit(daemon, sleeper, "memory.limit_in_bytes", "memory.max") == str(64 * MIB)
    assert daemon.inspect(sleeper)["HostConfig"]["Memory"] == 64 * MIB


def test_changes_hold_for_the_next_start_and_the_next_daemon(own_daemon: Daemon) -> None:
    container = own_daemon.create("sleep", "100", host={"Memory": 64 * MIB})
    assert update(own_daemon, container, Memory=32 * MIB, RestartPolicy={"Name": "unless-stopped"}) == 200
    own_daemon.stop(signal.SIGKILL)
    own_daemon.start()
    own_daemon.post(f"/containers/{container}/start")
    assert limit(own_daemon, container, "memory.limit_in_bytes", "memory.max") == str(32 * MIB)
    assert own_daemon.inspect(container)["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"Memory": MIB}, "Minimum memory limit"),
        ({"Memory": 256 * MIB}, "memoryswap"),
        ({"BlkioWeight": 5}, "blkio weight"),
        ({"CpusetCpus": "9999"}, "not available"),
        ({"CpusetCpus": "x"}, "invalid list"),
        ({"RestartPolicy": {"Name": "sometimes"}}, "unknown policy"),
        ({"Privileged": True}, "Privileged cannot be updated"),
        ({"Memory": "much"}, "must be a number"),
    ],
)
def test_a_wrong_change_is_named_and_changes_nothing(
    daemon: Daemon, sleeper: str, change: dict[str, Any], words: str
) -> None:
    before = daemon.inspect(sleeper)["HostConfig"]
    reply = daemon.post(f"/containers/{sleeper}/update", change)
    assert reply.status >= 400
    assert words in reply.json["message"], reply.json
    assert daemon.inspect(sleeper)["HostConfig"] == before
    assert limit(daemon, sleeper, "memory.limit_in_bytes", "memory.max") == str(64 * MIB)


def test_processors_can_be_chosen_and_chosen_anew(daemon: Daemon) -> None:
    if (os.cpu_count() or 1) < 2:
        pytest.skip("one processor leaves no choice")
    container = daemon.run_detached("sleep", "100", host={"CpusetCpus": "1"})
    pid = daemon.inspect(container)["State"]["Pid"]
    assert os.sched_getaffinity(pid) == {1}
    assert update(daemon, container, CpusetCpus="0") == 200
    assert os.sched_getaffinity(pid) == {0}
    daemon.delete(f"/containers/{container}?force=1")


def test_a_disk_s_rate_can_be_limited(daemon: Daemon) -> None:
    disks = [f"/dev/{path.name}" for path in Path("/sys/block").iterdir()]
    disk = next(filter(os.path.exists, disks), "")
    if not disk:
        pytest.skip("no block device here")
    container = daemon.run_detached("sleep", "100", host={"BlkioDeviceReadBps": [{"Path": disk, "Rate": MIB}]})
    number = os.stat(disk).st_rdev
    expected = f"{os.major(number)}:{os.minor(number)}"
    assert limit(daemon, container, "blkio.throttle.read_bps_device", "io.max").startswith(expected)
    daemon.delete(f"/containers/{container}?force=1")
    reply = daemon.post(
        "/containers/create",
        {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"BlkioDeviceReadBps": [{"Path": "/dev/null", "Rate": 1}]}},
    )
    assert (reply.status, "/dev/null" in reply.json["message"]) == (400, True)


def test_what_a_container_uses_is_told_once_and_as_a_stream(daemon: Daemon) -> None:
    container = daemon.run_detached("sh", "-c", "while :; do :; done", host={"Memory": 64 * MIB, "PidsLimit": 50})
    shot = f"/containers/{container}/stats?stream=0&one-shot=1"
    until(lambda: daemon.get(shot).json["cpu_stats"]["cpu_usage"]["total_usage"])
    once = daemon.get(f"/containers/{container}/stats?stream=0").json
    assert once["memory_stats"]["limit"] == 64 * MIB
    assert 0 < once["memory_stats"]["usage"] < 64 * MIB
    assert once["pids_stats"] == {"current": 1, "limit": 50}
    spent = once["cpu_stats"]["cpu_usage"]["total_usage"] - once["precpu_stats"]["cpu_usage"]["total_usage"]
    whole = once["cpu_stats"]["system_cpu_usage"] - once["precpu_stats"]["system_cpu_usage"]
    assert 0 < spent <= whole
    with daemon.connect() as connection:
        connection.sendall(f"GET /v1.43/containers/{container}/stats HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        data = b""
        while data.count(b'"read"') < 2:
            data += connection.recv(65536)
    daemon.delete(f"/containers/{container}?force=1")
    stopped = daemon.create("true")
    nothing = daemon.get(f"/containers/{stopped}/stats?stream=0").json
    assert (nothing["memory_stats"], nothing["cpu_stats"]["cpu_usage"]["total_usage"]) == ({}, 0)
    daemon.delete(f"/containers/{stopped}")
    assert daemon.get("/containers/nobody/stats").status == 404


def test_a_container_killed_for_want_of_memory_says_so(daemon: Daemon) -> None:
    host = {"Memory": 16 * MIB, "MemorySwap": 16 * MIB}
    container = daemon.run_detached("sh", "-c", "exec tail /dev/zero", host=host)
    assert daemon.wait(container) == 137
    state = daemon.inspect(container)["State"]
    assert (state["OOMKilled"], state["ExitCode"]) == (True, 137)
    reply = daemon.get(f'/events?since=1&until={_soon()}&filters={{"container":["{container}"]}}')
    actions = [json.loads(line)["Action"] for line in reply.data.splitlines()]
    assert "oom" in actions
    assert actions.index("oom") < actions.index("die")
    daemon.delete(f"/containers/{container}")
    assert not _killed_otherwise(daemon)["OOMKilled"]


def test_a_child_killed_for_want_of_memory_is_told_too(daemon: Daemon) -> None:
    script = "(exec tail /dev/zero); echo the shell lives; exit 5"
    container = daemon.run_detached("sh", "-c", script, host={"Memory": 16 * MIB, "MemorySwap": 16 * MIB})
    assert daemon.wait(container) == 5
    assert b"the shell lives" in daemon.logs(container)
    assert daemon.inspect(container)["State"]["OOMKilled"] is True
    daemon.delete(f"/containers/{container}")


def _killed_otherwise(daemon: Daemon) -> dict[str, Any]:
    container = daemon.run_detached("sleep", "100", host={"Memory": 16 * MIB})
    daemon.post(f"/containers/{container}/kill")
    state: dict[str, Any] = daemon.inspect(container)["State"]
    daemon.delete(f"/containers/{container}")
    return state


def _soon() -> str:


    return f"{time.time() + 0.3:.3f}"


@pytest.mark.parametrize("docker", DOCKERS)
def test_the_docker_command_line_shows_and_changes_them(daemon: Daemon, docker: list[str], sleeper: str) -> None:
    argv = [*docker, "-H", f"unix://{daemon.socket}"]
    done = subprocess.run(
        [*argv, "update", "--memory", "32m", "--memory-swap", "32m", "--cpus", "0.5", "--restart", "always", sleeper],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, sleeper), done.stderr
    assert limit(daemon, sleeper, "memory.limit_in_bytes", "memory.max") == str(32 * MIB)
    done = subprocess.run(
        [*argv, "stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", sleeper],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "32MiB" in done.stdout
    assert done.stdout.split()[-1] == "1"
