"""Which kernel parameters a container may have for itself: those that belong to one of its namespaces (sysctl(8)).

Any other is the whole host's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from dockerd_py.errors import BadParameter

IPC, NETWORK, UTS = "ipc", "network", "uts"

_OF_IPC = frozenset(
    ("kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
     "kernel.shmmni", "kernel.shm_rmid_forced")
)  # fmt: skip
_OF_UTS = frozenset(("kernel.domainname",))
_NAME = re.compile(r"[a-zA-Z0-9_-]+(?:[./][a-zA-Z0-9_:@-]+)+")


def check(sysctls: Mapping[str, str], own: Collection[str]) -> None:
    """Raises BadParameter naming the first that a container with the namespaces ``own`` cannot have."""
    for name in sysctls:
        if not _NAME.fullmatch(name):
            raise BadParameter(f"invalid sysctl '{name}': it must be a name such as net.ipv4.ip_forward")
        namespace = namespace_of(name)
        if name.replace("/", ".") == "kernel.hostname":
            raise BadParameter("sysctl 'kernel.hostname' is not allowed: give the container a hostname instead")
        if not namespace:
            raise BadParameter(f"sysctl '{name}' is not in a separate kernel namespace: it is the whole host's")
        if namespace not in own:
            raise BadParameter(f"sysctl '{name}' is not allowed: the container shares the {namespace} namespace of it")


def namespace_of(name: str) -> str:
    """The kind of namespace that a parameter belongs to; "": none."""
    dotted = name if "." in name.partition("/")[0] else name.replace("/", ".")
    if dotted in _OF_IPC or dotted.startswith("fs.mqueue."):
        return IPC
    if dotted.startswith("net."):
        return NETWORK
    return UTS if dotted in _OF_UTS else ""
