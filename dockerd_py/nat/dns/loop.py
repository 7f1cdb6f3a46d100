"""An event loop of the size that the service needs: epoll(7) and timers."""

from __future__ import annotations

import heapq
import itertools
import select
import time
from collections.abc import Callable

READ, WRITE = select.EPOLLIN, select.EPOLLOUT
EVENTS_A_ROUND = 64
_SPARE = 64  # timers that are over are taken out when they are more than these, and than half of all


class Timer:
    def __init__(self, loop: Loop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Fine when it is over."""
        if self._callback is not None:
            self._callback = None
            self._loop.forget_timer()

    def run(self) -> bool:
        """False when it was cancelled."""
        callback, self._callback = self._callback, None
        if callback is None:
            return False
        callback()
        return True

    @property
    def over(self) -> bool:
        return self._callback is None


class Loop:
    """Callbacks must stand a call for nothing: what they are called for may be gone when they are."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._cancelled = 0
        self._numbers = itertools.count()
        self._stopped = False

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """``callback`` gets the events; called as long as they last."""
        if fd in self._callbacks:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Before the descriptor is closed.  Fine when it is not watched."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(self, callback)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), timer))
        return timer

    def forget_timer(self) -> None:
        self._cancelled += 1
        if self._cancelled > max(_SPARE, len(self._timers) // 2):
            self._timers = [entry for entry in self._timers if not entry[2].over]
            heapq.heapify(self._timers)
            self._cancelled = 0

    def stop(self) -> None:
        self._stopped = True

    def run(self) -> None:
        """Until `stop`."""
        while not self._stopped:
            timeout = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else -1
            for fd, events in self._epoll.poll(timeout, EVENTS_A_ROUND):
                callback = self._callbacks.get(fd)
                if callback is not None:
                    callback(events)
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                if not heapq.heappop(self._timers)[2].run():
                    self._cancelled -= 1
