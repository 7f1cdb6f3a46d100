"""`run`, `start -a` and `attach` against a socket: the order of what is asked, the streams, and every way to end."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_daemon import NO_CONTENT, UPGRADED, Answer, Daemon, Request, failure, reply
from daemons import until

ID = "0123456789abcdef" * 4
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n"


def frame(stream: int, data: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


class Scene:
    """A container's side: its stream begins when it was started, and its exit code is sent when the stream has ended.

    plays: what happens on the stream, with the connection and the bytes that came with the request.
    """

    def __init__(self, plays: Callable[[socket.socket, bytes], None], exit_code: int = 0, **config: object) -> None:
        self.plays = plays
        self.exit_code = exit_code
        self.started = threading.Event()
        self.ended = threading.Event()
        self.waits = 0
        self.answers: dict[str, Answer] = {
            "POST /containers/create": reply({"Id": ID, "Warnings": []}, "201 Created"),
            f"POST /containers/{ID}/attach": self.attach,
            f"POST /containers/{ID}/wait": self.wait,
            f"POST /containers/{ID}/start": self.start,
            f"GET /containers/{ID}/json": self.inspect,
            "GET /containers/c/json": self.inspect,
            f"POST /containers/{ID}/kill": NO_CONTENT,
            f"POST /containers/{ID}/resize": NO_CONTENT,
            f"DELETE /containers/{ID}": NO_CONTENT,
        }
        self.config = {"Tty": False, "OpenStdin": False, **config}

    def attach(self, request: Request) -> None:
        request.connection.sendall(UPGRADED)
        self.started.wait(20)
        self.plays(request.connection, request.data)
        self.ended.set()

    def start(self, request: Request) -> None:
        self.started.set()
        request.connection.sendall(NO_CONTENT)

    def wait(self, request: Request) -> None:
        self.waits += 1
        request.connection.sendall(HEAD)
        self.ended.wait(20)
        data = json.dumps({"StatusCode": self.exit_code}).encode()
        request.connection.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data))

    def inspect(self, request: Request) -> None:
        state = {"Running": self.started.is_set() and not self.ended.is_set()}
        request.connection.sendall(reply({"Id": ID, "State": state, "Config": self.config, "HostConfig": {}}))


def says(*frames: bytes) -> Callable[[socket.socket, bytes], None]:
    return lambda connection, _: connection.sendall(b"".join(frames))


def asked(daemon: Daemon) -> list[str]:
    return [line.replace(ID, "ID") for line in daemon.lines]


def test_run_attaches_and_waits_before_it_starts(tmp_path: Path) -> None:
    scene = Scene(says(frame(1, b"out\n"), frame(2, b"err\n"), frame(1, b"no end")), 7)
    with Daemon(tmp_path, scene.answers) as daemon:
        done = daemon.command("run", "--name", "web", "bb", "sh", "-c", "true")
    assert (done.stdout, done.stderr, done.returncode) == ("out\nno end", "err\n", 7)
    assert asked(daemon) == [
        "POST /containers/create?name=web",
        "POST /containers/ID/attach?stream=1&stdout=1&stderr=1",
        "POST /containers/ID/wait?condition=next-exit",
        "POST /containers/ID/start",
    ]
    assert json.loads(daemon.bodies[0])["Cmd"] == ["sh", "-c", "true"]


def test_with_rm_the_end_is_when_the_container_is_gone(tmp_path: Path) -> None:
    with Daemon(tmp_path, Scene(says()).answers) as daemon:
        assert daemon.command("run", "--rm", "bb").returncode == 0
    assert "POST /containers/ID/wait?condition=removed" in asked(daemon)


def test_a_detached_container_is_only_started(tmp_path: Path) -> None:
    with Daemon(tmp_path, Scene(says()).answers) as daemon:
        assert daemon.command("run", "-d", "bb").stdout == ID + "\n"
    assert asked(daemon) == ["POST /containers/create", "POST /containers/ID/start"]


def test_warnings_go_to_standard_error(tmp_path: Path) -> None:
    scene = Scene(says())
    scene.answers["POST /containers/create"] = reply({"Id": ID, "Warnings": ["no network\x07 here"]}, "201 Created")
    with Daemon(tmp_path, scene.answers) as daemon:
        done = daemon.command("create", "bb")
    assert (done.stdout, done.stderr) == (ID + "\n", "WARNING: no network\\x07 here\n")


def test_output_that_comes_with_the_answer_to_the_attach_is_not_lost(tmp_path: Path) -> None:
    scene = Scene(says())

    def attach(request: Request) -> None:
        request.connection.sendall(UPGRADED + frame(1, b"at once\n"))
        scene.started.wait(20)
        scene.ended.set()

    scene.answers[f"POST /containers/{ID}/attach"] = attach
    with Daemon(tmp_path, scene.answers) as daemon:
        assert daemon.command("run", "bb").stdout == "at once\n"


def test_standard_input_and_its_end_reach_the_container(tmp_path: Path) -> None:
    def cat(connection: socket.socket, data: bytes) -> None:
        while data or (data := connection.recv(65536)):
            connection.sendall(frame(1, data))
            data = b""
        connection.sendall(frame(1, b"<end>"))

    payload = os.urandom(3_000_000)
    with (
        Daemon(tmp_path, Scene(cat).answers) as daemon,
        daemon.start("run", "-i", "bb", "cat", stdin=subprocess.PIPE, text=False) as process,
    ):
        out, err = process.communicate(payload, timeout=30)
    assert (process.returncode, err) == (0, b"")
    assert out == payload + b"<end>"


def test_standard_input_is_left_alone_without_i(tmp_path: Path) -> None:
    read_fd, write_fd = os.pipe()
    os.write(write_fd, b"for somebody else\n")
    with Daemon(tmp_path, Scene(says(frame(1, b"hi\n"))).answers) as daemon:
        assert daemon.command("run", "bb", stdin=read_fd).stdout == "hi\n"
    assert os.read(read_fd, 100) == b"for somebody else\n"
    os.close(read_fd)
    os.close(write_fd)


def test_a_container_that_does_not_read_can_still_write_and_end(tmp_path: Path) -> None:
    def deaf(connection: socket.socket, _: bytes) -> None:
        time.sleep(0.3)
        for _number in range(100):
            connection.sendall(frame(1, b"x" * 10_000))
        connection.shutdown(socket.SHUT_WR)

    with open("/dev/zero", "rb") as endless, Daemon(tmp_path, Scene(deaf, 3).answers) as daemon:
        done = daemon.command("run", "-i", "bb", stdin=endless)
    assert (len(done.stdout), done.returncode) == (1_000_000, 3)


def test_only_the_streams_asked_for_are_attached(tmp_path: Path) -> None:
    with Daemon(tmp_path, Scene(says()).answers) as daemon:
        daemon.command("run", "-a", "stderr", "bb")
        assert daemon.command("run", "-i", "-a", "stdin", "bb").stdout == ID + "\n"
    assert [line for line in asked(daemon) if "/attach" in line] == [
        "POST /containers/ID/attach?stream=1&stderr=1",
        "POST /containers/ID/attach?stream=1&stdin=1",
    ]


def test_output_that_comes_after_the_exit_code_is_waited_for(tmp_path: Path) -> None:
    scene = Scene(says())

    def late(connection: socket.socket, _: bytes) -> None:
        scene.ended.set()
        time.sleep(0.7)
        connection.sendall(frame(1, b"the last words\n"))

    scene.plays = late
    with Daemon(tmp_path, scene.answers) as daemon:
        assert daemon.command("run", "bb").stdout == "the last words\n"


def test_the_exit_code_is_asked_for_again_when_the_daemon_was_away(tmp_path: Path) -> None:
    scene = Scene(says(), 9)

    def away(request: Request) -> None:
        scene.answers[f"POST /containers/{ID}/wait"] = scene.wait
        request.connection.sendall(HEAD)
        scene.started.wait(20)

    def plays(connection: socket.socket, _: bytes) -> None:
        while not scene.waits:
            time.sleep(0.01)
        connection.sendall(frame(1, b"still here\n"))

    scene.plays = plays
    scene.answers[f"POST /containers/{ID}/wait"] = away
    with Daemon(tmp_path, scene.answers) as daemon:
        done = daemon.command("run", "bb")
    assert (done.stdout, done.stderr, done.returncode) == ("still here\n", "", 9)
    assert asked(daemon)[-1] == "POST /containers/ID/wait?condition=not-running"


def test_a_container_that_went_while_the_daemon_was_away_has_no_exit_code(tmp_path: Path) -> None:
    scene = Scene(says())

    def away(request: Request) -> None:
        scene.answers[f"POST /containers/{ID}/wait"] = failure(404, "No such container")
        request.connection.sendall(HEAD)
        scene.started.wait(20)

    scene.answers[f"POST /containers/{ID}/wait"] = away
    with Daemon(tmp_path, scene.answers) as daemon:
        done = daemon.command("run", "--rm", "bb")
    assert "was removed before its exit code could be asked for" in done.stderr
    assert done.returncode == 125


@pytest.mark.parametrize(
    ("status", "reason", "code"),
    [
        (404, "No such image: bb:latest", 125),
        (409, 'Conflict. The container name "/web" is already in use', 125),
        (400, "Minimum memory limit allowed is 6MB", 125),
    ],
)
def test_a_container_that_cannot_be_created_ends_run_with_125(
    tmp_path: Path, status: int, reason: str, code: int
) -> None:
    with Daemon(tmp_path, {"POST /containers/create": failure(status, reason)}) as daemon:
        done = daemon.command("run", "bb")
    assert done.stderr == f"pydocker: Error response from daemon: {reason}\n"
    assert done.returncode == code


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ('exec: "nix": executable file not found in $PATH', 127),
        ("exec /nix: no such file or directory", 127),
        ("exec /etc/passwd: Permission denied", 126),
        ("exec /etc: is a directory", 126),
        ("the disk is full", 125),
    ],
)
@pytest.mark.parametrize("rm", [False, True])
def test_a_command_that_cannot_be_started_has_its_own_exit_code(
    tmp_path: Path, reason: str, code: int, rm: bool
) -> None:
    scene = Scene(says())
    scene.answers[f"POST /containers/{ID}/start"] = failure(400, reason)
    with Daemon(tmp_path, scene.answers) as daemon:
        done = daemon.command("run", *(["--rm"] if rm else []), "bb", "nix")
    assert done.stderr == f"pydocker: Error response from daemon: {reason}\n"
    assert done.returncode == code
    assert ("DELETE /containers/ID?v=1&force=1" in asked(daemon)) == rm


def test_signals_go_to_the_container_by_name(tmp_path: Path) -> None:
    killed = threading.Event()

    def plays(connection: socket.socket, _: bytes) -> None:
        connection.sendall(frame(1, b"READY\n"))
        killed.wait(20)

    scene = Scene(plays, 143)
    names: list[str] = []

    def kill(request: Request) -> None:
        names.append(request.target.partition("=")[2])
        request.connection.sendall(NO_CONTENT)
        if names[-1] == "SIGTERM":
            killed.set()

    scene.answers[f"POST /containers/{ID}/kill"] = kill
    with Daemon(tmp_path, scene.answers) as daemon, daemon.start("run", "bb") as process:
        assert process.stdout is not None
        process.stdout.readline()
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGINT, signal.SIGTERM):
            process.send_signal(number)
            while f"SIG{number.name[3:]}" not in names:
                time.sleep(0.01)
        assert process.wait(20) == 143
    assert names == ["SIGHUP", "SIGUSR1", "SIGINT", "SIGTERM"]


def test_a_container_that_ignores_three_interrupts_is_left_alone(tmp_path: Path) -> None:
    release = threading.Event()

    def plays(connection: socket.socket, _: bytes) -> None:
        connection.sendall(frame(1, b"READY\n"))
        release.wait(20)

    scene = Scene(plays)
    with Daemon(tmp_path, scene.answers) as daemon, daemon.start("run", "bb") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        for count in range(1, 4):
            process.send_signal(signal.SIGINT)
            while count < 3 and sum("/kill" in line for line in daemon.lines) < count:
                time.sleep(0.01)
        assert process.wait(20) == 130
        assert "Interrupted three times" in process.stderr.read()
        release.set()


def test_without_sig_proxy_a_signal_ends_the_client_alone(tmp_path: Path) -> None:
    release = threading.Event()

    def plays(connection: socket.socket, _: bytes) -> None:
        connection.sendall(frame(1, b"READY\n"))
        release.wait(20)

    with (
        Daemon(tmp_path, Scene(plays).answers) as daemon,
        daemon.start("run", "--sig-proxy=false", "bb") as process,
    ):
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == -signal.SIGTERM
        release.set()
    assert not any("/kill" in line for line in daemon.lines)


def test_the_id_file_holds_the_id(tmp_path: Path) -> None:
    file = tmp_path / "cid"
    with Daemon(tmp_path, Scene(says()).answers) as daemon:
        assert daemon.command("run", "--cidfile", os.fspath(file), "bb").returncode == 0
    assert file.read_text() == ID


def test_an_id_file_that_exists_prevents_the_container(tmp_path: Path) -> None:
    file = tmp_path / "cid"
    file.write_text("mine")
    with Daemon(tmp_path, Scene(says()).answers) as daemon:
        done = daemon.command("create", "--cidfile", os.fspath(file), "bb")
    assert f"{file} exists" in done.stderr
    assert (done.returncode, daemon.lines, file.read_text()) == (125, [], "mine")


def test_an_id_file_goes_when_no_container_was_made(tmp_path: Path) -> None:
    file = tmp_path / "cid"
    with Daemon(tmp_path, {}) as daemon:
        assert daemon.command("run", "--cidfile", os.fspath(file), "bb").returncode == 125
    assert not file.exists()


def test_start_with_a_shows_output_and_ends_with_the_exit_code(tmp_path: Path) -> None:
    scene = Scene(says(frame(1, b"again\n")), 4)
    with Daemon(tmp_path, scene.answers) as daemon:
        done = daemon.command("start", "-a", "c")
    assert (done.stdout, done.returncode) == ("again\n", 4)
    assert asked(daemon)[1:] == [
        "POST /containers/ID/attach?stream=1&stdout=1&stderr=1",
        "POST /containers/ID/wait?condition=next-exit",
        "POST /containers/ID/start",
    ]


def test_what_is_stopped_cannot_be_attached_to(tmp_path: Path) -> None:
    with Daemon(tmp_path, Scene(says()).answers) as daemon:
        done = daemon.command("attach", "c")
    assert done.stderr == "pydocker: You cannot attach to a stopped container, start it first\n"
    assert done.returncode == 1


def test_attach_feeds_a_container_whose_input_is_open(tmp_path: Path) -> None:
    def plays(connection: socket.socket, data: bytes) -> None:
        while piece := connection.recv(100):
            data += piece
        connection.sendall(frame(1, b"got " + data))

    scene = Scene(plays, OpenStdin=True)
    scene.started.set()
    with Daemon(tmp_path, scene.answers) as daemon, daemon.start("attach", "c", stdin=subprocess.PIPE) as process:
        assert process.communicate("a line\n", timeout=30)[0] == "got a line\n"
    assert "POST /containers/ID/attach?stream=1&stdin=1&stdout=1&stderr=1" in asked(daemon)


# With a terminal.


class OnATerminal:
    """`pydocker` on a pty of 24 rows and 80 columns."""

    def __init__(self, daemon: Daemon, *argv: str, **others: int) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(24, 80)
        self.before = self.mode
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), self.slave)
        self.process = daemon.start(*argv, **{**streams, **others}, preexec_fn=os.setpgrp)

    def __enter__(self) -> OnATerminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)

    @property
    def mode(self) -> list[object]:
        return termios.tcgetattr(self.slave)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def prints(self, word: bytes) -> bytes:
        seen = b""
        while word not in seen:
            assert select.select([self.master], [], [], 20)[0], f"it printed {seen!r}, not {word!r}"
            seen += os.read(self.master, 1024)
        return seen


def shell(connection: socket.socket, data: bytes) -> None:
    """Shows what is typed, until "q"; leaves at ctrl-p ctrl-q."""
    connection.sendall(b"READY\r\n")
    while b"q" not in data and b"\x10\x11" not in data:
        data += connection.recv(100)
        connection.sendall(b"<" + data.hex().encode() + b">")
    if b"\x10\x11" in data:
        connection.shutdown(socket.SHUT_RDWR)
        time.sleep(3)


def test_a_terminal_is_raw_while_the_container_has_it_and_put_back_at_its_end(tmp_path: Path) -> None:
    with Daemon(tmp_path, Scene(shell, 6).answers) as daemon, OnATerminal(daemon, "run", "-it", "bb") as client:
        client.prints(b"READY\r\n")
        assert client.mode != client.before
        os.write(client.master, b"\x03\r\x1b[A")
        client.prints(b"<030d1b5b41>")
        os.write(client.master, b"q")
        assert client.process.wait(20) == 6
        assert client.mode == client.before
    assert "POST /containers/ID/attach?stream=1&stdin=1&stdout=1&stderr=1" in asked(daemon)
    assert "POST /containers/ID/resize?h=24&w=80" in asked(daemon)
    assert not any("/kill" in line for line in daemon.lines)


def test_a_window_that_changes_its_size_changes_the_container_s(tmp_path: Path) -> None:
    with Daemon(tmp_path, Scene(shell).answers) as daemon, OnATerminal(daemon, "run", "-it", "bb") as client:
        client.prints(b"READY\r\n")
        client.resize(50, 132)
        client.process.send_signal(signal.SIGWINCH)
        deadline = time.monotonic() + 20
        while "POST /containers/ID/resize?h=50&w=132" not in asked(daemon):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.write(client.master, b"q")
        assert client.process.wait(20) == 0


def test_detaching_leaves_the_container_running_and_the_terminal_as_it_was(tmp_path: Path) -> None:
    with Daemon(tmp_path, Scene(shell).answers) as daemon, OnATerminal(daemon, "run", "-it", "bb") as client:
        client.prints(b"READY\r\n")
        os.write(client.master, b"\x10")
        time.sleep(0.1)
        os.write(client.master, b"\x11")
        client.prints(b"read escape sequence\r\n")
        assert client.process.wait(20) == 0
        assert client.mode == client.before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_puts_the_terminal_back_and_leaves_the_container_alone(
    tmp_path: Path, number: signal.Signals
) -> None:
    with Daemon(tmp_path, Scene(shell).answers) as daemon, OnATerminal(daemon, "run", "-it", "bb") as client:
        client.prints(b"READY\r\n")
        client.process.send_signal(number)
        assert client.process.wait(20) == 128 + number
        assert client.mode == client.before
    assert not any("/kill" in line for line in daemon.lines)


def test_a_terminal_needs_a_terminal(tmp_path: Path) -> None:
    with Daemon(tmp_path, Scene(says()).answers) as daemon:
        done = daemon.command("run", "-it", "bb")
    assert "need a terminal, and standard input is none" in done.stderr
    assert (done.returncode, daemon.lines) == (125, [])


def test_a_daemon_that_refuses_to_start_it_finds_the_terminal_as_it_was(tmp_path: Path) -> None:
    scene = Scene(shell)
    scene.answers[f"POST /containers/{ID}/start"] = failure(500, "no such thing")
    with Daemon(tmp_path, scene.answers) as daemon, OnATerminal(daemon, "run", "-it", "bb") as client:
        client.prints(b"no such thing")
        assert client.process.wait(20) == 125
        assert client.mode == client.before


def test_an_exit_code_that_is_lost_puts_the_terminal_back(tmp_path: Path) -> None:
    def breaks(request: Request) -> None:
        request.connection.sendall(HEAD)
        scene.started.wait(20)
        scene.answers[f"POST /containers/{ID}/wait"] = failure(404, "gone")

    scene = Scene(shell)
    scene.answers[f"POST /containers/{ID}/wait"] = breaks
    with Daemon(tmp_path, scene.answers) as daemon, OnATerminal(daemon, "run", "-it", "bb") as client:
        client.prints(b"was removed before its exit code could be asked for")
        assert client.process.wait(20) == 125
        assert client.mode == client.before


def test_standard_output_that_is_gone_puts_the_terminal_back(tmp_path: Path) -> None:
    with Daemon(tmp_path, Scene(shell).answers) as daemon:
        reading, writing = os.pipe()
        with OnATerminal(daemon, "run", "-it", "bb", stdout=writing) as client:
            os.close(writing)
            assert os.read(reading, 100) == b"READY\r\n"
            until(lambda: client.mode != client.before)
            os.close(reading)
            os.write(client.master, b"a")
            assert client.process.wait(20) == 141
            assert client.mode == client.before


def test_suspended_from_outside_it_leaves_the_terminal_to_the_shell_and_takes_it_again(tmp_path: Path) -> None:
    with Daemon(tmp_path, Scene(shell, 6).answers) as daemon, OnATerminal(daemon, "run", "-it", "bb") as client:
        client.prints(b"READY\r\n")
        raw = client.mode
        for _ in range(2):
            client.process.send_signal(signal.SIGTSTP)
            assert os.waitpid(client.process.pid, os.WUNTRACED)[1] == 0x7F | signal.SIGTSTP << 8
            assert client.mode == client.before
            client.resize(30, 90)
            client.process.send_signal(signal.SIGCONT)
            until(lambda: client.mode == raw)
        until(lambda: "POST /containers/ID/resize?h=30&w=90" in asked(daemon))
        os.write(client.master, b"q")
        assert client.process.wait(20) == 6
        assert client.mode == client.before
