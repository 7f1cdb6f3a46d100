"""A container's stream on its way to the user: frames, output, the terminal's state."""

from __future__ import annotations

import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockerd_py.cli import keys, terminal
from dockerd_py.cli.errors import ConnectionLost
from dockerd_py.cli.output import Output
from dockerd_py.cli.stdcopy import STDERR, STDOUT, SYSTEM_ERROR, Demultiplexer

REPOSITORY = Path(__file__).parents[2]


def frame(stream: int, payload: bytes) -> bytes:
    return struct.pack(">B3xI", stream, len(payload)) + payload


def demultiplexed(pieces: list[bytes]) -> tuple[dict[int, bytes], Demultiplexer]:
    demultiplexer = Demultiplexer()
    found = {STDOUT: b"", STDERR: b"", SYSTEM_ERROR: b""}
    for piece in pieces:
        for stream, data in demultiplexer.feed(piece):
            found[stream] += data
    return found, demultiplexer


FRAMES = st.lists(st.tuples(st.sampled_from([STDOUT, STDERR]), st.binary(max_size=40)), max_size=12)


@given(FRAMES, st.lists(st.integers(min_value=1, max_value=30)))
def test_frames_may_be_split_anywhere(frames: list[tuple[int, bytes]], sizes: list[int]) -> None:
    data = b"".join(frame(stream, payload) for stream, payload in frames)
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    found, demultiplexer = demultiplexed([*pieces, data])
    for wanted in (STDOUT, STDERR):
        assert found[wanted] == b"".join(payload for stream, payload in frames if stream == wanted)
    assert demultiplexer.complete


@given(FRAMES)
def test_the_order_of_both_streams_is_kept(frames: list[tuple[int, bytes]]) -> None:
    data = b"".join(frame(stream, payload) for stream, payload in frames)
    found = b"".join(bytes([stream]) * len(piece) for stream, piece in Demultiplexer().feed(data))
    assert found == b"".join(bytes([stream]) * len(payload) for stream, payload in frames)


def test_a_payload_is_passed_on_before_its_frame_is_complete() -> None:
    demultiplexer = Demultiplexer()
    assert list(demultiplexer.feed(frame(STDOUT, b"long line")[:12])) == [(STDOUT, b"long")]
    assert not demultiplexer.complete
    assert list(demultiplexer.feed(b" line")) == [(STDOUT, b" line")]
    assert demultiplexer.complete


def test_echoed_input_is_output() -> None:
    assert list(Demultiplexer().feed(frame(0, b"typed"))) == [(STDOUT, b"typed")]


@pytest.mark.parametrize("data", [b"hello, world", b"\x01\x00\x00\x01\x00\x00\x00\x01x", b"\x04\0\0\0\0\0\0\1x"])
def test_what_is_no_frame_is_an_error(data: bytes) -> None:
    with pytest.raises(ConnectionLost, match="not in frames"):
        list(Demultiplexer().feed(data))


def test_output_goes_to_the_stream_it_came_from(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    output = Output(tty=False)
    output.show(frame(STDOUT, b"o\x00ut\n") + frame(STDERR, b"err\xff\n"))
    assert capfdbinary.readouterr() == (b"o\x00ut\n", b"err\xff\n")


def test_a_terminals_output_is_raw(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    Output(tty=True).show(b"\x1b[1mbold\r\n")
    assert capfdbinary.readouterr() == (b"\x1b[1mbold\r\n", b"")


def test_output_is_written_whole_to_a_pipe_that_does_not_block() -> None:
    read_fd, write_fd = os.pipe2(os.O_NONBLOCK)
    payload = os.urandom(1 << 20)
    code = (
        "import sys; from dockerd_py.cli.output import write_all\n"
        "write_all(1, sys.stdin.buffer.read())"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=write_fd, cwd=REPOSITORY
    ) as writer:
        os.close(write_fd)
        assert writer.stdin is not None
        writer.stdin.write(payload)
        writer.stdin.close()
        os.set_blocking(read_fd, True)
        received = b""
        while piece := os.read(read_fd, 65536):
            received += piece
    os.close(read_fd)
    assert writer.returncode == 0
    assert received == payload


@pytest.mark.parametrize(
    ("text", "found"),
    [("ctrl-p,ctrl-q", b"\x10\x11"), ("a", b"a"), ("ctrl-@,ctrl-_", b"\0\x1f"), ("ctrl-[,x", b"\x1bx")],
)
def test_detach_keys_are_characters_and_control_keys(text: str, found: bytes) -> None:
    assert keys.parse(text) == found


@pytest.mark.parametrize("text", ["", "ctrl-", "ctrl-P,", "ctrl-1", "alt-a", "ab", "é"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no key"):
        keys.parse(text)


@pytest.mark.parametrize("pieces", [[b"ab\x10\x11c"], [b"a\x10", b"\x11"], [b"\x10\x10", b"", b"\x11"]])
def test_detach_keys_are_noticed_however_they_arrive(pieces: list[bytes]) -> None:
    watcher = keys.Watcher(keys.parse(keys.DEFAULT))
    for piece in pieces:
        watcher.feed(piece)
    assert watcher.seen


@pytest.mark.parametrize("pieces", [[b"\x10a\x11"], [b"\x11\x10"], [b"\x10", b"a", b"\x11"]])
def test_other_keys_do_not_detach(pieces: list[bytes]) -> None:
    watcher = keys.Watcher(keys.parse(keys.DEFAULT))
    for piece in pieces:
        watcher.feed(piece)
    assert not watcher.seen



# A child process on a real pty: the state of its terminal is read through the same device.

PRELUDE = """
import os, sys, time
from dockerd_py.cli import terminal
from dockerd_py.cli.errors import Terminated
from dockerd_py.cli.session import Signals
def hold():
    os.write(1, b"READY")
    return os.read(0, 100)
"""


class OnATerminal:
    """Python code that runs on a new pty."""

    def __init__(self, code: str) -> None:
        self.master, self.slave = pty.openpty()
        self.before = self.mode
        self.process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + code],
            stdin=self.slave,
            stdout=self.slave,
            stderr=subprocess.DEVNULL,
            cwd=REPOSITORY,
            start_new_session=True,
        )

    def __enter__(self) -> OnATerminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)

    @property
    def mode(self) -> list[object]:
        return termios.tcgetattr(self.slave)

    def prints(self, word: bytes) -> None:
        seen = b""
        while word not in seen:
            assert select.select([self.master], [], [], 20)[0], f"it printed {seen!r}, not {word!r}"
            seen += os.read(self.master, 1024)


def test_a_raw_terminal_passes_every_key_on() -> None:
    with OnATerminal("with terminal.raw(0):\n    os.write(1, hold().hex().encode())") as child:
        child.prints(b"READY")
        os.write(child.master, b"\x03\x1a\x11\x13\r\x04\x1c\x16\x0f")
        child.prints(b"031a11130d041c160f")
        assert child.process.wait(20) == 0


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        pytest.param("with terminal.raw(0):\n    hold()", 0, id="the block is left"),
        pytest.param("with terminal.raw(0):\n    hold()\n    raise OSError", 1, id="an exception leaves it"),
        pytest.param("terminal.raw(0).__enter__()\nhold()\nsys.exit(5)", 5, id="the interpreter ends within it"),
    ],
)
def test_the_terminal_is_put_back_however_the_program_ends(code: str, exit_code: int) -> None:
    with OnATerminal(code) as child:
        child.prints(b"READY")
        assert child.mode != child.before
        os.write(child.master, b"x")
        assert child.process.wait(20) == exit_code
        assert child.mode == child.before


UNTIL_A_SIGNAL = """
try:
    with Signals(forward=False, ending=True), terminal.raw(0):
        hold()
except Terminated as error:
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_the_terminal_is_put_back_when_a_signal_ends_the_program(number: signal.Signals) -> None:
    with OnATerminal(UNTIL_A_SIGNAL) as child:
        child.prints(b"READY")
        assert child.mode != child.before
        child.process.send_signal(number)
        assert child.process.wait(20) == 128 + number
        assert child.mode == child.before


def test_a_signal_that_was_ignored_before_stays_ignored() -> None:
    code = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + UNTIL_A_SIGNAL
    with OnATerminal(code) as child:
        child.prints(b"READY")
        child.process.send_signal(signal.SIGHUP)
        os.write(child.master, b"x")
        assert child.process.wait(20) == 0


def test_the_size_of_what_is_no_terminal_is_unknown() -> None:
    with open(os.devnull, "rb") as null:
        assert terminal.size(null.fileno()) is None
        assert not terminal.is_terminal(null.fileno())
