"""Finding the fork server, or starting one.

The host's own daemon has an installed service for it.  A daemon that was started by hand beside it gets a transient
service of the same making.  Without systemd the fork server is a child of the daemon: its monitors outlive both.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import sys
from pathlib import Path

import dockerd_py.monitor
from dockerd_py import subprocesses, wire
from dockerd_py.errors import PydockerdError, RuntimeFailed
from dockerd_py.monitor.supervisor import Config
from dockerd_py.runtime.monitors import ForkServer, ForkServerGone, Monitor
from dockerd_py.units.base import Units
from dockerd_py.units.systemd import SystemdUnits

log = logging.getLogger(__name__)

INSTALLED_UNIT = "pydockerd-monitor.service"
PROGRAM = os.path.join(os.path.dirname(dockerd_py.monitor.__file__), "__main__.py")
START_SECONDS = 10.0
SOCKET_NAME = "monitor.sock"
"""In the exec root."""

SERVICE_PROPERTIES: dict[str, bool | int | str] = {
    "Description": "Monitors of containers",
    "Type": "notify",
    "KillMode": "process",
    "Restart": "on-failure",
    "StartLimitIntervalUSec": 0,
    "TasksMax": 2**64 - 1,
    "OOMPolicy": "continue",
    # 0 does not lift the limit on every systemd; this does
    "LogRateLimitIntervalUSec": 1_000_000,
    "LogRateLimitBurst": 10_000_000,
    "CollectMode": "inactive-or-failed",
}


class ForkServerLauncher:
    def __init__(self, exec_root: Path, units: Units, *, installed: bool) -> None:
        self._path = str(exec_root / SOCKET_NAME)
        self._server = ForkServer(self._path)
        self._units = units
        self._installed = installed
        self._transient = ""
        self._lifeline: int | None = None
        self._process: asyncio.subprocess.Process | None = None

    async def spawn(self, config: Config) -> Monitor:
        """A new monitor, of a new fork server if the one we had is gone.  Raises RuntimeFailed."""
        try:
            return await self._server.spawn(config)
        except ForkServerGone:
            for path in wire.abandoned(os.path.join(config.directory, "monitor.sock")):
                os.unlink(path)
            await self.ensure()
            return await self._server.spawn(config)

    async def ensure(self) -> None:
        """See to it that a fork server answers, and that it is of our version.  Raises RuntimeFailed."""
        server = self._server
        try:
            if await asyncio.to_thread(server.renew):
                log.info("the fork server was of another version: it goes on as ours")
                await self._back()
        except OSError as error:
            log.debug("no fork server is there yet: %s", error)
        if isinstance(self._units, SystemdUnits):
            await self._find_service(self._units, start=not server.is_alive())
        elif server.is_alive():
            return
        else:
            await self._start_child()
        await self._back()

    async def _back(self) -> None:
        server = self._server
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        while not server.is_alive():
            if asyncio.get_running_loop().time() > deadline:
                raise RuntimeFailed(f"the fork server did not open its socket {self._path}")
            await asyncio.sleep(0.01)

    async def close(self, *, idle: bool) -> None:
        """Let go of the fork server.

        The installed one stays.  A transient service ends when there is no monitor (``idle``), and stays active for
        the sake of the others' logs.  A child of ours ends, its monitors live on.
        """
        if idle and self._transient and isinstance(self._units, SystemdUnits):
            try:
                await self._units.stop_unit(self._transient)
            except PydockerdError as error:
                log.warning("%s", error)
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None
        if self._process is not None:
            await self._process.wait()

    async def _find_service(self, units: SystemdUnits, *, start: bool) -> None:
        if self._installed and (await units.unit_state(INSTALLED_UNIT))[0] == "loaded":
            if start:
                await units.start_unit(INSTALLED_UNIT)
            return
        self._transient = f"pydockerd-monitor-{hashlib.sha256(self._path.encode()).hexdigest()[:12]}.service"
        if not start:
            return
        log.info("starting %s", self._transient)
        try:
            await units.start_service(self._transient, self._argv(), SERVICE_PROPERTIES)
        except PydockerdError as error:
            raise RuntimeFailed(f"cannot start {self._transient}: {error}") from error

    async def _start_child(self) -> None:
        read_end, self._lifeline = os.pipe2(os.O_CLOEXEC)
        try:
            self._process = await subprocesses.spawn(
                [*self._argv(), "--lifeline", str(read_end)], pass_fds=[read_end], new_session=True, env={}
            )
        finally:
            os.close(read_end)

    def _argv(self) -> list[str]:
        return [sys.executable, "-I", "-S", PROGRAM, self._path]
