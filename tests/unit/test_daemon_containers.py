"""Containers through the API of a real daemon: what a user sees, and what is left over."""

from __future__ import annotations

import threading
import time

import pytest
from daemons import Daemon, until


@pytest.mark.parametrize("code", [0, 3, 255])
def test_the_exit_code_is_the_commands(daemon: Daemon, code: int) -> None:
    assert daemon.run_to_end("sh", "-c", f"exit {code}")[0] == code


def test_environment_working_directory_user_and_hostname_are_as_asked_for(daemon: Daemon) -> None:
    _, output = daemon.run_to_end(
        *("sh", "-c", "echo $A; pwd; id -u; hostname"), Env=["A=b c"], WorkingDir="/tmp", User="nobody", Hostname="box"
    )
    assert output == b"b c\n/tmp\n65534\nbox\n"


def test_a_missing_working_directory_is_made_and_a_file_in_its_place_is_told(daemon: Daemon) -> None:
    assert daemon.run_to_end("sh", "-c", "pwd; stat -c %a /srv/a", WorkingDir="/srv/a/b") == (0, b"/srv/a/b\n755\n")
    container = daemon.create("true", WorkingDir="/etc/passwd/x")
    reply = daemon.post(f"/containers/{container}/start")
    assert (reply.status, "the working directory /etc/passwd/x" in reply.message) == (400, True)


def test_the_entrypoint_precedes_the_command(daemon: Daemon) -> None:
    assert daemon.run_to_end("a", "b", Entrypoint=["echo", "-n"])[1] == b"a b"


def test_a_bind_is_seen_and_read_only_where_asked(daemon: Daemon) -> None:
    shared = daemon.directory / "shared"
    shared.mkdir()
    (shared / "file").write_text("from the host\n")
    script = "cat /ro/file; echo x > /rw/new; echo y > /ro/file || echo refused"
    binds = [f"{shared}:/rw", f"{shared}:/ro:ro"]
    _, output = daemon.run_to_end("sh", "-c", script, host={"Binds": binds})
    assert b"from the host" in output
    assert b"refused" in output
    assert (shared / "new").read_text() == "x\n"
    assert (shared / "file").read_text() == "from the host\n"


def test_with_network_none_there_is_only_loopback(daemon: Daemon) -> None:
    _, output = daemon.run_to_end("sh", "-c", "ls /sys/class/net; ip -o addr show lo")
    assert output.startswith(b"lo\n")
    assert b"127.0.0.1" in output


def test_with_network_host_the_hosts_interfaces_are_there(daemon: Daemon) -> None:
    _, output = daemon.run_to_end("cat", "/proc/net/dev", host={"NetworkMode": "host"})
    with open("/proc/net/dev") as file:
        names = [line.split(":")[0].strip() for line in file.readlines()[2:]]
    assert all(f"{name}:".encode() in output for name in names)


def test_a_memory_limit_bites(daemon: Daemon) -> None:
    code, _ = daemon.run_to_end(
        *("sh", "-c", "dd if=/dev/zero of=/dev/null bs=40M count=1"), host={"Memory": 8 << 20, "MemorySwap": 8 << 20}
    )
    assert code == 137


def test_a_pids_limit_bites(daemon: Daemon) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; wait"
    code, output = daemon.run_to_end("sh", "-c", script, host={"PidsLimit": 4})
    assert b"can't fork" in output
    assert code == 2


def test_a_cpu_limit_bites(daemon: Daemon) -> None:
    container = daemon.run_detached("sh", "-c", "while :; do :; done", host={"NanoCpus": 200_000_000})
    pid = daemon.inspect(container)["State"]["Pid"]
    time.sleep(0.3)

    def used() -> float:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    before, begun = used(), time.monotonic()
    time.sleep(2)
    share = (used() - before) / (time.monotonic() - begun)
    daemon.delete(f"/containers/{container}?force=1")
    assert share < 0.35


def test_stop_sends_the_stop_signal_and_waits_for_the_end(daemon: Daemon) -> None:
    script = "trap 'echo bye; exit 9' USR1; echo up; while :; do sleep 0.05; done"
    container = daemon.run_detached("sh", "-c", script, StopSignal="SIGUSR1")
    until(lambda: daemon.logs(container) == b"up\n")
    assert daemon.post(f"/containers/{container}/stop?t=10").status == 204
    assert daemon.inspect(container)["State"]["ExitCode"] == 9
    assert daemon.logs(container) == b"up\nbye\n"
    assert daemon.post(f"/containers/{container}/stop").status == 304


def test_stop_kills_what_does_not_end(daemon: Daemon) -> None:
    container = daemon.run_detached("sleep", "100")  # init without a handler: SIGTERM is ignored
    begun = time.monotonic()
    assert daemon.post(f"/containers/{container}/stop?t=1").status == 204
    assert 1 <= time.monotonic() - begun < 5
    assert daemon.inspect(container)["State"]["ExitCode"] == 137


def test_kill_sends_any_signal(daemon: Daemon) -> None:
    container = daemon.run_detached("sh", "-c", "trap 'exit 4' HUP; echo up; while :; do sleep 0.05; done")
    until(lambda: daemon.logs(container) == b"up\n")
    assert daemon.post(f"/containers/{container}/kill?signal=HUP").status == 204
    assert daemon.wait(container) == 4
    reply = daemon.post(f"/containers/{container}/kill")
    assert (reply.status, "is not running" in reply.message) == (409, True)
    assert daemon.post(f"/containers/{container}/kill?signal=NOPE").status == 400


def test_a_container_starts_again_and_its_log_goes_on(daemon: Daemon) -> None:
    container = daemon.run_detached("sh", "-c", "date +%N > /n; cat /n | wc -l")
    daemon.wait(container)
    assert daemon.post(f"/containers/{container}/start").status == 204
    daemon.wait(container)
    assert daemon.logs(container) == b"1\n1\n"


def test_starting_what_runs_changes_nothing(daemon: Daemon) -> None:
    container = daemon.run_detached("sleep", "100")
    assert daemon.post(f"/containers/{container}/start").status == 304
    daemon.delete(f"/containers/{container}?force=1")


def test_wait_for_the_next_exit_is_answered_by_the_next_exit(daemon: Daemon) -> None:
    container = daemon.create("sh", "-c", "exit 6")
    codes: list[int] = []

    def wait() -> None:
        codes.append(daemon.post(f"/containers/{container}/wait?condition=next-exit").json["StatusCode"])

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.2)
    daemon.post(f"/containers/{container}/start")
    thread.join(10)
    assert codes == [6]


def test_an_auto_remove_container_goes_by_itself(daemon: Daemon) -> None:
    container = daemon.run_detached("true", host={"AutoRemove": True})
    until(lambda: daemon.get(f"/containers/{container}/json").status == 404)


def test_a_running_container_is_removed_by_force_only(daemon: Daemon) -> None:
    container = daemon.run_detached("sleep", "100")
    assert daemon.delete(f"/containers/{container}").status == 409
    assert daemon.delete(f"/containers/{container}?force=1").status == 204
    assert daemon.get(f"/containers/{container}/json").status == 404


def test_containers_are_found_by_id_prefix_and_name(daemon: Daemon) -> None:
    container = daemon.create("true", name="finder")
    for ref in (container, container[:12], "finder", "/finder"):
        assert daemon.get(f"/containers/{ref.lstrip('/')}/json").json["Id"] == container
    assert daemon.get("/containers/nothing/json").message == "No such container: nothing"


def test_an_ambiguous_prefix_is_refused(daemon: Daemon) -> None:
    ids = [daemon.create("true") for _ in range(17)]  # two of them begin alike
    first = next(i[0] for i in ids if sum(j[0] == i[0] for j in ids) > 1)
    reply = daemon.get(f"/containers/{first}/json")
    assert (reply.status, reply.message) == (400, f"Multiple IDs found with provided prefix: {first}")


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"Image": "nosuch"}, 404, "No such image: nosuch"),
        ({"Image": "busybox"}, 400, "No command specified"),
        ({"Image": "busybox", "Cmd": ["x"], "HostConfig": {"Memory": 1 << 20}}, 400, "limit allowed is 6MB"),
        ({"Image": "busybox", "Cmd": ["x"], "HostConfig": {"Binds": ["/a:b"]}}, 400, "b"),
        ({"Image": "busybox", "Cmd": ["x"], "HostConfig": {"Binds": ["/a:/b:zz"]}}, 400, "zz"),
        ({"Image": "busybox", "Cmd": ["x"], "HostConfig": {"PortBindings": {"80x/tcp": [{}]}}}, 400, "80x"),
        ({"Image": "busybox", "Cmd": ["x"], "WorkingDir": "not/absolute"}, 400, "working directory"),
        ({"Image": "busybox", "Cmd": ["x"], "HostConfig": {"CapAdd": ["FOO"]}}, 400, '"FOO"'),
        ({"Image": "busybox", "Cmd": ["x"], "StopSignal": "SIGNOPE"}, 400, "SIGNOPE"),
    ],
)
def test_bad_settings_are_refused_by_name(daemon: Daemon, body: dict[str, object], status: int, text: str) -> None:
    before = len(daemon.get("/containers/json?all=1").json)
    reply = daemon.post("/containers/create", body)
    assert (reply.status, text in reply.message) == (status, True), reply.data
    assert len(daemon.get("/containers/json?all=1").json) == before


def test_the_first_years_memory_limit_is_512k(daemon: Daemon) -> None:
    body = {"Image": "busybox", "Cmd": ["true"], "Memory": 600 * 1024}
    assert daemon.post("/containers/create", body, version="1.10").status == 201
    reply = daemon.post("/containers/create", {**body, "Memory": 1000}, version="1.10")
    assert b"Minimum memory limit allowed is 512k" in reply.data


@pytest.mark.parametrize("name", ["a/b", "-x", "x", "with space", "a" * 300])
def test_a_bad_name_is_refused(daemon: Daemon, name: str) -> None:
    from urllib.parse import quote

    reply = daemon.post(f"/containers/create?name={quote(name)}", {"Image": "busybox", "Cmd": ["true"]})
    assert reply.status == 400
    assert "Invalid container name" in reply.message


def test_a_taken_name_is_refused_and_free_again_after_removal(daemon: Daemon) -> None:
    container = daemon.create("true", name="mine")
    reply = daemon.post("/containers/create?name=mine", {"Image": "busybox", "Cmd": ["true"]})
    assert reply.status == 409
    assert f'"/mine" is already in use by container "{container}"' in reply.message
    daemon.delete("/containers/mine")
    assert daemon.create("true", name="mine") != container


@pytest.mark.parametrize(
    ("command", "text", "code"),
    [
        ("nosuch", "executable file not found", 127),
        ("/no/such", "no such file or directory", 127),
        ("/etc/passwd", "permission denied", 126),
        ("/etc", "permission denied", 126),
    ],
)
def test_a_command_that_cannot_run_is_told_so(daemon: Daemon, command: str, text: str, code: int) -> None:
    container = daemon.create(command)
    reply = daemon.post(f"/containers/{container}/start")
    assert reply.status == 400
    assert text in reply.message
    state = daemon.inspect(container)["State"]
    assert (state["Status"], state["ExitCode"], state["Pid"]) == ("created", code, 0)
    assert daemon.mounts() == []


def test_an_unknown_user_is_told_and_leaves_nothing_mounted(daemon: Daemon) -> None:
    container = daemon.create("true", User="mallory")
    reply = daemon.post(f"/containers/{container}/start")
    assert (reply.status, "unable to find user mallory" in reply.message) == (400, True)
    assert daemon.mounts() == []


def test_a_start_that_takes_too_long_is_given_up_and_undone(own_daemon: Daemon) -> None:
    slow = own_daemon.directory / "slow-crun"
    slow.write_text('#!/bin/sh\ncase "$*" in *" create "*) sleep 30;; esac\nexec crun "$@"\n')
    slow.chmod(0o755)
    own_daemon.stop()
    own_daemon.start("--start-timeout=1", f"--runtime={slow}")
    container = own_daemon.create("true")
    begun = time.monotonic()
    reply = own_daemon.post(f"/containers/{container}/start")
    assert (reply.status, "did not start within 1 seconds" in reply.message) == (500, True)
    assert time.monotonic() - begun < 5
    assert own_daemon.mounts() == []
    assert own_daemon.inspect(container)["State"]["Status"] == "created"
    assert not [line for line in own_daemon.processes() if "slow-crun" in line and "sleep" in line]


def test_twenty_starts_at_once_all_work(daemon: Daemon) -> None:
    results: list[tuple[int, bytes]] = []
    threads = [
        threading.Thread(target=lambda n=n: results.append(daemon.run_to_end("echo", str(n)))) for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted((0, f"{number}\n".encode()) for number in range(20))
