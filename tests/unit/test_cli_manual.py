"""The manual page and the completion are those of the flags that there are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli_daemon import Daemon, reply

from dockerd_py.cli import commands
from dockerd_py.cli.command import Command
from dockerd_py.cli.group import Group
from dockerd_py.cli.main import FLAGS

REPOSITORY = Path(__file__).parents[2]
MANUAL = (REPOSITORY / "docs/man/pydocker.1").read_text()


def plain(text: str) -> str:
    return re.sub(r"\\f[BIR]", "", text).replace("\\-", "-")


def section(name: str) -> str:
    found = re.search(rf"^\.SS pydocker {name}\b(?: .*)?\n((?:(?!\.S[SH]).*\n)*)", MANUAL, re.MULTILINE)
    assert found, f"the manual has no section about {name}"
    return plain(found[0])


@pytest.mark.parametrize("name", sorted(commands.SUMMARIES))
def test_the_manual_has_each_command_with_its_flags(name: str) -> None:
    command = commands.find(name)
    assert command is not None
    assert command.name == name
    if isinstance(command, Group):
        for word, member in command.members.items():
            assert member.name == f"{name} {word}"
            compare_with_manual(member.name, member)
    else:
        compare_with_manual(name, command)


def compare_with_manual(name: str, command: Command) -> None:
    text = section(name)
    assert f"pydocker {name} {command.signature}".rstrip() in text
    headings = "\n".join(re.findall(r"^\.TP\n(.*)", text, re.MULTILINE))
    listed = set(re.findall(r"(?<![\w-])--?[a-zA-Z][a-z0-9-]*", headings))
    wanted = {spelling for flag in command.flags if flag.help for spelling in flag.names}
    if name == "create":
        assert not listed, "its flags are described with those of run"
        run = commands.find("run")
        assert run is not None
        others = {spelling for flag in run.flags for spelling in flag.names} - wanted
        assert others == {"-d", "--detach", "--detach-keys", "--sig-proxy"}
    else:
        assert listed == wanted


def test_the_manual_has_the_flags_before_the_command() -> None:
    options = plain(MANUAL[MANUAL.index(".SH OPTIONS") : MANUAL.index(".SH COMMANDS")])
    for flag in FLAGS:
        assert ", ".join(flag.names) in options


@pytest.fixture
def completed(tmp_path: Path) -> object:
    program = tmp_path / "pydocker"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {os.fspath(REPOSITORY)!r})\n"
        "from dockerd_py.cli.main import main\nsys.exit(main())\n"
    )
    program.chmod(0o755)
    answers = {
        "GET /containers/json": reply([{"Id": "0" * 64, "Names": ["/web"], "Image": "i", "Created": 1}]),
        "GET /volumes": reply({"Volumes": [{"Name": "data", "Driver": "local"}]}),
        "GET /networks": reply([{"Id": "2" * 64, "Name": name, "Driver": name} for name in ("front", "host")]),
        "GET /images/json": reply([{"Id": "1" * 64, "RepoTags": ["busybox:latest"], "Created": 1, "Size": 1}]),
    }

    def complete(*words: str) -> list[str]:
        script = (
            f"shopt -s extglob; . {REPOSITORY}/packaging/completions/pydocker\n"
            'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _pydocker; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        with Daemon(tmp_path, answers) as daemon:
            done = subprocess.run(
                ["bash", "-c", script, "bash", *words],
                env={
                    **os.environ,
                    "PATH": f"{tmp_path}:{os.environ['PATH']}",
                    "PYDOCKER_HOST": f"unix://{daemon.path}",
                },
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            daemon.path.unlink()
        return done.stdout.split()

    return complete


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["pydocker", "im"], ["image", "images", "import"]),
        (["pydocker", "image", ""], ["prune"]),
        (["pydocker", "diff", "w"], ["web"]),
        (["pydocker", "cp", "w"], ["web:"]),
        (["pydocker", "history", "b"], ["busybox:latest"]),
        (["pydocker", "run", "--net"], ["--net", "--network", "--net-alias", "--network-alias", "--networking"]),
        (["pydocker", "run", "--network", "h"], ["host"]),
        (["pydocker", "run", "--pid", "c"], ["container:web"]),
        (["pydocker", "run", "--cap-add", "SYS_T"], ["SYS_TIME", "SYS_TTY_CONFIG"]),
        (["pydocker", "run", "--ipc", "s"], ["shareable"]),
        (["pydocker", "stop", "--signal", "H"], ["HUP"]),
        (["pydocker", "run", "-it", "--name", "x", ""], ["busybox:latest"]),
        (["pydocker", "run", "busybox", "-"], []),
        (["pydocker", "stop", "-t", "3", "w"], ["web"]),
        (["pydocker", "inspect", ""], ["web", "busybox:latest"]),
        (["pydocker", "rm", "web", "--v"], ["--volumes"]),
        (["pydocker", "run", "--network", "f"], ["front"]),
        (["pydocker", "run", "--ip"], ["--ip", "--ip6", "--ipc"]),
        (["pydocker", "network", "c"], ["connect", "create"]),
        (["pydocker", "network", "rm", "f"], ["front"]),
        (["pydocker", "network", "connect", ""], ["front", "host"]),
        (["pydocker", "network", "connect", "--ip", "1.2.3.4", "front", ""], ["web"]),
        (["pydocker", "system", ""], ["df", "prune"]),
        (["pydocker", "system", "prune", "--v"], ["--volumes"]),
        (["pydocker", "volume", "p"], ["prune"]),
        (["pydocker", "volume", "rm", ""], ["data"]),
        (["pydocker", "volume", "inspect", "--f"], ["--format"]),
        (["pydocker", "volume", "create", "-d"], ["-d"]),
    ],
)
def test_the_completion_offers_what_fits(completed: object, words: list[str], offered: list[str]) -> None:
    assert callable(completed)
    assert completed(*words) == offered
