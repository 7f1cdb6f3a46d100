"""The daemon's end of a connection to a helper, with the other end in the test's hands."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable

import pytest

from dockerd_py import wire
from dockerd_py.wirelink import Link

Story = Callable[["Noting", socket.socket], Awaitable[None]]


class Noting(Link):
    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.taken: list[wire.Message] = []
        self.lost = 0

    def _take(self, message: wire.Message) -> None:
        self.taken.append(message)

    def _lost(self) -> None:
        self.lost += 1


def tell(story: Story) -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.settimeout(10)
        link = Noting(ours)
        try:
            await story(link, theirs)
        finally:
            link.close()
            theirs.close()

    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(run())
    assert len(os.listdir("/proc/self/fd")) == before


def received(sock: socket.socket) -> wire.Message:
    message, fds = wire.receive(sock)
    wire.close_all(fds)
    assert message is not None
    return message


def test_replies_find_who_asked_in_any_order_and_the_rest_is_taken() -> None:
    async def story(link: Noting, theirs: socket.socket) -> None:
        asked = [asyncio.ensure_future(link.ask(op, timeout=10, value=op * 2)) for op in ("a", "b")]
        await asyncio.sleep(0)
        first, second = received(theirs), received(theirs)
        assert (first["op"], first["value"], second["op"]) == ("a", "aa", "b")
        wire.send(theirs, {"event": "news"})
        wire.send(theirs, {"seq": second["seq"], "is": "b"})
        wire.send(theirs, {"seq": first["seq"], "is": "a"})
        assert [reply and reply["is"] for reply in await asyncio.gather(*asked)] == ["a", "b"]
        assert link.taken == [{"event": "news"}]

    tell(story)


def test_the_end_is_no_reply_and_is_told_once() -> None:
    async def story(link: Noting, theirs: socket.socket) -> None:
        asked = asyncio.ensure_future(link.ask("a", timeout=None))
        await asyncio.sleep(0)
        wire.send(theirs, {"event": "last words"})
        theirs.close()
        assert await asked is None
        assert await link.ask("b", timeout=None) is None
        link.tell("c")
        assert (link.taken, link.lost, link.closed.done()) == ([{"event": "last words"}], 1, True)

    tell(story)


def test_what_was_said_before_the_end_is_heard_though_something_is_being_sent() -> None:
    async def story(link: Noting, theirs: socket.socket) -> None:
        wire.send(theirs, {"event": "last words"})
        theirs.close()
        assert await link.ask("a", timeout=10) is None
        assert (link.taken, link.lost) == ([{"event": "last words"}], 1)

    tell(story)


def test_descriptors_may_be_closed_at_once_and_go_with_what_is_given_up() -> None:
    async def story(link: Noting, theirs: socket.socket) -> None:
        clogged = 0
        while not link._unsent:
            link.tell("more", data="x" * 60_000)
            clogged += 1
        read, write = os.pipe()
        asked = asyncio.ensure_future(link.ask("late", fds=(write,), timeout=0.1))
        kept = asyncio.ensure_future(link.ask("kept", fds=(write,), timeout=10))
        await asyncio.sleep(0)
        os.close(write)
        with pytest.raises(asyncio.TimeoutError):
            await asked
        for _ in range(clogged):
            assert (await asyncio.to_thread(received, theirs))["op"] == "more"
        message, fds = await asyncio.to_thread(wire.receive, theirs)
        assert message is not None
        assert (message["op"], len(fds)) == ("kept", 1)
        wire.close_all(fds)
        wire.send(theirs, {"seq": message["seq"]})
        assert await kept == {"seq": message["seq"]}
        assert os.read(read, 1) == b"", "nobody has the other end any more"
        os.close(read)

    tell(story)


def test_a_request_that_cannot_be_sent_fails_alone() -> None:
    async def story(link: Noting, theirs: socket.socket) -> None:
        link._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        reply = await link.ask("long", timeout=10, data="x" * 100_000)
        assert reply == {"error": "it cannot be asked: Message too long"}
        asked = asyncio.ensure_future(link.ask("short", timeout=10))
        await asyncio.sleep(0)
        wire.send(theirs, {"seq": received(theirs)["seq"]})
        assert await asked
        assert not link.lost

    tell(story)
