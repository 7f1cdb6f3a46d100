"""Many containers at once, and containers that behave badly: the daemon tells the truth about each, and nothing stays.

With PYDOCKERD_LOAD=all in the environment it is 200 containers and a flood of 200 MB; without, 40 and 20 MB.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import execs
import pytest
from daemons import Daemon, spawn, until
from faults.picture import fork_servers, monitors
from store_house import needs_root
from wire import frames, read_to_end

pytestmark = needs_root

ALL = os.environ.get("PYDOCKERD_LOAD") == "all"
MANY = 200 if ALL else 40
FLOOD = (200 if ALL else 20) * 1_000_000
LINE = 63 * b"y" + b"\n"

MEBIBYTE = 1024 * 1024
ENGINE_BYTES = 80 * MEBIBYTE
CONTAINER_BYTES = 4 * MEBIBYTE

T = TypeVar("T")


def at_once(work: Callable[[str], T], these: list[str]) -> list[T]:
    with ThreadPoolExecutor(100) as pool:
        return list(pool.map(work, these))


def running(daemon: Daemon) -> list[str]:
    return [one["Id"] for one in daemon.get("/containers/json").json]


def pss(pid: int) -> int:
    """Bytes; a page that several processes share counts in equal parts (proc_pid_smaps(5))."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) * 1024


def command_lines(word: str) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if word in text:
            found.append(text)
    return found


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


# Many


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with MANY containers that were started at once."""
    one = Daemon(tmp_path_factory.mktemp("crowd"))
    one.start()
    one.import_busybox()
    try:
        names = [f"one-{number}" for number in range(MANY)]
        at_once(lambda name: one.create("sh", "-c", "echo up; exec sleep 100000", name=name), names)
        replies = at_once(lambda name: one.post(f"/containers/{name}/start", timeout=120), names)
        assert {reply.status for reply in replies} == {204}
        yield one
        replies = at_once(lambda name: one.delete(f"/containers/{name}?force=1"), names)
        assert {reply.status for reply in replies} == {204}
        until(lambda: monitors(one) == [])
    finally:
        one.close()
    assert one.leftovers() == []


def test_containers_that_are_started_at_once_all_run_and_are_heard(crowd: Daemon) -> None:
    ids = running(crowd)
    assert len(ids) == len(monitors(crowd)) == MANY
    until(lambda: all(logs == b"up\n" for logs in at_once(crowd.logs, ids)))


def test_each_running_container_takes_little_memory_and_so_does_the_engine(crowd: Daemon) -> None:
    assert crowd.process is not None
    # pystemd's process, where there is systemd, is the engine's
    engine = [crowd.process.pid, *(set(children(crowd.process.pid)) - set(fork_servers(crowd)))]
    assert sum(map(pss, engine)) < ENGINE_BYTES
    assert sum(map(pss, [*fork_servers(crowd), *monitors(crowd)])) / MANY < CONTAINER_BYTES


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_daemon_that_is_started_again_finds_all_of_them(crowd: Daemon, number: int) -> None:
    before = {one: crowd.inspect(one)["State"] for one in running(crowd)}
    crowd.stop(number)
    crowd.start()
    assert {one: crowd.inspect(one)["State"] for one in running(crowd)} == before
    assert len(before) == MANY


def test_what_ends_while_there_is_no_daemon_is_told_by_the_next(crowd: Daemon) -> None:
    ids = running(crowd)[: MANY // 4]
    pids = [crowd.inspect(one)["State"]["Pid"] for one in ids]
    crowd.stop(signal.SIGKILL)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(monitors(crowd)) == MANY - len(ids))
    crowd.start()
    codes = [crowd.inspect(one)["State"]["ExitCode"] for one in ids]
    assert codes == [137] * len(ids)
    assert len(running(crowd)) == MANY - len(ids)
    assert {reply.status for reply in at_once(lambda one: crowd.post(f"/containers/{one}/start"), ids)} == {204}


# Bad behaviour


def stopped(daemon: Daemon, container: str, query: str = "") -> Any:
    reply = daemon.post(f"/containers/{container}/stop{query}")
    assert reply.status == 204, reply.data
    return daemon.inspect(container)["State"]


def removed(daemon: Daemon, container: str) -> None:
    reply = daemon.delete(f"/containers/{container}?force=1")
    assert reply.status == 204, reply.data


def test_a_fork_bomb_is_held_by_its_limit_and_stopped(daemon: Daemon) -> None:
    bomb = daemon.run_detached("sh", "-c", "bomb() { bomb | bomb & }; bomb; sleep 1000", host={"PidsLimit": 60})
    until(lambda: (daemon.get(f"/containers/{bomb}/stats?stream=0").json["pids_stats"].get("current", 0)) >= 30)
    assert daemon.run_to_end("echo", "still there") == (0, b"still there\n")
    assert stopped(daemon, bomb, "?t=0")["ExitCode"] == 137
    removed(daemon, bomb)


def test_a_flood_of_lines_reaches_the_log_whole_and_takes_no_memory(daemon: Daemon) -> None:
    flood = daemon.run_detached("sh", "-c", f"yes '{LINE.decode()[:-1]}' | head -n {FLOOD // len(LINE)}")
    most = 0
    while daemon.inspect(flood)["State"]["Running"]:
        for pid in monitors(daemon):
            try:
                most = max(most, pss(pid))
            except OSError:  # it has just ended
                continue
        time.sleep(0.02)
    assert 0 < most < 16 * MEBIBYTE
    assert daemon.wait(flood) == 0
    assert daemon.logs(flood) == LINE * (FLOOD // len(LINE))
    removed(daemon, flood)


def attach(daemon: Daemon, container: str) -> socket.socket:
    connection = daemon.connect()
    path = f"/v1.43/containers/{container}/attach?stream=1&stdin=1&stdout=1"
    connection.sendall(f"POST {path} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode())
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        data += connection.recv(1)
    assert data.startswith(b"HTTP/1.1 101")
    return connection


def test_an_input_that_never_ends_keeps_no_container_from_its_end(daemon: Daemon) -> None:
    container = daemon.create("sh", "-c", "echo up; exec sleep 0.2", OpenStdin=True, StdinOnce=True)
    with attach(daemon, container) as client:
        assert daemon.post(f"/containers/{container}/start").status == 204
        assert daemon.wait(container) == 0
        assert frames(read_to_end(client)) == [(1, b"up\n")]
    removed(daemon, container)


def test_a_reader_of_an_input_that_never_ends_is_stopped(daemon: Daemon) -> None:
    container = daemon.create("sh", "-c", "trap 'exit 9' TERM; echo up; while :; do read line; done", OpenStdin=True)
    with attach(daemon, container) as client:
        assert daemon.post(f"/containers/{container}/start").status == 204
        until(lambda: daemon.logs(container) == b"up\n")
        assert stopped(daemon, container)["ExitCode"] == 9
        assert frames(read_to_end(client)) == [(1, b"up\n")]
    removed(daemon, container)


def test_a_container_that_ignores_sigterm_is_killed_in_the_end(daemon: Daemon) -> None:
    deaf = daemon.run_detached("sh", "-c", "trap '' TERM; echo up; while :; do sleep 1000; done")
    until(lambda: daemon.logs(deaf) == b"up\n")
    assert stopped(daemon, deaf, "?t=1")["ExitCode"] == 137
    removed(daemon, deaf)


@pytest.mark.parametrize("host", [{}, {"PidMode": "host"}])
def test_what_daemonizes_in_a_container_ends_with_it(host: dict[str, str], daemon: Daemon) -> None:
    """Its init ends, and what it has left holds the streams open: in a namespace of processes the kernel ends that, in
    the host's the engine does."""
    length = f"3456{os.getpid()}" + ("1" if host else "2")
    code, output = daemon.run_to_end("sh", "-c", f"setsid sleep {length} & echo gone; exit 4", host=host)
    assert (code, output) == (4, b"gone\n")
    until(lambda: command_lines(f"sleep {length}") == [])
    for one in daemon.get("/containers/json?all=1").json:
        removed(daemon, one["Id"])


def test_a_container_lives_though_it_has_more_clients_than_its_monitor_has_descriptors(tmp_path: Path) -> None:
    most = 200
    daemon = Daemon(tmp_path)
    daemon.spawn = lambda argv, log: spawn(["prlimit", f"--nofile={most}", *argv], log)
    daemon.start()
    daemon.import_busybox()
    container = daemon.run_detached("sleep", "1000")
    with ExitStack() as stack:
        for _ in range(most):
            stack.enter_context(attach(daemon, container))
        assert daemon.inspect(container)["State"]["Running"]
        assert execs.detach(daemon, execs.create(daemon, container, "true")).status == 200
        assert stopped(daemon, container, "?t=0")["ExitCode"] == 137
    daemon.close()
    assert daemon.leftovers() == []
