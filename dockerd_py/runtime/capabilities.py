"""The capabilities of a container: Docker's default fourteen, all that there are, and what is asked for of them.

Names are as the OCI runtime wants them, ``CAP_CHOWN``; the order is the kernel's (capabilities(7)).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from dockerd_py.errors import BadParameter

EVERY = "ALL"
"""What a user writes for all of them."""

ALL = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip
"""Every capability that has a name, at the index that is its number."""

DEFAULT = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
    "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_AUDIT_WRITE",
    "CAP_SETFCAP",
)  # fmt: skip
"""What a container gets when nothing is said."""


def known(last_cap: Path = Path("/proc/sys/kernel/cap_last_cap")) -> tuple[str, ...]:
    """The capabilities that this kernel has."""
    return ALL[: int(last_cap.read_text()) + 1]


def available(status: Path = Path("/proc/self/status")) -> tuple[str, ...]:
    """The capabilities that this process may hand on: its bounding set.

    Fewer than `known` where the daemon itself runs confined.  The runtime refuses a container that asks for
    more, so a privileged container gets these, and the default set is cut to them.
    """
    for line in status.read_text().splitlines():
        if line.startswith("CapBnd:"):
            mask = int(line.split()[1], 16)
            return tuple(name for number, name in enumerate(ALL) if mask >> number & 1)
    raise ValueError(f"{status} has no line CapBnd")


def parse(names: Iterable[str]) -> tuple[str, ...]:
    """Names as users write them, with or without CAP_, in any case; "ALL" stays.  Raises BadParameter."""
    found = []
    for name in names:
        upper = name.upper()
        if upper != EVERY:
            upper = upper if upper.startswith("CAP_") else f"CAP_{upper}"
            if upper not in ALL:
                raise BadParameter(f'invalid capability: "{name}": there is none of that name, see capabilities(7)')
        found.append(upper)
    return tuple(found)


def effective(add: Iterable[str], drop: Iterable[str], *, privileged: bool, mine: Sequence[str]) -> tuple[str, ...]:
    """What a container gets, in the kernel's order, of a daemon that has ``mine``.

    As in Docker, what is added by its name is there even if ALL are dropped, or itself; of ALL, what is dropped is
    left out.  Raises BadParameter for a name that is unknown, or that this host has not to give.
    """
    added, dropped = set(parse(add)), set(parse(drop))
    if privileged:
        return tuple(mine)
    for name in sorted(added - {EVERY}):
        if name not in mine:
            raise BadParameter(
                f'invalid capability: "{name}": the daemon itself does not have it here, so it cannot give it on'
            )
    if EVERY in added:
        wanted = set(mine) - dropped
    elif EVERY in dropped:
        wanted = added
    else:
        wanted = (set(DEFAULT) - dropped) | added
    return tuple(name for name in mine if name in wanted)
