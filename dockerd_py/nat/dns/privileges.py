"""Giving up every privilege, for good, once all that needs one is done."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import resource
import struct
from pathlib import Path

log = logging.getLogger(__name__)

USER = "pydockerd-dns"
NOBODY = 65534

_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 4, 24, 38, 47
_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522
_libc = ctypes.CDLL(None, use_errno=True)


def drop(directory: Path) -> None:
    """Become a user without rights, in a root directory that it can't even list.  Raises OSError.

    ``directory`` must be root's own and closed to others.  Afterwards the process has the descriptors that are open,
    and can make sockets of its own network namespace: nothing else.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # two for each container, one for each question
    user, group = _ids()
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    os.chroot(directory)
    os.chdir("/")
    for capability in range(last + 1):
        _prctl(_PR_CAPBSET_DROP, capability)
    with contextlib.suppress(OSError):  # a kernel without ambient capabilities
        _prctl(_PR_CAP_AMBIENT, _CLEAR_ALL)
    try:
        os.setgroups([])
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        log.warning("in this user namespace there is no user %d: the name service stays root, without rights", user)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    if _libc.capset(header, bytes(24)) != 0:
        raise OSError(ctypes.get_errno(), "capset: cannot give up capabilities")
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)


def _ids() -> tuple[int, int]:
    """Of USER, where the package has made it.  Not by NSS: it would load what the host has for users elsewhere."""
    with contextlib.suppress(OSError):
        for line in Path("/etc/passwd").read_bytes().splitlines():
            fields = line.split(b":")
            if fields[0] == USER.encode() and len(fields) > 3:
                return int(fields[2]), int(fields[3])
    return NOBODY, NOBODY


def _prctl(option: int, value: int) -> None:
    zero = ctypes.c_ulong(0)
    if _libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl {option}: {os.strerror(code)}")
