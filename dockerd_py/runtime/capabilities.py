"""The capabilities of a container: Docker's default fourteen, and all that there are.

Names are as the OCI runtime wants them, ``CAP_CHOWN``; the order is the kernel's (capabilities(7)).
"""

from __future__ import annotations

from pathlib import Path

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
