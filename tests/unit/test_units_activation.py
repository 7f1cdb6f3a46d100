"""Sockets of the service manager are taken as they are meant, or refused with a sentence."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from dockerd_py.errors import ConfigError
from dockerd_py.units.activation import activation_sockets

FIRST = 300  # far from what the test runner has open


@pytest.fixture
def passed() -> Iterator[list[socket.socket]]:
    """Sockets that become descriptors 300, 301, ... when appended through `pass_on`."""
    kept: list[socket.socket] = []
    yield kept
    for number in range(FIRST, FIRST + len(kept)):
        try:
            os.close(number)
        except OSError:
            continue
    for sock in kept:
        sock.close()


def pass_on(kept: list[socket.socket], sock: socket.socket) -> None:
    os.dup2(sock.fileno(), FIRST + len(kept), inheritable=True)
    kept.append(sock)


def listening(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(os.fspath(path))
    sock.listen()
    return sock


def environ(count: int, **more: str) -> dict[str, str]:
    return {"LISTEN_FDS": str(count), "LISTEN_PID": str(os.getpid()), **more}


def test_sockets_come_in_order_with_their_names_and_are_not_inherited(
    passed: list[socket.socket], tmp_path: Path
) -> None:
    pass_on(passed, listening(tmp_path / "a"))
    tcp = socket.create_server(("127.0.0.1", 0))
    pass_on(passed, tcp)
    with ExitStack() as stack:
        found = activation_sockets(environ(2, LISTEN_FDNAMES="pydockerd.socket:tcp"), first=FIRST)
        for entry in found:
            stack.enter_context(entry.socket)
        assert [entry.name for entry in found] == ["pydockerd.socket", "tcp"]
        assert [entry.socket.fileno() for entry in found] == [FIRST, FIRST + 1]
        assert found[0].socket.getsockname() == os.fspath(tmp_path / "a")
        assert found[1].socket.family == socket.AF_INET
        assert not any(entry.socket.get_inheritable() or entry.socket.getblocking() for entry in found)


def test_without_names_each_is_unknown(passed: list[socket.socket], tmp_path: Path) -> None:
    pass_on(passed, listening(tmp_path / "a"))
    (entry,) = activation_sockets(environ(1), first=FIRST)
    with entry.socket:
        assert entry.name == "unknown"


def test_another_process_or_nothing_gives_no_sockets() -> None:
    assert activation_sockets({}) == []
    assert activation_sockets({"LISTEN_FDS": "2"}) == []
    assert activation_sockets({"LISTEN_FDS": "2", "LISTEN_PID": "1"}) == []


def test_malformed_variables_are_an_error(passed: list[socket.socket], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not numbers"):
        activation_sockets(environ(1) | {"LISTEN_FDS": "some"})
    with pytest.raises(ConfigError, match="is not open"):
        activation_sockets(environ(1), first=FIRST)
    pass_on(passed, listening(tmp_path / "a"))
    with pytest.raises(ConfigError, match="names 2 descriptors"):
        activation_sockets(environ(1, LISTEN_FDNAMES="a:b"), first=FIRST)


def test_what_is_no_listening_stream_socket_is_refused(passed: list[socket.socket]) -> None:
    pass_on(passed, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    with pytest.raises(ConfigError, match="not a listening stream socket"):
        activation_sockets(environ(1), first=FIRST)
    os.dup2(os.open("/dev/null", os.O_RDONLY), FIRST)
    with pytest.raises(ConfigError, match="is no socket"):
        activation_sockets(environ(1), first=FIRST)
