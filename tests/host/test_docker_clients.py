"""The unmodified docker command lines do what their users expect."""

from __future__ import annotations

import subprocess
from pathlib import Path

from hosttools import Api, Cli


def test_version_and_info_name_the_server(any_docker: Cli) -> None:
    assert "pydockerd" in any_docker.out("version")
    assert "Cgroup Driver: systemd" in any_docker.out("info")


def test_import_and_images_and_rmi(any_docker: Cli, busybox_tar: Path) -> None:
    with busybox_tar.open("rb") as body:
        image = any_docker.out("import", "-", "imported:v1", input=body)
    assert image.startswith("sha256:")
    assert any_docker.out("images", "-q", "imported") == image[7:19]
    assert "Untagged: imported:v1" in any_docker.out("rmi", "imported:v1")


def test_run_passes_output_and_exit_code_on(any_docker: Cli, busybox: str) -> None:
    done = any_docker(
        "run", "--rm", "--network", "none", busybox, "sh", "-c", "echo out; echo err >&2; exit 9", check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (9, "out\n", "err\n")


def test_run_gives_input(any_docker: Cli, busybox: str) -> None:
    output = any_docker.out("run", "-i", "--rm", "--network", "none", busybox, "wc", "-c", input="12345")
    assert output == "5"


def test_a_missing_command_is_127_and_an_unexecutable_one_126(any_docker: Cli, busybox: str) -> None:
    for command, code in (("nosuch", 127), ("/etc/passwd", 126)):
        done = any_docker("run", "--rm", "--network", "none", busybox, command, check=False)
        assert done.returncode == code


def test_the_life_of_a_container(any_docker: Cli, api: Api, busybox: str) -> None:
    script = "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done"
    container = any_docker.out("run", "-d", "--name", "life", "--network", "none", busybox, "sh", "-c", script)
    follower = any_docker.start("logs", "-f", "life")
    assert follower.stdout is not None
    assert follower.stdout.readline() == b"up\n"
    assert any_docker.out("ps", "-q", "--no-trunc") == container
    waiter = any_docker.start("wait", "life")
    any_docker("stop", "life")
    assert waiter.communicate(timeout=20)[0] == b"3\n"
    assert follower.wait(20) == 0
    assert "Exited (3)" in any_docker.out("ps", "-a", "--filter", "name=life")
    assert any_docker.out("inspect", "-f", "{{.State.ExitCode}} {{.Name}}", "life") == "3 /life"
    assert any_docker.out("rm", "life") == "life"


def test_kill_ends_a_container(any_docker: Cli, api: Api, busybox: str) -> None:
    any_docker("run", "-d", "--name", "victim", "--network", "none", busybox, "sleep", "600")
    any_docker("kill", "victim")
    assert any_docker.out("wait", "victim") == "137"
    any_docker("rm", "victim")


def test_errors_are_sentences(any_docker: Cli) -> None:
    done = any_docker("inspect", "nosuch", check=False)
    assert done.returncode == 1
    assert "no such object: nosuch" in done.stderr.lower()
    done = any_docker("stop", "nosuch", check=False)
    assert "No such container: nosuch" in done.stderr


def test_a_terminal_works(any_docker: Cli, busybox: str) -> None:
    """``script`` gives the client a terminal."""
    command = [*any_docker.argv, "run", "-it", "--rm", "--network", "none", busybox, "sh", "-c", "tty; stty size"]
    line = " ".join(f"'{word}'" for word in command)
    done = subprocess.run(
        ["script", "-qec", line, "/dev/null"], stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False
    )
    assert b"/dev/pts/0" in done.stdout
