"""exec and top by the command lines (ours, and docker's, unmodified) and by docker-py, against a real daemon."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import execs
import pytest
from clients import DOCKERS
from daemons import Daemon, until

REPOSITORY = Path(__file__).parents[2]
OURS = [
    sys.executable,
    "-c",
    "import sys; sys.argv[0] = 'pydocker'\nfrom dockerd_py.cli.main import main\nsys.exit(main())",
]
PROGRAMS = [OURS, *DOCKERS]


@pytest.fixture(scope="module")
def sleeper(daemon: Daemon) -> str:
    return daemon.run_detached("sleep", "1000", name="sleeper")


@pytest.fixture
def client(daemon: Daemon) -> Iterator[docker.DockerClient]:
    one = docker.DockerClient(base_url=f"unix://{daemon.socket}", version="1.43")
    yield one
    one.close()


def environment(daemon: Daemon, **more: str) -> dict[str, str]:
    return {**os.environ, "DOCKER_HOST": f"unix://{daemon.socket}", "PYTHONPATH": str(REPOSITORY), **more}


def call(
    daemon: Daemon, program: list[str], *argv: str, stdin: bytes = b"", **more: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*program, *argv], input=stdin, capture_output=True, timeout=60, env=environment(daemon, **more), check=False
    )


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_streams_and_the_exit_code_are_the_commands(daemon: Daemon, sleeper: str, program: list[str]) -> None:
    done = call(daemon, program, "exec", "sleeper", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"err\n")


@pytest.mark.parametrize("program", PROGRAMS)
def test_input_is_passed_on_with_i_and_only_then(daemon: Daemon, sleeper: str, program: list[str]) -> None:
    data = os.urandom(1_000_000)
    assert call(daemon, program, "exec", "-i", "sleeper", "cat", stdin=data).stdout == data
    assert call(daemon, program, "exec", "sleeper", "cat", stdin=data).stdout == b""


@pytest.mark.parametrize("program", PROGRAMS)
def test_user_variables_directory_and_privileges_are_taken(
    daemon: Daemon, sleeper: str, program: list[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("# a comment\nC=3\nD\n")
    argv = ["-u", "ann", "-w", "/tmp", "-e", "A=1", "-e", "B", "--env-file", str(tmp_path / "file")]
    script = "id -un; pwd; echo $A$B$C$D"
    done = call(daemon, program, "exec", *argv, "sleeper", "sh", "-c", script, B="2", D="4")
    assert done.stdout == b"ann\n/tmp\n1234\n", done.stderr
    caps = ("sleeper", "grep", "CapBnd", "/proc/self/status")
    assert call(daemon, program, "exec", "--privileged", *caps).stdout != call(daemon, program, "exec", *caps).stdout


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_detached_one_is_left_to_itself(daemon: Daemon, sleeper: str, program: list[str]) -> None:
    done = call(daemon, program, "exec", "-d", "sleeper", "touch", "/tmp/made")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    until(lambda: execs.run(daemon, sleeper, "rm", "/tmp/made").exit_code == 0)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(("command", "code"), [("nosuch", 127), ("/etc/passwd", 126)])
def test_a_command_that_cannot_be_run_is_127_or_126(
    daemon: Daemon, sleeper: str, program: list[str], command: str, code: int
) -> None:
    done = call(daemon, program, "exec", "sleeper", command)
    assert done.returncode == code
    assert command.encode() in done.stdout + done.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_container_that_does_not_run_is_named(daemon: Daemon, program: list[str]) -> None:
    container = daemon.create("true")
    done = call(daemon, program, "exec", container, "true")
    assert (done.returncode, f"{container} is not running".encode() in done.stderr) == (1, True)
    daemon.delete(f"/containers/{container}")


class Screen:
    """A program on a terminal of ours."""

    def __init__(self, daemon: Daemon, argv: list[str]) -> None:
        self.master, slave = pty.openpty()
        os.set_blocking(self.master, False)
        self.process = subprocess.Popen(
            argv, stdin=slave, stdout=slave, stderr=slave, env=environment(daemon), start_new_session=True
        )
        os.close(slave)
        self.seen = b""

    def type(self, data: bytes) -> None:
        os.write(self.master, data)

    def until(self, pattern: bytes) -> None:
        deadline = time.monotonic() + 20
        while not re.search(pattern, self.seen):
            assert time.monotonic() < deadline, self.seen
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.master, 65536)
                except OSError:  # its other side is closed
                    break
        assert re.search(pattern, self.seen), self.seen

    def end(self) -> int:
        code = self.process.wait(20)
        os.close(self.master)
        return code


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_shell_on_a_terminal_works_as_one_at_home(daemon: Daemon, sleeper: str, program: list[str]) -> None:
    screen = Screen(daemon, [*program, "exec", "-it", "sleeper", "sh"])
    screen.until(rb"# ")
    screen.type(b"tty; echo $((6*7))\n")
    screen.until(rb"/dev/pts/\d+\r\n42\r\n")
    screen.type(b"exit 9\n")
    assert screen.end() == 9


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_detach_keys_leave_the_shell_running(daemon: Daemon, sleeper: str, program: list[str]) -> None:
    screen = Screen(daemon, [*program, "exec", "-it", "--detach-keys", "ctrl-x,x", "sleeper", "sh", "-c", "exec cat"])
    screen.type(b"hello\n")
    screen.until(rb"hello\r\nhello\r\n")
    (exec_id,) = daemon.inspect(sleeper)["ExecIDs"]
    screen.type(b"\x18x")
    if program is OURS:
        screen.until(rb"read escape sequence")
    assert screen.end() == (0 if program is OURS else 1)  # docker's own takes it for a failure
    found = execs.inspect(daemon, exec_id)
    assert found["Running"]
    os.kill(found["Pid"], 9)
    until(lambda: not execs.inspect(daemon, exec_id)["Running"])


@pytest.mark.parametrize("program", PROGRAMS)
def test_top_is_a_table(daemon: Daemon, sleeper: str, program: list[str]) -> None:
    heading, line = call(daemon, program, "top", "sleeper").stdout.decode().splitlines()
    assert heading.split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert line.endswith("sleep 1000")
    heading, line = call(daemon, program, "top", "sleeper", "-o", "pid,user,args").stdout.decode().splitlines()
    assert heading.split() == ["PID", "USER", "COMMAND"]
    assert line.split()[1:] == ["root", "sleep", "1000"]


# docker-py


def test_exec_run_returns_the_exit_code_and_the_output(client: docker.DockerClient, sleeper: str) -> None:
    container = client.containers.get("sleeper")
    assert container.exec_run(["sh", "-c", "echo out; exit 4"]) == (4, b"out\n")
    assert container.exec_run("cat /proc/self/cmdline", tty=True).output == b"cat\0/proc/self/cmdline\0"
    assert container.exec_run("pwd", workdir="/tmp", user="ann", environment={"A": "b"}).output == b"/tmp\n"
    assert container.exec_run("nosuch").exit_code == 127
    assert container.exec_run("sleep 1", detach=True).exit_code is None


def test_exec_run_keeps_the_streams_apart(client: docker.DockerClient, sleeper: str) -> None:
    container = client.containers.get("sleeper")
    script = ["sh", "-c", "echo out; sleep 0.1; echo err >&2"]
    assert container.exec_run(script, demux=True).output == (b"out\n", b"err\n")
    assert list(container.exec_run(script, stream=True).output) == [b"out\n", b"err\n"]
    assert list(container.exec_run(script, stream=True, demux=True).output) == [(b"out\n", None), (None, b"err\n")]
    assert container.exec_run(script, stderr=False).output == b"out\n"


def test_exec_run_gives_a_socket(client: docker.DockerClient, sleeper: str) -> None:
    container = client.containers.get("sleeper")
    stream = container.exec_run(["sh", "-c", "read line; echo got $line"], stdin=True, socket=True).output
    stream._sock.sendall(b"it\n")
    assert stream.read(100)[8:] == b"got it\n"
    stream.close()


def test_the_api_client_creates_starts_inspects_and_resizes(client: docker.DockerClient, sleeper: str) -> None:
    api = client.api
    made = api.exec_create("sleeper", ["sh", "-c", "read line; stty size"], tty=True, stdin=True)
    stream = api.exec_start(made, tty=True, socket=True)
    api.exec_resize(made, height=30, width=90)
    assert api.exec_inspect(made)["Running"] is True
    stream._sock.sendall(b"\n")
    shown = b""
    while piece := stream.read(100):
        shown += piece
    assert shown.endswith(b"30 90\r\n")
    found = api.exec_inspect(made)
    assert (found["ExitCode"], found["Running"], found["ContainerID"]) == (0, False, sleeper)
    stream.close()


def test_top_is_titles_and_processes(client: docker.DockerClient, sleeper: str) -> None:
    shown = client.containers.get("sleeper").top(ps_args="-o pid,args")
    assert shown["Titles"] == ["PID", "COMMAND"]
    assert "sleep 1000" in [row[1] for row in shown["Processes"]]
