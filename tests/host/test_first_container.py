"""``make run`` where systemd runs: a second daemon beside the host's own, made by hand, and gone again."""

from __future__ import annotations

from pathlib import Path

import pytest
from hosttools import run, systemctl

SCRIPT = Path(__file__).resolve().parents[2] / "contrib" / "first-container"


@pytest.fixture(scope="module")
def output() -> str:
    before = (_units(), _mounts(), _processes())
    said = run(SCRIPT, "/usr/bin", timeout=120).stdout
    assert (_units(), _mounts(), _processes()) == before
    assert not list(Path("/tmp").glob("pydockerd-first*"))
    return said


def _units() -> str:
    return systemctl("list-units", "--all", "--plain", "--no-legend", "pydockerd*", "container-*")


def _mounts() -> str:
    return run("findmnt", "-rno", "TARGET").stdout


def _processes() -> str:
    return run("pgrep", "-f", "dockerd_py|/pydockerd|crun", check=False).stdout


def test_it_shows_what_the_container_printed(output: str) -> None:
    assert output.count("Hello from process 1 of ") == 2  # run's own output, and the log


def test_it_lists_the_container_with_its_end(output: str) -> None:
    assert "Exited (0)" in output


def test_it_shows_the_scope_while_the_container_runs(output: str) -> None:
    assert "Active: active (running)" in output
    assert "64.0M" in output


def test_it_shows_the_containers_lines_in_the_journal(output: str) -> None:
    journal = output.partition("$ journalctl --no-pager -u container-")[2]
    assert "to standard output" in journal
    assert "to standard error" in journal
