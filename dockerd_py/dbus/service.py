"""The service on the bus: its name, its signals, and its coming back when the bus went away.

The daemon is the same with and without a bus.  Without one this says so in the log and is done; when dbus-daemon
restarts, it waits and connects again; when another pydockerd holds the name, that one keeps it.

Every signal follows from comparing what was last told about a container with what the engine says now.  The
engine's events say only when to look, so one that comes late, twice or not at all makes no wrong signal.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import TYPE_CHECKING, Any

from dbus_next.constants import MessageType, NameFlag, RequestNameReply
from dbus_next.message import Message

from dockerd_py.dbus import tree
from dockerd_py.dbus.calls import Calls, expects_reply, refuse, reply_to
from dockerd_py.dbus.connection import (
    BUS_NAME,
    BUS_PATH,
    MAX_BODY,
    BusCallFailed,
    Connection,
    is_cut_off,
)
from dockerd_py.dbus.container import ContainerObject, values_of
from dockerd_py.dbus.errors import LimitsExceeded
from dockerd_py.dbus.manager import ROOT, Facts, ManagerObject, container_path
from dockerd_py.dbus.outbox import close_all
from dockerd_py.dbus.polkit import Authority
from dockerd_py.dbus.tasks import end
from dockerd_py.engine.model import Container
from dockerd_py.errors import NoSuchContainer, PydockerdError
from dockerd_py.version import API_VERSION, VERSION

if TYPE_CHECKING:
    from dockerd_py.engine.engine import Engine

log = logging.getLogger(__name__)

NAME = "org.pydockerd1"
SYSTEM_BUS = "unix:path=/run/dbus/system_bus_socket"

_FIRST_DELAY, _LAST_DELAY = 0.1, 30.0  # seconds between attempts
_FLUSH_SECONDS = 1.0

_LEAVERS = f"type='signal',sender='{BUS_NAME}',interface='{BUS_NAME}',member='NameOwnerChanged',arg2=''"


class BusService:
    """Serves one engine on one bus, from ``start`` to ``stop``."""

    def __init__(self, address: str = "") -> None:
        """``address`` is a D-Bus address of a unix socket; "" is the system bus."""
        self._address = address or os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or SYSTEM_BUS
        self._task: asyncio.Task[None] | None = None
        self._session: Session | None = None
        self._stopping = asyncio.Event()

    async def start(self, engine: Engine) -> None:
        """Return when the name is ours, or when it is clear that it is not to be had now.  Raises nothing."""
        facts = await _facts(engine)
        settled = asyncio.Event()
        self._task = asyncio.create_task(self._keep_connected(engine, facts, settled), name="dbus")
        await settled.wait()

    async def stop(self) -> None:
        """Tell the callers that wait, and leave the bus."""
        if self._task is not None:
            self._stopping.set()
            self._task.cancel()
            await asyncio.wait((self._task,))
            self._task = None

    async def _keep_connected(self, engine: Engine, facts: Facts, settled: asyncio.Event) -> None:
        delay = _FIRST_DELAY
        try:
            while not self._stopping.is_set():
                try:
                    session = self._session = Session(self._address, engine, facts)
                    await session.open()
                except _Refused as refusal:
                    log.warning("no D-Bus interface: %s", refusal)
                    return
                except (OSError, EOFError, ValueError, PydockerdError) as error:
                    if isinstance(error, FileNotFoundError) and not settled.is_set():
                        log.info("no D-Bus interface: there is no bus at %s", self._address)
                        return
                    level = logging.WARNING if delay == _FIRST_DELAY else logging.DEBUG
                    log.log(level, "the bus cannot be used (%s), trying again and going on without it", error)
                else:
                    if self._stopping.is_set():
                        return
                    delay = _FIRST_DELAY
                    settled.set()
                    log.info("serving %s on the bus", NAME)
                    reason = await session.serve()
                    log.warning("the connection to the bus ended (%s), trying again", reason)
                finally:
                    if self._session is not None:
                        await self._session.close()
                        self._session = None
                settled.set()
                await asyncio.sleep(delay)
                delay = min(2 * delay, _LAST_DELAY)
        except Exception:
            log.exception("the D-Bus interface failed and is off until the next start")
        finally:
            settled.set()


class _Refused(PydockerdError):
    """The name is not for us, now and later."""


class Session:
    """One connection with what is known on it."""

    def __init__(self, address: str, engine: Engine, facts: Facts) -> None:
        self._engine = engine
        self._connection = Connection(address, self._handle)
        self.calls = Calls(self._connection, Authority(self._connection))
        self._tree = tree.Tree(engine, ManagerObject(engine, facts, self.refresh), self.refresh)
        self._told: dict[str, dict[str, Any]] = {}

    async def open(self) -> None:
        """Connect and take the name.  Raises _Refused when it is not to be had, other errors for a bad bus."""
        await self._connection.open()
        await self._connection.ask(BUS_NAME, BUS_PATH, BUS_NAME, "AddMatch", "s", [_LEAVERS])
        self._told = {each.id: values_of(each) for each in self._engine.containers.list(all=True)}
        try:
            answer = await self._connection.ask(
                BUS_NAME, BUS_PATH, BUS_NAME, "RequestName", "su", [NAME, NameFlag.DO_NOT_QUEUE.value]
            )
        except BusCallFailed as error:
            raise _Refused(f"the bus does not let us be {NAME} ({error}); is its policy file installed?") from error
        if answer[0] != RequestNameReply.PRIMARY_OWNER.value:
            raise _Refused(f"another pydockerd is {NAME} on this bus")

    async def serve(self) -> str:
        """Send signals until the connection ends; returns why it did."""
        following = asyncio.create_task(self._follow(), name="dbus signals")
        ending = asyncio.create_task(self._connection.closed())
        try:
            await asyncio.wait((following, ending), return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                following.result()
            return await ending
        finally:
            await end((following, ending))

    async def close(self) -> None:
        await self.calls.stop()
        if self._connection.connected:
            await self._connection.flush(_FLUSH_SECONDS)
        self._connection.close()

    def refresh(self, container: str) -> None:
        """Tell the bus what has changed about the container with this id since it was last told."""
        path = container_path(container)
        before = self._told.get(container)
        found = self._find(container)
        if found is None:
            if self._told.pop(container, None) is not None:
                gone = [path, [ContainerObject.interface_name]]
                self._emit(ROOT, tree.OBJECT_MANAGER, "InterfacesRemoved", "oas", gone)
                self._emit(ROOT, ManagerObject.interface_name, "ContainerRemoved", "so", [container, path])
            return
        now = self._told[container] = values_of(found)
        if before is None:
            interfaces = {ContainerObject.interface_name: ContainerObject.variants(now)}
            self._emit(ROOT, tree.OBJECT_MANAGER, "InterfacesAdded", "oa{sa{sv}}", [path, interfaces])
            self._emit(ROOT, ManagerObject.interface_name, "ContainerAdded", "so", [container, path])
            return
        changed = {name: value for name, value in now.items() if value != before[name]}
        if changed:
            body = [ContainerObject.interface_name, ContainerObject.variants(changed), []]
            self._emit(path, tree.PROPERTIES, "PropertiesChanged", "sa{sv}as", body)

    def _find(self, container: str) -> Container | None:
        try:
            found = self._engine.containers.get(container)
        except NoSuchContainer:
            return None
        return found if found.id == container else None  # a name may look like an id

    async def _follow(self) -> None:
        while True:
            since = time.time_ns()
            known = {each.id for each in self._engine.containers.list(all=True)}
            for container in known | set(self._told):
                self.refresh(container)
            async for event in self._engine.events.subscribe(since=since):
                if event.type == "container" and event.id:  # a clean-up is no one container's
                    self.refresh(event.id)
            # It ends for a listener that lags too far behind; then everything is looked at anew.
            await asyncio.sleep(_FIRST_DELAY)

    def _emit(self, path: str, interface: str, member: str, signature: str, body: list[Any]) -> None:
        try:
            self._connection.send(Message.new_signal(path, interface, member, signature, body))
        except PydockerdError as error:
            log.warning("signal %s about %s was not sent: %s", member, path, error)

    def _handle(self, message: Message) -> None:
        if message.message_type is MessageType.SIGNAL:
            close_all(message.unix_fds)
            if message.sender == BUS_NAME and message.member == "NameOwnerChanged":
                self.calls.caller_left(message.body[0])
            return
        started = False
        try:
            if is_cut_off(message):
                raise LimitsExceeded(f"The arguments of a call take at most {MAX_BODY} bytes")
            standard = tree.standard_interface(message)
            if standard is not None:
                if expects_reply(message):
                    signature, value = tree.answer(self._tree, standard, message)
                    reply_to(self._connection, message, signature, value)
                return
            self.calls.begin(self._tree.target(message), message)
            started = True
        except Exception as error:  # noqa: BLE001 - translated, and logged with its traceback
            refuse(self._connection, message, error)
        finally:
            if not started:
                close_all(message.unix_fds)


async def _facts(engine: Engine) -> Facts:
    info = await engine.info()
    return Facts(
        version=VERSION,
        api_version=".".join(map(str, API_VERSION)),
        root=info.root,
        storage_driver=info.driver,
        log_driver=info.log_driver,
        cgroup_driver=info.cgroup_driver,
    )
