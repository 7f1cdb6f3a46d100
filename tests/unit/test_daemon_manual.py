"""The daemon's man page says what there is, and its own help does too."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from dockerd_py import config
from dockerd_py.daemon import fsck

TOP = Path(__file__).parents[2]
PAGE = (TOP / "docs/man/pydockerd.8").read_text().replace("\\-", "-")


@pytest.mark.parametrize("flag", config.FLAGS, ids=lambda flag: flag.key)
def test_each_flag_is_in_the_man_page(flag: config.Flag) -> None:
    for name in flag.names:
        assert re.search(rf"\\fB{re.escape(name)}\\fR", PAGE), name


def test_the_man_page_names_no_other_flag() -> None:
    known = {name for flag in (*config.FLAGS, *fsck.FLAGS) for name in flag.names}
    assert set(re.findall(r"\\fB(--?[a-z][a-z-]*)\\fR", PAGE)) <= known


def test_help_is_printed_and_a_wrong_flag_is_refused_with_2() -> None:
    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dockerd_py.daemon.main", *argv]
        return subprocess.run(command, capture_output=True, text=True, cwd=TOP, check=False)

    assert "--storage-driver" in run("--help").stdout
    done = run("--bip=1.2.3.4.5/6")
    assert (done.returncode, "--bip 1.2.3.4.5/6: " in done.stderr) == (2, True)
