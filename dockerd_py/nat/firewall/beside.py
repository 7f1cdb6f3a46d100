"""The other kind of tables: the passage through their filter, and what an earlier run of ours has left there.

A kernel can have both: the legacy tables, and those of nf_tables that iptables-nft fills. A packet passes both, and
the drop of either is final. Our rules are in one of them; where somebody uses the other one for its filter (a dockerd,
with its policy DROP), our bridges are let through there, too. A table that nobody uses is not made for it.

A daemon that has had the other backend until now finds its own rules there: they go when its new ones are in force.
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

    def forget_rules(self) -> None:
        """Take away all rules, but for the passage."""

    def clear(self) -> None:
        """Take away the passage, too."""


class OtherTables:
    """Blocking. Failures go to the log: what is ours is in force without it."""

    def __init__(
        self, filter_in_use: Callable[[], bool], any_in_use: Callable[[], bool], make: Callable[[], Passage]
    ) -> None:
        """The first two say whether somebody has a filter there, or anything; only then is ``make`` called."""
        self._filter_in_use, self._any_in_use, self._make = filter_in_use, any_in_use, make
        self._made: Passage | None = None

    def let_through(self, plans: Plans) -> None:
        try:
            if self._filter_in_use():
                self._passage.let_through(plans)
        except NetworkFailed as error:
            log.warning("another firewall's filter may drop what containers send: %s", error)

    def forget_rules(self) -> None:
        try:
            if self._any_in_use():
                self._passage.forget_rules()
        except NetworkFailed as error:
            log.info("firewall: rules of an earlier run may be left in the other kind of tables: %s", error)

    def clear(self) -> None:
        with suppress(NetworkFailed):
            if self._any_in_use():
                self._passage.clear()

    @property
    def _passage(self) -> Passage:
        if self._made is None:
            self._made = self._make()
        return self._made


def legacy_in_use() -> bool:
    return any(tables_in_use(family) for family in (4, 6))


def legacy_filter_in_use() -> bool:
    return any("filter" in tables_in_use(family) for family in (4, 6))


def tables_in_use(family: int) -> tuple[str, ...]:
    """The legacy tables that the kernel has made; asking makes none."""
    with suppress(OSError), open(f"/proc/thread-self/net/ip{'6' * (family == 6)}_tables_names") as listed:
        return tuple(listed.read().split())
    return ()
