"""The streams of a container as its clients meet them: docker's command lines, docker-py, ours; over unix and TCP."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import docker
import pytest
from clients import DOCKERS
from daemons import Daemon, until
from wire import frames, read_exactly, read_head, read_to_end

REPOSITORY = Path(__file__).parents[2]
OURS = [
    sys.executable,
    "-c",
    "import sys; sys.argv[0] = 'pydocker'\nfrom dockerd_py.cli.main import main\nsys.exit(main())",
]
PROGRAMS = [OURS, *DOCKERS]
RUN = ("run", "--rm", "-i", "--network", "none", "busybox")
SLOW = int(os.environ.get("PYDOCKERD_TEST_MEGABYTES", "150"))
"""What goes through one attach, in MB: 1000 takes a while."""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Daemon]:
    one = Daemon(tmp_path_factory.mktemp("daemon"), "-H", f"tcp://127.0.0.1:{port}")
    one.start()
    one.import_busybox()
    yield one
    one.close()
    assert one.leftovers() == []


@pytest.fixture(params=["unix", "tcp"])
def host(request: pytest.FixtureRequest, daemon: Daemon, port: int) -> str:
    return f"unix://{daemon.socket}" if request.param == "unix" else f"tcp://127.0.0.1:{port}"


def environment(host: str) -> dict[str, str]:
    return {**os.environ, "DOCKER_HOST": host, "PYTHONPATH": str(REPOSITORY)}


def call(host: str, program: list[str], *argv: str, stdin: Any) -> subprocess.CompletedProcess[bytes]:
    """Run it to its end; ``stdin``: bytes, or a file."""
    given = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
    return subprocess.run(
        [*program, *argv], capture_output=True, env=environment(host), timeout=60, check=False, **given
    )


@contextmanager
def start(host: str, program: list[str], *argv: str) -> Iterator[subprocess.Popen[bytes]]:
    pipe = subprocess.PIPE
    with subprocess.Popen([*program, *argv], stdin=pipe, stdout=pipe, stderr=pipe, env=environment(host)) as process:
        try:
            yield process
        finally:
            process.kill()


def connect(host: str) -> socket.socket:
    if host.startswith("unix"):
        client = socket.socket(socket.AF_UNIX)
        client.connect(host.removeprefix("unix://"))
    else:
        client = socket.create_connection(("127.0.0.1", int(host.rpartition(":")[2])))
    client.settimeout(60)
    return client


@contextmanager
def attached(host: str, container: str, query: str = "stream=1&stdin=1&stdout=1&stderr=1") -> Iterator[socket.socket]:
    with connect(host) as client:
        client.sendall(
            f"POST /v1.43/containers/{container}/attach?{query} HTTP/1.1\r\nHost: d\r\n"
            "Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode()
        )
        assert b" 101 " in read_head(client)
        yield client


def payload(data: bytes, stream: int = 1) -> bytes:
    return b"".join(piece for number, piece in frames(data) if number == stream)


def peak(pid: int) -> int:
    """The most memory that a process has ever had, in MB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) // 1024


def monitor_of(daemon: Daemon, container: str) -> int:
    status = Path(f"/proc/{daemon.inspect(container)['State']['Pid']}/status").read_text()
    found = re.search(r"PPid:\s+(\d+)", status)
    assert found
    return int(found[1])


# Much, to and fro


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_goes_in_comes_out(host: str, program: list[str]) -> None:
    data = os.urandom(5_000_000)
    done = call(host, program, *RUN, "cat", stdin=data)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == data


def test_much_output_takes_little_memory(daemon: Daemon, host: str) -> None:
    size = SLOW * 1_000_000
    script = f"read go; head -c {size} /dev/zero; read go"
    container = daemon.create("sh", "-c", script, OpenStdin=True, host={"LogConfig": {"Type": "none"}})
    with attached(host, container) as client:
        assert daemon.post(f"/containers/{container}/start").status == 204
        monitor, engine = monitor_of(daemon, container), peak(daemon.process.pid)
        client.sendall(b"\n")
        left, pieces = size, client.makefile("rb")
        zeros = bytes(1 << 20)
        while left:
            head = pieces.read(8)
            length = int.from_bytes(head[4:], "big")
            assert (head[0], pieces.read(length)) == (1, zeros[:length])
            left -= length
        assert (peak(monitor) < 24, peak(daemon.process.pid) - engine < 4) == (True, True)
        client.sendall(b"\n")
        assert pieces.read() == b""
    assert daemon.wait(container) == 0
    daemon.delete(f"/containers/{container}")


def test_much_input_takes_little_memory(daemon: Daemon, host: str) -> None:
    container = daemon.run_detached("sha256sum", OpenStdin=True, StdinOnce=True)
    piece, digest = os.urandom(1 << 20), hashlib.sha256()
    with attached(host, container) as client:
        monitor, engine = monitor_of(daemon, container), peak(daemon.process.pid)
        for _ in range(SLOW):
            client.sendall(piece)
            digest.update(piece)
        assert (peak(monitor) < 24, peak(daemon.process.pid) - engine < 4) == (True, True)
        client.shutdown(socket.SHUT_WR)
        assert payload(read_to_end(client)) == digest.hexdigest().encode() + b"  -\n"
    daemon.delete(f"/containers/{container}")


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("size", [5, 3_000_000])
def test_a_container_that_ends_before_its_input_does_is_no_error(host: str, program: list[str], size: int) -> None:
    with open("/dev/zero", "rb") as endless:
        done = call(host, program, *RUN, "head", "-c", str(size), stdin=endless)
    assert (done.returncode, done.stderr, len(done.stdout)) == (0, b"", size)


def test_the_last_output_reaches_a_client_that_is_slow_and_still_sends(daemon: Daemon, host: str) -> None:
    container = daemon.create("head", "-c", "900000", "/dev/zero", OpenStdin=True)
    with attached(host, container, "stream=1&stdin=1&stdout=1") as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        daemon.post(f"/containers/{container}/start")
        assert daemon.wait(container) == 0
        total = b""
        while piece := client.recv(16_000):
            total += piece
            with suppress(BrokenPipeError):
                client.sendall(b"more")
            time.sleep(0.06)  # as long as it takes something, all of it is left to it
    assert payload(total) == bytes(900_000)
    daemon.delete(f"/containers/{container}")


# Several clients


def test_neither_a_slow_client_nor_one_that_vanishes_takes_anything_from_the_others(daemon: Daemon, host: str) -> None:
    script = "read go; head -c 6000000 /dev/zero | tr '\\0' x"
    container = daemon.run_detached("sh", "-c", script, OpenStdin=True)
    output = "stream=1&stdout=1"
    found: dict[str, bytes] = {}

    def read(name: str, client: socket.socket, pause: float) -> None:
        data = b""
        while piece := client.recv(100_000):
            data += piece
            time.sleep(pause)
        found[name] = payload(data)

    with (
        attached(host, container, output) as fast,
        attached(host, container, output) as slow,
        attached(host, container) as vanishing,
        attached(host, container, output) as idle,
    ):
        threads = [threading.Thread(target=read, args=one) for one in (("fast", fast, 0.0), ("slow", slow, 0.005))]
        for thread in threads:
            thread.start()
        vanishing.sendall(b"\n")
        vanishing.recv(1000)
        vanishing.close()
        for thread in threads:
            thread.join(60)
        assert idle.recv(1) == b"\x01"  # it got what fitted, and was let go
    assert found == {"fast": b"x" * 6_000_000, "slow": b"x" * 6_000_000}
    daemon.delete(f"/containers/{container}")


def test_the_input_of_all_clients_goes_in(daemon: Daemon, host: str) -> None:
    script = "while ! read -t 1 a; do echo .; done; echo a; read b; echo $a $b"
    container = daemon.run_detached("sh", "-c", script, OpenStdin=True)
    with attached(host, container) as one, attached(host, container) as two:
        for client in (one, two):  # what a client sends may overtake another one that is about to get there
            assert read_exactly(client, 10)[8:] == b".\n"
        one.sendall(b"one\n")
        while (line := read_exactly(two, 10)[8:]) == b".\n":
            pass
        assert line == b"a\n"
        two.sendall(b"two\n")
        assert payload(read_to_end(two)) == b"one two\n"
        assert payload(read_to_end(one)).replace(b".\n", b"") == b"a\none two\n"
    daemon.delete(f"/containers/{container}")


# The end of the input


def test_with_stdin_once_the_input_ends_with_its_first_client_and_else_with_none(daemon: Daemon, host: str) -> None:
    kept = daemon.run_detached("cat", OpenStdin=True)
    for word in (b"one", b"two"):
        with attached(host, kept) as client:
            client.sendall(word)
            client.shutdown(socket.SHUT_WR)
            assert read_exactly(client, 11)[8:] == word
    assert daemon.inspect(kept)["State"]["Running"]
    daemon.delete(f"/containers/{kept}?force=1")
    for half_closes in (True, False):
        once = daemon.run_detached("cat", OpenStdin=True, StdinOnce=True)
        with attached(host, once) as client:
            client.sendall(b"one")
            if half_closes:
                client.shutdown(socket.SHUT_WR)
                assert payload(read_to_end(client)) == b"one"
        assert daemon.wait(once) == 0
        daemon.delete(f"/containers/{once}")


def test_docker_py_half_closes_and_reads_on(host: str) -> None:
    client = docker.DockerClient(base_url=host, version="1.43")
    container = client.containers.create("busybox", "sha256sum", stdin_open=True, network_mode="none")
    attachment = container.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    connection = getattr(attachment, "_sock", attachment)
    container.start()
    connection.sendall(b"some input")
    connection.shutdown(socket.SHUT_WR)
    assert payload(read_to_end(connection)) == hashlib.sha256(b"some input").hexdigest().encode() + b"  -\n"
    attachment.close()
    container.remove()
    client.close()


# Keys, signals, sizes


@pytest.mark.parametrize(
    ("keys", "pieces", "arrives"),
    [
        ("", [b"a\x10", b"b\x10\x11"], b"a\x10b"),
        ("", [b"\x10", b"\x10", b"\x11"], b"\x10"),
        ("ctrl-a", [b"ab", b"c\x01"], b"abc"),
        ("q", [b"abcq"], b"abc"),
        ("a,b,c", [b"a", b"b", b"xab", b"c"], b"abx"),
        ("ctrl-@,ctrl-_", [b"\x00\x00", b"\x1f"], b"\x00"),
    ],
)
def test_detach_keys_may_come_in_pieces_and_are_no_input(
    daemon: Daemon, host: str, keys: str, pieces: list[bytes], arrives: bytes
) -> None:
    command = f"stty raw -echo; echo READY; dd bs=1 count={len(arrives)} 2>/dev/null | od -An -tx1; sleep 100"
    container = daemon.run_detached("sh", "-c", command, Tty=True, OpenStdin=True)
    query = f"stream=1&logs=1&stdin=1&stdout=1&detachKeys={keys}"
    with attached(host, container, query) as client, attached(host, container, "stream=1&stdout=1") as other:
        while b"READY" not in client.recv(100):
            pass
        for piece in pieces:
            client.sendall(piece)
            time.sleep(0.05)
        read_to_end(client)
        shown = b""
        while shown.count(b" ") < len(arrives):
            shown += other.recv(100)
        assert bytes.fromhex(re.sub(rb"READY|\s", b"", shown).decode()) == arrives
    assert daemon.inspect(container)["State"]["Running"]
    daemon.delete(f"/containers/{container}?force=1")


CATCHING = ("busybox", "sh", "-c", "trap 'echo caught; exit 5' USR1; echo READY; while :; do sleep 0.05; done")


@pytest.mark.parametrize("program", PROGRAMS)
def test_signals_go_to_the_container(host: str, program: list[str]) -> None:
    with start(host, program, "run", "--rm", "--network", "none", *CATCHING) as process:
        assert process.stdout
        assert process.stdout.readline() == b"READY\n"
        process.send_signal(signal.SIGUSR1)
        assert process.communicate(timeout=30)[0] == b"caught\n"
        assert process.returncode == 5


def test_without_sig_proxy_they_are_ours(daemon: Daemon, host: str) -> None:
    with start(host, OURS, "run", "--sig-proxy=false", "--name", "alone", "--network", "none", *CATCHING) as process:
        assert process.stdout
        assert process.stdout.readline() == b"READY\n"
        process.send_signal(signal.SIGUSR1)
        assert process.wait(30) == -signal.SIGUSR1
    assert daemon.inspect("alone")["State"]["Running"]
    daemon.delete("/containers/alone?force=1")


def test_a_terminal_has_its_size_from_its_first_moment(daemon: Daemon) -> None:
    container = daemon.create("stty", "size", Tty=True, host={"ConsoleSize": [33, 99]})
    for _ in range(2):
        daemon.post(f"/containers/{container}/start")
        daemon.wait(container)
    assert daemon.get(f"/containers/{container}/logs?stdout=1").data == b"33 99\r\n" * 2
    assert daemon.inspect(container)["HostConfig"]["ConsoleSize"] == [33, 99]
    daemon.delete(f"/containers/{container}")


def test_a_size_that_is_set_between_attach_and_start_is_kept_and_one_before_is_refused(daemon: Daemon) -> None:
    container = daemon.create("stty", "size", Tty=True, OpenStdin=True)
    assert daemon.post(f"/containers/{container}/resize?h=20&w=70").status == 409
    with attached(f"unix://{daemon.socket}", container) as client:
        until(lambda: daemon.post(f"/containers/{container}/resize?h=20&w=70").status == 200)
        daemon.post(f"/containers/{container}/start")
        assert read_to_end(client) == b"20 70\r\n"
    daemon.delete(f"/containers/{container}")


# Ends


@pytest.mark.parametrize("query", ["stream=1&stdout=1", "stream=1&logs=1&stdout=1"])
def test_the_last_output_of_what_removes_itself_arrives(daemon: Daemon, host: str, query: str) -> None:
    for _ in range(5):
        command = "head -c 300000 /dev/zero; echo end"
        container = daemon.create("sh", "-c", command, host={"AutoRemove": True})
        with attached(host, container, query) as client:
            daemon.post(f"/containers/{container}/start")
            assert payload(read_to_end(client)) == bytes(300_000) + b"end\n"
        until(lambda container=container: daemon.get(f"/containers/{container}/json").status == 404)  # type: ignore[misc]


def test_an_attach_ends_with_each_end_and_the_next_start_can_be_attached_to(daemon: Daemon, host: str) -> None:
    policy = {"RestartPolicy": {"Name": "always"}}
    container = daemon.run_detached("sh", "-c", "read line; echo got $line", OpenStdin=True, host=policy)
    for word in (b"one", b"two"):
        with attached(host, container) as client:
            client.sendall(word + b"\n")
            assert payload(read_to_end(client)) == b"got " + word + b"\n"
    until(lambda: daemon.inspect(container)["RestartCount"] == 2)
    daemon.delete(f"/containers/{container}?force=1")


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_attached_command_line_outlives_a_killed_daemon(own_daemon: Daemon, program: list[str]) -> None:
    own_daemon.stop()
    port = free_port()
    own_daemon.flags = ("-H", f"tcp://127.0.0.1:{port}")
    own_daemon.start()
    for host in (f"unix://{own_daemon.socket}", f"tcp://127.0.0.1:{port}"):
        script = "while read line; do echo got $line; done; exit 7"
        container = own_daemon.run_detached("sh", "-c", script, OpenStdin=True, StdinOnce=True)
        with start(host, program, "attach", container) as process:
            assert process.stdin
            assert process.stdout
            process.stdin.write(b"one\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"got one\n"
            own_daemon.stop(signal.SIGKILL)
            process.stdin.write(b"two\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"got two\n"
            own_daemon.start()
            process.stdin.write(b"three\n")
            out, _ = process.communicate(timeout=30)
            assert out == b"got three\n"
            assert process.returncode == (7 if program is OURS else 1)  # docker's own asks for the exit code but once
        assert own_daemon.wait(container) == 7


@pytest.mark.parametrize("program", PROGRAMS)
def test_start_and_attach_by_command_line_carry_the_streams(daemon: Daemon, host: str, program: list[str]) -> None:
    container = daemon.create("sh", "-c", "cat; echo err >&2; exit 3", OpenStdin=True, StdinOnce=True)
    done = call(host, program, "start", "-ai", container, stdin=b"in\n")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"in\n", b"err\n")
    daemon.post(f"/containers/{container}/start")
    done = call(host, program, "attach", container, stdin=b"again\n")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"again\n", b"err\n")
    daemon.delete(f"/containers/{container}")
