"""Restart policies: what is started again after its end, when, and when no longer.

The delay before a restart begins at a tenth of a second and doubles up to a minute; a container that ran for ten
seconds begins anew (Docker's figures).  What a user or an administrator has stopped stays stopped: `docker stop` and
`docker kill` say so themselves, `systemctl stop` of the scope is looked up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence

from dockerd_py.config import Config
from dockerd_py.engine import host, links
from dockerd_py.engine.lifecycle import LOST, LOST_EXIT_CODE, Lifecycle
from dockerd_py.engine.model import RestartPolicy, State, Status
from dockerd_py.engine.record import Record
from dockerd_py.errors import BadParameter, PydockerdError
from dockerd_py.units.base import Units

log = logging.getLogger(__name__)

POLICIES = ("", "no", "always", "unless-stopped", "on-failure")
FIRST_DELAY = 0.1  # seconds
MAX_DELAY = 60.0
LONG_ENOUGH = 10_000_000_000  # nanoseconds that a container ran for its delays to begin anew


def check(policy: RestartPolicy, *, auto_remove: bool) -> None:
    """Raises BadParameter for a policy that is none, or that has no place here."""
    if policy.name not in POLICIES:
        raise BadParameter(
            f"invalid restart policy: unknown policy '{policy.name}'; use one of: {', '.join(POLICIES[1:])}"
        )
    if policy.maximum_retries < 0:
        raise BadParameter("invalid restart policy: maximum retry count cannot be negative")
    if policy.maximum_retries and policy.name != "on-failure":
        raise BadParameter("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    if auto_remove and policy.name not in ("", "no"):
        raise BadParameter("can't create 'AutoRemove' container with restart policy")


class Restarts:
    def __init__(self, config: Config, lifecycle: Lifecycle, units: Units) -> None:
        self._config = config
        self._lifecycle = lifecycle
        self._units = units
        lifecycle.is_restarted = self._wants_restart

    def schedule(self, record: Record) -> None:
        """Start a container again that waits for it, after its delay."""
        if record.state.status is Status.RESTARTING and record.restart is None:
            record.restart = asyncio.get_running_loop().create_task(self._restart(record))

    def resume(self, records: Iterable[Record]) -> None:
        """What a daemon does about its containers' policies when it has begun its work: the targets of links first."""
        records = list(records)
        begun = {record.id: record.restart for record in records if record.restart is not None}
        for record in links.ordered(one for one in records if one.id not in begun and self._comes_up(one)):
            again = record.state.status is Status.RESTARTING
            targets = [begun[link.container] for link in record.host.links if link.container in begun]
            work = self._restart(record, targets) if again else self._start(record, again=False, after=targets)
            record.restart = begun[record.id] = asyncio.get_running_loop().create_task(work)

    async def close(self, records: Iterable[Record]) -> None:
        """Let go of all that wait; the next daemon goes on with them."""
        tasks = [record.restart for record in records if record.restart is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _wants_restart(self, record: Record, state: State) -> bool:
        """Whether a container that has just ended with ``state`` is started again."""
        policy = record.host.restart
        if state.stopped_by_hand or record.removing:
            return False
        match policy.name:
            case "always" | "unless-stopped":
                return True
            case "on-failure":
                left = not policy.maximum_retries or state.restarts < policy.maximum_retries
                return state.exit_code != 0 and left
            case _:
                return self._comes_back(record) and await self._went_down_with_host(state)

    def _comes_back(self, record: Record) -> bool:
        """The first year's ``-r``: what ran when the host went down runs again, where its client could not say."""
        if record.host.auto_remove or self._config.restart is False:
            return False
        return self._config.restart is True or record.host.restart.name == ""

    async def _went_down_with_host(self, state: State) -> bool:
        lost = state.exit_code == LOST_EXIT_CODE and state.error == LOST
        return lost or state.finished_at < host.booted_at() or await self._units.going_down()

    def _comes_up(self, record: Record) -> bool:
        """Whether it starts with the daemon."""
        policy = record.host.restart.name
        wanted = policy == "always" or (policy == "unless-stopped" and not record.state.stopped_by_hand)
        return record.state.status is Status.RESTARTING or (record.state.status is Status.EXITED and wanted)

    async def _restart(self, record: Record, after: Sequence[asyncio.Task[None]] = ()) -> None:
        state = record.state
        if state.started_at and state.finished_at - state.started_at >= LONG_ENOUGH:
            record.restart_delay = 0.0
        record.restart_delay = min(MAX_DELAY, 2 * record.restart_delay) or FIRST_DELAY
        await asyncio.sleep(record.restart_delay)
        if await self._units.going_down():
            return  # nothing is started any more; the next boot's daemon goes on with it
        if await self._units.stop_was_asked(record.scope, state.started_at):
            async with record.lock:
                record.restart = None
                await self._lifecycle.give_up_restart(record, stopped_by_hand=True)
            return
        await self._start(record, again=True, after=after)

    async def _start(self, record: Record, *, again: bool, after: Sequence[asyncio.Task[None]] = ()) -> None:
        """``after``: the starts of those that it is linked to."""
        try:
            if after:
                await asyncio.wait(after)
            await self._lifecycle.start(record, again=again)
        except PydockerdError as error:
            log.error("%s: cannot be started again: %s", record.id, error)
        finally:
            record.restart = None
