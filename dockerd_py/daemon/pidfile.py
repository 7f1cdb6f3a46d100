"""The pid file: one daemon a file, whatever became of the one before.

A living daemon holds a lock on its file, so a file without a lock is stale, whoever has its pid now.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from dockerd_py.errors import ConfigError


class PidFile:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def acquire(self) -> None:
        """Write our pid.  Raises ConfigError, naming the file, when a daemon holds it or it can't be written."""
        try:
            fd = self._open_locked()
        except BlockingIOError:
            raise ConfigError(
                f"the pid file {self.path} is held by a running pydockerd (pid {self._read()}): "
                "stop that one, or name another file with -p"
            ) from None
        except OSError as error:
            raise ConfigError(f"the pid file {self.path} cannot be written: {error.strerror}") from error
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        """Remove the file."""
        if self._fd is not None:
            self.path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = None

    def _open_locked(self) -> int:
        while True:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(fd).st_ino == os.stat(self.path).st_ino:
                    return fd
            except FileNotFoundError:
                pass  # its owner removed it just now: make a new one
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    def _read(self) -> str:
        try:
            return self.path.read_text().strip() or "unknown"
        except OSError:
            return "unknown"
