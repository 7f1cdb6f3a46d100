"""The choice between systemd and plain control groups: made once, at start, and said in the log and in `info`."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from dockerd_py.errors import ConfigError, PydockerdError
from dockerd_py.units.base import Kind, Units
from dockerd_py.units.cgroupfs import CgroupfsUnits
from dockerd_py.units.systemd import SystemdUnits

log = logging.getLogger(__name__)


async def connect_units(wanted: Kind | None = None) -> Units:
    """systemd where it is PID 1 and answers on the system bus, else plain control groups.

    ``wanted`` forces one of them: then ConfigError says why it cannot be had.  Without it, PydockerdError is raised
    only where there are no control groups at all.
    """
    if wanted != "cgroupfs":
        units, reason = await _systemd()
        if units is not None:
            log.info("containers run in systemd scopes (%s)", reason)
            return units
        if wanted == "systemd":
            raise ConfigError(f"systemd cannot be used: {reason}")
    else:
        reason = "the configuration asks for it"
    cgroupfs = CgroupfsUnits(reason)
    log.info(
        "containers run in plain control groups of version %d: %s; controllers: %s",
        cgroupfs.cgroup_version,
        reason,
        " ".join(sorted(cgroupfs.controllers)) or "none",
    )
    return cgroupfs


async def _systemd() -> tuple[SystemdUnits | None, str]:
    if not os.path.isdir("/run/systemd/system"):  # noqa: ASYNC240 - a tmpfs
        return None, "systemd does not run here"
    if not _first_process_is_systemd():
        return None, "process 1 is not systemd"
    units = SystemdUnits()
    try:
        version = await units.connect()
    except PydockerdError as error:
        await units.close()
        return None, f"systemd does not answer on the system bus: {error}"
    units.reason = f"systemd {version}"
    return units, units.reason


def _first_process_is_systemd() -> bool:
    try:
        return os.path.basename(os.readlink("/proc/1/exe")).removesuffix(" (deleted)") == "systemd"
    except OSError:  # another user namespace's process
        return Path("/proc/1/comm").read_text().strip() == "systemd"
