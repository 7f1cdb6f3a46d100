"""The monitor with a real OCI runtime: what it promises when the daemon is there, and when it is not."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import make_rootfs, monitor_config
from daemons import until

from dockerd_py import wire
from dockerd_py.monitor import spool, stamp
from dockerd_py.monitor.clients import FOLLOW, FRAME

ID = "ab" * 32
PROGRAM = str(Path(spool.__file__).parent / "__main__.py")


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rootfs(tmp_path_factory.mktemp("rootfs"))


@pytest.fixture
def fork_server(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    path = tmp_path / "fork.sock"
    process = subprocess.Popen([sys.executable, "-I", "-S", PROGRAM, str(path)])
    deadline = time.monotonic() + 10
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    yield process
    process.kill()
    process.wait()


class Talk:
    """A control connection, as a daemon has it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(20)
        self.events: list[wire.Message] = []

    def ask(self, op: str, fds: tuple[int, ...] = (), **fields: object) -> wire.Message:
        wire.send(self.sock, {"op": op, "seq": 1, **fields}, fds)
        while True:
            message, _ = wire.receive(self.sock)
            assert message is not None, f"the monitor ended instead of answering {op}"
            if "event" not in message:
                return message
            self.events.append(message)

    def exit(self) -> wire.Message:
        for event in self.events:
            if event["event"] == "exit":
                return event
        while True:
            message, _ = wire.receive(self.sock)
            assert message is not None, "the monitor ended without an exit event"
            if message.get("event") == "exit":
                return message

    def ended(self) -> bool:
        """Waits for the monitor's end."""
        while True:
            with contextlib.suppress(ConnectionError):
                message, _ = wire.receive(self.sock)
                if message is not None:
                    continue
            return True


@pytest.fixture
def talk(tmp_path: Path, rootfs: Path, fork_server: subprocess.Popen[bytes]) -> Iterator[object]:
    opened: list[Talk] = []

    def make(*argv: str, start: list[str] | None = None, **options: object) -> Talk:
        config = monitor_config(tmp_path, rootfs, ID, *argv, **options)  # type: ignore[arg-type]
        config["start"] = start or config["start"]
        sock = wire.connect(str(tmp_path / "fork.sock"))
        wire.send(sock, {"op": "monitor", "version": 1, "config": config})
        opened.append(Talk(sock))
        return opened[-1]

    yield make
    for one in opened:
        with contextlib.suppress(OSError, AssertionError):
            one.ask("abort")
        one.sock.close()


def run(talk: Talk) -> None:
    assert "error" not in talk.ask("gate")
    created = talk.ask("create")
    assert "error" not in created, created
    started = talk.ask("start")
    assert "error" not in started, started


def log_lines(directory: Path, stream: str | None = None) -> list[str]:
    entries = [json.loads(line) for line in (directory / "log").read_text().splitlines()]
    return [entry["log"] for entry in entries if stream in (None, entry["stream"])]


def attach(talk: Talk, **options: object) -> socket.socket:
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    fields = {"stdin": False, "streams": [1, 2], "framed": False, "keys": [], **options}
    reply = talk.ask("attach", (theirs.fileno(),), **fields)
    assert "error" not in reply, reply
    theirs.close()
    return ours


def read_all(sock: socket.socket) -> bytes:
    data = b""
    while chunk := sock.recv(1 << 20):
        data += chunk
    return data


def test_the_exit_code_and_both_streams_are_recorded(tmp_path: Path, talk) -> None:
    one = talk("sh", "-c", "echo out; echo err >&2; exit 7")
    run(one)
    event = one.exit()
    assert event["exit_code"] == 7
    assert one.ended()
    record = spool.read(str(tmp_path / "spool"), ID)
    assert record is not None
    assert (record.exit_code, record.ordinal) == (7, 2)
    assert log_lines(tmp_path, "stdout") == ["out\n"]
    assert log_lines(tmp_path, "stderr") == ["err\n"]
    assert not (tmp_path / "run" / "monitor.sock").exists()
    assert not list((tmp_path / "crun").iterdir())


def test_death_by_a_signal_is_128_and_its_number(talk) -> None:
    one = talk("sleep", "100")
    run(one)
    assert one.ask("kill", signal=9) == {"seq": 1}
    assert one.exit()["exit_code"] == 137


def test_a_start_that_waits_for_an_init_that_was_killed_is_given_up(tmp_path: Path, talk) -> None:
    one = talk("sleep", "100", start=["/bin/sleep", "1000"])  # as the runtime's, which waits at its fifo then
    one.ask("gate")
    pid = one.ask("create")["pid"]
    wire.send(one.sock, {"op": "start", "seq": 1})
    time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    begun = time.monotonic()
    assert one.exit()["exit_code"] == 137
    assert time.monotonic() - begun < 10
    assert one.ended()
    assert not list((tmp_path / "crun").iterdir())


def test_a_command_that_is_missing_is_told_and_leaves_nothing(tmp_path: Path, talk) -> None:
    one = talk("/no/such/command")
    one.ask("gate")
    reply = one.ask("create")
    assert "not found" in reply["log"]
    assert one.ended()
    assert not any((tmp_path / "crun").iterdir()) if (tmp_path / "crun").exists() else True
    assert (tmp_path / "log").read_bytes() == b""


def test_hundred_lines_right_before_the_exit_arrive(tmp_path: Path, talk) -> None:
    one = talk("sh", "-c", "i=0; while [ $i -lt 100 ]; do echo line $i; i=$((i+1)); done")
    run(one)
    one.exit()
    assert log_lines(tmp_path) == [f"line {number}\n" for number in range(100)]


def test_a_long_line_binary_bytes_and_a_missing_newline_come_back_whole(tmp_path: Path, talk) -> None:
    script = r"head -c 200000 /dev/zero | tr '\0' x; echo; printf 'a\000\377\001b\n'; printf end"
    one = talk("sh", "-c", script)
    run(one)
    one.exit()
    text = "".join(log_lines(tmp_path)).encode("utf-8", "surrogateescape")
    assert text == b"x" * 200000 + b"\n" + b"a\x00\xff\x01b\n" + b"end"


def test_a_container_outlives_the_daemon_and_the_fork_server(tmp_path: Path, talk, fork_server) -> None:
    one = talk("sh", "-c", "sleep 0.5; echo later; exit 3")
    run(one)
    one.sock.close()
    fork_server.kill()
    fork_server.wait()
    deadline = time.monotonic() + 10
    while spool.read(str(tmp_path / "spool"), ID) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    record = spool.read(str(tmp_path / "spool"), ID)
    assert record is not None
    assert record.exit_code == 3
    assert log_lines(tmp_path) == ["later\n"]


def test_a_second_daemon_finds_the_running_container(tmp_path: Path, talk) -> None:
    one = talk("sleep", "100")
    run(one)
    one.sock.close()
    again = Talk(wire.connect(str(tmp_path / "run" / "monitor.sock")))
    state = again.ask("hello")
    assert state["phase"] == "running"
    os.kill(state["pid"], signal.SIGKILL)
    assert again.exit()["exit_code"] == 137


def test_a_start_that_nobody_completes_is_undone(tmp_path: Path, talk) -> None:
    one = talk("sleep", "100")
    one.ask("gate")
    pid = one.ask("create")["pid"]
    one.sock.close()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{pid}").exists()
    deadline = time.monotonic() + 10
    while (tmp_path / "run" / "monitor.sock").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not list((tmp_path / "crun").iterdir())


def test_an_attached_client_gets_frames_and_gives_input(talk) -> None:
    one = talk("sh", "-c", "cat; echo done >&2", open_stdin=True, stdin_once=True)
    client = attach(one, stdin=True, framed=True)
    run(one)
    client.sendall(b"hello\n")
    client.shutdown(socket.SHUT_WR)
    assert read_all(client) == FRAME.pack(1, 6) + b"hello\n" + FRAME.pack(2, 5) + b"done\n"
    assert one.exit()["exit_code"] == 0


def test_input_sent_before_the_start_is_not_lost(talk) -> None:
    one = talk("sh", "-c", "wc -c", open_stdin=True, stdin_once=True)
    memory = os.memfd_create("early")
    os.write(memory, b"x" * 1000)
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    reply = one.ask("attach", (theirs.fileno(), memory), stdin=True, streams=[1], framed=False, keys=[])
    assert "error" not in reply
    theirs.close()
    ours.sendall(b"y" * 500)
    ours.shutdown(socket.SHUT_WR)
    run(one)
    assert read_all(ours).strip() == b"1500"


def test_a_terminal_is_raw_and_can_be_resized(talk) -> None:
    one = talk("sh", "-c", "read x; stty size", tty=True, open_stdin=True)
    client = attach(one, stdin=True, framed=True)
    run(one)
    assert "error" not in one.ask("resize", height=33, width=99)
    client.sendall(b"go\n")
    assert b"33 99" in read_all(client)
    assert one.exit()["exit_code"] == 0


def test_detach_keys_let_go_of_the_client_alone(talk) -> None:
    one = talk("cat", tty=True, open_stdin=True)
    client = attach(one, stdin=True, keys=[16, 17])
    run(one)
    client.sendall(b"a\x10b\x10\x11")
    read_all(client)
    assert one.ask("hello")["phase"] == "running"
    one.ask("kill", signal=9)
    one.exit()


def test_a_client_that_reads_nothing_does_not_stop_the_container(talk) -> None:
    one = talk("sh", "-c", "head -c 20000000 /dev/zero; echo over >&2")
    client = attach(one)
    run(one)
    begun = time.monotonic()
    assert one.exit()["exit_code"] == 0
    assert time.monotonic() - begun < 10
    client.close()


def test_a_client_that_reads_slowly_loses_nothing(talk) -> None:
    one = talk("sh", "-c", "head -c 8000000 /dev/zero | tr '\\0' z")
    client = attach(one, streams=[1])
    run(one)
    total = 0
    while chunk := client.recv(200000):
        total += len(chunk)
        time.sleep(0.005)
    assert total == 8000000


def test_the_last_output_arrives_though_the_directory_of_the_container_is_gone(tmp_path: Path, talk) -> None:
    one = talk("sh", "-c", "yes | head -c 600000; exec sleep 100")
    client = attach(one)
    run(one)
    until(lambda: one.ask("position")["ordinal"] == 300_000)
    shutil.rmtree(tmp_path / "run")
    assert "error" not in one.ask("kill", signal=9)
    assert one.exit()["exit_code"] == 137
    assert len(read_all(client)) == 600_000


def test_a_follower_gets_every_record_once_and_the_end(talk) -> None:
    one = talk("sh", "-c", "sleep 0.3; i=0; while [ $i -lt 500 ]; do echo $i; i=$((i+1)); done")
    run(one)
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    position = one.ask("follow", (theirs.fileno(),))
    theirs.close()
    data = read_all(ours)
    ordinals, at = [], 0
    while at < len(data):
        stream, _ended, length, _when, ordinal = FOLLOW.unpack_from(data, at)
        at += FOLLOW.size + length
        ordinals.append(ordinal if stream else -1)
    assert ordinals == [*range(position["ordinal"] + 1, 501), -1]


def test_an_attached_monitor_without_container_ends_with_its_last_client(tmp_path: Path, talk) -> None:
    one = talk("true")
    client = attach(one)
    one.sock.close()
    time.sleep(0.2)
    assert (tmp_path / "run" / "monitor.sock").exists()
    client.close()
    deadline = time.monotonic() + 5
    while (tmp_path / "run" / "monitor.sock").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not (tmp_path / "run" / "monitor.sock").exists()


def test_unknown_requests_are_refused_by_name(talk) -> None:
    one = talk("true")
    assert "levitate" in one.ask("levitate")["error"]
    assert "not running" in one.ask("kill", signal=9)["error"]


def test_a_fork_server_becomes_the_program_that_an_upgrade_has_brought(tmp_path: Path) -> None:
    package = tmp_path / "old" / "dockerd_py"
    shutil.copytree(Path(wire.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "fork.sock"
    process = subprocess.Popen([sys.executable, "-I", "-S", str(package / "monitor/__main__.py"), str(path)])
    try:
        until(path.exists)

        def renew(code: str) -> wire.Message | None:
            with wire.connect(str(path)) as sock:
                sock.settimeout(10)
                wire.send(sock, {"op": "renew", "code": code})
                with contextlib.suppress(ConnectionResetError):
                    return wire.receive(sock)[0]
                return None

        old = stamp.of_code()
        assert renew(old) == {"renewed": False}
        with (package / "monitor/lines.py").open("a") as file:
            file.write("\n# a later version\n")
        assert renew("another") is None
        until(lambda: _answers(path))
        assert process.poll() is None  # the same process: its monitors are still its children
        with wire.connect(str(path)) as sock:
            sock.settimeout(10)
            wire.send(sock, {"op": "renew", "code": old})
            with contextlib.suppress(ConnectionResetError):
                assert wire.receive(sock)[0] is None  # it is no longer that one
    finally:
        process.kill()
        process.wait()


def _answers(path: Path) -> bool:
    try:
        wire.connect(str(path)).close()
    except OSError:
        return False
    return True


def test_a_socket_of_a_maker_that_was_killed_is_abandoned_before_anybody_has_waited_for_it(tmp_path: Path) -> None:
    def maker() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(["sleep", "60"])
        (tmp_path / f".x.sock.{process.pid}").touch()
        return process

    alive, dead = maker(), maker()
    try:
        dead.kill()
        os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
        found = wire.abandoned(str(tmp_path / "x.sock"))
        assert [os.path.basename(path) for path in found] == [f".x.sock.{dead.pid}"]
    finally:
        for process in (alive, dead):
            process.kill()
            process.wait()
