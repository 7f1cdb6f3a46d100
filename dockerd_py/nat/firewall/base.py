"""The firewall as the engine sees it, and what it asks of a backend.

`Firewall` takes the whole of what is to hold and brings the kernel there. A backend is plain blocking code that runs
in one thread of its own; it is told what was applied last and what is wanted, and does the difference in one
transaction, or fails and leaves what was there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

from dockerd_py.errors import PydockerdError
from dockerd_py.nat.firewall import bridgefilter
from dockerd_py.nat.firewall.beside import OtherTables
from dockerd_py.nat.firewall.firewalld import Firewalld
from dockerd_py.nat.firewall.rules import Planner, Plans
from dockerd_py.nat.model import Rules

log = logging.getLogger(__name__)

T = TypeVar("T")


class Firewall(Protocol):
    """``name`` is that of the backend, or "none"."""

    name: str

    async def apply(self, rules: Rules) -> None:
        """Bring the kernel to ``rules``; returns when they, or later ones, are in force.

        Bridges with ``icc=False`` have to exist. Raises NetworkFailed (what was in force before still is) and
        BadParameter.
        """
        ...

    async def reapply(self) -> None:
        """Somebody may have flushed the kernel's rules: put everything back. Fine before the first apply."""
        ...

    async def clear(self) -> None:
        """Remove all that is ours."""
        ...

    async def close(self) -> None:
        """Let go of the kernel; the rules stay."""
        ...


class Backend(Protocol):
    """Blocking; called from one thread. Raises NetworkFailed, and then leaves what was there."""

    name: str

    def replace(self, plans: Plans) -> None:
        """Make it so, whatever is there, of an earlier daemon's too."""
        ...

    def change(self, old: Plans, new: Plans) -> None:
        """Make ``new`` of ``old``; may fail where somebody else has touched what is ours."""
        ...

    def clear(self) -> None: ...

    def close(self) -> None: ...


@dataclass
class _Waiting:
    rules: Rules
    done: asyncio.Future[None]


class KernelFirewall:
    """A Firewall on a backend.

    Calls that come in while one is at work are done together afterwards, with the last one's rules: each holds what
    the ones before wanted. If that fails, they are done one by one, so that only those fail that cannot be.
    """

    def __init__(
        self, backend: Backend, others: OtherTables, families: tuple[int, ...], worker: ThreadPoolExecutor
    ) -> None:
        self.name = backend.name
        self._backend = backend
        self._others = others
        self._planner = Planner(families)
        self._worker = worker
        self._lock = asyncio.Lock()
        self._waiting: list[_Waiting] = []
        self._applied: Plans | None = None
        self._known = False  # whether the kernel has what we applied
        self._filtered: dict[str, int] = {}  # the bridges that we have had it filter
        self._firewalld: Firewalld | None = None

    async def live_beside_firewalld(self) -> None:
        """If there is one, now or later."""
        self._firewalld = await Firewalld.open(self.reapply)

    @property
    def bridges(self) -> tuple[str, ...]:
        return self._applied[0].bridges if self._applied else ()

    async def apply(self, rules: Rules) -> None:
        waiting = _Waiting(rules, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        round_ = asyncio.ensure_future(self._round())
        round_.add_done_callback(_log_failure)
        await waiting.done

    async def _round(self) -> None:
        async with self._lock:
            batch, self._waiting = self._waiting, []
            if not batch:
                return
            try:
                await self._bring(batch[-1].rules)
            except PydockerdError as error:
                if len(batch) > 1:
                    await self._one_by_one(batch)
                else:
                    _fail(batch[0], error)
            except BaseException as error:
                for waiting in batch:
                    _fail(waiting, error)
                raise
            for waiting in batch:
                if not waiting.done.done():
                    waiting.done.set_result(None)

    async def _one_by_one(self, batch: list[_Waiting]) -> None:
        for waiting in batch:
            try:
                await self._bring(waiting.rules)
            except PydockerdError as error:
                _fail(waiting, error)

    async def _bring(self, rules: Rules) -> None:
        wanted = self._planner.plans(rules)
        identities = bridgefilter.identities(wanted)
        if self._known and wanted == self._applied and identities == self._filtered:
            return
        before = self.bridges
        await bridgefilter.ensure_module(wanted)
        await self._in_thread(lambda: self._transact(wanted))
        self._applied, self._known, self._filtered = wanted, True, identities
        if self.bridges != before:
            await self._tell_firewalld()

    def _transact(self, wanted: Plans) -> None:
        bridgefilter.turn_on(wanted)
        if self._known and self._applied is not None:
            try:
                self._backend.change(self._applied, wanted)
                if wanted[0].bridges != self._applied[0].bridges:
                    self._others.let_through(wanted)
            except PydockerdError as error:
                # Ours may have been flushed meanwhile; if not, this fails again, and for its own reason.
                log.info("firewall: %s; all rules are written anew", error)
            else:
                return
        self._known = False
        try:
            self._backend.replace(wanted)
            if self._applied is None:
                self._others.forget_rules()
            self._others.let_through(wanted)
        except PydockerdError:
            if self._applied is not None:
                self._backend.replace(self._applied)
                self._known = True
            raise

    async def reapply(self) -> None:
        async with self._lock:
            if (applied := self._applied) is not None:
                await self._in_thread(lambda: self._write_anew(applied))
        await self._tell_firewalld()

    async def _tell_firewalld(self) -> None:
        if self._firewalld is not None:
            await self._firewalld.trust(self.bridges)

    def _write_anew(self, applied: Plans) -> None:
        self._known = False
        bridgefilter.turn_on(applied)
        self._backend.replace(applied)
        self._others.let_through(applied)
        self._known = True

    def _remove_all(self) -> None:
        self._others.clear()
        self._backend.clear()

    async def clear(self) -> None:
        async with self._lock:
            await self._in_thread(self._remove_all)
            self._applied, self._known = None, False
        await self._tell_firewalld()

    async def close(self) -> None:
        if self._firewalld is not None:
            await self._firewalld.close()
        async with self._lock:
            await self._in_thread(self._backend.close)
            self._worker.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """What has begun in the thread is waited for even when the caller is cancelled, so that none overlap."""
        begun = asyncio.get_running_loop().run_in_executor(self._worker, work)
        try:
            return await asyncio.shield(begun)
        except asyncio.CancelledError:
            with contextlib.suppress(PydockerdError):
                await begun
            raise


class NoFirewall:
    """--iptables=false: touches nothing; published ports are relayed."""

    name = "none"

    async def apply(self, rules: Rules) -> None:
        """Nothing."""

    async def reapply(self) -> None:
        """Nothing."""

    async def clear(self) -> None:
        """Nothing."""

    async def close(self) -> None:
        """Nothing."""


def _fail(waiting: _Waiting, error: BaseException) -> None:
    if waiting.done.done():
        return
    if isinstance(error, asyncio.CancelledError):
        waiting.done.cancel()
    else:
        waiting.done.set_exception(error)


def _log_failure(round_: asyncio.Future[None]) -> None:
    if not round_.cancelled() and (error := round_.exception()) is not None:
        log.error("firewall: %s", error, exc_info=error)
