"""Putting a container on a network and taking it off, while it runs too.

What is wanted is written down before it is made; recovery finishes what a killed daemon has begun: who was being put on
a network is taken off and put on it again, as nobody can tell how far it had come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

from dockerd_py.engine import making
from dockerd_py.engine.containers import Containers
from dockerd_py.engine.events import EventLog
from dockerd_py.engine.isolation import joined_container
from dockerd_py.engine.lifecycle import Lifecycle
from dockerd_py.engine.model import Container
from dockerd_py.engine.network_checks import check_endpoint
from dockerd_py.engine.network_model import (
    BRIDGE,
    HOST,
    HOST_DRIVER,
    NONE,
    NULL_DRIVER,
    Endpoint,
    EndpointRequest,
    Network,
)
from dockerd_py.engine.networking import Networking
from dockerd_py.engine.networks import Networks
from dockerd_py.engine.record import Record, with_state
from dockerd_py.errors import BadParameter, Conflict, Denied, PydockerdError
from dockerd_py.store.store import Store
from dockerd_py.store.tasks import uninterrupted

PLUGGING = "plugging"
"""The phase of a container's state while it is put on a network: that of its last endpoint."""
UNPLUGGING = "unplugging"
"""While it is taken off one; then "before" is what endpoints it had."""


class Connecting:
    def __init__(
        self,
        store: Store,
        networks: Networks,
        networking: Networking,
        containers: Containers,
        lifecycle: Lifecycle,
        events: EventLog,
    ) -> None:
        self._store = store
        self._networks = networks
        self._networking = networking
        self._containers = containers
        self._lifecycle = lifecycle
        self._events = events

    def attached(self, network_id: str) -> list[Container]:
        """The containers that run and are on it; each has it among its attachments."""
        return [
            container
            for container in self._containers.list()
            if any(one.network_id == network_id and one.endpoint_id for one in container.attachments)
        ]

    async def connect(self, ref: str, container: str, asked: EndpointRequest) -> None:
        """Raises NoSuchNetwork, NoSuchContainer, BadParameter, Denied, Conflict, NetworkFailed."""
        network, record = self._networks.get(ref), self._containers.record(container)
        _check(network, record)
        check_endpoint(replace(asked, network=network.name))
        if network.name == BRIDGE and asked.links:
            raise BadParameter("links on the default network can be given only when the container is made")
        await uninterrupted(self._connect(network, record, replace(asked, network=network.id)))

    async def disconnect(self, ref: str, container: str, *, force: bool = False) -> None:
        """``force`` is for endpoints whose container is gone: there are none here.

        Raises NoSuchNetwork, NoSuchContainer, BadParameter, Denied, Conflict.
        """
        network, record = self._networks.get(ref), self._containers.record(container)
        if network.driver == HOST_DRIVER or record.host.network_mode == HOST:
            raise BadParameter("container cannot be disconnected from host network or connected to host network")
        await uninterrupted(self._disconnect(network, record))

    async def finish(self, record: Record, before: Sequence[Endpoint] = ()) -> None:
        """Recovery's part: a running container was being put on a network, or with ``before`` taken off one."""
        if record.state.running:
            there = {endpoint.id for endpoint in record.state.endpoints}
            for endpoint in before:
                if endpoint.id not in there:
                    await self._networking.unplug_running(record, endpoint, before)
            if not before and record.state.endpoints:
                await self._networking.plug_again(record, record.state.endpoints[-1])
            self._lifecycle.rewrite_hosts(record)
        await self._lifecycle.save(record)

    async def _connect(self, network: Network, record: Record, asked: EndpointRequest) -> None:
        async with record.lock:
            if record.gone or record.removing:
                raise Conflict(f"container {record.name} is being removed")
            if any(one.network == network.id for one in record.host.networks):
                raise Denied(f"endpoint with name {record.name} already exists in network {network.name}")
            before = record.host, record.state
            record.host = replace(record.host, networks=(*record.host.networks, asked))
            if not record.state.running:
                await self._keep(record, before)
                return
            try:
                endpoint = self._networking.plan_more(record, asked)
            except BaseException:
                record.host, record.state = before
                raise
            record.state = with_state(record, endpoints=(*record.state.endpoints, endpoint))
            await self._keep(record, before, phase=PLUGGING)
            try:
                await self._networking.plug_running(record, endpoint)
                await self._lifecycle.save(record)
            except BaseException:
                record.host, state = before
                record.state = with_state(record, endpoints=state.endpoints)
                await self._keep(record, before)
                await self._unplug(record, endpoint, (*state.endpoints, endpoint))
                raise
            self._lifecycle.rewrite_hosts(record)
            self._lifecycle.on_other_address(record)
        self._publish("connect", network, record)

    async def _disconnect(self, network: Network, record: Record) -> None:
        async with record.lock:
            if not any(one.network == network.id for one in record.host.networks):
                raise Denied(f"container {record.id} is not connected to the network {network.name}")
            before = record.host, record.state
            left = tuple(one for one in record.host.networks if one.network != network.id)
            record.host = replace(record.host, networks=left)
            going = next((one for one in record.state.endpoints if one.network_id == network.id), None)
            if going is not None:
                endpoints = tuple(one for one in record.state.endpoints if one is not going)
                record.state = with_state(record, endpoints=endpoints)
            if going is not None and record.state.running:
                had = before[1].endpoints
                await self._keep(record, before, phase=UNPLUGGING, before=[asdict(one) for one in had])
                await self._unplug(record, going, had)
                await self._lifecycle.save(record)
                self._lifecycle.rewrite_hosts(record)
                self._lifecycle.on_other_address(record)
            else:
                await self._keep(record, before)
                self._networking.give_back(record, [] if going is None else [going])
        if going is not None and record.state.running:
            self._publish("disconnect", network, record)

    async def _unplug(self, record: Record, endpoint: Endpoint, before: Sequence[Endpoint]) -> None:
        ports = record.state.ports
        try:
            await self._networking.unplug_running(record, endpoint, before)
        finally:
            if record.state.ports != ports:
                await self._lifecycle.save(record)

    async def _keep(self, record: Record, was: tuple[object, object], **more: object) -> None:
        """Write down its networks and its endpoints; as they ``was`` when that fails."""
        try:
            await self._store.containers.update(
                record.id, making.settings_of(record), self._lifecycle.state_of(record, **more)
            )
        except PydockerdError:
            record.host, record.state = was  # type: ignore[assignment]
            raise

    def _publish(self, action: str, network: Network, record: Record) -> None:
        attributes = {"container": record.id, "name": network.name, "type": network.driver}
        self._events.publish("network", action, network.id, attributes)


def _check(network: Network, record: Record) -> None:
    """Raises BadParameter."""
    if joined_container(record.host.network_mode):
        raise BadParameter(
            "container sharing network namespace with another container or host cannot be connected to any other "
            "network"
        )
    if network.driver == HOST_DRIVER or record.host.network_mode == HOST:
        raise BadParameter("container cannot be disconnected from host network or connected to host network")
    if record.host.networks and (network.driver == NULL_DRIVER or record.host.network_mode == NONE):
        raise BadParameter(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode"
        )
