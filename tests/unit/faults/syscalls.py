"""What a step is: a system call that changes something which outlives the process, and its description on one line.

Everything is read at the entry of the call from /proc and from the caller's memory.  Numbers come from libseccomp,
so that any machine will do.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Sequence

Arguments = Sequence[int]

_AT_FDCWD = -100
_CREATING = os.O_CREAT | os.O_TRUNC
_BTRFS_IOCTL = 0x94  # ioctl(2) numbers of btrfs, and of reflinks
_IP_LEVELS = (0, 41)  # SOL_IP, SOL_IPV6
_IPT_SO_SET_REPLACE = 64
_SEEN = 200

_NAMELESS = re.compile(r"\b[0-9a-f]{12,64}\b|\b[a-z2-7]{13}\b|(?<=\.probe-)\w+")


class Call:
    """One process at the entry of a system call."""

    def __init__(self, pid: int, arguments: Arguments) -> None:
        self.pid = pid
        self.arguments = arguments

    def fd(self, index: int = 0) -> str:
        """What a descriptor is open on: a path, or a word such as ``socket:``."""
        try:
            return os.readlink(f"/proc/{self.pid}/fd/{_signed(self.arguments[index])}")
        except OSError:
            return ""

    def text(self, index: int) -> str:
        """The string that an argument points to."""
        address = self.arguments[index]
        if not address:
            return ""
        data = b""
        with open(f"/proc/{self.pid}/mem", "rb", buffering=0) as memory:
            while b"\0" not in data and len(data) < 4096:
                # Not beyond the page: the next one may not be there.
                memory.seek(address + len(data))
                piece = memory.read(4096 - (address + len(data)) % 4096)
                if not piece:
                    break
                data += piece
        return os.fsdecode(data.partition(b"\0")[0])

    def word(self, index: int) -> int:
        """The 64 bits that an argument points to."""
        with open(f"/proc/{self.pid}/mem", "rb", buffering=0) as memory:
            memory.seek(self.arguments[index])
            return int.from_bytes(memory.read(8), "little")

    def path(self, index: int, directory: int | None = None) -> str:
        """A path argument as the host sees it, whatever root the process has."""
        name = self.text(index)
        if name.startswith("/"):
            base = os.readlink(f"/proc/{self.pid}/root")
        elif directory is None or _signed(self.arguments[directory]) == _AT_FDCWD:
            base = os.readlink(f"/proc/{self.pid}/cwd")
        else:
            base = self.fd(directory)
        return os.path.normpath(f"{base}/{name}")


Describe = Callable[[Call], str]
"""What the call changes, "" for nothing."""


def _signed(value: int) -> int:
    return ctypes.c_int(value).value


def _path(index: int, directory: int | None = None) -> Describe:
    return lambda call: call.path(index, directory)


def _two(first: int, second: int, first_at: int | None = None, second_at: int | None = None) -> Describe:
    return lambda call: f"{call.path(first, first_at)} -> {call.path(second, second_at)}"


def _open(path: int, flags: int, directory: int | None = None) -> Describe:
    return lambda call: call.path(path, directory) if call.arguments[flags] & _CREATING else ""


def _file(call: Call) -> str:
    found = call.fd()
    return found if found.startswith("/") and not found.startswith("/dev/") else ""


def _write(call: Call) -> str:
    """Into a file, or to another process: a client, a helper, a monitor.  One byte only wakes somebody up."""
    found = call.fd()
    if found.startswith(("socket:", "pipe:")):
        return found.partition(":")[0] if call.arguments[2] != 1 else ""
    return _file(call)


def _message(call: Call) -> str:
    return call.fd().partition(":")[0]


def _option(call: Call) -> str:
    """The one by which the legacy tables are replaced (linux/netfilter_ipv4/ip_tables.h)."""
    return "tables" if call.arguments[1] in _IP_LEVELS and call.arguments[2] == _IPT_SO_SET_REPLACE else ""


def _execute(call: Call) -> str:
    path = call.path(0)
    return path if os.access(path, os.X_OK) else ""  # else it tries the next directory of its path


def _signal(call: Call) -> str:
    return f"signal {call.arguments[1]}" if call.arguments[1] else ""


def _ioctl(call: Call) -> str:
    return _file(call) if call.arguments[1] >> 8 & 0xFF == _BTRFS_IOCTL else ""


_STEPS: dict[str, Describe] = {
    "open": _open(0, 1),
    "openat": _open(1, 2, 0),
    "openat2": lambda call: call.path(1, 0) if call.word(2) & _CREATING else "",
    "creat": _path(0),
    **dict.fromkeys(("write", "sendto", "sendfile"), _write),
    **dict.fromkeys(("pwrite64", "writev", "pwritev", "pwritev2", "ftruncate", "fallocate"), _file),
    **dict.fromkeys(("fsync", "fdatasync", "syncfs", "fchmod", "fchown", "fsetxattr", "fremovexattr"), _file),
    "sendmsg": _message,
    "setsockopt": _option,
    "copy_file_range": lambda call: call.fd(2),
    "ioctl": _ioctl,
    **dict.fromkeys(("truncate", "mkdir", "rmdir", "unlink", "mknod", "chmod", "chown", "lchown"), _path(0)),
    **dict.fromkeys(("setxattr", "lsetxattr", "removexattr", "lremovexattr"), _path(0)),
    **dict.fromkeys(("mkdirat", "unlinkat", "mknodat", "fchmodat", "fchownat", "utimensat"), _path(1, 0)),
    **dict.fromkeys(("rename", "link"), _two(0, 1)),
    **dict.fromkeys(("renameat", "renameat2", "linkat"), _two(1, 3, 0, 2)),
    "symlink": _path(1),
    "symlinkat": _path(2, 1),
    "mount": _path(1),
    "umount2": _path(0),
    "move_mount": _path(3, 2),
    "execve": _execute,
    **dict.fromkeys(("kill", "pidfd_send_signal"), _signal),
}


def numbers() -> dict[int, tuple[str, Describe]]:
    """From a system call's number on this machine to its name and what it changes."""
    library = ctypes.CDLL("libseccomp.so.2")
    found = {library.seccomp_syscall_resolve_name(name.encode()): (name, _STEPS[name]) for name in _STEPS}
    return {number: call for number, call in found.items() if number >= 0}


def shown(text: str, directory: str) -> str:
    """A description without what differs from run to run: ids, and where the daemon's directory is."""
    return _NAMELESS.sub("*", text.replace(f"{directory}/", ""))[:_SEEN]
