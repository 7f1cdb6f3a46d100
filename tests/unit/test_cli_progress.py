"""How far a transfer is, as a terminal and a file show it."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Generator

import pytest

from dockerd_py.cli import progress

PIECE = bytes(1 << 20)


def pieces() -> Generator[bytes, None, None]:
    for _ in range(5):
        yield PIECE


def shown_on_a_terminal(monkeypatch: pytest.MonkeyPatch, total: int | None) -> str:
    master, slave = os.openpty()
    with os.fdopen(slave, "w") as terminal, monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", terminal)
        patched.setenv("TERM", "xterm")
        patched.setenv("COLUMNS", "200")
        assert list(progress.shown(pieces(), "sending base.tar", total)) == [PIECE] * 5
    data = b""
    with contextlib.suppress(OSError):  # EIO is the end of what a closed terminal was sent
        while piece := os.read(master, 1 << 16):
            data += piece
    os.close(master)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", data.decode())


def test_a_terminal_shows_a_bar_up_to_the_total(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    assert re.search(r"sending base\.tar .* \d\.\d/5\.2 MB", shown_on_a_terminal(monkeypatch, 5 << 20))


def test_a_terminal_shows_what_has_gone_by_where_nobody_knows_the_total(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    assert re.search(r"sending base\.tar .*\d (bytes|MB)", shown_on_a_terminal(monkeypatch, None))


def test_what_is_small_is_sent_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = pieces()
    with monkeypatch.context() as patched:
        patched.setattr(sys.stderr, "isatty", lambda: True, raising=False)
        assert progress.shown(stream, "sending base.tar", 1000) is stream
