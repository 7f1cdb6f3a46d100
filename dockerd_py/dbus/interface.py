"""The interfaces as their XML files state them: the one description that dispatch, introspection and tests share.

A file in ``interfaces/`` describes one interface and is what clients see when they introspect.  Nothing here is
made up at run time: a method that no file names cannot be called.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

CHANGED_SIGNAL = "org.freedesktop.DBus.Property.EmitsChangedSignal"
_DOCTYPE = (
    '<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"\n'
    ' "https://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">\n'
)


@dataclass(frozen=True)
class Method:
    """``takes`` and ``gives`` are signatures of the whole message body."""

    name: str
    takes: str
    gives: str


@dataclass(frozen=True)
class Property:
    name: str
    type: str
    constant: bool  # never part of a PropertiesChanged signal


@dataclass(frozen=True)
class Interface:
    name: str
    methods: Mapping[str, Method]
    signals: Mapping[str, str]  # name → signature
    properties: Mapping[str, Property]
    xml: str  # the <interface> element


@cache
def load(name: str) -> Interface:
    """Read the interface called ``name`` from its file.

    Raises FileNotFoundError for an interface that has none, which is a mistake in this package.
    """
    text = (resources.files("dockerd_py.dbus") / "interfaces" / f"{name}.xml").read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)  # noqa: S314 - our own file
    element = root.find("interface")
    assert element is not None
    assert element.get("name") == name
    return parse(element)


def parse(element: ElementTree.Element) -> Interface:
    """Read one ``<interface>`` element, ours or a live one."""
    methods = [
        Method(_name(each), _signature(each, "in"), _signature(each, "out"))
        for each in element.findall("method")
    ]
    properties = [
        Property(_name(each), each.get("type", ""), _annotation(each, CHANGED_SIGNAL) == "const")
        for each in element.findall("property")
    ]
    element.tail = None
    return Interface(
        name=_name(element),
        methods={each.name: each for each in methods},
        signals={_name(each): _signature(each, None) for each in element.findall("signal")},
        properties={each.name: each for each in properties},
        xml=ElementTree.tostring(element, encoding="unicode"),
    )


def describe(interfaces: Iterable[Interface], children: Iterable[str]) -> str:
    """The introspection document of a node with these interfaces and these child nodes."""
    parts = [_DOCTYPE, "<node>"]
    parts += [each.xml for each in interfaces]
    parts += [f'<node name="{child}"/>' for child in children]
    parts.append("</node>\n")
    return "\n".join(parts)


def _name(element: ElementTree.Element) -> str:
    name = element.get("name")
    assert name, f"a {element.tag} without a name"
    return name


def _signature(element: ElementTree.Element, direction: str | None) -> str:
    # A signal's arguments carry no direction.
    return "".join(
        each.get("type", "") for each in element.findall("arg") if direction in (None, each.get("direction"))
    )


def _annotation(element: ElementTree.Element, name: str) -> str | None:
    for each in element.findall("annotation"):
        if each.get("name") == name:
            return each.get("value")
    return None
