from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from dbus_next.constants import MessageType
from dbus_next.message import Message
from dbus_next.signature import SignatureTree
from private_bus import PrivateBus

from dockerd_py.dbus import connection as module
from dockerd_py.dbus.connection import BUS_NAME, BUS_PATH, MAX_BODY, BusCallFailed, Connection, is_cut_off
from dockerd_py.errors import TimedOut


def _run(scenario: Callable[[PrivateBus], Coroutine[None, None, None]]) -> None:
    async def act(bus: PrivateBus) -> None:
        await asyncio.wait_for(scenario(bus), 30)

    with PrivateBus(open_to_all=True) as bus:
        asyncio.run(act(bus))


class _Peer:
    """A connection that keeps what it gets, and answers calls of "Echo"."""

    def __init__(self, bus: PrivateBus) -> None:
        self.got: list[Message] = []
        self._arrived = asyncio.Event()
        self.connection = Connection(bus.address, self._take)

    async def open(self) -> _Peer:
        await self.connection.open()
        return self

    async def next(self, count: int = 1) -> list[Message]:
        while len(self.got) < count:
            self._arrived.clear()
            await self._arrived.wait()
        return self.got

    @property
    def name(self) -> str:
        return str(self.connection.unique_name)

    def signal_to(self, other: _Peer, member: str = "S", signature: str = "", body: Any = ()) -> Message:
        return Message(
            message_type=MessageType.SIGNAL,
            destination=other.name,
            path="/x",
            interface="a.b",
            member=member,
            signature=signature,
            body=list(body),
        )

    def _take(self, message: Message) -> None:
        if message.sender == BUS_NAME:
            return
        if message.member == "Echo":
            self.connection.send(Message.new_method_return(message, message.signature, message.body))
        else:
            self.got.append(message)
            self._arrived.set()


def test_a_call_returns_the_body_of_its_answer() -> None:
    async def scenario(bus: PrivateBus) -> None:
        a, b = await _Peer(bus).open(), await _Peer(bus).open()
        assert await a.connection.ask(b.name, "/x", "a.b", "Echo", "si", ["hello", 3]) == ["hello", 3]

    _run(scenario)


def test_an_error_reply_is_raised_with_its_name() -> None:
    async def scenario(bus: PrivateBus) -> None:
        a = await _Peer(bus).open()
        with pytest.raises(BusCallFailed) as raised:
            await a.connection.ask(BUS_NAME, BUS_PATH, BUS_NAME, "GetConnectionUnixUser", "s", [":1.99999"])
        assert raised.value.name == "org.freedesktop.DBus.Error.NameHasNoOwner"

    _run(scenario)


def test_a_call_that_nobody_answers_ends() -> None:
    async def scenario(bus: PrivateBus) -> None:
        a, b = await _Peer(bus).open(), await _Peer(bus).open()
        with pytest.raises(TimedOut, match=r"did not answer Silence within 0\.2 s"):
            await a.connection.ask(b.name, "/x", "a.b", "Silence", timeout=0.2)
        assert await a.connection.ask(b.name, "/x", "a.b", "Echo", "s", ["still here"]) == ["still here"]

    _run(scenario)


def test_a_call_that_is_given_up_in_the_moment_of_its_answer_stays_given_up() -> None:
    async def scenario(bus: PrivateBus) -> None:
        a, b = await _Peer(bus).open(), await _Peer(bus).open()
        given_up = []
        for turns in range(5):
            task = asyncio.create_task(a.connection.ask(b.name, "/x", "a.b", "Echo", "s", ["x"]))
            while not a.connection._method_return_handlers:  # noqa: ASYNC110 - the very moment counts
                await asyncio.sleep(0)
            while a.connection._method_return_handlers:  # noqa: ASYNC110
                await asyncio.sleep(0)
            for _ in range(turns):
                await asyncio.sleep(0)
            given_up.append(task.cancel())
            await asyncio.wait([task])
            assert task.cancelled() or not given_up[-1]
        assert any(given_up)

    _run(scenario)


def test_a_message_of_a_type_that_nobody_knows_is_dropped() -> None:
    async def scenario(bus: PrivateBus) -> None:
        a, b = await _Peer(bus).open(), await _Peer(bus).open()
        strange = a.signal_to(b)
        strange.serial = a.connection.next_serial()
        data = bytearray(strange._marshall())  # type: ignore[no-untyped-call]
        data[1] = 77
        a.connection._sock.sendall(data)
        await a.connection.send(a.signal_to(b, "After"))
        assert [each.member for each in await b.next()] == ["After"]

    _run(scenario)


def test_of_a_message_that_is_too_large_only_the_header_comes() -> None:
    async def scenario(bus: PrivateBus) -> None:
        a, b = await _Peer(bus).open(), await _Peer(bus).open()
        await a.connection.send(a.signal_to(b, "Huge", "s", ["x" * 5_000_000]))
        await a.connection.send(a.signal_to(b, "Allowed", "s", ["x" * (MAX_BODY - 100)]))
        huge, allowed = await b.next(2)
        assert is_cut_off(huge)
        assert (huge.member, huge.sender) == ("Huge", a.name)
        assert not is_cut_off(allowed)
        assert len(allowed.body[0]) == MAX_BODY - 100

    _run(scenario)


def test_nothing_is_lost_when_the_socket_is_full() -> None:
    async def scenario(bus: PrivateBus) -> None:
        a, b = await _Peer(bus).open(), await _Peer(bus).open()
        for number in range(3000):
            a.connection.send(a.signal_to(b, "S", "us", [number, "x" * 3000]))
        assert [each.body[0] for each in await b.next(3000)] == list(range(3000))

    _run(scenario)


def test_reading_rests_while_too_much_waits_to_go_out() -> None:
    async def scenario(bus: PrivateBus) -> None:
        a, b = await _Peer(bus).open(), await _Peer(bus).open()
        for _ in range(40):
            b.connection.send(b.signal_to(a, "Big", "s", ["x" * 100_000]))
        assert b.connection._outbox.full
        assert await a.connection.ask(b.name, "/x", "a.b", "Echo", "s", ["late, but here"]) == ["late, but here"]
        assert not b.connection._outbox.full

    _run(scenario)


def test_file_descriptors_go_with_their_message_and_are_closed_here() -> None:
    async def scenario(bus: PrivateBus) -> None:
        a, b = await _Peer(bus).open(), await _Peer(bus).open()
        for number in range(5):
            reading, writing = os.pipe()
            os.write(writing, b"%d" % number)
            message = a.signal_to(b, "S", "h", [0])
            message.unix_fds = [reading]
            await a.connection.send(message)
            os.close(writing)
            with pytest.raises(OSError):  # noqa: PT011 - the errno is checked below
                os.fstat(reading)
        for number, message in enumerate(await b.next(5)):
            assert os.read(message.unix_fds[0], 10) == b"%d" % number
            assert not os.get_inheritable(message.unix_fds[0])
            os.close(message.unix_fds[0])

    _run(scenario)


def test_signatures_that_callers_invent_are_forgotten() -> None:
    async def scenario(bus: PrivateBus) -> None:
        a, b = await _Peer(bus).open(), await _Peer(bus).open()
        for number in range(600):
            signature = "".join("ybnqiuxtds"[int(digit)] for digit in f"{number:05d}")
            body = [{"s": "", "b": False}.get(kind, 0) for kind in signature]
            a.connection.send(a.signal_to(b, "S", signature, body))
        await b.next(600)
        assert len(SignatureTree._cache) < 600

    _run(scenario)


def test_the_end_of_the_bus_ends_calls_and_is_reported() -> None:
    async def scenario(bus: PrivateBus) -> None:
        a, b = await _Peer(bus).open(), await _Peer(bus).open()
        waiting = asyncio.create_task(a.connection.ask(b.name, "/x", "a.b", "Silence"))
        await b.next()
        bus.stop()
        assert await asyncio.wait_for(a.connection.closed(), 5)
        with pytest.raises(ConnectionError):
            await waiting
        with pytest.raises(ConnectionError):
            await a.connection.ask(b.name, "/x", "a.b", "Echo")
        a.connection.send(a.signal_to(b))  # goes nowhere, and harms nobody

    _run(scenario)


def test_no_bus_is_an_error_at_once() -> None:
    async def scenario() -> None:
        with pytest.raises(FileNotFoundError):
            Connection("unix:path=/nonexistent/bus", lambda _: None)

    asyncio.run(scenario())


def test_a_bus_that_hangs_up_during_the_handshake_is_an_error_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        server = await asyncio.start_unix_server(lambda _, writer: writer.close(), tmp_path / "s")
        async with server:
            started = time.monotonic()
            with pytest.raises((EOFError, OSError)):
                await Connection(f"unix:path={tmp_path}/s", lambda _: None).open()
            assert time.monotonic() - started < 2

    asyncio.run(scenario())


def test_a_bus_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(module, "_CONNECT_SECONDS", 0.2)
        with socket.socket(socket.AF_UNIX) as silent:
            silent.bind(str(tmp_path / "s"))
            silent.listen()
            before = len(os.listdir("/proc/self/fd"))
            with pytest.raises(TimedOut):
                await Connection(f"unix:path={tmp_path}/s", lambda _: None).open()
            assert len(os.listdir("/proc/self/fd")) == before

    asyncio.run(scenario())
