"""How a container is made to end, and who waits for it.

`stop` and `kill` only send signals and hold no lock, but wait for a start that is under way: the end
is written down by `Lifecycle`, when it comes.
"""

from __future__ import annotations

import asyncio
from signal import SIGKILL

from dockerd_py.engine import signals
from dockerd_py.engine.events import EventLog
from dockerd_py.engine.lifecycle import Lifecycle, stop_seconds, stop_signal
from dockerd_py.engine.model import Status, WaitCondition, WaitResult
from dockerd_py.engine.record import Record, with_state
from dockerd_py.errors import AlreadyInState, NotRunning, TimedOut
from dockerd_py.runtime.monitors import MonitorGone, RequestFailed
from dockerd_py.units.base import Units

KILL_SECONDS = 10.0


class Ending:
    def __init__(self, lifecycle: Lifecycle, units: Units, events: EventLog) -> None:
        self._lifecycle = lifecycle
        self._units = units
        self._events = events

    async def stop(self, record: Record, timeout: int | None = None, signal: str = "") -> None:
        """Ask it to end with a signal, then kill it.

        timeout: seconds; None: the container's own, else 10; -1: wait for ever.  signal: "": its own stop signal.
        Raises BadParameter for the signal, AlreadyInState, TimedOut.
        """
        await self._stop(record, timeout, signals.parse(signal) if signal else 0)
        self._events.publish("container", "stop", record.id, record.attributes())

    async def restart(self, record: Record, timeout: int | None = None, signal: str = "") -> None:
        """Stop it as `stop` does, if it runs, and start it.  Raises as both do.

        One with --rm stays for its start; when this fails, or is given up before, it goes.
        """
        number = signals.parse(signal) if signal else 0
        record.stays = True
        try:
            await self._stop(record, timeout, number)
            self._events.publish("container", "stop", record.id, record.attributes())
            async with record.lock:
                pass  # now its end is over, which would have removed it
        except AlreadyInState:
            pass
        except BaseException:
            record.stays = False
            if not record.state.active:
                self._lifecycle.on_exit(record)
            raise
        record.stays = False
        await self._lifecycle.start(record)
        self._events.publish("container", "restart", record.id, record.attributes())

    async def kill(self, record: Record, signal: str = "SIGKILL") -> None:
        """Send a signal to its init.  After SIGKILL, returns once it has ended.

        Raises BadParameter, NotRunning.
        """
        number = signals.parse(signal or "SIGKILL")
        final = number in (SIGKILL, stop_signal(record))
        await self._after_start(record)
        if record.state.status is Status.RESTARTING:
            if final:
                await self._cancel_restart(record)
            return
        if final:
            await self._stopped_by_hand(record)
        ended = self._exit_of(record)
        await self._signal(record, number)
        self._events.publish("container", "kill", record.id, record.attributes(signal=str(number)))
        if number == SIGKILL:
            try:
                await asyncio.wait_for(ended, KILL_SECONDS)
            except asyncio.TimeoutError:
                raise TimedOut(f"container {record.name} did not end though it was killed") from None

    async def wait(self, record: Record, condition: WaitCondition = WaitCondition.NOT_RUNNING) -> WaitResult:
        """Its exit code, once the condition holds."""
        waiting = record.at_removal if condition is WaitCondition.REMOVED else record.at_exit
        if condition is WaitCondition.NOT_RUNNING and not record.state.active:
            if record.ending is None:
                return record.result
            waiting = record.ending
        future: asyncio.Future[WaitResult] = asyncio.get_running_loop().create_future()
        waiting.append(future)
        try:
            return await future
        finally:
            if future in waiting:
                waiting.remove(future)

    async def end_for_removal(self, record: Record) -> None:
        if record.state.status is Status.RESTARTING:
            await self._cancel_restart(record)
        if record.state.running:
            await self._stopped_by_hand(record)
            await self._kill_for_good(record)

    async def _after_start(self, record: Record) -> None:
        """Whoever has seen the output of a container may signal to it, though its start is not quite over."""
        if not record.state.active and record.lock.locked():
            async with record.lock:
                pass

    async def _cancel_restart(self, record: Record) -> None:
        """Somebody stops a container that waits for its policy's restart."""
        task, record.restart = record.restart, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        async with record.lock:
            await self._lifecycle.give_up_restart(record, stopped_by_hand=True)

    async def _signal(self, record: Record, number: int) -> None:
        """Send a signal to the container's init.  Raises NotRunning."""
        monitor = record.monitor
        if not record.state.running or monitor is None:
            raise NotRunning(f"Container {record.id} is not running")
        try:
            await monitor.request("kill", signal=number)
        except RequestFailed:
            raise NotRunning(f"Container {record.id} is not running") from None
        except MonitorGone:
            await self._units.kill(record.scope, number)
        if number in (SIGKILL, stop_signal(record)):
            await self._thaw(record)

    async def _thaw(self, record: Record) -> None:
        """What has been told to end must run for it."""
        if record.state.status is Status.PAUSED:
            record.state = with_state(record, status=Status.RUNNING)
            self._lifecycle.on_change(record)
            await self._lifecycle.save(record)
            await self._units.thaw(record.scope)
            self._events.publish("container", "unpause", record.id, record.attributes())

    async def _stopped_by_hand(self, record: Record) -> None:
        """Write down that its end is wanted, before it comes: no policy revives it then."""
        if not record.state.stopped_by_hand:
            record.state = with_state(record, stopped_by_hand=True)
            if record.host.restart.name not in ("", "no"):
                await self._lifecycle.save(record)

    async def _stop(self, record: Record, timeout: int | None, number: int = 0) -> None:
        """Ask the container to end, and end it when it does not within ``timeout`` seconds (-1: wait for ever).

        number: the signal to ask by; 0: its own stop signal.
        """
        await self._after_start(record)
        if record.state.status is Status.RESTARTING:
            await self._cancel_restart(record)
            return
        if not record.state.running:
            raise AlreadyInState(f"container {record.name} is already stopped")
        await self._stopped_by_hand(record)
        seconds = stop_seconds(record) if timeout is None else timeout
        number = number or stop_signal(record)
        if seconds and await self._signal_and_wait(record, number, None if seconds < 0 else seconds):
            return
        if not seconds:
            await self._signal_and_wait(record, number, 0)
        await self._kill_for_good(record)

    async def _kill_for_good(self, record: Record) -> None:
        """Send SIGKILL and await the end.  Raises TimedOut."""
        for _ in range(2):
            if await self._signal_and_wait(record, SIGKILL, KILL_SECONDS):
                return
        raise TimedOut(f"container {record.name} did not end though it was killed; is it stuck in the kernel?")

    async def _signal_and_wait(self, record: Record, number: int, timeout: float | None) -> bool:
        """Whether the container has ended, at the latest ``timeout`` seconds after the signal."""
        ended = self._exit_of(record)
        try:
            await self._signal(record, number)
            self._events.publish("container", "kill", record.id, record.attributes(signal=str(int(number))))
        except NotRunning:
            if not record.state.running:
                return True
        try:
            await asyncio.wait_for(ended, timeout)
        except asyncio.TimeoutError:
            return False
        return True

    def _exit_of(self, record: Record) -> asyncio.Future[WaitResult]:
        """Done at the container's next exit."""
        future: asyncio.Future[WaitResult] = asyncio.get_running_loop().create_future()
        record.at_exit.append(future)
        return future
