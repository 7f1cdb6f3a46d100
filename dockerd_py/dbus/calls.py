"""From a message to a method and back: who calls, whether they may, what they get, and what they hold meanwhile.

Each call of a method of ours runs in a task of its own.  Every error is translated here and nowhere else, each
method's polkit actions are asked for here and nowhere else, and a caller's share of the daemon is bounded here:
``CALLS_PER_CALLER`` calls under way, ``HELD_PER_USER`` long ones for each user but root.  When a caller leaves
the bus, what it waited for or streamed ends; a change that it began is carried through.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from dbus_next.constants import MessageFlag
from dbus_next.message import Message
from dbus_next.signature import Variant

from dockerd_py.dbus.connection import Connection
from dockerd_py.dbus.errors import LimitsExceeded, UnknownInterface, UnknownMethod
from dockerd_py.dbus.interface import Interface, Method, load
from dockerd_py.dbus.outbox import close_all
from dockerd_py.dbus.polkit import Authority
from dockerd_py.dbus.tasks import end
from dockerd_py.errors import BadParameter, PydockerdError

log = logging.getLogger(__name__)

CALLS_PER_CALLER = 64
HELD_PER_USER = 256

_STOPPING = "pydockerd is stopping, the call was given up"
_PATIENCE = 5.0  # seconds

_Function = TypeVar("_Function", bound=Callable[..., Awaitable[Any]])


@dataclass(frozen=True)
class Terms:
    """On which terms a method may be called."""

    member: str
    needs: tuple[str, ...]  # polkit actions, all of them
    held: bool  # lasts as long as the caller likes; ends when the caller goes
    large: bool  # it returns a function that makes the answer, and that a thread calls


def exported(
    member: str, *, needs: tuple[str, ...] = (), held: bool = False, large: bool = False
) -> Callable[[_Function], _Function]:
    """Make an async method the implementation of the bus method ``member``.

    It is called with the Call and then the arguments of its XML description: strings, lists, ``dict[str,
    Variant]``, and for a file descriptor its number, which is the method's to close.  It returns None, the one
    value, or for "h" a file descriptor that it gives away.
    """

    def mark(function: _Function) -> _Function:
        function.__dict__["bus_terms"] = Terms(member, needs, held, large)
        return function

    return mark


class BusObject:
    """Something at a path with one interface of ours.  A view, made for each call; it holds no state."""

    interface_name: ClassVar[str]
    interface: ClassVar[Interface]
    methods: ClassVar[Mapping[str, Callable[..., Awaitable[Any]]]]

    def __init_subclass__(cls) -> None:
        cls.interface = load(cls.interface_name)
        cls.methods = {
            each.__dict__["bus_terms"].member: each
            for each in vars(cls).values()
            if "bus_terms" in getattr(each, "__dict__", {})
        }
        if set(cls.methods) != set(cls.interface.methods):
            raise TypeError(f"{cls.__name__} does not implement {cls.interface_name} as its file describes it")

    def values(self) -> dict[str, Any]:
        """The value of each property of the interface."""
        raise NotImplementedError

    @classmethod
    def variants(cls, values: Mapping[str, Any]) -> dict[str, Variant]:
        """Values of properties with the types that the interface gives them."""
        return {name: Variant(cls.interface.properties[name].type, value) for name, value in values.items()}

    def details(self, member: str, arguments: list[Any]) -> dict[str, str]:
        """What polkit's rules may look up about this call."""
        raise NotImplementedError

    def settle(self) -> None:
        """Called when a method that may change things has ended, before its caller hears of it."""


@dataclass
class Caller:
    """One connection to the bus that has calls under way with us."""

    name: str
    calls: set[Call] = field(default_factory=set)


@dataclass(eq=False)
class Call:
    """One call under way."""

    message: Message
    caller: Caller
    uid: int | None = None
    task: asyncio.Task[None] | None = None
    endable: bool = True  # may be cancelled when the caller goes
    gone: asyncio.Event = field(default_factory=asyncio.Event)  # the caller has gone
    stream: Coroutine[Any, Any, None] | None = None

    @property
    def interactive(self) -> bool:
        return bool(self.message.flags & MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION)

    def go_on_with(self, stream: Coroutine[Any, Any, None]) -> None:
        """Run ``stream`` after the reply, as a part of this call: bounded, and ended, with it."""
        self.stream = stream


class Calls:
    """All calls under way on one connection."""

    def __init__(self, connection: Connection, authority: Authority) -> None:
        self._connection = connection
        self._authority = authority
        self._callers: dict[str, Caller] = {}
        self._held: Counter[int] = Counter()
        self._stopping = False

    def begin(self, target: BusObject, message: Message) -> None:
        """Start answering ``message``, and take its file descriptors over.

        Raises UnknownMethod, UnknownInterface or LimitsExceeded for what is not to be started at all.
        """
        method = find_method(target, message)
        terms: Terms = target.methods[method.name].__dict__["bus_terms"]
        if not terms.needs and not expects_reply(message):
            close_all(message.unix_fds)  # nothing would come of it, but work
            return
        if self._stopping:
            raise PydockerdError(_STOPPING)
        caller = self._callers.get(message.sender) or Caller(message.sender)
        if len(caller.calls) >= CALLS_PER_CALLER:
            raise LimitsExceeded(f"{len(caller.calls)} calls of this connection are under way: wait for some of them")
        self._callers[caller.name] = caller
        call = Call(message, caller)
        caller.calls.add(call)
        call.task = asyncio.create_task(self._run(call, target, method, terms), name=f"dbus {method.name}")

    def caller_left(self, name: str) -> None:
        caller = self._callers.get(name)
        for call in tuple(caller.calls) if caller else ():
            call.gone.set()
            if call.endable and call.task is not None:
                call.task.cancel()

    async def stop(self) -> None:
        """End every call: what waits or streams at once, what changes something when it is done, or too slow."""
        self._stopping = True
        await end(call.task for call in self._all() if call.endable and call.task)
        tasks = [call.task for call in self._all() if call.task]
        if tasks:
            await asyncio.wait(tasks, timeout=_PATIENCE)
        for task in tasks:
            task.cancel()  # once, as it may have something to undo
        if tasks:
            await asyncio.wait(tasks, timeout=_PATIENCE)
        for call in self._all():
            log.error("%s for %s does not end", call.message.member, call.caller.name)

    def count(self) -> int:
        return len(self._all())

    def _all(self) -> list[Call]:
        return [call for caller in self._callers.values() for call in caller.calls]

    async def _run(self, call: Call, target: BusObject, method: Method, terms: Terms) -> None:
        function = target.methods[method.name]
        held_for: int | None = None
        try:
            if terms.needs or terms.held:
                call.uid = await self._authority.user_of(call.caller.name)
            if terms.held and call.uid:
                held_for = self._hold(call.uid)
            if terms.needs:
                await self._authorise(call, target, method, terms)
            if call.gone.is_set() or self._stopping:
                raise asyncio.CancelledError
            call.endable = terms.held
            try:
                result = await function(target, call, *_arguments(method, call.message))
            finally:
                target.settle()
            if terms.large and expects_reply(call.message):
                await self._connection.send_large(
                    lambda: Message.new_method_return(call.message, method.gives, [result()])
                )
            else:
                reply_to(self._connection, call.message, method.gives, result)
            call.endable = True
            await self._stream(call)
        except asyncio.CancelledError:
            # Either the caller is gone and hears nothing, or we are going and it is told.
            self._refuse(call, PydockerdError(_STOPPING))
        except Exception as error:  # noqa: BLE001 - translated, and logged with its traceback
            self._refuse(call, error)
        finally:
            if call.stream is not None:
                call.stream.close()
            close_all(call.message.unix_fds)
            if held_for is not None:
                self._held[held_for] -= 1
                self._held += Counter()  # drops users at nought
            call.caller.calls.discard(call)
            if not call.caller.calls:
                self._callers.pop(call.caller.name, None)

    def _hold(self, uid: int) -> int:
        if self._held[uid] >= HELD_PER_USER:
            raise LimitsExceeded(f"user {uid} has {HELD_PER_USER} long calls under way")
        self._held[uid] += 1
        return uid

    async def _authorise(self, call: Call, target: BusObject, method: Method, terms: Terms) -> None:
        assert call.uid is not None
        details = {key: clean(value) for key, value in target.details(method.name, call.message.body).items()}
        await self._authority.require(
            call.caller.name, call.uid, terms.needs, details, interactive=call.interactive
        )

    async def _stream(self, call: Call) -> None:
        if call.stream is None:
            return
        try:
            await call.stream
        except asyncio.CancelledError:
            pass  # this task ends with it, and the reply is long out
        except Exception:
            log.exception("the stream that %s gave ended early", call.message.member)

    def _refuse(self, call: Call, error: BaseException) -> None:
        if not call.gone.is_set() and self._connection.connected:
            refuse(self._connection, call.message, error)


def find_method(target: BusObject, message: Message) -> Method:
    """The method of ``target`` that ``message`` calls.  Raises UnknownInterface or UnknownMethod."""
    if message.interface not in (None, target.interface_name):
        raise UnknownInterface(f"{message.path} has no interface {message.interface}")
    method = target.interface.methods.get(message.member)
    if method is None:
        raise UnknownMethod(f"{target.interface_name} has no method {message.member}")
    if message.signature != method.takes:
        raise UnknownMethod(
            f"{message.member} takes arguments of the types {method.takes!r}, not {message.signature!r}"
        )
    return method


def reply_to(connection: Connection, message: Message, signature: str, result: Any) -> None:
    """Answer ``message``.  Raises LimitsExceeded for an answer that no bus carries."""
    body, fds = ([] if signature == "" else [result]), []
    if signature == "h":
        body, fds = [0], [result]
    if not expects_reply(message):
        close_all(fds)
        return
    connection.send(Message.new_method_return(message, signature, body, fds))


def refuse(connection: Connection, message: Message, error: BaseException) -> None:
    """Answer ``message`` with ``error``: with what it says if it was foreseen, with a plain sentence if not."""
    if isinstance(error, PydockerdError):
        name, text = error.bus_name, str(error)
    else:
        log.error("%s.%s on %s failed", message.interface, message.member, message.path, exc_info=error)
        name, text = PydockerdError.bus_name, "pydockerd could not do this; its log has the reason"
    if expects_reply(message):
        connection.send(Message.new_error(message, name, clean(text)))


def clean(text: str) -> str:
    """``text`` as the bus can carry it: dbus-daemon ends the connection of who sends it a NUL."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def expects_reply(message: Message) -> bool:
    """Whether the caller listens for the answer."""
    return not message.flags & MessageFlag.NO_REPLY_EXPECTED


def _arguments(method: Method, message: Message) -> list[Any]:
    if "h" not in method.takes:
        return list(message.body)
    assert method.takes.startswith("h")
    assert method.takes.count("h") == 1
    index = message.body[0]
    if index >= len(message.unix_fds):
        raise BadParameter("the message names a file descriptor that it does not carry")
    return [message.unix_fds.pop(index), *message.body[1:]]
