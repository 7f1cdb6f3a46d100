"""exec through the Remote API: what runs, as whom, with which streams, how it ends, and what is told of it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import execs
import pytest
from daemons import Daemon, until
from wire import frames, read_to_end


@pytest.fixture(scope="module")
def sleeper(daemon: Daemon) -> str:
    """A container that runs while this file's tests do."""
    return daemon.run_detached("sleep", "1000", Env=["GIVEN=by the container"], Labels={"a": "b"}, name="sleeper")


# What runs


def test_its_output_and_exit_code_are_the_processs(daemon: Daemon, sleeper: str) -> None:
    done = execs.run(daemon, sleeper, "sh", "-c", "echo out; sleep 0.1; echo err >&2; exit 3")
    assert done == (3, [(1, b"out\n"), (2, b"err\n")])


def test_a_signal_that_ends_it_is_128_and_its_number(daemon: Daemon, sleeper: str) -> None:
    assert execs.run(daemon, sleeper, "sh", "-c", "kill -9 $$").exit_code == 137


def test_it_is_in_the_containers_namespaces_and_control_groups(daemon: Daemon, sleeper: str) -> None:
    exec_id = execs.create(daemon, sleeper, "sleep", "100")
    assert execs.detach(daemon, exec_id).status == 200
    init, pid = daemon.inspect(sleeper)["State"]["Pid"], execs.inspect(daemon, exec_id)["Pid"]
    for kind in ("pid", "mnt", "net", "ipc", "uts", "cgroup"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") == os.readlink(f"/proc/{init}/ns/{kind}")
    assert Path(f"/proc/{pid}/cgroup").read_text() == Path(f"/proc/{init}/cgroup").read_text()
    os.kill(pid, signal.SIGKILL)
    until(lambda: execs.inspect(daemon, exec_id)["ExitCode"] == 137)


def test_it_is_confined_as_the_container_is(daemon: Daemon, sleeper: str) -> None:
    script = "grep -E '^(Cap|Seccomp|NoNewPrivs)' /proc/self/status; cat /proc/self/oom_score_adj; ulimit -a"
    inside = execs.run(daemon, sleeper, "sh", "-c", script).text()
    _, own = daemon.run_to_end("sh", "-c", script)
    assert inside == own.decode()
    assert "Seccomp:\t2" in inside


def test_privileged_gives_it_every_capability(daemon: Daemon, sleeper: str) -> None:
    done = execs.run(daemon, sleeper, "grep", "^CapEff", "/proc/self/status", Privileged=True)
    bounding = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd"))
    assert done.text().split()[1] == bounding.split()[1]


def crun_version() -> tuple[int, ...]:
    words = subprocess.run(["crun", "--version"], check=True, capture_output=True, text=True).stdout.split()
    return tuple(int(part) for part in words[2].split(".")[:2])


gives_groups = pytest.mark.skipif(
    crun_version() < (1, 0), reason="this crun gives an exec the groups of the container's first process"
)


@gives_groups
@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", "uid=0(root) gid=0(root) groups=0(root),44(video)\n"),
        ("ann", "uid=1000(ann) gid=1000(ann) groups=29(audio),44(video),1000(ann)\n"),
        ("1000:44", "uid=1000(ann) gid=44(video) groups=44(video)\n"),
        ("4321", "uid=4321 gid=0(root) groups=0(root)\n"),
    ],
)
def test_it_runs_as_the_user_that_was_asked_for(daemon: Daemon, sleeper: str, user: str, expected: str) -> None:
    assert execs.run(daemon, sleeper, "id", User=user).text() == expected


def test_its_variables_are_the_containers_and_its_own(daemon: Daemon, sleeper: str) -> None:
    command = ("sh", "-c", "echo $GIVEN/$MINE/$HOME/$HOSTNAME/$TERM")
    found = execs.run(daemon, sleeper, *command, Env=["MINE=1"]).text()
    assert found == f"by the container/1//root/{sleeper[:12]}/\n"
    changed = execs.run(daemon, sleeper, *command, Env=["GIVEN=now", "MINE"], User="ann").text()
    assert changed == f"now///home/ann/{sleeper[:12]}/\n"


def test_it_runs_in_the_directory_that_was_asked_for(daemon: Daemon, sleeper: str) -> None:
    assert execs.run(daemon, sleeper, "pwd").text() == "/\n"
    assert execs.run(daemon, sleeper, "pwd", WorkingDir="/etc").text() == "/etc\n"


def test_the_containers_user_and_directory_are_those_of_its_execs(daemon: Daemon) -> None:
    container = daemon.run_detached("sleep", "100", User="ann", WorkingDir="/home/ann")
    assert execs.run(daemon, container, "sh", "-c", "id -un; pwd; echo $HOME").text() == "ann\n/home/ann\n/home/ann\n"
    daemon.delete(f"/containers/{container}?force=1")


@gives_groups
def test_the_groups_that_were_added_to_the_container_are_those_of_its_execs(daemon: Daemon) -> None:
    container = daemon.run_detached("sleep", "100", host={"GroupAdd": ["audio", "77"]})
    assert execs.run(daemon, container, "id", "-G", User="nobody").text() == "65534 29 77\n"
    daemon.delete(f"/containers/{container}?force=1")


def test_what_it_writes_is_not_in_the_containers_log(daemon: Daemon) -> None:
    container = daemon.run_detached("sh", "-c", "echo logged; sleep 100")
    assert execs.run(daemon, container, "echo", "not logged").text() == "not logged\n"
    assert daemon.logs(container) == b"logged\n"
    daemon.delete(f"/containers/{container}?force=1")


# What cannot be run


@pytest.mark.parametrize(
    ("command", "exit_code", "words"),
    [
        ("nosuch", 127, 'exec: "nosuch": executable file not found in $PATH'),
        ("/no/such", 127, 'exec: "/no/such": stat /no/such: no such file or directory'),
        ("/etc/passwd", 126, 'exec: "/etc/passwd": permission denied'),
        ("/etc", 126, "permission denied"),
    ],
)
def test_a_command_that_cannot_be_run_is_told_on_the_stream_and_by_the_exit_code(
    daemon: Daemon, sleeper: str, command: str, exit_code: int, words: str
) -> None:
    done = execs.run(daemon, sleeper, command)
    assert done.exit_code == exit_code
    assert done.text().startswith("OCI runtime exec failed: exec failed: unable to start container process: ")
    assert words in done.text()
    assert done.text().endswith("\r\n")


def test_a_detached_one_that_cannot_be_run_is_an_error_reply(daemon: Daemon, sleeper: str) -> None:
    exec_id = execs.create(daemon, sleeper, "nosuch")
    reply = execs.detach(daemon, exec_id)
    assert (reply.status, "not found in $PATH" in reply.message) == (400, True)
    found = execs.inspect(daemon, exec_id)
    assert (found["Running"], found["ExitCode"], found["Pid"]) == (False, 127, 0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"User": "nosuch"}, "unable to find user nosuch"), ({"WorkingDir": "/nosuch"}, "No such file or directory")],
)
def test_a_user_or_directory_that_is_not_there_is_126(
    daemon: Daemon, sleeper: str, settings: dict[str, str], words: str
) -> None:
    done = execs.run(daemon, sleeper, "true", **settings)
    assert (done.exit_code, words in done.text()) == (126, True)


@pytest.mark.parametrize(
    ("command", "settings", "message"),
    [
        ((), {}, "No exec command specified"),
        (("true",), {"WorkingDir": "relative"}, "it needs to be an absolute path"),
        (("true",), {"DetachKeys": "ctrl-ctrl"}, "invalid detach keys"),
        (("true",), {"Env": ["=x"]}, "invalid environment variable: =x"),
        (("true",), {"Tty": "yes"}, "Tty must be true or false"),
        (("true",), {"ConsoleSize": [1]}, "ConsoleSize must be two numbers"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    daemon: Daemon, sleeper: str, command: tuple[str, ...], settings: dict[str, object], message: str
) -> None:
    reply = execs.try_create(daemon, sleeper, *command, **settings)
    assert (reply.status, message in reply.message) == (400, True)


def test_only_a_running_container_runs_more(daemon: Daemon) -> None:
    container = daemon.create("sleep", "100")
    assert execs.try_create(daemon, container, "true").status == 409
    daemon.post(f"/containers/{container}/start")
    exec_id = execs.create(daemon, container, "true")
    daemon.post(f"/containers/{container}/stop?t=0")
    assert execs.try_create(daemon, container, "true").message == f"Container {container} is not running"
    assert daemon.get(f"/exec/{exec_id}/json").status == 404  # forgotten with its container's end
    assert execs.try_create(daemon, "nosuch", "true").status == 404
    assert daemon.post("/exec/nosuch/start", {}).message == "No such exec instance: nosuch"
    daemon.delete(f"/containers/{container}")


def test_it_starts_once(daemon: Daemon, sleeper: str) -> None:
    exec_id = execs.create(daemon, sleeper, "sleep", "100")
    assert execs.detach(daemon, exec_id).status == 200
    assert execs.detach(daemon, exec_id).message == f"Error: Exec command {exec_id} is already running"
    os.kill(execs.inspect(daemon, exec_id)["Pid"], signal.SIGKILL)
    until(lambda: not execs.inspect(daemon, exec_id)["Running"])
    again = daemon.post(f"/exec/{exec_id}/start", {"Detach": False})
    assert (again.status, again.message) == (409, f"Error: Exec command {exec_id} has already run")


def test_there_is_no_exec_before_api_1_15(daemon: Daemon, sleeper: str) -> None:
    assert daemon.post(f"/containers/{sleeper}/exec", {"Cmd": ["true"]}, version="1.14").status == 404
    made = daemon.post(f"/containers/{sleeper}/exec", {"Cmd": ["true"]}, version="1.15")
    assert made.status == 201
    shown = daemon.get(f"/exec/{made.json['Id']}/json", version="1.16").json
    assert shown["Container"]["Id"] == sleeper


# Streams


def test_input_reaches_it_to_its_end(daemon: Daemon, sleeper: str) -> None:
    exec_id = execs.create(daemon, sleeper, "sha256sum", AttachStdin=True)
    data = os.urandom(3_000_000)
    with execs.connect(daemon, exec_id, early=data[:1000]) as client:
        client.sendall(data[1000:])
        client.shutdown(socket.SHUT_WR)
        assert frames(read_to_end(client)) == [(1, hashlib.sha256(data).hexdigest().encode() + b"  -\n")]


def test_output_outlives_the_input(daemon: Daemon, sleeper: str) -> None:
    exec_id = execs.create(daemon, sleeper, "sh", "-c", "cat; sleep 0.2; echo after", AttachStdin=True)
    with execs.connect(daemon, exec_id) as client:
        client.sendall(b"before\n")
        client.shutdown(socket.SHUT_WR)
        assert b"".join(data for _, data in frames(read_to_end(client))) == b"before\nafter\n"


def test_without_input_its_input_is_empty(daemon: Daemon, sleeper: str) -> None:
    assert execs.run(daemon, sleeper, "cat") == (0, [])


def test_only_the_streams_that_were_asked_for_are_sent(daemon: Daemon, sleeper: str) -> None:
    command = ("sh", "-c", "echo out; echo err >&2")
    assert execs.run(daemon, sleeper, *command, AttachStderr=False).output == [(1, b"out\n")]
    assert execs.run(daemon, sleeper, *command, AttachStdout=False).output == [(2, b"err\n")]


def test_a_client_that_pauses_gets_everything_all_the_same(daemon: Daemon, sleeper: str) -> None:
    exec_id = execs.create(daemon, sleeper, "sh", "-c", "head -c 8000000 /dev/zero")
    with execs.connect(daemon, exec_id) as client:
        time.sleep(2.5)  # more than a container's own client may wait
        assert sum(len(data) for _, data in frames(read_to_end(client))) == 8_000_000
    assert execs.inspect(daemon, exec_id)["ExitCode"] == 0


def test_a_client_that_vanishes_leaves_it_running(daemon: Daemon, sleeper: str) -> None:
    exec_id = execs.create(daemon, sleeper, "sh", "-c", "sleep 0.5; echo x; exit 4")
    execs.connect(daemon, exec_id).close()
    assert execs.inspect(daemon, exec_id)["Running"]
    until(lambda: execs.inspect(daemon, exec_id)["ExitCode"] == 4)


def test_what_it_leaves_behind_does_not_hold_its_client(daemon: Daemon, sleeper: str) -> None:
    begin = time.monotonic()
    done = execs.run(daemon, sleeper, "sh", "-c", "sleep 50 & echo started")
    assert done == (0, [(1, b"started\n")])
    assert time.monotonic() - begin < 20
    execs.run(daemon, sleeper, "killall", "sleep")


def test_several_at_once_keep_their_streams_apart(daemon: Daemon, sleeper: str) -> None:
    found: dict[int, execs.Done] = {}

    def work(number: int) -> None:
        found[number] = execs.run(daemon, sleeper, "sh", "-c", f"sleep 0.1; echo {number}; exit {number}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: (number, [(1, f"{number}\n".encode())]) for number in range(12)}


@pytest.mark.parametrize(("version", "kind"), [("1.41", b"raw-stream"), ("1.43", b"multiplexed-stream")])
def test_the_head_says_what_is_streamed(daemon: Daemon, sleeper: str, version: str, kind: bytes) -> None:
    exec_id = execs.create(daemon, sleeper, "echo", "x")
    request = f"POST /v{version}/exec/{exec_id}/start HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n\r\n{{}}"
    head, _, output = daemon.exchange(request.encode()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"application/vnd.docker." + kind in head
    assert frames(output) == [(1, b"x\n")]


# Terminals


def test_a_terminal_has_the_size_that_was_asked_for(daemon: Daemon, sleeper: str) -> None:
    exec_id = execs.create(daemon, sleeper, "sh", "-c", "tty; sleep 0.3; stty size; echo $TERM", Tty=True)
    with execs.connect(daemon, exec_id, Tty=True, ConsoleSize=[33, 44]) as client:
        lines = read_to_end(client).split(b"\r\n")
    assert lines[0].startswith(b"/dev/pts/")
    assert lines[1:3] == [b"33 44", b"xterm"]


def test_a_terminal_is_resized_while_it_is_used(daemon: Daemon, sleeper: str) -> None:
    exec_id = execs.create(daemon, sleeper, "sh", "-c", "read line; stty size", Tty=True, AttachStdin=True)
    with execs.connect(daemon, exec_id, Tty=True) as client:
        assert daemon.post(f"/exec/{exec_id}/resize?h=20&w=70").status == 200
        client.sendall(b"go\n")
        assert read_to_end(client) == b"go\r\n20 70\r\n"
    assert daemon.post(f"/exec/{exec_id}/resize?h=20&w=70").status == 409
    assert daemon.post(f"/exec/{exec_id}/resize?h=x&w=70").status == 400
    assert daemon.post("/exec/nosuch/resize?h=20&w=70").status == 404


def test_without_a_terminal_there_is_nothing_to_resize(daemon: Daemon, sleeper: str) -> None:
    exec_id = execs.create(daemon, sleeper, "cat", AttachStdin=True)
    with execs.connect(daemon, exec_id):
        assert daemon.post(f"/exec/{exec_id}/resize?h=20&w=70").message == "cannot resize: it has no terminal"
    until(lambda: execs.inspect(daemon, exec_id)["ExitCode"] == 0)


@pytest.mark.parametrize(("keys", "typed"), [("", b"\x10\x11"), ("ctrl-a,b", b"\x01b")])
def test_the_detach_keys_leave_it_running(daemon: Daemon, sleeper: str, keys: str, typed: bytes) -> None:
    exec_id = execs.create(daemon, sleeper, "sleep", "100", Tty=True, AttachStdin=True, DetachKeys=keys)
    with execs.connect(daemon, exec_id, Tty=True) as client:
        client.sendall(typed)
        read_to_end(client)
    found = execs.inspect(daemon, exec_id)
    assert (found["Running"], found["ExitCode"]) == (True, None)
    os.kill(found["Pid"], signal.SIGKILL)


# What is told of it


def test_inspect_tells_of_its_settings_and_its_state(daemon: Daemon, sleeper: str) -> None:
    exec_id = execs.create(daemon, sleeper, "sh", "-c", "exit 5", User="ann", Privileged=True, DetachKeys="ctrl-a")
    assert execs.inspect(daemon, exec_id) == {
        "ID": exec_id,
        "Running": False,
        "ExitCode": None,
        "ProcessConfig": {
            "tty": False, "entrypoint": "sh", "arguments": ["-c", "exit 5"], "privileged": True, "user": "ann",
        },
        "OpenStdin": False,
        "OpenStderr": True,
        "OpenStdout": True,
        "CanRemove": False,
        "ContainerID": sleeper,
        "DetachKeys": base64.b64encode(b"ctrl-a").decode(),
        "Pid": 0,
    }  # fmt: skip
    assert exec_id in daemon.inspect(sleeper)["ExecIDs"]
    execs.detach(daemon, exec_id)
    until(lambda: execs.inspect(daemon, exec_id)["ExitCode"] == 5)
    assert exec_id not in (daemon.inspect(sleeper)["ExecIDs"] or [])


def test_events_tell_its_life_in_order(daemon: Daemon, sleeper: str) -> None:
    since = time.time()
    execs.run(daemon, sleeper, "sh", "-c", "exit 6")
    filters = '{"container":["sleeper"],"event":["exec_create","exec_start","exec_die"]}'
    data = daemon.get(f"/events?since={since:.9f}&until={time.time():.9f}&filters={filters}").data
    events = [json.loads(line) for line in data.splitlines()]
    actions = [event["Action"] for event in events]
    assert actions == ["exec_create: sh -c exit 6", "exec_start: sh -c exit 6", "exec_die"]
    attributes = events[-1]["Actor"]["Attributes"]
    assert (attributes["exitCode"], attributes["name"], attributes["a"]) == ("6", "sleeper", "b")
    assert len({event["Actor"]["Attributes"]["execID"] for event in events}) == 1


# Ends


def test_it_ends_with_its_container_and_tells_so(daemon: Daemon) -> None:
    container = daemon.run_detached("sleep", "100")
    exec_id = execs.create(daemon, container, "sh", "-c", "echo up; sleep 100")
    with execs.connect(daemon, exec_id) as client:
        assert client.recv(100).endswith(b"up\n")
        daemon.post(f"/containers/{container}/kill")
        assert read_to_end(client) == b""
    assert execs.inspect(daemon, exec_id)["ExitCode"] == 137
    assert daemon.inspect(container)["ExecIDs"] is None
    daemon.delete(f"/containers/{container}")


def test_what_has_ended_leaves_nothing_in_the_daemon(daemon: Daemon, sleeper: str) -> None:
    execs.run(daemon, sleeper, "true")
    before = daemon.resting()
    for _ in range(5):
        execs.run(daemon, sleeper, "nosuch")
        execs.run(daemon, sleeper, "true", AttachStdin=True)
        execs.run(daemon, sleeper, "true", Tty=True)
    assert daemon.resting() == before


def test_it_survives_a_daemon_that_is_started_again(own_daemon: Daemon) -> None:
    container = own_daemon.run_detached("sleep", "100")
    script = "echo one; read line; echo $line; exit 7"
    exec_id = execs.create(own_daemon, container, "sh", "-c", script, AttachStdin=True, User="root")
    quick = execs.create(own_daemon, container, "sh", "-c", "sleep 0.3; exit 8")
    execs.detach(own_daemon, quick)
    with execs.connect(own_daemon, exec_id) as client:
        assert client.recv(100).endswith(b"one\n")
        own_daemon.stop(signal.SIGKILL)
        time.sleep(0.5)
        own_daemon.start()
        found = execs.inspect(own_daemon, exec_id)
        assert (found["Running"], found["ProcessConfig"]["user"]) == (True, "root")
        assert own_daemon.inspect(container)["ExecIDs"] == [exec_id]
        assert execs.inspect(own_daemon, quick)["ExitCode"] == 8
        client.sendall(b"two\n")
        assert frames(read_to_end(client)) == [(1, b"two\n")]
    assert execs.inspect(own_daemon, exec_id)["ExitCode"] == 7
    assert execs.run(own_daemon, container, "echo", "again").text() == "again\n"


def test_a_daemon_that_is_killed_while_execs_start_leaves_nothing_of_them(own_daemon: Daemon) -> None:
    container = own_daemon.run_detached("sleep", "100")

    def work() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            while True:
                execs.run(own_daemon, container, "sh", "-c", "echo x; exit 3")

    for delay in (0.3, 0.41, 0.53):
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(delay)
        own_daemon.stop(signal.SIGKILL)
        for thread in threads:
            thread.join()
        own_daemon.start()
        until(lambda: len(own_daemon.get(f"/containers/{container}/top").json["Processes"]) == 1)
        until(lambda: own_daemon.inspect(container)["ExecIDs"] is None)
        kept = {path.suffix for path in (own_daemon.run / "containers" / container / "x").iterdir()}
        assert kept <= {".json"}
        assert execs.run(own_daemon, container, "sh", "-c", "exit 4").exit_code == 4


def test_a_killed_monitor_ends_it(own_daemon: Daemon) -> None:
    container = own_daemon.run_detached("sleep", "100")
    exec_id = execs.create(own_daemon, container, "sleep", "100")
    execs.detach(own_daemon, exec_id)
    pid = execs.inspect(own_daemon, exec_id)["Pid"]
    stat = Path(f"/proc/{pid}/stat").read_text()
    os.kill(int(stat.rpartition(")")[2].split()[1]), signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pid}").exists())
    until(lambda: not own_daemon.inspect(container)["State"]["Running"])
    assert execs.inspect(own_daemon, exec_id)["ExitCode"] == 137
