"""top: which of ps's options are passed on, what is read from its output, and what a user sees."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import execs
import pytest
from daemons import Daemon, until

from dockerd_py.engine import top
from dockerd_py.errors import BadParameter, PydockerdError


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["-ef"]),
        ("aux", ["aux"]),
        ("-o pid,comm --sort -pid", ["-o", "pid,comm", "--sort", "-pid"]),
        ("-o 'pid=PID' -o 'comm=The name'", ["-o", "pid=PID", "-o", "comm=The name"]),
        ("-opid=PID", ["-opid=PID"]),
        ("--format=pid,args=COMMAND", ["--format=pid,args=COMMAND"]),
        ("--no-headers -C NetworkManager", ["--no-headers", "-C", "NetworkManager"]),
        ("-eN", ["-eN"]),
        ("; rm -rf / $(id) `id` > f | g", [";", "rm", "-rf", "/", "$(id)", "`id`", ">", "f", "|", "g"]),
    ],
)
def test_options_are_split_as_a_shell_splits_words_and_nothing_else(text: str, words: list[str]) -> None:
    assert top.split(text) == words


@pytest.mark.parametrize(
    "text",
    [
        "-o comm=PID",
        "-ocomm=PID",
        "-o pid,comm=PID",
        "-o pid=X,comm=PID",
        "--format=ppid=PID",
        "-o 'comm=A PID'",
        "-o 'pid=A PID'",
        "-o pid='PID,comm'=PID",
        "o ppid=PID",
        "-n /etc/shadow",
        "-efn /etc/shadow",
        "auxN /etc/shadow",
        "'unbalanced",
        "x" * 5000,
    ],
)
def test_options_that_would_mislead_us_or_open_a_file_are_refused(text: str) -> None:
    with pytest.raises(BadParameter):
        top.split(text)


def test_only_the_containers_lines_are_read_and_the_last_column_keeps_its_blanks() -> None:
    text = "  PID USER     COMMAND\n   12 root     sh -c  a   b\n   13 root     other\n   14 ann      -\n"
    found = top.parse(text, {12, 14})
    assert found.titles == ("PID", "USER", "COMMAND")
    assert found.rows == (("12", "root", "sh -c  a   b"), ("14", "ann", "-"))


@pytest.mark.parametrize("text", ["", "COMMAND\nsh\n", "PID PID\n12 12\n"])
def test_output_without_one_column_pid_is_an_error(text: str) -> None:
    with pytest.raises(PydockerdError, match="Couldn't find PID field in ps output"):
        top.parse(text, {12})


# Through the Remote API


def test_top_shows_every_process_of_the_container_and_no_other(daemon: Daemon) -> None:
    container = daemon.run_detached("sh", "-c", "sleep 1001 & exec sleep 1002")
    exec_id = execs.create(daemon, container, "sleep", "1003")
    execs.detach(daemon, exec_id)

    def shown() -> set[str]:
        found = daemon.get(f"/containers/{container}/top").json
        assert found["Titles"] == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
        return {row[-1] for row in found["Processes"]}

    until(lambda: shown() == {"sleep 1001", "sleep 1002", "sleep 1003"})  # each was the runtime a moment before
    daemon.delete(f"/containers/{container}?force=1")


@pytest.mark.parametrize("args", ["aux", "-o pid,args", "-eo pid,args --sort -pid", "axo pid,args f", "-p 1", "-eLf"])
def test_any_options_may_be_given(daemon: Daemon, args: str) -> None:
    container = daemon.run_detached("sleep", "1001")
    until(lambda: "sleep" in Path(f"/proc/{daemon.inspect(container)['State']['Pid']}/cmdline").read_text())
    shown = daemon.get(f"/containers/{container}/top?ps_args={quote(args)}").json
    assert "PID" in shown["Titles"]
    rows = [row for row in shown["Processes"] if "sleep 1001" in row[-1]]
    assert rows == shown["Processes"]
    assert rows or args == "-p 1"
    daemon.delete(f"/containers/{container}?force=1")


def test_what_top_refuses_is_told(daemon: Daemon) -> None:
    container = daemon.run_detached("sleep", "1001")
    path = f"/containers/{container}/top?ps_args="
    assert daemon.get(path + "-o+comm%3DPID").status == 400
    assert daemon.get(path + "-o+comm").message == "Couldn't find PID field in ps output"
    unknown = daemon.get(path + "--nosuch")
    assert (unknown.status, unknown.message.startswith("ps: ")) == (500, True)
    assert daemon.get("/containers/nosuch/top").status == 404
    daemon.post(f"/containers/{container}/stop?t=0")
    assert daemon.get(f"/containers/{container}/top").message == f"Container {container} is not running"
    assert daemon.get(f"/containers/{container}/top").status == 409
    assert daemon.get(f"/containers/{container}/top", version="1.9").status == 500
    assert daemon.get(f"/containers/{container}/top", version="1.2").status == 404
    assert daemon.get(path + "aux", version="1.3").status == 400
    daemon.delete(f"/containers/{container}")
