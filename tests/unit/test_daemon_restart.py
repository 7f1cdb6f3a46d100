"""No container stops and no log line is lost because the daemon stops, is killed, or starts again."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from daemons import Daemon, until

COUNT = 'trap "end=1" TERM; i=0; while [ -z "$end" ]; do echo "$0 $i"; i=$((i+1)); sleep 0.02; done; echo $i; exit 7'


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_ten_containers_go_on_through_a_restart_and_lose_no_line(own_daemon: Daemon, how: int) -> None:
    containers = [own_daemon.run_detached("sh", "-c", COUNT, str(n), name=f"count{n}") for n in range(10)]
    ended = own_daemon.run_detached("sh", "-c", "while :; do sleep 0.1; done")
    pids = {c: own_daemon.inspect(c)["State"]["Pid"] for c in containers}
    last = own_daemon.inspect(ended)["State"]["Pid"]
    own_daemon.stop(how)
    os.kill(last, signal.SIGKILL)  # while no daemon looks
    until((own_daemon.root / "spool" / f"{ended}.json").exists)
    time.sleep(0.5)
    own_daemon.start()
    assert {c: own_daemon.inspect(c)["State"]["Pid"] for c in containers} == pids
    assert own_daemon.inspect(ended)["State"]["ExitCode"] == 137
    for number, container in enumerate(containers):
        assert own_daemon.post(f"/containers/{container}/kill?signal=TERM").status == 204
        assert own_daemon.wait(container) == 7
        *lines, count = own_daemon.logs(container).decode().splitlines()
        assert lines == [f"{number} {i}" for i in range(int(count))]


def test_what_was_acknowledged_is_there_after_sigkill(own_daemon: Daemon) -> None:
    container = own_daemon.create("true", name="kept")
    own_daemon.stop(signal.SIGKILL)
    own_daemon.start()
    assert own_daemon.inspect("kept")["Id"] == container
    assert own_daemon.delete("/containers/kept").status == 204
    own_daemon.stop(signal.SIGKILL)
    own_daemon.start()
    assert own_daemon.get("/containers/kept/json").status == 404


def test_an_auto_remove_container_that_ended_meanwhile_is_removed(own_daemon: Daemon) -> None:
    container = own_daemon.run_detached("sleep", "100", host={"AutoRemove": True})
    pid = own_daemon.inspect(container)["State"]["Pid"]
    own_daemon.stop(signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    until((own_daemon.root / "spool" / f"{container}.json").exists)
    own_daemon.start()
    assert own_daemon.get(f"/containers/{container}/json").status == 404


def test_the_fork_server_may_be_killed(own_daemon: Daemon) -> None:
    container = own_daemon.run_detached("sh", "-c", "sleep 1; echo late; exit 2")
    monitors = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdecimal() and _names(entry, "dockerd_py/monitor/__main__.py", str(own_daemon.run))
    ]
    fork_server = min(monitors)  # the others were forked from it
    os.kill(fork_server, signal.SIGKILL)
    assert own_daemon.run_to_end("echo", "again")[1] == b"again\n"
    assert own_daemon.wait(container) == 2
    assert own_daemon.logs(container) == b"late\n"


def test_a_killed_monitor_ends_its_container_and_says_so(own_daemon: Daemon) -> None:
    container = own_daemon.run_detached("sleep", "100")
    pid = own_daemon.inspect(container)["State"]["Pid"]
    os.kill(_parent(pid), signal.SIGKILL)
    assert own_daemon.wait(container) == 255
    until(lambda: not Path(f"/proc/{pid}").exists())
    assert "monitor" in own_daemon.inspect(container)["State"]["Error"]


def test_what_a_killed_monitor_was_about_to_delete_is_deleted_once_and_nothing_else_stays(own_daemon: Daemon) -> None:
    """Its own call of the runtime lives on, and is faster than the daemon's, which then fails."""
    runtime = own_daemon.directory / "crun-beside"
    runtime.write_text('#!/bin/sh\ncase "$*" in *" delete "*) crun "$@"; exit 1;; esac\nexec crun "$@"\n')
    runtime.chmod(0o755)
    own_daemon.stop()
    own_daemon.start("--runtime", str(runtime))
    container = own_daemon.run_detached("sleep", "100")
    os.kill(_parent(own_daemon.inspect(container)["State"]["Pid"]), signal.SIGKILL)
    assert own_daemon.wait(container) == 255
    until(lambda: not own_daemon.mounts())
    until(lambda: not list((own_daemon.run / "containers").iterdir()))


def test_a_monitor_killed_while_there_was_no_daemon_is_noticed_later(own_daemon: Daemon) -> None:
    container = own_daemon.run_detached("sleep", "100")
    pid = own_daemon.inspect(container)["State"]["Pid"]
    own_daemon.stop(signal.SIGKILL)
    os.kill(_parent(pid), signal.SIGKILL)
    own_daemon.start()
    state = own_daemon.inspect(container)["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 255)
    until(lambda: not Path(f"/proc/{pid}").exists())


def test_a_monitor_that_is_slow_to_answer_keeps_its_container(own_daemon: Daemon) -> None:
    container = own_daemon.run_detached("sleep", "100")
    pid = own_daemon.inspect(container)["State"]["Pid"]
    monitor = _parent(pid)
    own_daemon.stop(signal.SIGKILL)
    os.kill(monitor, signal.SIGSTOP)
    try:
        own_daemon.start()
        state = own_daemon.inspect(container)["State"]
        assert (state["Status"], state["Pid"]) == ("running", pid)
    finally:
        os.kill(monitor, signal.SIGCONT)
    assert own_daemon.post(f"/containers/{container}/kill").status == 204
    assert own_daemon.wait(container) == 137


def test_a_pid_file_of_a_living_daemon_is_respected(own_daemon: Daemon) -> None:
    other = Daemon(own_daemon.directory / "other")
    other.directory.mkdir()
    other.pidfile = own_daemon.pidfile
    done = subprocess.run(other.argv(), capture_output=True, text=True, cwd="/", env=_environment(), check=False)
    assert done.returncode == 1
    assert str(own_daemon.pidfile) in done.stderr
    assert own_daemon.pidfile.read_text().strip() == str(own_daemon.process.pid)  # type: ignore[union-attr]


@pytest.mark.parametrize("content", ["999999\n", f"{os.getpid()}\n", "nonsense"])
def test_a_stale_pid_file_is_replaced(own_daemon: Daemon, content: str) -> None:
    own_daemon.stop(signal.SIGKILL)
    assert own_daemon.pidfile.exists()
    own_daemon.pidfile.write_text(content)
    own_daemon.start()
    assert own_daemon.pidfile.read_text().strip() == str(own_daemon.process.pid)  # type: ignore[union-attr]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_stop_removes_the_pid_file_and_the_socket(own_daemon: Daemon, number: int) -> None:
    assert own_daemon.stop(number) == 0
    assert not own_daemon.pidfile.exists()
    assert not own_daemon.socket.exists()
    own_daemon.start()


def test_two_daemons_never_share_a_root(own_daemon: Daemon) -> None:
    other = Daemon(own_daemon.directory / "other")
    other.directory.mkdir()
    other.root = own_daemon.root
    done = subprocess.run(other.argv(), capture_output=True, text=True, cwd="/", env=_environment(), check=False)
    assert done.returncode == 1
    assert str(own_daemon.root) in done.stderr


def test_two_daemons_live_side_by_side(own_daemon: Daemon, tmp_path: Path) -> None:
    other = Daemon(tmp_path)
    other.start()
    other.import_busybox()
    assert other.run_to_end("echo", "here")[1] == b"here\n"
    assert own_daemon.run_to_end("echo", "there")[1] == b"there\n"
    other.close()
    assert other.leftovers() == []


def _names(entry: Path, *words: str) -> bool:
    try:
        line = (entry / "cmdline").read_bytes()
    except OSError:
        return False
    return all(word.encode() in line for word in words)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
