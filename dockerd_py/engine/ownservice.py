"""Services of ours that outlive the daemon: finding one, or starting one.

The host's own daemon has an installed unit for each.  A daemon that was started by hand beside it gets a transient
service of the same making.  Without systemd the program is a child of the daemon: a pipe tells it of the daemon's end.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Mapping

from dockerd_py import subprocesses, wire
from dockerd_py.errors import Conflict, PydockerdError, RuntimeFailed
from dockerd_py.units.base import Units
from dockerd_py.units.systemd import SystemdUnits

log = logging.getLogger(__name__)

START_SECONDS = 10.0
ENDING_SECONDS = 1.0


class OwnService:
    """One service, known by its socket.  ``unit`` is the installed one's name, and gives the transient one its own.

    ``argv`` runs it in the foreground; with ``--lifeline FD`` behind, it ends when that pipe does.
    """

    def __init__(
        self,
        path: str,
        units: Units,
        argv: list[str],
        *,
        unit: str,
        installed: bool,
        properties: Mapping[str, bool | int | str],
    ) -> None:
        self.path = path
        self._units = units
        self._argv = argv
        self._unit = unit
        self._installed = installed
        self._properties = properties
        self._transient = ""
        self._lifeline: int | None = None
        self._process: asyncio.subprocess.Process | None = None

    def is_alive(self) -> bool:
        try:
            wire.connect(self.path).close()
        except OSError:
            return False
        return True

    async def ensure(self) -> None:
        """See to it that somebody listens at the socket.  Raises PydockerdError."""
        if isinstance(self._units, SystemdUnits):
            await self._find_service(self._units, start=not self.is_alive())
        elif await self._is_there_to_stay():
            return
        else:
            await self._start_child()
        await self.back()

    async def _is_there_to_stay(self) -> bool:
        """A child of a daemon that was killed before us may still answer for a moment, and ends then."""
        deadline = asyncio.get_running_loop().time() + (ENDING_SECONDS if self._lifeline is None else 0)
        while self.is_alive():
            if asyncio.get_running_loop().time() >= deadline:
                return True
            await asyncio.sleep(0.005)
        return False

    async def back(self) -> None:
        """Wait until somebody listens.  Raises RuntimeFailed."""
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        while not self.is_alive():
            if asyncio.get_running_loop().time() > deadline:
                raise RuntimeFailed(f"{self._unit.removesuffix('.service')} did not open its socket {self.path}")
            await asyncio.sleep(0.01)

    async def close(self, *, idle: bool) -> None:
        """Let go of it.

        The installed one stays.  A transient one ends if nothing needs it (``idle``).  A child of ours ends.
        """
        if idle and self._transient and isinstance(self._units, SystemdUnits):
            try:
                await self._units.stop_unit(self._transient)
            except PydockerdError as error:
                log.warning("%s", error)
        self._drop_lifeline()
        if self._process is not None:
            await self._process.wait()

    async def _find_service(self, units: SystemdUnits, *, start: bool) -> None:
        if self._installed and (await units.unit_state(self._unit))[0] == "loaded":
            if start:
                await units.start_unit(self._unit)
            return
        stem = self._unit.removesuffix(".service")
        self._transient = f"{stem}-{hashlib.sha256(self.path.encode()).hexdigest()[:12]}.service"
        if not start:
            return
        log.info("starting %s", self._transient)
        try:
            await units.start_service(self._transient, self._argv, self._properties)
        except Conflict:
            log.debug("systemd is about to start %s again by itself", self._transient)
        except PydockerdError as error:
            raise RuntimeFailed(f"cannot start {self._transient}: {error}") from error

    async def _start_child(self) -> None:
        self._drop_lifeline()  # of one that was killed
        read_end, self._lifeline = os.pipe2(os.O_CLOEXEC)
        try:
            self._process = await subprocesses.spawn(
                [*self._argv, "--lifeline", str(read_end)], pass_fds=[read_end], new_session=True, env={}
            )
        finally:
            os.close(read_end)

    def _drop_lifeline(self) -> None:
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None
