"""The passage through the other kind of filter table.

A kernel can have both: the legacy tables, and those of nf_tables that iptables-nft fills. A packet passes both, and
the drop of either is final. Our rules are in one of them; where somebody uses the other one for its filter (a dockerd,
with its policy DROP), our bridges are let through there, too. A table that nobody uses is not made for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from dockerd_py.errors import NetworkFailed
from dockerd_py.nat.firewall.rules import Plans

log = logging.getLogger(__name__)


class Passage(Protocol):
    """What each backend has for it; blocking."""

    def let_through(self, plans: Plans) -> None: ...

    def stop_letting_through(self) -> None: ...


class OtherTables:
    """Blocking. Failures go to the log: what is ours is in force without it."""

    def __init__(self, in_use: Callable[[], bool], make: Callable[[], Passage]) -> None:
        """``in_use`` says whether somebody has a filter there; only then is ``make`` called."""
        self._in_use, self._make = in_use, make
        self._passage: Passage | None = None

    def let_through(self, plans: Plans) -> None:
        try:
            if not self._in_use():
                return
            if self._passage is None:
                self._passage = self._make()
            self._passage.let_through(plans)
        except NetworkFailed as error:
            log.warning("another firewall's filter may drop what containers send: %s", error)

    def clear(self) -> None:
        with suppress(NetworkFailed):
            if self._in_use():
                (self._passage or self._make()).stop_letting_through()


def legacy_filter_in_use() -> bool:
    return any("filter" in tables_in_use(family) for family in (4, 6))


def tables_in_use(family: int) -> tuple[str, ...]:
    """The legacy tables that the kernel has made; asking makes none."""
    with suppress(OSError), open(f"/proc/thread-self/net/ip{'6' * (family == 6)}_tables_names") as listed:
        return tuple(listed.read().split())
    return ()
