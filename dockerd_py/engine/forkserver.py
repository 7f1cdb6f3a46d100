"""Finding the fork server, or starting one: see `ownservice`.  Its monitors outlive it."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path

import dockerd_py.monitor
from dockerd_py import wire
from dockerd_py.engine.ownservice import OwnService
from dockerd_py.monitor.supervisor import Config
from dockerd_py.runtime.monitors import ForkServer, ForkServerGone, Monitor
from dockerd_py.units.base import Units

log = logging.getLogger(__name__)

INSTALLED_UNIT = "pydockerd-monitor.service"
PROGRAM = os.path.join(os.path.dirname(dockerd_py.monitor.__file__), "__main__.py")
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
        path = str(exec_root / SOCKET_NAME)
        self._server = ForkServer(path)
        self._service = OwnService(
            path,
            units,
            [sys.executable, "-I", "-S", PROGRAM, path],
            unit=INSTALLED_UNIT,
            installed=installed,
            properties=SERVICE_PROPERTIES,
        )

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
        try:
            if await asyncio.to_thread(self._server.renew):
                log.info("the fork server was of another version: it goes on as ours")
                await self._service.back()
        except OSError as error:
            log.debug("no fork server is there yet: %s", error)
        await self._service.ensure()

    async def close(self, *, idle: bool) -> None:
        """Let go of the fork server.

        The installed one stays.  A transient service ends when there is no monitor (``idle``), and stays active for
        the sake of the others' logs.  A child of ours ends, its monitors live on.
        """
        await self._service.close(idle=idle)
