"""The service manager hears what we are at."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path

import pytest

from dockerd_py.errors import PydockerdError
from dockerd_py.units.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[socket.socket, str]:
    address = os.fspath(tmp_path / "notify") if request.param == "path" else f"@pydockerd-{secrets.token_hex(8)}"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind("\0" + address[1:] if address[0] == "@" else address)
    sock.settimeout(5)
    return sock, address


def test_each_state_is_one_message(manager: tuple[socket.socket, str]) -> None:
    sock, address = manager
    notifier = Notifier({"NOTIFY_SOCKET": address})
    assert notifier.enabled
    for sent, expected in [
        (notifier.ready("42 containers\nrecovered"), b"READY=1\nSTATUS=42 containers recovered"),
        (notifier.ready(), b"READY=1"),
        (notifier.status("pulling"), b"STATUS=pulling"),
        (notifier.watchdog(), b"WATCHDOG=1"),
        (notifier.stopping("bye"), b"STOPPING=1\nSTATUS=bye"),
    ]:
        assert sent
        assert sock.recv(4096) == expected


def test_a_reload_carries_the_clock(manager: tuple[socket.socket, str]) -> None:
    sock, address = manager
    assert Notifier({"NOTIFY_SOCKET": address}).reloading()
    state, clock = sock.recv(4096).split(b"\n")
    assert state == b"RELOADING=1"
    assert int(clock.removeprefix(b"MONOTONIC_USEC=")) > 0


def test_without_a_manager_nothing_happens(tmp_path: Path) -> None:
    assert not Notifier({}).enabled
    assert not Notifier({}).ready()
    assert not Notifier({"NOTIFY_SOCKET": os.fspath(tmp_path / "gone")}).ready()


def test_an_address_of_another_kind_is_an_error() -> None:
    with pytest.raises(PydockerdError, match="vsock:2:1"):
        Notifier({"NOTIFY_SOCKET": "vsock:2:1"})


def test_the_watchdog_interval_is_half_of_what_is_allowed_and_only_for_us() -> None:
    assert Notifier({"WATCHDOG_USEC": "30000000"}).watchdog_interval == 15.0
    assert Notifier({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}).watchdog_interval == 15.0
    assert Notifier({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}).watchdog_interval is None
    assert Notifier({"WATCHDOG_USEC": "0"}).watchdog_interval is None
    assert Notifier({"WATCHDOG_USEC": "many"}).watchdog_interval is None
    assert Notifier({}).watchdog_interval is None
