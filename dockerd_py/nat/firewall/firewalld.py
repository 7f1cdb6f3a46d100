"""Lives beside firewalld: our bridges are in its zone ``trusted``, and what it flushes comes back.

firewalld rejects what comes from an interface that is in no zone that accepts it. ``trusted`` accepts everything, as
on a host without firewalld; what containers may reach is ours to decide. A zone of our own would say the same, but
could only be had by changing firewalld's permanent configuration and reloading it. So nothing permanent is changed: a
bridge is added at run time, again after each reload, and only where the administrator has not put it into a zone
himself.

When firewalld reloads it may have flushed what is ours (its iptables backend does): all rules are put back then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import MessageType
from dbus_next.message import Message

from dockerd_py.errors import PydockerdError

log = logging.getLogger(__name__)

NAME = "org.fedoraproject.FirewallD1"
PATH = "/org/fedoraproject/FirewallD1"
ZONES = NAME + ".zone"
TRUSTED = "trusted"

_SYSTEM_BUS = "unix:path=/run/dbus/system_bus_socket"
_BUS, _BUS_PATH = "org.freedesktop.DBus", "/org/freedesktop/DBus"
_MATCHES = (
    f"type='signal',sender='{NAME}',interface='{NAME}',member='Reloaded'",
    f"type='signal',sender='{_BUS}',member='NameOwnerChanged',arg0='{NAME}'",
)
_ANSWER = 15.0  # seconds; firewalld answers late while it reloads
_RETRY = 5.0  # seconds until a lost bus is tried again


class _Refused(PydockerdError):
    """An error that firewalld answers with."""


class Firewalld:
    """What is said to firewalld, and what it says. No failure of its reaches anybody but the log."""

    def __init__(self, on_reload: Callable[[], Awaitable[None]]) -> None:
        self._on_reload = on_reload
        self._bridges: tuple[str, ...] = ()
        self._added: set[str] = set()
        self._bus: MessageBus | None = None
        self._running = False
        self._reloaded = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def open(cls, on_reload: Callable[[], Awaitable[None]]) -> Firewalld | None:
        """None where there is no system bus. ``on_reload`` is awaited whenever firewalld has started or reloaded."""
        address = os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or _SYSTEM_BUS
        firewalld = cls(on_reload)
        try:
            await firewalld._connect(address)
        except (OSError, EOFError, PydockerdError, asyncio.TimeoutError) as error:
            log.debug("firewalld is not looked for: no system bus (%s)", error)
            firewalld._disconnect()
            return None
        firewalld._tasks = [
            asyncio.ensure_future(firewalld._stay_connected(address)),
            asyncio.ensure_future(firewalld._follow()),
        ]
        return firewalld

    async def trust(self, bridges: tuple[str, ...]) -> None:
        """These are all bridges of ours; those that were and are no more leave the zone."""
        self._bridges = bridges
        if not self._running:
            return
        for bridge in bridges:
            await self._add(bridge)
        for bridge in self._added - set(bridges):
            self._added.discard(bridge)
            await self._zone("removeInterface", TRUSTED, bridge)

    async def close(self) -> None:
        """The bridges stay where they are."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._disconnect()

    async def _add(self, bridge: str) -> None:
        zone = await self._zone("getZoneOfInterface", bridge)
        if zone == "" and await self._zone("addInterface", TRUSTED, bridge) is not None:
            self._added.add(bridge)
            log.info("firewalld: %s is in its zone %s", bridge, TRUSTED)

    async def _zone(self, member: str, *words: str) -> Any:
        """The answer; None if there is none."""
        try:
            return await self._call(NAME, PATH, ZONES, member, *words)
        except (PydockerdError, asyncio.TimeoutError, EOFError, OSError) as error:
            log.warning("firewalld: %s%s: %s", member, words, error or "no answer")
            return None

    async def _call(self, destination: str, path: str, interface: str, member: str, *words: str) -> Any:
        if self._bus is None:
            raise _Refused("the system bus is gone")
        message = Message(
            destination=destination,
            path=path,
            interface=interface,
            member=member,
            signature="s" * len(words),
            body=list(words),
        )
        reply = await asyncio.wait_for(self._bus.call(message), _ANSWER)
        if reply is None or reply.message_type is MessageType.ERROR:
            raise _Refused(str(reply.body[0]) if reply is not None and reply.body else "refused")
        return reply.body[0] if reply.body else ""

    async def _connect(self, address: str) -> None:
        self._bus = MessageBus(bus_address=address)
        await asyncio.wait_for(self._bus.connect(), _ANSWER)
        self._bus.add_message_handler(self._heard)
        for match in _MATCHES:
            await self._call(_BUS, _BUS_PATH, _BUS, "AddMatch", match)
        self._running = bool(await self._call(_BUS, _BUS_PATH, _BUS, "NameHasOwner", NAME))

    def _disconnect(self) -> None:
        if self._bus is not None:
            self._bus.disconnect()  # type: ignore[no-untyped-call]
        self._bus, self._running = None, False

    async def _stay_connected(self, address: str) -> None:
        while True:
            if self._bus is not None:
                with contextlib.suppress(OSError, EOFError):
                    await self._bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
                self._disconnect()
            await asyncio.sleep(_RETRY)
            try:
                await self._connect(address)
            except (OSError, EOFError, PydockerdError, asyncio.TimeoutError):
                self._disconnect()
                continue
            if self._running:
                self._reloaded.set()

    def _heard(self, message: Message) -> None:
        if message.message_type is not MessageType.SIGNAL:
            return
        if message.member == "NameOwnerChanged" and message.sender == _BUS and message.body[0] == NAME:
            self._running = bool(message.body[2])
            if not self._running:
                return
        elif message.member != "Reloaded" or message.interface != NAME:
            return
        self._reloaded.set()

    async def _follow(self) -> None:
        while True:
            await self._reloaded.wait()
            self._reloaded.clear()
            log.info("firewalld has started or reloaded: our rules are put back")
            self._added.clear()
            try:
                await self._on_reload()
            except PydockerdError as error:
                log.error("after a reload of firewalld: %s", error)
