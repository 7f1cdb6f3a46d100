"""The lock on a root directory: one daemon at a time, and nobody who reads while it writes."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from dockerd_py.errors import ConfigError
from dockerd_py.store.files import make_directory, store_errors

LOCK_NAME = "pydockerd.lock"
_ROOT_MODE = 0o710


def take_root(root: Path) -> tuple[Path, int]:
    """Make the root directory and lock it; the kernel lets go of the lock when the process ends, however it does.

    Returns the absolute path (the process changes its directory later) and the descriptor that holds the lock.
    Raises ConfigError when another daemon has it, StoreError when it cannot be used.
    """
    root = root.absolute()
    lock = root / LOCK_NAME
    with store_errors(f"cannot use {root} as the root directory"):
        make_directory(root, _ROOT_MODE)
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = _owner(fd)
        os.close(fd)
        raise ConfigError(
            f"{root} is in use by another {owner}, which holds {lock}: stop it, or choose another root by -g",
        ) from error
    # The number is for messages only: a full disk is no reason not to start.  Written over, it needs no new block.
    with contextlib.suppress(OSError):
        os.ftruncate(fd, os.pwrite(fd, b"%d\n" % os.getpid(), 0))
    return root, fd


@contextlib.contextmanager
def held(root: Path) -> Iterator[None]:
    """Keep daemons off ``root`` for the length of the block, without changing anything there.

    Raises ConfigError when one has it, StoreError when it cannot be read.
    """
    lock = root / LOCK_NAME
    with contextlib.ExitStack() as stack:
        with store_errors(f"cannot use {root} as the root directory"):
            try:
                fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                # No daemon was ever here.
                os.stat(root)
            else:
                stack.callback(os.close, fd)
                try:
                    fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise ConfigError(
                        f"{root} is in use by {_owner(fd)}: stop it first "
                        "(systemctl stop pydockerd.socket pydockerd.service); containers go on running",
                    ) from None
        yield


def _owner(fd: int) -> str:
    pid = os.pread(fd, 32, 0).decode(errors="replace").strip()
    return f"pydockerd with process id {pid}" if pid else "pydockerd"
