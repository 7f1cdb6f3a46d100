"""The tree of objects below ``/org/pydockerd1``, and the interfaces that the D-Bus specification gives to each.

Reading is free to everybody and never waits for the engine.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbus_next.message import Message
from dbus_next.signature import Variant

from dockerd_py.dbus.calls import BusObject, Call, exported
from dockerd_py.dbus.container import ContainerObject, values_of
from dockerd_py.dbus.errors import PropertyReadOnly, UnknownInterface, UnknownMethod, UnknownObject, UnknownProperty
from dockerd_py.dbus.interface import Interface, describe, load
from dockerd_py.dbus.manager import CONTAINERS, ROOT, ManagerObject, container_path
from dockerd_py.engine.model import Container
from dockerd_py.errors import NoSuchContainer, PydockerdError

if TYPE_CHECKING:
    from dockerd_py.engine.engine import Engine

PROPERTIES = "org.freedesktop.DBus.Properties"
OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
PEER = "org.freedesktop.DBus.Peer"

EVERYWHERE = (PEER, INTROSPECTABLE)
STANDARD = (*EVERYWHERE, PROPERTIES, OBJECT_MANAGER)
AT_ONCE = (*EVERYWHERE, PROPERTIES)

_CONTAINER = re.compile(re.escape(CONTAINERS) + "/([0-9a-f]{64})")
_MACHINE_ID = ("/etc/machine-id", "/var/lib/dbus/machine-id")


@dataclass(frozen=True)
class Node:
    """What stands at one path."""

    path: str
    target: BusObject | None  # None for a path that only leads to others
    standard: tuple[str, ...]

    def interfaces(self) -> list[Interface]:
        own = [self.target.interface] if self.target else []
        return [*map(load, self.standard), *own]


class Tree:
    def __init__(self, engine: Engine, manager: ManagerObject, announce: Callable[[str], None]) -> None:
        self._engine = engine
        self._manager = manager
        self._announce = announce
        self._object_manager = ObjectManager(engine)

    def node(self, path: str) -> Node:
        """Raises UnknownObject."""
        if path == ROOT:
            return Node(path, self._manager, STANDARD)
        if match := _CONTAINER.fullmatch(path):
            return Node(path, self._container(match[1]), (*EVERYWHERE, PROPERTIES))
        if path in ("/", "/org", CONTAINERS):
            return Node(path, None, EVERYWHERE)
        raise UnknownObject(f"There is no object {path}")

    def children(self, path: str) -> list[str]:
        if path == CONTAINERS:
            return [each.id for each in self._engine.containers.list(all=True)]
        return {"/": ["org"], "/org": ["pydockerd1"], ROOT: ["container"]}.get(path, [])

    def target(self, message: Message) -> BusObject:
        """The object that answers a method that is no mere reading.  Raises UnknownObject, UnknownInterface."""
        node = self.node(message.path)
        if node.target is None or (message.interface == OBJECT_MANAGER and OBJECT_MANAGER not in node.standard):
            raise UnknownInterface(f"{message.path} has no interface {message.interface}")
        return self._object_manager if message.interface == OBJECT_MANAGER else node.target

    def _container(self, container: str) -> ContainerObject:
        try:
            found = self._engine.containers.get(container)
        except NoSuchContainer:
            found = None
        if found is None or found.id != container:  # a name may look like an id
            raise UnknownObject(f"There is no container {container} (any more)")
        return ContainerObject(self._engine, found, self._announce)


class ObjectManager(BusObject):
    """All containers with all their properties: thousands of values, so a thread makes the answer."""

    interface_name = OBJECT_MANAGER

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @exported("GetManagedObjects", large=True)
    async def get_managed_objects(self, call: Call) -> Callable[[], dict[str, dict[str, dict[str, Variant]]]]:
        return functools.partial(_managed, self._engine.containers.list(all=True))


def _managed(containers: list[Container]) -> dict[str, dict[str, dict[str, Variant]]]:
    name = ContainerObject.interface_name
    return {container_path(each.id): {name: ContainerObject.variants(values_of(each))} for each in containers}


def standard_interface(message: Message) -> str | None:
    """The one of ``AT_ONCE`` that ``message`` calls, also when it names the method alone."""
    if message.interface in AT_ONCE:
        return str(message.interface)
    if not message.interface:
        for each in AT_ONCE:
            if message.member in load(each).methods:
                return each
    return None


def answer(tree: Tree, interface: str, message: Message) -> tuple[str, Any]:
    """Do what the call of a standard interface asks; return the signature and the value of the answer.

    Raises UnknownObject, UnknownInterface, UnknownMethod, UnknownProperty, PropertyReadOnly.
    """
    method = load(interface).methods.get(message.member)
    if method is None or method.takes != message.signature:
        raise UnknownMethod(f"{interface} has no method {message.member} that takes {message.signature!r}")
    if interface == PEER:
        return method.gives, _peer(message.member)
    node = tree.node(message.path)
    if interface not in node.standard:
        raise UnknownInterface(f"{message.path} has no interface {interface}")
    return method.gives, _ANSWERS[message.member](tree, node, message.body)


def _peer(member: str) -> str | None:
    if member == "Ping":
        return None
    for name in _MACHINE_ID:
        try:
            return Path(name).read_text(encoding="ascii").strip()
        except OSError:
            continue
    raise PydockerdError("This machine has no machine id: systemd-machine-id-setup makes one")


def _introspect(tree: Tree, node: Node, arguments: list[Any]) -> str:
    return describe(node.interfaces(), tree.children(node.path))


def _get(tree: Tree, node: Node, arguments: list[Any]) -> Variant:
    name, property_name = arguments
    values = _properties_of(node, name)
    if property_name not in values:
        raise UnknownProperty(f"{name or node.path} has no property {property_name}")
    return values[property_name]


def _get_all(tree: Tree, node: Node, arguments: list[Any]) -> Mapping[str, Variant]:
    return _properties_of(node, arguments[0])


def _set(tree: Tree, node: Node, arguments: list[Any]) -> None:
    _get(tree, node, arguments[:2])
    raise PropertyReadOnly(f"Property {arguments[1]} cannot be set")


def _properties_of(node: Node, interface: str) -> dict[str, Variant]:
    """The properties of one interface; "" means all that the object has."""
    assert node.target is not None
    if interface in ("", node.target.interface_name):
        return node.target.variants(node.target.values())
    if interface in node.standard:
        return {}
    raise UnknownInterface(f"{node.path} has no interface {interface}")


_ANSWERS: dict[str, Callable[[Tree, Node, list[Any]], Any]] = {
    "Introspect": _introspect,
    "Get": _get,
    "GetAll": _get_all,
    "Set": _set,
}
