"""Whether processes of the container were killed for want of memory: the kernel's own count, watched as it changes.

The count goes away with the control group, which may be soon after the last process.  So it is read whenever the
kernel says that it has changed: by a poll of memory.events (version 2, cgroup-v2 "memory.events"), or by an eventfd
that is registered beside memory.oom_control (version 1, cgroup-v1 memory.rst section 10).
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable

from dockerd_py.monitor.loop import Loop


class OomWatch:
    def __init__(self, loop: Loop, path: str, changed: Callable[[], None]) -> None:
        """``path``: memory.events or memory.oom_control, "" for none.  ``changed`` is called at each new shortage."""
        self._loop = loop
        self._changed = changed
        self._file = self._event = -1
        self._first = self._count = 0
        self._gone = self._short = False
        if not path:
            return
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return  # the container is started all the same; its end will not say why
        self._read()
        self._first = self._count
        if path.endswith("memory.events"):
            loop.watch(self._file, select.EPOLLPRI, lambda _: self._counted())
        else:
            self._register(os.path.dirname(path))

    @property
    def killed(self) -> bool:
        """Whether anything was killed since the watch began."""
        if self._file >= 0:
            self._read()
        return self._count > self._first or (self._gone and self._short)

    def close(self) -> None:
        for fd in (self._file, self._event):
            if fd >= 0:
                self._loop.unwatch(fd)
                os.close(fd)
        self._file = self._event = -1

    def _register(self, directory: str) -> None:
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            with open(os.path.join(directory, "cgroup.event_control"), "w", encoding="ascii") as control:
                control.write(f"{self._event} {self._file}")
        except OSError:
            os.close(self._event)
            self._event = -1
            return
        self._loop.watch(self._event, select.EPOLLIN, lambda _: self._notified())

    def _notified(self) -> None:
        """Memory is short: version 1 says so before it kills, and nothing afterwards."""
        try:
            os.eventfd_read(self._event)
        except BlockingIOError:
            return
        self._read()
        if not self._gone:  # the end of the group is told the same way
            self._short = True
            self._changed()

    def _counted(self) -> None:
        before = self._count
        self._read()
        if self._count > before:
            self._changed()

    def _read(self) -> None:
        """The line ``oom_kill N``."""
        try:
            text = os.pread(self._file, 4096, 0).decode("ascii")
        except OSError:
            self._gone = True
            return
        for line in text.splitlines():
            name, _, number = line.partition(" ")
            if name == "oom_kill":
                self._count = int(number)
