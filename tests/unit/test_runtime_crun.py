"""How crun is called, and what its complaints become; the complaints are those of the real crun."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import make_rootfs
from oci_host import OciHost, reap, reap_all, subreaper

from dockerd_py.errors import CommandNotExecutable, CommandNotFound, PydockerdError, RuntimeFailed
from dockerd_py.runtime.crun import Crun, explain, mount_to_hide
from dockerd_py.runtime.runtimes import Runtimes
from dockerd_py.runtime.spec import Bind, Rlimit

ALLOWED_VERBS = {"create", "start", "kill", "delete", "exec", "state"}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OciHost]:
    directory = tmp_path_factory.mktemp("crun")
    root = make_rootfs(directory / "root")
    (root / "bin/plain").write_text("#!/bin/sh\n")
    for name, content in (("bad-interpreter", "#!/bin/none\n"), ("no-program", "just text\n")):
        (root / "bin" / name).write_text(content)
        (root / "bin" / name).chmod(0o755)
    foreign = bytearray((root / "bin/busybox").read_bytes())
    foreign[18:20] = b"\x15\x00"  # e_machine: a 64-bit PowerPC
    (root / "bin/foreign").write_bytes(foreign)
    (root / "bin/foreign").chmod(0o755)
    (root / "bin/dangling").symlink_to("nowhere")
    (root / "bin/circle").symlink_to("circle")
    (root / "file").write_text("")
    with subreaper():
        yield OciHost(directory, root)


NOT_IN_PATH = 'exec: "{}": executable file not found in $PATH'
MISSING = 'exec: "{0}": stat {0}: no such file or directory'
DENIED = 'exec: "{}": permission denied'


@pytest.mark.parametrize(
    ("command", "kind", "sentence"),
    [
        ("nope", CommandNotFound, NOT_IN_PATH),
        ("", CommandNotFound, NOT_IN_PATH),
        ("a `quoted` one", CommandNotFound, NOT_IN_PATH),
        ("two\nlines", CommandNotFound, NOT_IN_PATH),
        ("/bin/nope", CommandNotFound, MISSING),
        ("./bin/nope", CommandNotFound, MISSING),
        ("/file/below", CommandNotFound, MISSING),
        ("/bin/dangling", CommandNotFound, MISSING),
        ("/bin/plain", CommandNotExecutable, DENIED),
        ("plain", CommandNotExecutable, DENIED),
        ("/etc", CommandNotExecutable, 'exec: "{}": is a directory or no regular file: permission denied'),
        ("/bin/circle", CommandNotExecutable,
         'exec: "{}": too many levels of symbolic links: permission denied'),
    ],
)  # fmt: skip
def test_a_command_that_cannot_be_started_is_explained_and_leaves_nothing_behind(
    host: OciHost, command: str, kind: type[PydockerdError], sentence: str
) -> None:
    outcome = host.run(command)
    assert outcome.created == 1
    error = explain(outcome.log, command)
    assert type(error) is kind
    assert str(error) == (
        "failed to create task for container: OCI runtime create failed: crun: " + sentence.format(command)
    )
    assert host.left_over() == []
    reap_all()  # crun 0.17 kills its child and leaves the rest to its parent


def test_no_command_at_all_is_a_command_that_was_not_found(host: OciHost) -> None:
    outcome = host.run()
    if outcome.created == 0:  # crun 0.17 notices after the start
        assert (outcome.exit, "executable path not specified" in outcome.stderr) == (1, True)
    else:
        assert isinstance(explain(outcome.log, ""), CommandNotFound)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"cwd": "/file"}, ": Not a directory"),
        ({"root": "/nonesuch"}, "No such file or directory"),
        ({"binds": (Bind("/nonesuch", "/mnt"),)}, "`/nonesuch`: No such file or directory"),
        ({"binds": (Bind("/etc", "/file"),)}, "Not a directory"),
        ({"binds": (Bind("/etc", "/file/x"),)}, "Not a directory"),
        ({"rlimits": (Rlimit("RLIMIT_NOFILE", 2, 1),)}, "RLIMIT_NOFILE"),
        ({"terminal": True}, "console-socket"),
    ],
)
def test_other_failures_are_told_in_the_runtimes_own_words(
    host: OciHost, fields: dict[str, object], words: str
) -> None:
    outcome = host.run("true", **fields)
    assert outcome.created == 1
    error = explain(outcome.log, "true")
    assert type(error) is RuntimeFailed
    assert words in str(error)
    # these would make a Docker client blame the command
    assert "no such file or directory" not in str(error)
    assert "permission denied" not in str(error)
    assert host.left_over() == []


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("/bin/bad-interpreter", "`/bin/bad-interpreter`: No such file or directory"),
        ("/bin/no-program", "`/bin/no-program`: Exec format error"),
        ("/bin/foreign", "`/bin/foreign`: Exec format error"),
    ],
)
def test_a_file_that_the_kernel_refuses_ends_with_a_plain_sentence_on_stderr(
    host: OciHost, command: str, words: str
) -> None:
    outcome = host.run(command)
    assert (outcome.created, outcome.started, outcome.exit) == (0, 0, 1)
    assert outcome.stderr.startswith("exec container process")
    assert words in outcome.stderr


@pytest.mark.parametrize(
    ("command", "code", "kind"),
    [
        (["nope"], 255, CommandNotFound),
        (["/bin/plain"], 255, CommandNotExecutable),
        (["/bin/bad-interpreter"], 1, CommandNotFound),
        (["/bin/no-program"], 1, CommandNotExecutable),
    ],
)
def test_a_command_that_exec_cannot_start_is_explained_too(
    host: OciHost, tmp_path: Path, command: list[str], code: int, kind: type[PydockerdError]
) -> None:
    process = tmp_path / "process.json"
    process.write_text(json.dumps({"args": command, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}))
    outcome = host.create("target", host.settings("sleep", "100"))
    assert outcome.created == 0, outcome.log
    try:
        assert host.call(host.crun.start("target")).returncode == 0
        log = tmp_path / "log"
        done = host.call(host.crun.exec("target", process=str(process), log=str(log)))
        assert done.returncode == code
        assert type(explain(log.read_text() + done.stderr, command[0])) is kind
    finally:
        os.kill(outcome.pid, 9)
        reap(outcome.pid)
        assert host.call(host.crun.delete("target")).returncode == 0


def test_exec_runs_a_command_in_the_container(host: OciHost, tmp_path: Path) -> None:
    process = tmp_path / "process.json"
    process.write_text(
        json.dumps(
            {
                "args": ["sh", "-c", "grep Seccomp: /proc/self/status; exit 3"],
                "cwd": "/",
                "env": ["PATH=/bin"],
                "user": {"uid": 0, "gid": 0},
            }
        )
    )
    outcome = host.create("target", host.settings("sleep", "100"))
    try:
        assert host.call(host.crun.start("target")).returncode == 0
        done = host.call(host.crun.exec("target", process=str(process), pid_file=str(tmp_path / "pid")))
        assert done.returncode == 3
        assert done.stdout == "Seccomp:\t2\n"  # the filter that came compiled holds here too
    finally:
        os.kill(outcome.pid, 9)
        reap(outcome.pid)
        assert host.call(host.crun.delete("target")).returncode == 0


def test_start_says_so_when_the_container_died_before(host: OciHost, tmp_path: Path) -> None:
    outcome = host.create("early", host.settings("true"))
    os.kill(outcome.pid, 9)
    assert reap(outcome.pid)[0] == -9
    log = tmp_path / "log"
    assert host.call(host.crun.start("early", log=str(log))).returncode == 1
    error = explain(log.read_text(), "true")
    assert type(error) is RuntimeFailed
    assert "is not running" in str(error)
    assert host.call(host.crun.delete("early")).returncode == 0
    assert host.left_over() == []


def test_the_container_is_our_child_and_kill_and_state_know_it(host: OciHost) -> None:
    outcome = host.create("life", host.settings("sleep", "100"))
    assert json.loads(host.call(host.crun.state("life")).stdout)["status"] == "created"
    assert host.call(host.crun.start("life")).returncode == 0
    state = json.loads(host.call(host.crun.state("life")).stdout)
    assert (state["status"], state["pid"]) == ("running", outcome.pid)
    assert host.call(host.crun.delete("life")).returncode == 1
    assert host.call(host.crun.kill("life", 9)).returncode == 0
    code, strangers = reap(outcome.pid)
    assert (code, strangers) == (-9, [])
    assert host.call(host.crun.delete("life")).returncode == 0


def test_delete_by_force_ends_whatever_runs_and_forgives_what_is_not_there(host: OciHost) -> None:
    outcome = host.create("forced", host.settings("sleep", "100"))
    assert host.call(host.crun.start("forced")).returncode == 0
    assert host.call(host.crun.delete("forced", force=True)).returncode == 0
    assert reap(outcome.pid)[0] == -9
    assert host.call(host.crun.delete("forced", force=True)).returncode == 0
    assert host.left_over() == []


def test_a_start_that_waits_for_a_dead_container_goes_on_when_its_state_is_taken_away(host: OciHost) -> None:
    outcome = host.create("orphan", host.settings("true"))
    os.kill(outcome.pid, 9)
    assert reap(outcome.pid)[0] == -9
    fifo = host.directory / "state/orphan/exec.fifo"
    # What start does between its look whether the container lives and its end; it has not the time to be killed there.
    waiting = subprocess.Popen(["sh", "-c", 'echo > "$0"', fifo])
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(0.2)
    asyncio.run(Runtimes(str(host.directory / "state"), host.crun.binary).forget("orphan"))
    assert waiting.wait(10) == 0
    assert host.left_over() == []


def test_every_call_disables_the_cgroup_manager_and_uses_a_safe_verb() -> None:
    crun = Crun("/run/x", binary="/opt/crun")
    calls = [
        crun.create("c", bundle="/b", pid_file="/p", log="/l", console_socket="/s"),
        crun.start("c", log="/l"),
        crun.kill("c", 15, log="/l"),
        crun.delete("c", force=True, log="/l"),
        crun.exec("c", process="/j", pid_file="/p", detach=True, log="/l", console_socket="/s"),
        crun.state("c"),
    ]
    for call in calls:
        assert call[:4] == ["/opt/crun", "--root", "/run/x", "--cgroup-manager=disabled"]
        verb = next(word for word in call[4:] if not word.startswith("-"))
        assert verb in ALLOWED_VERBS
    assert calls[0][4:] == [
        "--log=file:/l", "--log-format=text", "create",
        "--bundle", "/b", "--pid-file", "/p", "--console-socket", "/s", "c",
    ]  # fmt: skip
    assert calls[2][-2:] == ["c", "15"]
    public = {name for name in vars(Crun) if not name.startswith("_")} - {"binary"}
    assert public == ALLOWED_VERBS


def test_json_logs_are_read_as_well_and_warnings_are_passed_over() -> None:
    log = (
        '{"msg":"unknown seccomp syscall","level":"warning","time":"x"}\n'
        '{"msg":"open executable: Permission denied","level":"error","time":"x"}\n'
    )
    assert type(explain(log, "/x")) is CommandNotExecutable
    assert "unknown seccomp" not in str(explain(log.replace("open executable", "odd"), "/x"))
    assert str(explain("a warning\nan error\n", "x")).endswith("crun: an error")
    assert str(explain("\x1b[1;31man error\x1b[0m\n", "x")).endswith("crun: an error")


def test_another_file_than_the_command_is_no_fault_of_the_command() -> None:
    assert type(explain("cannot open `/bin/true`: Not a directory\n", "/bin/true")) is CommandNotFound
    assert type(explain("cannot open `/dev/mqueue`: Not a directory\n", "/bin/true")) is RuntimeFailed
    assert type(explain("the path `/etc/hosts` is not a regular file: Error\n", "/etc")) is RuntimeFailed


def test_silence_is_said_to_be_silence() -> None:
    assert "without a word" in str(explain("\n", "x"))


def test_the_second_cgroup_hierarchy_is_hidden_only_where_it_has_controllers(tmp_path: Path) -> None:
    assert mount_to_hide(tmp_path) == ""
    (tmp_path / "unified").mkdir()
    assert mount_to_hide(tmp_path) == ""
    controllers = tmp_path / "unified/cgroup.controllers"
    controllers.write_text("\n")
    assert mount_to_hide(tmp_path) == ""
    controllers.write_text("hugetlb\n")
    assert mount_to_hide(tmp_path) == str(tmp_path / "unified")
