"""Health checks: each running container that has one is looked at from time to time.

A probe is an exec that the engine runs itself.  What is known lies in the container's run directory after each probe,
so that a daemon that is started again goes on where the one before was, however that ended.  Only running containers
are looked at: not paused ones, and a probe that is under way when its container is paused or ends is killed and does
not count.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Iterable
from dataclasses import asdict

from dockerd_py.engine import forms, health_model
from dockerd_py.engine.events import EventLog
from dockerd_py.engine.execs import Execs
from dockerd_py.engine.health_model import SECOND, Health, Healthcheck, Probe
from dockerd_py.engine.lifecycle import Lifecycle
from dockerd_py.engine.model import ExecConfig, Status
from dockerd_py.engine.record import Paths, Record, with_state
from dockerd_py.errors import PydockerdError

log = logging.getLogger(__name__)

MAX_OUTPUT = 4096  # bytes of a probe's output that are kept
NOT_RUN = -1
_FILE = "health.json"


class HealthWatch:
    def __init__(self, paths: Paths, lifecycle: Lifecycle, execs: Execs, events: EventLog) -> None:
        self._paths = paths
        self._execs = execs
        self._events = events
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        lifecycle.on_change = self.update

    def resume(self, records: Iterable[Record]) -> None:
        """Go on with what an earlier daemon did."""
        for record in records:
            if record.state.running:
                known = self._load(record) or record.state.health
                started = health_model.at_start(record.config.healthcheck, known)
                record.state = with_state(record, health=known if started and known else started)
                self.update(record)

    def update(self, record: Record) -> None:
        """Begin or cease to look at a container, as its state has it."""
        wanted = record.state.status is Status.RUNNING and record.state.health is not None
        if not wanted:
            if task := self._watches.pop(record.id, None):
                task.cancel()
        elif record.id not in self._watches:
            task = self._watches[record.id] = asyncio.get_running_loop().create_task(self._watch(record))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """Let go of all; probes that are under way are ended."""
        self._watches.clear()
        tasks = list(self._ending)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, record: Record) -> None:
        check = record.config.healthcheck or Healthcheck()
        health = record.state.health or Health()
        started_at = record.state.started_at
        last = max(started_at, health.log[-1].end if health.log else 0)
        while True:
            now = time.time_ns()
            interval = health_model.interval(check, health, now - started_at)
            await asyncio.sleep(min(max(0, last + interval - now), interval) / SECOND)
            probe = await self._probe(record, check)
            last = probe.end
            if record.state.status is not Status.RUNNING:
                return
            before, health = health, health_model.after_probe(health, probe, check, started_at)
            record.state = with_state(record, health=health)
            self._save(record, health)
            if health.status is not before.status:
                self._events.publish(
                    "container", f"health_status: {health.status.value}", record.id, record.attributes()
                )

    async def _probe(self, record: Record, check: Healthcheck) -> Probe:
        start = time.time_ns()
        timeout = check.timeout or health_model.DEFAULT_TIMEOUT
        command = health_model.command_of(check, record.config.shell)
        config = ExecConfig(command, attach_stdout=True, attach_stderr=True)
        try:
            done = await self._execs.run(record.id, config, timeout=timeout / SECOND, limit=MAX_OUTPUT + 1)
        except (PydockerdError, OSError, asyncio.TimeoutError) as error:
            return Probe(start, time.time_ns(), NOT_RUN, str(error) or "the container's monitor does not answer")
        output = done.output[:MAX_OUTPUT].decode(errors="replace") + "..." * (len(done.output) > MAX_OUTPUT)
        if done.timed_out:
            failure = f"Health check exceeded timeout ({_duration(timeout)})"
            return Probe(start, time.time_ns(), NOT_RUN, f"{failure}: {output}" if output else failure)
        return Probe(start, time.time_ns(), done.exit_code, output)

    def _file(self, record: Record) -> str:
        return str(self._paths.run_directory(record.id) / _FILE)

    def _load(self, record: Record) -> Health | None:
        try:
            with open(self._file(record), encoding="utf-8") as file:
                return forms.load_health(json.load(file))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning("%s: what was known of its health cannot be read: %s", record.id, error)
            return None

    def _save(self, record: Record, health: Health) -> None:
        # Not in a thread: the run directory is in memory, and goes with its container, at a moment of its own.
        path = self._file(record)
        try:
            with open(path + "~", "w", encoding="utf-8", opener=_private) as file:
                json.dump(asdict(health), file)
            os.replace(path + "~", path)
        except OSError as error:
            log.warning("%s: its health cannot be written down: %s", record.id, error)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _duration(nanoseconds: int) -> str:
    """As Go prints a duration: 1m30s, 1.5s, 100ms."""
    if nanoseconds < SECOND:
        return f"{nanoseconds / health_model.MILLISECOND:.6f}".rstrip("0").rstrip(".") + "ms"
    whole, fraction = divmod(nanoseconds, SECOND)
    minutes, seconds = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{seconds}.{fraction:09d}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
