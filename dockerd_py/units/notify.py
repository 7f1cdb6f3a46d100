"""Telling the service manager about ourselves: sd_notify(3) without libsystemd.  Does nothing where none listens."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

from dockerd_py.errors import PydockerdError


class Notifier:
    """Sends states to ``$NOTIFY_SOCKET``.

    The address is taken once, so that programs that are started later do not need the variable, nor see it.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        """Raises PydockerdError for an address of a form that sd_notify(3) does not know."""
        address = environ.get("NOTIFY_SOCKET", "")
        if address and address[0] not in "/@":
            raise PydockerdError(f"NOTIFY_SOCKET={address}: only a path or an abstract name (@...) is supported")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_interval = _watchdog_interval(environ)  # seconds between signs of life; None: not asked for

    @property
    def enabled(self) -> bool:
        return bool(self._address)

    def ready(self, status: str = "") -> bool:
        return self.send("READY=1", *_status(status))

    def status(self, text: str) -> bool:
        return self.send(*_status(text))

    def reloading(self) -> bool:
        """The clock's reading lets the manager tell this reload from an earlier one (Type=notify-reload)."""
        return self.send("RELOADING=1", f"MONOTONIC_USEC={_monotonic_usec()}")

    def stopping(self, status: str = "") -> bool:
        return self.send("STOPPING=1", *_status(status))

    def watchdog(self) -> bool:
        return self.send("WATCHDOG=1")

    def send(self, *assignments: str) -> bool:
        """Send ``KEY=value`` lines in one message.  False when nobody listens, or the manager's queue is full."""
        if not self._address or not assignments:
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sock:
            try:
                sock.sendto("\n".join(assignments).encode(), self._address)
            except OSError:
                return False
        return True


def _status(text: str) -> tuple[str, ...]:
    return (f"STATUS={' '.join(text.split())}",) if text else ()


def _watchdog_interval(environ: Mapping[str, str]) -> float | None:
    """Half of what sd_watchdog_enabled(3) allows; None unless it is meant for this process."""
    try:
        usec = int(environ.get("WATCHDOG_USEC", "0"))
        pid = int(environ.get("WATCHDOG_PID", "0") or "0")
    except ValueError:
        return None
    if usec <= 0 or pid not in (0, os.getpid()):
        return None
    return usec / 2_000_000


def _monotonic_usec() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
