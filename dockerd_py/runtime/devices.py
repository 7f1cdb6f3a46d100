"""The devices of a container: which nodes the runtime makes in its /dev, and what its control group lets it open.

The two are separate: a node without a rule cannot be opened, a rule without a node waits for a mknod(2).  Rules are
pairs as systemd's DeviceAllow= takes them (systemd.resource-control(5)): a node by its numbers, ``/dev/char/1:3``, or
a class, ``char-*`` for all, ``char-10`` for a major number.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from dockerd_py.errors import BadParameter, NotSupported

Rule = tuple[str, str]

_RULE = re.compile(r"([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})")
_NODE_OR_MAJOR = re.compile(r"/dev/(char|block)/(\d+):(\d+)|(char|block)-(\d+|\*)")
_KINDS = {"c": ("char",), "b": ("block",), "a": ("char", "block")}
_NOT_DEVICES = frozenset(("pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"))
"""In /dev of the host: what a container has of its own, or what is none of its business."""


@dataclass(frozen=True)
class Node:
    """One device node, as it is to be in the container."""

    path: str
    kind: str  # "c" or "b"
    major: int
    minor: int
    mode: int  # permissions alone
    uid: int
    gid: int

    def section(self) -> dict[str, Any]:
        """One item of ``linux.devices`` (OCI runtime-spec, config-linux.md)."""
        return {
            "path": self.path,
            "type": self.kind,
            "major": self.major,
            "minor": self.minor,
            "fileMode": self.mode,
            "uid": self.uid,
            "gid": self.gid,
        }

    def rule(self, permissions: str) -> Rule:
        return f"/dev/{_KINDS[self.kind][0]}/{self.major}:{self.minor}", permissions


def check_permissions(text: str) -> str:
    """Letters of rwm, each once.  Raises BadParameter."""
    if not text or set(text) - set("rwm") or len(set(text)) < len(text):
        raise BadParameter(f"invalid device mode: {text}: it must be letters of rwm")
    return text


def parse_rule(text: str) -> tuple[Rule, ...]:
    """One ``--device-cgroup-rule``: "c 10:* rwm".

    Raises BadParameter; NotSupported for a minor number of any major, which systemd has no words for.
    """
    found = _RULE.fullmatch(text)
    if found is None:
        raise BadParameter(f"invalid device cgroup rule format: '{text}': it must be as in 'c 10:* rwm'")
    kind, major, minor, permissions = found.groups()
    if major == "*" and minor != "*":
        raise NotSupported(f"the device cgroup rule '{text}' is not supported: a minor number needs its major one")
    permissions = "".join(letter for letter in "rwm" if letter in permissions)
    if minor == "*":
        return tuple((f"{name}-{major}", permissions) for name in _KINDS[kind])
    return tuple((f"/dev/{name}/{major}:{minor}", permissions) for name in _KINDS[kind])


def oci_rules(rules: Iterable[Rule]) -> list[dict[str, Any]]:
    """``linux.resources.devices`` for a runtime that does not leave the control group alone; no rules: every device."""
    found: list[dict[str, Any]] = []
    for device, access in rules:
        match = _NODE_OR_MAJOR.fullmatch(device)
        if match is None:  # a driver's name: the terminals, which every runtime allows by itself
            continue
        entry: dict[str, Any] = {"allow": True, "type": (match[1] or match[4])[0], "access": access}
        for key, number in (("major", match[2] or match[5]), ("minor", match[3])):
            if number and number != "*":
                entry[key] = int(number)
        found.append(entry)
    return [{"allow": not found, "access": "rwm"}, *found]


def nodes(on_host: str, in_container: str) -> tuple[Node, ...]:
    """The node ``on_host``, or all below it if it is a directory, with their places below ``in_container``.

    Raises BadParameter where there is no device.
    """
    try:
        status = os.stat(on_host)
        if not stat.S_ISDIR(status.st_mode):
            return (_node(status, on_host, in_container),)
        found = tuple(_below(os.path.realpath(on_host), in_container))
    except OSError as error:
        raise BadParameter(
            f'error gathering device information while adding custom device "{on_host}": {error.strerror}'
        ) from error
    if not found:
        raise BadParameter(f'error gathering device information while adding custom device "{on_host}": '
                           "there is no device in that directory")  # fmt: skip
    return found


def every_node(directory: str = "/dev") -> tuple[Node, ...]:
    """All devices of the host: what a privileged container gets."""
    return tuple(_below(directory, directory, _NOT_DEVICES))


def _below(directory: str, target: str, without: frozenset[str] = frozenset()) -> Iterator[Node]:
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
        place = os.path.join(target, entry.name)
        if entry.name in without:
            continue
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from _below(entry.path, place)
            elif not entry.is_symlink() and _is_device(status := entry.stat(follow_symlinks=False)):
                yield _node(status, entry.path, place)
        except FileNotFoundError:  # unplugged meanwhile
            continue


def _is_device(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)


def _node(status: os.stat_result, on_host: str, in_container: str) -> Node:
    if not _is_device(status):
        raise BadParameter(
            f'error gathering device information while adding custom device "{on_host}": not a device node'
        )
    return Node(
        path=in_container,
        kind="c" if stat.S_ISCHR(status.st_mode) else "b",
        major=os.major(status.st_rdev),
        minor=os.minor(status.st_rdev),
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
    )


def unique(found: Iterable[Node]) -> tuple[Node, ...]:
    """The last one for each place."""
    return tuple({os.path.normpath(node.path): node for node in found}.values())
