"""What a new container is to be: its settings checked against the host and completed, its mounts planned."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from dockerd_py import ids
from dockerd_py.engine import confine, forms, links, logsettings, lxcconf, mounts, names, settings
from dockerd_py.engine.confine import Facts
from dockerd_py.engine.isolation import CONTAINER, joined_container
from dockerd_py.engine.model import ContainerConfig, HostConfig, State
from dockerd_py.engine.mount_model import Mount
from dockerd_py.engine.network_model import BRIDGE, DEFAULT, EndpointRequest
from dockerd_py.engine.networks import Networks
from dockerd_py.engine.record import Paths, Record
from dockerd_py.engine.restarts import check as check_restart_policy
from dockerd_py.errors import NotSupported
from dockerd_py.runtime import files
from dockerd_py.runtime.crun import Runc
from dockerd_py.runtime.runtimes import Runtimes
from dockerd_py.store.containers import ContainerRow
from dockerd_py.store.store import Store


class Making:
    def __init__(
        self,
        paths: Paths,
        store: Store,
        find: Callable[[str], Record],
        *,
        log_driver: str,
        log_options: dict[str, str],
        runtimes: Runtimes,
        facts: Facts,
        networks: Networks,
    ) -> None:
        self._paths = paths
        self._store = store
        self._find = find
        self.log_driver = log_driver
        self._log_options = log_options
        self._runtimes = runtimes
        self._facts = facts
        self._networks = networks

    def new_record(
        self,
        image_id: str,
        config: ContainerConfig,
        host: HostConfig,
        mounted: tuple[Mount, ...],
        name: str,
        taken: Callable[[str], bool],
    ) -> Record:
        """A container that does not exist yet; without a ``name`` it gets one that is not ``taken``."""
        path, *args = settings.command_of(config)
        container_id = ids.new_id()
        return Record(
            id=container_id,
            name=name or names.generate(taken, container_id[:12]),
            image_id=image_id,
            created=time.time_ns(),
            config=replace(config, hostname=config.hostname or _default_hostname(container_id, host)),
            host=host,
            state=State(),
            driver=self._store.driver.name,
            log_driver=host.log_driver or self.log_driver,
            path=path,
            args=tuple(args),
            runtime=self.check_runtime(host.runtime),
            mounts=mounted,
        )

    def check(self, config: ContainerConfig, host: HostConfig, min_memory: int) -> tuple[HostConfig, Sequence[str]]:
        """The settings of a container, already merged with its image's, as they are kept; and warnings.

        Raises BadParameter, NotSupported, NoSuchContainer.
        """
        settings.command_of(config)
        host = self._with_links(self._on_networks(config, self._with_ids(lxcconf.apply(host))))
        warnings = settings.check(config, host, min_memory) + confine.check(config, host, self._facts)
        warnings += self._check_bridge(config, host)
        check_restart_policy(host.restart, auto_remove=host.auto_remove)
        host = replace(host, log_options=logsettings.effective(host, self.log_driver, self._log_options))
        logsettings.check(host.log_driver or self.log_driver, host.log_options)
        return host, warnings

    async def plan_mounts(self, config: ContainerConfig, host: HostConfig) -> tuple[Mount, ...]:
        """Raises BadParameter, NotSupported, NoSuchContainer."""
        planned = mounts.plan(
            config, host, mounts_of=self._mounts_of, data=self._store.volumes.data, root=self._paths.root
        )
        await asyncio.to_thread(mounts.check_sources, planned)
        return planned

    def check_runtime(self, asked: str) -> str:
        """The name of the runtime meant.  Raises BadParameter; NotSupported where it would leave the scope."""
        runtime = self._runtimes.get(asked)
        if isinstance(runtime, Runc) and not self._facts.systemd and self._facts.cgroup_version == 1:
            raise NotSupported(
                "the runtime runc is not supported here: it makes control groups of its own, and without systemd those "
                "of version 1 have no common path that it could be given; use crun"
            )
        return self._runtimes.name(runtime)

    def _mounts_of(self, ref: str) -> tuple[Mount, ...]:
        return self._find(ref).mounts

    def _with_ids(self, host: HostConfig) -> HostConfig:
        """With the full ids of the containers that it joins, which no renaming changes.  Raises NoSuchContainer."""
        given = host.namespaces
        modes = {
            kind: f"{CONTAINER}{self._find(donor).id}"
            for kind, mode in (("pid", given.pid), ("ipc", given.ipc))
            if (donor := joined_container(mode))
        }
        if donor := joined_container(host.network_mode):
            host = replace(host, network_mode=f"{CONTAINER}{self._find(donor).id}")
        return replace(host, namespaces=replace(given, **modes)) if modes else host

    def _on_networks(self, config: ContainerConfig, host: HostConfig) -> HostConfig:
        """With the full ids of its networks, that of its mode first.  Raises NoSuchNetwork, BadParameter."""
        mode = host.network_mode
        if config.network_disabled or joined_container(mode):
            return replace(host, networks=())
        asked = [replace(one, network=self._network_id(one.network)) for one in host.networks]
        if mode == DEFAULT and asked:
            return replace(host, networks=tuple(asked))
        first = self._network_id(mode)
        found = {first: EndpointRequest(first), **{one.network: one for one in asked}}
        if not first:
            del found[first]
        return replace(host, networks=tuple(found.values()))

    def _check_bridge(self, config: ContainerConfig, host: HostConfig) -> list[str]:
        """What cannot be without the default network.  Warnings.  Raises NotSupported."""
        if self._networks.has_default:
            return []
        for text in host.resolver.extra_hosts:
            if text.endswith(f":{files.HOST_GATEWAY}"):
                raise NotSupported(
                    f'the extra host "{text}" cannot be: host-gateway needs a bridge, and there is none (--bridge)'
                )
        if host.network_mode in (DEFAULT, BRIDGE) and not host.networks and not config.network_disabled:
            return ["There is no default network (--bridge=none): the container has a loopback interface only."]
        return []

    def _with_links(self, host: HostConfig) -> HostConfig:
        """With the full ids of its links' targets.  Raises LinkedToNothing, BadParameter."""
        default = self._networks.default
        of_default = [one.links for one in host.networks if default is not None and one.network == default.id]
        asked = (*host.links, *(links.parse(text) for texts in of_default for text in texts))
        return links.resolve(replace(host, links=asked), self._find)

    def _network_id(self, ref: str) -> str:
        """"" for the default one where there is none."""
        if ref in (DEFAULT, BRIDGE) and not self._networks.has_default:
            return ""
        return self._networks.get(BRIDGE if ref == DEFAULT else ref).id


def settings_of(record: Record) -> str:
    """What the database keeps of them."""
    return forms.dump_settings(
        record.config, record.host, record.mounts, log_driver=record.log_driver, runtime=record.runtime
    )


def row_of(record: Record) -> ContainerRow:
    return ContainerRow(
        id=record.id,
        name=record.name,
        image_id=record.image_id,
        created=record.created,
        settings=settings_of(record),
        state=forms.dump_state(record.state, epoch=record.log_end.epoch, ordinal=record.log_end.ordinal),
    )


def _default_hostname(container_id: str, host: HostConfig) -> str:
    return "" if "host" in (host.network_mode, host.namespaces.uts) else container_id[:12]
