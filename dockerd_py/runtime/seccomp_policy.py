"""What Docker's default filter forbids and the distribution's profile lets through, taken out of that profile.

The profile of golang-github-containers-common is made for containers that run containers: it allows unshare(2),
mount(2) and keyctl(2) to everybody.  A container that was not given CAP_SYS_ADMIN could so make a user namespace and
try the kernel's rarer paths with all capabilities in it.  Docker's default is that it cannot, and so it is here.  A
profile that says the same already comes out meaning what it meant.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

Rule = dict[str, Any]

GUARDED: Mapping[str, tuple[str, ...]] = {
    "CAP_SYS_ADMIN": (
        "fsconfig", "fsmount", "fsopen", "fspick", "mount", "mount_setattr", "move_mount", "open_tree", "pivot_root",
        "quotactl_fd", "setns", "umount", "umount2", "unshare",
    ),
    "CAP_SYS_BOOT": ("reboot",),
    "CAP_SYS_NICE": ("get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"),
    "CAP_SYS_PTRACE": ("pidfd_getfd", "process_madvise"),
    "CAP_SYSLOG": ("syslog",),
}  # fmt: skip
"""System calls that only a container with the capability may make."""

FORBIDDEN = ("add_key", "keyctl", "request_key")
"""Keyrings are not divided into namespaces as a container would need it."""

_NAMESPACE_FLAGS = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)  # clone(2)
_ADMIN = "CAP_SYS_ADMIN"
_SWAPPED = ["s390", "s390x"]  # where clone takes its flags second


def tighten(document: Mapping[str, Any]) -> dict[str, Any]:
    """``document``, a profile in Docker's format, with these calls guarded.

    Raises KeyError, TypeError or AttributeError where it is none.
    """
    guarded = {name for names in GUARDED.values() for name in names} | {*FORBIDDEN, "clone", "clone3"}
    kept = [rule for each in document["syscalls"] if (rule := _without(each, guarded)) is not None]
    return {**document, "syscalls": [*kept, *_rules()]}


def _without(rule: Mapping[str, Any], guarded: set[str]) -> Mapping[str, Any] | None:
    names = rule.get("names") or [rule["name"]]
    left = [name for name in names if name not in guarded]
    return {**rule, "names": left} if left else None


def _rules() -> list[Rule]:
    rules = []
    for capability, names in GUARDED.items():
        rules.append(_allow(names, includes={"caps": [capability]}))
        rules.append(_refuse(names, errno.EPERM, excludes={"caps": [capability]}))
    rules.append(_refuse(FORBIDDEN, errno.EPERM))
    # clone3's flags lie in memory, where a filter cannot look: without it the C library falls back to clone
    rules.append(_allow(("clone", "clone3"), includes={"caps": [_ADMIN]}))
    rules.append(_refuse(("clone3",), errno.ENOSYS, excludes={"caps": [_ADMIN]}))
    for index, where in ((0, {"excludes": {"caps": [_ADMIN], "arches": _SWAPPED}}),
                         (1, {"excludes": {"caps": [_ADMIN]}, "includes": {"arches": _SWAPPED}})):  # fmt: skip
        rules.append(_allow(("clone",), args=[_masked(index, sum(_NAMESPACE_FLAGS), 0)], **where))
        for flag in _NAMESPACE_FLAGS:
            rules.append(_refuse(("clone",), errno.EPERM, args=[_masked(index, flag, flag)], **where))
    return rules


def _allow(names: tuple[str, ...], **more: Any) -> Rule:
    return {"names": list(names), "action": "SCMP_ACT_ALLOW", **more}


def _refuse(names: tuple[str, ...], number: int, **more: Any) -> Rule:
    return {"names": list(names), "action": "SCMP_ACT_ERRNO", "errnoRet": number, **more}


def _masked(index: int, mask: int, value: int) -> dict[str, Any]:
    return {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}
