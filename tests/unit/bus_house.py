"""A real engine served on a private bus, in a thread of its own, and a client that is an ordinary dbus-next one."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import MessageType
from dbus_next.message import Message
from dbus_next.signature import Variant
from private_bus import PrivateBus

from dockerd_py.config import Config, NetworkConfig
from dockerd_py.dbus.service import NAME, BusService
from dockerd_py.engine.engine import Engine

ROOT = "/org/pydockerd1"
MANAGER = "org.pydockerd1.Manager"
CONTAINER = "org.pydockerd1.Container"
PROPERTIES = "org.freedesktop.DBus.Properties"
OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"

MKIMAGE = Path(__file__).parents[2] / "contrib" / "mkimage"

T = TypeVar("T")


class House:
    """``engine`` and ``service`` live in ``loop``; tests stay outside, as clients do."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bus = PrivateBus()
        self.loop = asyncio.new_event_loop()
        self.engine: Engine
        self.service: BusService
        self._came_from = os.open(".", os.O_PATH)
        self._thread = threading.Thread(target=self.loop.run_forever, name="daemon")

    def open(self) -> None:
        self.bus.start()
        self._thread.start()
        self.engine = self.inside(Engine.open(Config(
            root=self.directory / "root", exec_root=self.directory / "run", storage_driver="vfs", pidfile=None,
            network=NetworkConfig(bridge="none"),
        )))  # fmt: skip
        archive = subprocess.run([MKIMAGE, "busybox"], stdout=subprocess.PIPE, check=True).stdout
        self.inside(self.engine.images.import_(_once(archive), repo="busybox", tag="latest"))
        self.service = BusService(self.bus.address)
        self.inside(self.service.start(self.engine))

    def close(self) -> None:
        self.clear()
        self.inside(self.service.stop())
        self.inside(self.engine.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()
        self.bus.__exit__(None, None, None)
        os.fchdir(self._came_from)
        os.close(self._came_from)

    def clear(self) -> None:
        """Remove all containers."""
        for each in self.inside(self._list()):
            self.inside(self.engine.containers.remove(each, force=True))

    async def _list(self) -> list[str]:
        return [each.id for each in self.engine.containers.list(all=True)]

    def inside(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something in the daemon's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def play(self, scenario: Callable[[Client], Awaitable[T]]) -> T:
        """Run ``scenario`` with a client of this bus, in a loop of the test's own."""

        async def act() -> T:
            async with client_of(self.bus) as client:
                return await scenario(client)

        return asyncio.run(asyncio.wait_for(act(), 60))


class BusError(Exception):
    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name.rpartition(".")[2]
        self.full_name = name
        self.text = text


class Client:
    """Calls, and the signals that came meanwhile as (path, member, body)."""

    def __init__(self, bus: MessageBus) -> None:
        self.bus = bus
        self.signals: list[tuple[str, str, list[Any]]] = []
        bus.add_message_handler(self._take)

    async def call(
        self, path: str, interface: str, member: str, signature: str = "", *body: Any, fds: tuple[int, ...] = ()
    ) -> Any:
        """The one value of the answer, or None; a file descriptor for "h"."""
        reply = await self.bus.call(
            Message(
                destination=NAME,
                path=path,
                interface=interface,
                member=member,
                signature=signature,
                body=list(body),
                unix_fds=list(fds),
            )
        )
        assert reply is not None
        if reply.message_type is MessageType.ERROR:
            raise BusError(str(reply.error_name), str(reply.body[0]))
        if reply.signature == "h":
            return reply.unix_fds[reply.body[0]]
        return reply.body[0] if reply.body else None

    async def manager(self, member: str, signature: str = "", *body: Any, fds: tuple[int, ...] = ()) -> Any:
        return await self.call(ROOT, MANAGER, member, signature, *body, fds=fds)

    async def container(self, path: str, member: str, signature: str = "", *body: Any) -> Any:
        return await self.call(path, CONTAINER, member, signature, *body)

    async def run(self, *command: str, **options: Variant) -> str:
        return str(await self.manager("RunContainer", "sasa{sv}", "busybox", list(command), options))

    async def create(self, *command: str, **options: Variant) -> str:
        return str(await self.manager("CreateContainer", "sasa{sv}", "busybox", list(command), options))

    async def get(self, path: str, name: str) -> Any:
        return (await self.call(path, PROPERTIES, "Get", "ss", CONTAINER, name)).value

    async def listen(self) -> None:
        await self.bus.call(
            Message(
                destination="org.freedesktop.DBus",
                path="/org/freedesktop/DBus",
                interface="org.freedesktop.DBus",
                member="AddMatch",
                signature="s",
                body=[f"type='signal',sender='{NAME}'"],
            )
        )

    async def seen(self, member: str, path: str) -> list[Any]:
        """The body of the first such signal, waiting for it."""
        while True:
            for place, name, body in self.signals:
                if (place, name) == (path, member):
                    return body
            await asyncio.sleep(0.01)

    def _take(self, message: Message) -> None:
        if message.message_type is MessageType.SIGNAL and message.path.startswith(ROOT):
            self.signals.append((message.path, message.member, message.body))


@asynccontextmanager
async def client_of(bus: PrivateBus) -> AsyncIterator[Client]:
    connection = await MessageBus(bus.address, negotiate_unix_fd=True).connect()
    try:
        yield Client(connection)
    finally:
        connection.disconnect()
        connection._sock.close()
        connection._stream.close()


async def refused(call: Awaitable[object]) -> BusError:
    with pytest.raises(BusError) as raised:
        await call
    return raised.value


async def until_calls(service: BusService, count: int) -> None:
    """Wait until so many calls are under way.  One is so for a moment after its caller has the answer."""
    session = service._session
    assert session is not None
    for _ in range(4000):
        if session.calls.count() == count:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{session.calls.count()} calls are under way, not {count}")


async def traps_term(client: Client, path: str) -> None:
    """Wait until the container's process catches or ignores SIGTERM (SigCgt, SigIgn: proc_pid_status(5))."""
    pid = await client.get(path, "Pid")
    for _ in range(4000):
        if signal.SIGTERM in _handled(pid):
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{path} neither catches nor ignores SIGTERM")


def _handled(pid: int) -> set[int]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigIgn:", "SigCgt:"))]
    return {number for mask in masks for number in range(1, 65) if mask >> (number - 1) & 1}


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
