"""The engine as a whole: made once, recovered, asked, closed."""

from __future__ import annotations

import logging
import os
import socket
from functools import partial
from pathlib import Path

from dockerd_py import subprocesses
from dockerd_py.config import DEFAULT_EXEC_DRIVER, Config
from dockerd_py.engine import confine, host, logsettings, top
from dockerd_py.engine.confine import Facts
from dockerd_py.engine.connecting import Connecting
from dockerd_py.engine.containers import Containers
from dockerd_py.engine.contents import Contents
from dockerd_py.engine.ending import Ending
from dockerd_py.engine.events import EventLog
from dockerd_py.engine.execs import Execs
from dockerd_py.engine.forkserver import ForkServerLauncher
from dockerd_py.engine.graph import Graph
from dockerd_py.engine.health import HealthWatch
from dockerd_py.engine.images import Images
from dockerd_py.engine.lifecycle import Lifecycle
from dockerd_py.engine.linking import Linking
from dockerd_py.engine.model import Processes, Status
from dockerd_py.engine.nameservice import NameService
from dockerd_py.engine.naming import Naming
from dockerd_py.engine.networking import Networking
from dockerd_py.engine.networks import Networks
from dockerd_py.engine.pausing import Pausing
from dockerd_py.engine.record import Paths
from dockerd_py.engine.recovery import Recovery
from dockerd_py.engine.restarts import Restarts
from dockerd_py.engine.system_model import SystemInfo
from dockerd_py.engine.updates import Updates
from dockerd_py.engine.upkeep import Upkeep
from dockerd_py.engine.volumes import Volumes
from dockerd_py.errors import NotRunning, PydockerdError
from dockerd_py.nat.firewall.base import Firewall
from dockerd_py.nat.firewall.choose import open_firewall
from dockerd_py.nat.links import Links
from dockerd_py.runtime.runtimes import Runtimes
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
        execs: Execs,
        health: HealthWatch,
        volumes: Volumes,
        events: EventLog,
        default_log_driver: str,
        runtimes: Runtimes,
        networks: Networks,
        networking: Networking,
        connecting: Connecting,
        linking: Linking,
    ) -> None:
        self.config = config
        self.containers = containers
        self.images = images
        self.graph = Graph(store, images)
        self.contents = contents
        self.upkeep = upkeep
        self.execs = execs
        self.volumes = volumes
        self.events = events
        self.default_log_driver = default_log_driver
        self._store = store
        self._units = units
        self._launcher = launcher
        self._lifecycle = lifecycle
        self._health = health
        self._runtimes = runtimes
        self.networks = networks
        self.connecting = connecting
        self.linking = linking
        self._networking = networking
        self._runtime_version = ""

    @classmethod
    async def open(cls, config: Config) -> Engine:
        """Open the state below ``config.root``, find what runs, and bring both together.

        Raises ConfigError (another daemon uses the root, a missing runtime), StoreError, RuntimeFailed.
        """
        runtimes = Runtimes(str(config.exec_root / "runtime"), config.runtime)
        if config.exec_driver != DEFAULT_EXEC_DRIVER:
            log.info("the exec driver %s means %s", config.exec_driver, runtimes.default)
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
            volumes = Volumes(store, events)
            links = Links()
            names = NameService(config.exec_root, units, installed=config.is_default_instance)
            own = host.instance_digits(config)
            networks = Networks(config.network, store, links, events, instance=own)
            naming = Naming(networks, names, config.network.dns)
            networking = Networking(networks, links, partial(_open_firewall, config, own), naming, events)
            lifecycle = Lifecycle(config, paths, store, units, launcher, events, runtimes, volumes, networking)
            log_driver = config.log_driver or _choose_log_driver(units)
            logsettings.check(log_driver, config.log_options)
            ending = Ending(lifecycle, units, events)
            restarts = Restarts(config, lifecycle, units)
            pausing = Pausing(lifecycle, units, events)
            updates = Updates(store, lifecycle, units, events)
            facts = Facts(systemd=units.kind == "systemd", cgroup_version=units.cgroup_version)
            containers = Containers(
                paths, store, images, lifecycle, ending, restarts, pausing, updates, units, volumes, events,
                log_driver=log_driver, log_options=dict(config.log_options), runtimes=runtimes, facts=facts,
                networks=networks, networking=networking,
            )  # fmt: skip
            connecting = Connecting(store, networks, networking, containers, lifecycle, events)
            linking = Linking(paths, store, containers, lifecycle, networking)
            images.users, images.in_use = containers.users_of, containers.images_in_use
            contents = Contents(paths, store, containers, images, volumes, units, events, config.unpack_limit)
            upkeep = Upkeep(config, store, containers, images, contents, events)
            execs = Execs(config, paths, containers, lifecycle, units, events, runtimes)
            health = HealthWatch(paths, lifecycle, execs, events)
            engine = cls(
                config, store, units, launcher, lifecycle, containers, images, contents, upkeep, execs, health, volumes,
                events, log_driver, runtimes, networks, networking, connecting, linking,
            )  # fmt: skip
            await Recovery(
                paths, store, units, runtimes, containers, lifecycle, updates, execs, volumes, networks, networking,
                connecting, linking,
            ).run()  # fmt: skip
            health.resume(containers.records())
            linking.resume(containers.records())
            restarts.resume(containers.records())
        except BaseException:
            await store.close()
            raise
        return engine

    async def close(self) -> None:
        idle = not any(record.monitor for record in self.containers.records())
        self.events.close()
        await self._health.close()
        await self.containers.close()
        await self._lifecycle.close()
        await self._networking.close(idle=idle)
        await self._launcher.close(idle=idle)
        await self._units.close()
        await self._store.close()

    async def reload(self) -> None:
        """See to it that bridges and firewall are what they should be: somebody may have taken them away.

        Raises NetworkFailed.
        """
        await self.networks.restore()
        await self._networking.reapply()

    async def info(self) -> SystemInfo:
        states = [container.state.status for container in self.containers.list(all=True)]
        running = states.count(Status.RUNNING) + states.count(Status.RESTARTING)
        paused = states.count(Status.PAUSED)
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
            ipv4_forwarding=host.is_set("net/ipv4/ip_forward"),
            bridge_nf_iptables=host.is_set("net/bridge/bridge-nf-call-iptables"),
            bridge_nf_ip6tables=host.is_set("net/bridge/bridge-nf-call-ip6tables"),
            file_descriptors=len(os.listdir("/proc/self/fd")),
            event_listeners=self.events.listeners,
            runtime=self._runtimes.default,
            runtime_version=await self._version_of_runtime(),
            init_system="systemd" if self._units.kind == "systemd" else "none",
            warnings=self._warnings(),
            oom_kill_disable="memory" in controllers and self._units.cgroup_version == 1,
            runtimes=self._runtimes.installed(),
            security_options=confine.security_options(),
        )

    async def top(self, ref: str, ps_args: str = "") -> Processes:
        """The processes of a running container as ps(1) shows them.

        Raises NoSuchContainer, NotRunning, BadParameter, and PydockerdError with what ps complains of.
        """
        container = self.containers.get(ref)
        words = top.split(ps_args)
        if not container.state.running:
            raise NotRunning(f"Container {container.id} is not running")
        return await top.show(words, set(await self._units.processes(container.scope)))

    def _warnings(self) -> tuple[str, ...]:
        if self._units.kind == "systemd":
            return ()
        return (f"containers run in plain control groups, not in systemd scopes: {self._units.reason}",)

    async def _version_of_runtime(self) -> str:
        if not self._runtime_version:
            try:
                done = await subprocesses.run([self._runtimes.get("").binary, "--version"], timeout=10)
            except PydockerdError as error:
                return f"unknown: {error}"
            self._runtime_version = done.stdout.decode(errors="replace").partition("\n")[0]
        return self._runtime_version


async def _open_firewall(config: Config, instance: str) -> Firewall:
    return await open_firewall(config.network.firewall_backend, instance, enabled=config.network.iptables)


def _choose_log_driver(units: Units) -> str:
    return "journald" if units.kind == "systemd" and JOURNAL_SOCKET.exists() else "json-file"
