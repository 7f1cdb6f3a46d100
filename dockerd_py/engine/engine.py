"""The engine as a whole: made once, recovered, asked, closed."""

from __future__ import annotations

import logging
import os
import shutil
import socket
from pathlib import Path

from dockerd_py import subprocesses
from dockerd_py.config import Config
from dockerd_py.engine import host
from dockerd_py.engine.containers import Containers
from dockerd_py.engine.contents import Contents
from dockerd_py.engine.events import EventLog
from dockerd_py.engine.forkserver import ForkServerLauncher
from dockerd_py.engine.images import Images
from dockerd_py.engine.lifecycle import Lifecycle
from dockerd_py.engine.model import Status, SystemInfo
from dockerd_py.engine.record import Paths
from dockerd_py.engine.recovery import Recovery
from dockerd_py.engine.upkeep import Upkeep
from dockerd_py.errors import ConfigError, PydockerdError
from dockerd_py.runtime.crun import Crun
from dockerd_py.store.store import Store
from dockerd_py.units.base import Units
from dockerd_py.units.connect import connect_units

log = logging.getLogger(__name__)

JOURNAL_SOCKET = Path("/run/systemd/journal/socket")


class Engine:
    """Made by `Engine.open`; ended by `close`, which leaves every container running."""

    def __init__(
        self,
        config: Config,
        store: Store,
        units: Units,
        launcher: ForkServerLauncher,
        lifecycle: Lifecycle,
        containers: Containers,
        images: Images,
        contents: Contents,
        upkeep: Upkeep,
        events: EventLog,
        default_log_driver: str,
        runtime: Crun,
    ) -> None:
        self.config = config
        self.containers = containers
        self.images = images
        self.contents = contents
        self.upkeep = upkeep
        self.events = events
        self.default_log_driver = default_log_driver
        self._store = store
        self._units = units
        self._launcher = launcher
        self._lifecycle = lifecycle
        self._runtime = runtime
        self._runtime_version = ""

    @classmethod
    async def open(cls, config: Config) -> Engine:
        """Open the state below ``config.root``, find what runs, and bring both together.

        Raises ConfigError (another daemon uses the root, a missing runtime), StoreError, RuntimeFailed.
        """
        runtime = Crun(root=str(config.exec_root / "runtime"), binary=_find_runtime(config.runtime))
        paths = Paths(config)
        config.exec_root.mkdir(mode=0o711, parents=True, exist_ok=True)
        store = await Store.open(config.root, config.storage_driver, config.unpack_limit)
        try:
            os.chdir(store.working_directory)
            units = await connect_units()
            launcher = ForkServerLauncher(config.exec_root, units, installed=config.is_default_instance)
            await launcher.ensure()
            events = EventLog()
            images = Images(store, events)
            lifecycle = Lifecycle(config, paths, store, units, launcher, events, runtime)
            log_driver = config.log_driver or _choose_log_driver(units)
            containers = Containers(
                paths, store, images, lifecycle, events, log_driver=log_driver, runtime=Path(runtime.binary).name
            )
            images.users = containers.users_of
            contents = Contents(paths, store, containers, images, units, events, config.unpack_limit)
            upkeep = Upkeep(config, store, containers, images, contents, events)
            engine = cls(
                config, store, units, launcher, lifecycle, containers, images, contents, upkeep, events, log_driver,
                runtime,
            )  # fmt: skip
            await Recovery(paths, store, units, containers, lifecycle).run()
        except BaseException:
            await store.close()
            raise
        return engine

    async def close(self) -> None:
        idle = not any(record.monitor for record in self.containers.records())
        self.events.close()
        await self.containers.close()
        await self._lifecycle.close()
        await self._launcher.close(idle=idle)
        await self._units.close()
        await self._store.close()

    async def info(self) -> SystemInfo:
        states = [container.state.status for container in self.containers.list(all=True)]
        running, paused = states.count(Status.RUNNING), states.count(Status.PAUSED)
        uname = os.uname()
        os_release = host.os_release()
        controllers = host.controllers()
        return SystemInfo(
            id=host.instance_id(self.config.root),
            name=socket.gethostname(),
            containers=len(states),
            running=running,
            paused=paused,
            stopped=len(states) - running - paused,
            images=len(self.images),
            driver=self._store.driver.name,
            driver_status=(("Backing Filesystem", host.filesystem_of(self._store.driver.home)),),
            log_driver=self.default_log_driver,
            cgroup_driver=self._units.kind,
            cgroup_version=str(self._units.cgroup_version),
            root=str(self.config.root),
            debug=self.config.debug,
            kernel_version=uname.release,
            operating_system=os_release.get("PRETTY_NAME", uname.sysname),
            os_version=os_release.get("VERSION_ID", ""),
            architecture=uname.machine,
            cpus=os.cpu_count() or 1,
            memory=host.memory(),
            memory_limit="memory" in controllers,
            swap_limit="memory" in controllers,
            cpu_limit="cpu" in controllers,
            pids_limit="pids" in controllers,
            ipv4_forwarding=host.forwards_ipv4(),
            file_descriptors=len(os.listdir("/proc/self/fd")),
            event_listeners=self.events.listeners,
            runtime=Path(self._runtime.binary).name,
            runtime_version=await self._version_of_runtime(),
            init_system="systemd" if self._units.kind == "systemd" else "none",
            warnings=self._warnings(),
        )

    def _warnings(self) -> tuple[str, ...]:
        if self._units.kind == "systemd":
            return ()
        return (f"containers run in plain control groups, not in systemd scopes: {self._units.reason}",)

    async def _version_of_runtime(self) -> str:
        if not self._runtime_version:
            try:
                done = await subprocesses.run([self._runtime.binary, "--version"], timeout=10)
            except PydockerdError as error:
                return f"unknown: {error}"
            self._runtime_version = done.stdout.decode(errors="replace").partition("\n")[0]
        return self._runtime_version


def _find_runtime(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise ConfigError(f"the OCI runtime {name!r} is not installed: install it (package crun), or name another")
    return path


def _choose_log_driver(units: Units) -> str:
    return "journald" if units.kind == "systemd" and JOURNAL_SOCKET.exists() else "json-file"
