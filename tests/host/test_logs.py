"""Every line of a container is in the journal, under each of its names, whatever happens meanwhile."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time

import pytest
from hosttools import SOCKET, Api, Cli, journal, journal_entries, main_pid, run, systemctl, wait_until


def make(pydocker: Cli, busybox: str, script: str, *options: str) -> str:
    return pydocker.out("run", "-d", "--network", "none", *options, busybox, "sh", "-c", script)


def finish(api: Api, container: str) -> int:
    code = api.post(f"/containers/{container}/wait", timeout=300).json["StatusCode"]
    run("journalctl", "--sync")
    return int(code)


@pytest.mark.parametrize("spelling", ["full id", "short id", "name"])
def test_journalctl_finds_a_container_by(api: Api, pydocker: Cli, busybox: str, spelling: str) -> None:
    name = f"by-{spelling.replace(' ', '')}"
    container = make(pydocker, busybox, "echo one; echo two >&2", "--name", name)
    finish(api, container)
    word = {"full id": container, "short id": container[:12], "name": name}[spelling]
    assert journal("-u", f"container-{word}") == ["one", "two"]
    assert journal("-u", f"container-{word}.scope")[-2:] == ["one", "two"] or "one" in journal(
        "-u", f"container-{word}.scope"
    )


def test_journalctl_follows_a_container_by_name(api: Api, pydocker: Cli, busybox: str) -> None:
    container = make(pydocker, busybox, "while :; do echo tick; sleep 0.1; done", "--name", "ticker")
    follower = subprocess.Popen(
        ["journalctl", "-f", "-n", "0", "-o", "cat", "-u", "container-ticker"], stdout=subprocess.PIPE, text=True
    )
    assert follower.stdout is not None
    assert [follower.stdout.readline() for _ in range(3)] == ["tick\n"] * 3
    follower.kill()
    follower.wait()
    api.delete(f"/containers/{container}?force=1").check()


def test_the_fields_are_dockers(api: Api, pydocker: Cli, busybox: str) -> None:
    container = make(pydocker, busybox, "echo out; echo err >&2", "--name", "fields")
    finish(api, container)
    out, err = journal_entries("-u", "container-fields")
    assert (out["PRIORITY"], err["PRIORITY"]) == ("6", "3")
    assert out["CONTAINER_ID"] == container[:12]
    assert out["CONTAINER_ID_FULL"] == container
    assert out["CONTAINER_NAME"] == "fields"
    assert out["CONTAINER_TAG"] == out["SYSLOG_IDENTIFIER"] == container[:12]
    assert out["IMAGE_NAME"] == busybox
    assert out["_SYSTEMD_UNIT"] == "pydockerd-monitor.service"


def test_priority_selects_standard_error(api: Api, pydocker: Cli, busybox: str) -> None:
    container = make(pydocker, busybox, "echo out; echo err >&2")
    finish(api, container)
    assert journal("-p", "err", "-u", f"container-{container}") == ["err"]


LINES = 200_000


def test_200000_lines_as_fast_as_they_come_arrive_while_everything_is_killed(
    api: Api, pydocker: Cli, busybox: str
) -> None:
    script = f"yes | awk '{{print NR}} NR=={LINES}{{exit}}'"
    container = make(pydocker, busybox, script)
    time.sleep(0.5)
    os.kill(main_pid(), signal.SIGKILL)
    os.kill(main_pid("pydockerd-monitor.service"), signal.SIGKILL)
    time.sleep(0.5)
    systemctl("restart", "pydockerd.service")
    os.kill(main_pid("pydockerd-monitor.service"), signal.SIGKILL)
    assert finish(api, container) == 0
    expected = [str(number) for number in range(1, LINES + 1)]
    assert pydocker.out("logs", container, timeout=120).splitlines() == expected
    assert journal("-u", f"container-{container}") == expected


def test_a_hundred_lines_in_the_last_moment_arrive(api: Api, pydocker: Cli, busybox: str) -> None:
    container = make(pydocker, busybox, "seq 1 100")
    finish(api, container)
    assert journal("-u", f"container-{container}") == [str(number) for number in range(1, 101)]


def test_long_lines_binary_bytes_and_a_missing_newline_come_back_whole(
    api: Api, pydocker: Cli, busybox: str
) -> None:
    script = r"head -c 200000 /dev/zero | tr '\0' x; echo; printf 'a\000\377\001b\n\n'; printf end"
    container = make(pydocker, busybox, script)
    finish(api, container)
    output = subprocess.run([*pydocker.argv, "logs", container], capture_output=True, check=True).stdout
    assert output == b"x" * 200000 + b"\n" + b"a\x00\xff\x01b\n\n" + b"end"


def test_logs_since_until_tail_and_timestamps(api: Api, pydocker: Cli, busybox: str) -> None:
    container = make(pydocker, busybox, "for i in 1 2 3 4; do echo $i; sleep 0.6; done")
    finish(api, container)
    stamped = pydocker.out("logs", "-t", container).splitlines()
    assert [line.split(" ")[1] for line in stamped] == ["1", "2", "3", "4"]
    third = stamped[2].split(" ")[0]
    assert pydocker.out("logs", "--since", third, container).split() == ["3", "4"]
    assert pydocker.out("logs", "--until", third, container).split() == ["1", "2", "3"]
    assert pydocker.out("logs", "--tail", "2", container).split() == ["3", "4"]
    assert pydocker.out("logs", "--tail", "0", container) == ""


def test_follow_has_no_gap_and_no_double_between_history_and_stream(
    api: Api, pydocker: Cli, busybox: str
) -> None:
    container = make(pydocker, busybox, "seq 1 3000; sleep 1; seq 3001 6000")
    output = pydocker.out("logs", "-f", container, timeout=60)
    assert output.split() == [str(number) for number in range(1, 6001)]


def test_json_file_is_there_for_who_asks_for_it(api: Api, pydocker: Cli, busybox: str) -> None:
    container = make(pydocker, busybox, "echo in a file", "--log-driver", "json-file")
    finish(api, container)
    assert pydocker.out("logs", container) == "in a file"
    assert journal("-u", f"container-{container}") == []


def test_a_line_of_an_unprivileged_user_is_not_taken_for_the_containers(
    api: Api, pydocker: Cli, busybox: str
) -> None:
    container = make(pydocker, busybox, "echo real")
    finish(api, container)
    forged = f"MESSAGE=forged\nCONTAINER_ID_FULL={container}\nPRIORITY=6\n"
    run("setpriv", "--reuid=65534", "--clear-groups", "logger", "--journald", input=forged)
    run("journalctl", "--sync")
    wait_until(lambda: "forged" in journal("-n", "50"), 10, "the forged line is in the journal")
    assert pydocker.out("logs", container) == "real"


def test_the_journal_has_the_tag_the_labels_and_the_variables_that_were_asked_for(
    api: Api, pydocker: Cli, busybox: str
) -> None:
    wanted = ["tag={{.Name}}", "labels=app-name", "env=TIER"]
    options = [word for option in wanted for word in ("--log-opt", option)]
    more = ["--name", "tagged", "-l", "app-name=web", "-e", "TIER=one"]
    finish(api, make(pydocker, busybox, "echo hello", *options, *more))
    (entry,) = journal_entries("-t", "tagged", "-u", "container-tagged")
    assert (entry["CONTAINER_TAG"], entry["APP_NAME"], entry["TIER"]) == ("tagged", "web", "one")


def test_syslog_reaches_the_host_s_own_socket(api: Api, pydocker: Cli, busybox: str) -> None:
    options = ["--log-driver", "syslog", "--log-opt", "tag=by-syslog"]
    container = make(pydocker, busybox, "echo over syslog", *options)
    finish(api, container)
    (entry,) = journal_entries("-t", "by-syslog")
    assert (entry["MESSAGE"], entry["_TRANSPORT"], entry["SYSLOG_FACILITY"]) == ("over syslog", "syslog", "3")
    assert pydocker.out("logs", container) == "over syslog"


def test_an_attach_goes_on_exactly_where_the_journal_ends(api: Api, pydocker: Cli, busybox: str) -> None:
    """Its third start writes; what the first two wrote comes once, and first."""
    script = "read n; i=0; while [ $i -lt $n ]; do echo $i; i=$((i+1)); done; printf be; read go; echo gun"
    container = pydocker.out("create", "-i", "--network", "none", busybox, "sh", "-c", script)
    begun = [f"{number}" for number in range(20)]
    long = [f"{number}" for number in range(20_000)]
    for _ in range(2):
        pydocker("start", "-ai", container, input="20\ngo\n", timeout=60)
    history = [*begun, "begun", *begun, "begun"]
    first = attach(container)
    api.post(f"/containers/{container}/start").check()
    feeder = attach(container, "stream=1&stdin=1")
    feeder.sendall(b"20000\n")
    others = [attach(container) for _ in range(5)]
    feeder.sendall(b"go\n")
    for client in (first, *others):
        assert lines(client) == [*history, *long, "begun"]
    feeder.close()
    finish(api, container)
    assert lines(attach(container, "logs=1&stdout=1")) == [*history, *long, "begun"]
    api.delete(f"/containers/{container}?force=1").check()


def attach(container: str, query: str = "logs=1&stream=1&stdout=1") -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.connect(os.fspath(SOCKET))
    client.settimeout(60)
    client.sendall(
        f"POST /v1.9/containers/{container}/attach?{query} HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n".encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += client.recv(1)
    assert b" 200 OK" in head
    return client


def lines(client: socket.socket) -> list[str]:
    with client:
        data = b""
        while piece := client.recv(65536):
            data += piece
    found, at = b"", 0
    while at < len(data):  # Docker's frames
        length = int.from_bytes(data[at + 4 : at + 8], "big")
        found += data[at + 8 : at + 8 + length]
        at += 8 + length
    return found.decode().splitlines()
