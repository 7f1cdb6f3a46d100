"""Execs in the monitor with a real OCI runtime, at the steps at which a daemon, a client or the runtime goes away."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import make_rootfs, monitor_config

from dockerd_py import wire
from dockerd_py.engine.ipc import unmount_below
from dockerd_py.monitor.execs import REMEMBERED
from dockerd_py.runtime.crun import Crun

ID = "cd" * 32
PROGRAM = str(Path(wire.__file__).parent / "monitor" / "__main__.py")


class Talk:
    """A control connection, as a daemon has it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(20)
        self.events: list[wire.Message] = []

    def send(self, op: str, fds: tuple[int, ...] = (), **fields: object) -> None:
        wire.send(self.sock, {"op": op, "seq": 1, **fields}, fds)

    def receive(self) -> wire.Message:
        message, _ = wire.receive(self.sock)
        assert message is not None, "the monitor has ended"
        return message

    def ask(self, op: str, fds: tuple[int, ...] = (), **fields: object) -> wire.Message:
        self.send(op, fds, **fields)
        return self.reply()

    def reply(self) -> wire.Message:
        while "event" in (message := self.receive()):
            self.events.append(message)
        return message

    def event(self) -> wire.Message:
        while not self.events:
            self.events.append(self.receive())
        return self.events.pop(0)


class House:
    """A running container, its monitor, and execs in it."""

    def __init__(self, directory: Path, rootfs: Path) -> None:
        self.directory = directory
        self.run = directory / "run"
        self.groups: list[str] = []
        self.crun = Crun(root=str(directory / "crun"))
        self.fork_server = subprocess.Popen([sys.executable, "-I", "-S", PROGRAM, str(directory / "fork.sock")])
        deadline = time.monotonic() + 10
        while not (directory / "fork.sock").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        config = monitor_config(directory, rootfs, ID, "sleep", "100")
        sock = wire.connect(str(directory / "fork.sock"))
        wire.send(sock, {"op": "monitor", "version": 1, "config": config})
        self.talk = Talk(sock)
        self.pid = int(self.talk.receive()["pid"])
        for op in ("gate", "create", "start"):
            reply = self.talk.ask(op)
            assert "error" not in reply, reply

    def send(
        self,
        name: str,
        *argv: str,
        client: socket.socket | None = None,
        tty: bool = False,
        instead: list[str] | None = None,
    ) -> None:
        """Ask for a start, without awaiting the reply.  instead: another program than the runtime."""
        process = json.loads((self.run / "config.json").read_text())["process"]
        (self.run / f"{name}.proc").write_text(json.dumps({**process, "args": argv, "terminal": tty}))
        console = str(self.run / f"{name}.tty") if tty else ""
        pid_file, log = str(self.run / f"{name}.pid"), str(self.run / f"{name}.log")
        call = self.crun.exec(
            ID, process=str(self.run / f"{name}.proc"), pid_file=pid_file, detach=True, log=log, console_socket=console
        )
        settings = {"stdin": client is not None, "streams": [1, 2], "framed": False, "keys": [], "size": [24, 80]}
        fds = () if client is None else (client.fileno(),)
        files = {"log": log, "pid_file": pid_file, "console": console}
        self.talk.send("exec", fds, exec=name, argv=instead or call, groups=self.groups, **files, **settings)

    def start(self, name: str, *argv: str, client: socket.socket | None = None, tty: bool = False) -> wire.Message:
        self.send(name, *argv, client=client, tty=tty)
        return self.talk.reply()

    def execs(self) -> list[wire.Message]:
        found: list[wire.Message] = self.talk.ask("execs", begin=0)["execs"]
        return found

    def children(self) -> list[int]:
        return [int(word) for word in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def close(self) -> None:
        with contextlib.suppress(OSError, AssertionError):
            self.talk.ask("abort")
        self.talk.sock.close()
        self.fork_server.kill()
        self.fork_server.wait()
        unmount_below(self.run)  # of a runtime that was killed, as the daemon does it


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rootfs(tmp_path_factory.mktemp("rootfs"))


@pytest.fixture
def house(tmp_path: Path, rootfs: Path) -> Iterator[House]:
    one = House(tmp_path, rootfs)
    yield one
    one.close()


def until(condition: object, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def read_all(sock: socket.socket) -> bytes:
    sock.settimeout(20)
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def test_the_end_is_told_before_the_client_sees_it(house: House) -> None:
    ours, theirs = socket.socketpair()
    assert house.start("one", "sh", "-c", "cat; exit 5", client=theirs)["pid"] in house.children()
    theirs.close()
    ours.sendall(b"typed")
    ours.shutdown(socket.SHUT_WR)
    assert read_all(ours) == b"typed"
    house.talk.sock.setblocking(False)
    event = house.talk.event()
    assert (event["event"], event["id"], event["exit_code"]) == ("exec_exit", "one", 5)


def test_a_daemon_that_comes_later_learns_of_those_that_ran_and_run(house: House) -> None:
    house.start("ends", "sh", "-c", "exit 6")
    house.start("runs", "sleep", "100")
    assert house.talk.event()["id"] == "ends"
    house.talk.sock.close()
    house.talk = Talk(wire.connect(str(house.run / "monitor.sock")))
    assert [(one["id"], one["phase"], one["exit_code"]) for one in house.execs()] == [
        ("ends", "exited", 6), ("runs", "running", 0),
    ]  # fmt: skip


def test_a_start_goes_on_without_the_daemon(house: House) -> None:
    house.send("one", "sleep", "100")
    house.talk.sock.close()
    house.talk = Talk(wire.connect(str(house.run / "monitor.sock")))
    until(lambda: [one["phase"] for one in house.execs()] == ["running"])


def test_a_group_that_cannot_be_joined_is_named_and_nothing_is_started(house: House) -> None:
    before = house.children(), house.open_files()
    house.groups = ["/sys/fs/cgroup/no/such/group/cgroup.procs"]
    reply = house.start("one", "sleep", "100")
    assert "/sys/fs/cgroup/no/such/group/cgroup.procs: No such file or directory" in reply["log"]
    until(lambda: (house.children(), house.open_files()) == before)


def test_a_client_of_what_fails_sees_the_end_of_its_connection(house: House) -> None:
    house.execs()
    before = house.children(), house.open_files()
    for tty in (False, True):
        ours, theirs = socket.socketpair()
        assert "error" in house.start("one", "nosuch", client=theirs, tty=tty)
        theirs.close()
        assert read_all(ours) == b""
    until(lambda: (house.children(), house.open_files()) == before)
    assert not list(house.run.glob("*.tty"))


def test_a_runtime_that_waits_for_a_child_that_was_killed_is_given_up(house: House) -> None:
    before = house.children(), house.open_files()
    house.send("stuck", "true", instead=["/bin/sh", "-c", "sh -c 'kill -9 $$' & exec sleep 1000"])
    house.send("fine", "true", instead=["/bin/sh", "-c", "sleep 100 & exec sleep 5"])
    assert house.talk.reply()["error"] == "the OCI runtime ended with -9"
    assert "has not done its part" in str(house.talk.reply()["error"])  # which had its time
    until(lambda: (house.children(), house.open_files()) == before)


@pytest.mark.parametrize("delay", [0.0, 0.002, 0.004, 0.006, 0.01])
def test_a_killed_runtime_leaves_no_process_behind(house: House, delay: float) -> None:
    before = house.children(), house.open_files()
    house.send("one", "sleep", "100")
    time.sleep(delay)
    for pid in set(house.children()) - set(before[0]):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    reply = house.talk.receive()
    if "error" not in reply:  # it was done already
        with contextlib.suppress(ProcessLookupError):
            os.kill(reply["pid"], signal.SIGKILL)
        assert house.talk.event()["exit_code"] == 137
    until(lambda: (house.children(), house.open_files()) == before)
    assert house.talk.ask("hello")["phase"] == "running"


def test_an_abort_while_the_runtime_works_leaves_no_process_behind(house: House) -> None:
    before = house.children(), house.open_files()
    house.send("one", "sleep", "100")
    house.talk.send("exec_abort", exec="one")
    replies = [house.talk.receive(), house.talk.receive()]
    assert [reply for reply in replies if "error" in reply]
    until(lambda: (house.children(), house.open_files()) == before)


def test_an_abort_that_crosses_the_reply_ends_the_process(house: House) -> None:
    before = house.children(), house.open_files()
    house.start("one", "sleep", "100")
    assert house.talk.ask("exec_abort", exec="one") == {"seq": 1}
    until(lambda: (house.children(), house.open_files()) == before)


def test_the_runtimes_complaint_comes_with_the_failure(house: House) -> None:
    before = house.children()
    reply = house.start("one", "nosuch")
    assert "not found in $PATH" in reply["log"]
    assert house.execs() == []
    until(lambda: house.children() == before)


def test_they_end_with_the_container_and_before_it(house: House) -> None:
    ours, theirs = socket.socketpair()
    house.start("runs", "sleep", "100", client=theirs)
    theirs.close()
    house.talk.ask("kill", signal=9)
    first = house.talk.event()
    assert (first["event"], first["exit_code"]) == ("exec_exit", 137)
    assert house.talk.event()["event"] == "exit"
    assert read_all(ours) == b""
    until(lambda: not Path(f"/proc/{house.pid}").exists())


def test_many_leave_nothing_but_the_last_that_ended(house: House) -> None:
    house.start("first", "true")
    house.talk.event()
    before = house.open_files()
    for number in range(20):
        house.start(f"n{number}", "true")
        assert house.talk.event()["exit_code"] == 0
    assert house.open_files() == before
    assert len(house.execs()) == 21 <= REMEMBERED


def test_requests_that_make_no_sense_are_refused(house: House) -> None:
    house.start("one", "sleep", "100")
    assert "exists already" in house.start("one", "sleep", "100")["error"]
    assert "not running" in house.talk.ask("exec_kill", exec="nosuch", signal=9)["error"]
    assert "has ended" in house.talk.ask("exec_resize", exec="nosuch", height=1, width=1)["error"]
    assert "has no terminal" in house.talk.ask("exec_resize", exec="one", height=1, width=1)["error"]
    assert "does not know 'exec_what'" in house.talk.ask("exec_what")["error"]
