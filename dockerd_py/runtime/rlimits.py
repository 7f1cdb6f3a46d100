"""The resource limits of a container's processes (setrlimit(2)), and which of them this host lets us set."""

from __future__ import annotations

import resource
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from dockerd_py.errors import BadParameter

NAMES = (
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
    "rttime", "sigpending", "stack",
)  # fmt: skip
"""As ulimit options spell them: RLIMIT_CORE is ``core``."""

UNLIMITED = -1
DEFAULT_NOFILE = 1 << 20
_NUMBERS = {"locks": 10, "rttime": 15}  # which the module resource does not name
_INFINITY = (1 << 64) - 1  # as the OCI runtime wants it


class Rlimit(NamedTuple):
    type: str  # "RLIMIT_NOFILE"
    soft: int
    hard: int


def check(name: str, soft: int, hard: int) -> None:
    """Raises BadParameter for what is wrong on any host."""
    if name not in NAMES:
        raise BadParameter(f"invalid ulimit type: {name}: there are {', '.join(NAMES)}")
    if min(soft, hard) < UNLIMITED:
        raise BadParameter(f"invalid ulimit {name}: the limits are numbers from 0 on, or -1 for none")
    if hard != UNLIMITED and (soft == UNLIMITED or soft > hard):
        raise BadParameter(f"ulimit soft limit must be less than or equal to hard limit: {name}: {soft} > {hard}")


def check_allowed(
    name: str,
    hard: int,
    capabilities: Collection[str],
    *,
    nr_open: Path = Path("/proc/sys/fs/nr_open"),
) -> None:
    """Raises BadParameter where the kernel would refuse ``hard`` to a process like this one (setrlimit(2)): above
    its own hard limit without CAP_SYS_RESOURCE, or open files above fs.nr_open."""
    most = _most(name)
    if most != resource.RLIM_INFINITY and (hard == UNLIMITED or hard > most) and "CAP_SYS_RESOURCE" not in capabilities:
        raise BadParameter(
            f"ulimit {name}: this machine forbids more than {most} here, as the daemon's own hard limit is that and it "
            "lacks the capability CAP_SYS_RESOURCE to raise it; ask for less"
        )
    if name == "nofile":
        ceiling = int(nr_open.read_text())
        if hard == UNLIMITED or hard > ceiling:
            raise BadParameter(f"ulimit nofile: the kernel allows {ceiling} at most (sysctl fs.nr_open); ask for less")


def effective(given: Iterable[tuple[str, int, int]]) -> tuple[Rlimit, ...]:
    """The limits of a container that asks for ``given`` (name, soft, hard), in the runtime's form.

    Open files are 1048576 unless given, or this process's hard limit where that is lower.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    nofile = DEFAULT_NOFILE if most == resource.RLIM_INFINITY else min(DEFAULT_NOFILE, most)
    limits = {"nofile": (nofile, nofile)}
    limits |= {name: (soft, hard) for name, soft, hard in given}
    return tuple(
        Rlimit(f"RLIMIT_{name.upper()}", _spell(soft), _spell(hard)) for name, (soft, hard) in limits.items()
    )


def _most(name: str) -> int:
    number = _NUMBERS[name] if name in _NUMBERS else getattr(resource, f"RLIMIT_{name.upper()}")
    return resource.getrlimit(number)[1]


def _spell(limit: int) -> int:
    return _INFINITY if limit == UNLIMITED else limit
