"""A thin wrapper of epoll(7): one handler a descriptor, and no system call when nothing changes."""

from __future__ import annotations

import select
from collections.abc import Callable

Handler = Callable[[int], object]


class Loop:
    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._events: dict[int, int] = {}

    def watch(self, fd: int, events: int, handler: Handler) -> None:
        """Call ``handler(events)`` when one of ``events`` happens; in place of what was said of ``fd`` before."""
        if fd not in self._handlers:
            self._epoll.register(fd, events)
        elif self._events[fd] != events:
            self._epoll.modify(fd, events)
        self._handlers[fd] = handler
        self._events[fd] = events

    def unwatch(self, fd: int) -> None:
        """Before ``fd`` is closed; harmless for one that is not watched."""
        if self._handlers.pop(fd, None) is not None:
            del self._events[fd]
            self._epoll.unregister(fd)

    def forget(self, fd: int) -> None:
        """After ``fd`` was closed elsewhere, which took it out of the kernel's set."""
        if self._handlers.pop(fd, None) is not None:
            del self._events[fd]

    def watches(self, fd: int) -> bool:
        return fd in self._handlers

    def fileno(self) -> int:
        """By which another loop watches this one."""
        return self._epoll.fileno()

    def close(self) -> None:
        self._epoll.close()

    def turn(self, timeout: float, most: int = -1) -> None:
        """Wait at most ``timeout`` seconds (-1: for ever) and call the handlers of what happened; of ``most``
        descriptors at most (-1: all), in turns."""
        for fd, events in self._epoll.poll(timeout, most):
            handler = self._handlers.get(fd)
            if handler is not None:
                handler(events)
