"""Changing a container's limits and restart policy, while it runs too, and all its settings before it starts.

The new settings are in the database, marked as being put in force, before the scope changes: recovery finishes what
a killed daemon has begun.
"""

from __future__ import annotations

from dockerd_py.engine import forms, resources
from dockerd_py.engine.events import EventLog
from dockerd_py.engine.lifecycle import Lifecycle
from dockerd_py.engine.model import HostConfig, Status
from dockerd_py.engine.mount_model import Mount
from dockerd_py.engine.record import Record
from dockerd_py.engine.restarts import check as check_restart_policy
from dockerd_py.errors import Conflict, PydockerdError
from dockerd_py.store.store import Store
from dockerd_py.store.tasks import uninterrupted
from dockerd_py.units.base import Limits, Units

UNKNOWN = Limits(
    memory=-2, memory_swap=-2, memory_reservation=-2, cpu_shares=-2, cpu_quota_per_sec_usec=-2, pids=-2
)  # fmt: skip
"""What a scope's limits are when nobody knows: all of them are written then."""


class Updates:
    def __init__(self, store: Store, lifecycle: Lifecycle, units: Units, events: EventLog) -> None:
        self._store = store
        self._lifecycle = lifecycle
        self._units = units
        self._events = events

    async def update(self, record: Record, change: HostConfig) -> None:
        """Put into force what ``change`` says of `resources.CHANGEABLE`; what it leaves out stays.

        Raises BadParameter, NotSupported, Conflict; the container is as it was then.
        """
        await uninterrupted(self._update(record, change))

    async def replace(
        self, record: Record, host: HostConfig, mounts: tuple[Mount, ...], *, log_driver: str, runtime: str
    ) -> None:
        """Put ``host``, which has been checked, in the place of all that a container, which does not run, was given.

        The caller holds its lock.  Raises Conflict when somebody is attached and the log would go elsewhere.
        """
        log = (log_driver, host.log_options, runtime)
        if record.monitor is not None and log != (record.log_driver, record.host.log_options, record.runtime):
            raise Conflict(f"container {record.name} is attached to: its log driver cannot change now")
        text = forms.dump_settings(record.config, host, mounts, log_driver=log_driver, runtime=runtime)

        async def keep() -> None:
            await self._store.containers.update_settings(record.id, text)
            record.host, record.mounts, record.log_driver, record.runtime = host, mounts, log_driver, runtime

        await uninterrupted(keep())

    async def finish(self, record: Record) -> None:
        """Recovery's part: an update was under way."""
        if record.state.running:
            await self._units.change_limits(record.scope, resources.limits_of(record.host), UNKNOWN)
        await self._lifecycle.save(record)

    async def _update(self, record: Record, change: HostConfig) -> None:
        async with record.lock:
            if record.gone or record.removing:
                raise Conflict(f"container {record.name} is being removed")
            if record.state.status is Status.RESTARTING and change.restart == HostConfig().restart:
                raise Conflict(f"Container {record.id} is restarting, wait until the container is running")
            before = record.host
            wanted = resources.changed(before, change)
            resources.check(wanted, resources.MIN_MEMORY)
            check_restart_policy(wanted.restart, auto_remove=wanted.auto_remove)
            await self._lifecycle.save(record, phase="updating")
            await self._keep(record, wanted)
            try:
                if record.state.running:
                    await self._change(record, wanted, before)
            except BaseException:
                await self._keep(record, before)
                raise
            finally:
                await self._lifecycle.save(record)
        self._events.publish("container", "update", record.id, record.attributes())

    async def _change(self, record: Record, wanted: HostConfig, before: HostConfig) -> None:
        new, old = resources.limits_of(wanted), resources.limits_of(before)
        try:
            await self._units.change_limits(record.scope, new, old)
        except PydockerdError as error:
            try:
                await self._units.change_limits(record.scope, old, new)
            except PydockerdError as second:
                raise PydockerdError(f"{error}; and what was changed could not be taken back: {second}") from error
            raise

    async def _keep(self, record: Record, host: HostConfig) -> None:
        record.host = host
        text = forms.dump_settings(
            record.config, host, record.mounts, log_driver=record.log_driver, runtime=record.runtime
        )
        await self._store.containers.update_settings(record.id, text)
