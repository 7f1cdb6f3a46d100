"""What a container has on its networks: planned, made for its start, changed while it runs, and let go at its end.

The order in which a crash can undo it: `plan` decides on addresses and host ports, in memory; the caller writes them
down; `begin` makes the namespace and plugs it in, and opens the firewall, beside the rest of the start; `publish`
leaves the host's ports to the monitor.  All of that ends with the container's last process but for the firewall's
rules, which are a function of what runs.  `release` undoes all of it; addresses stay with a container that has ended,
as long as others find one.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from dockerd_py.engine import joining, netrepair, netviews, ports
from dockerd_py.engine.addressing import Addressing
from dockerd_py.engine.events import EventLog
from dockerd_py.engine.live import Live
from dockerd_py.engine.naming import Naming
from dockerd_py.engine.network_model import (
    BRIDGE,
    IPVLAN,
    MACVLAN,
    Attachment,
    Endpoint,
    EndpointRequest,
    PublishedPort,
)
from dockerd_py.engine.networks import Networks
from dockerd_py.engine.record import Record, with_state
from dockerd_py.errors import NoSuchNetwork, NotRunning, PydockerdError
from dockerd_py.nat.conntrack import forget_udp
from dockerd_py.nat.firewall.base import Firewall
from dockerd_py.nat.hostports import HeldPort, HostPorts, PortWanted
from dockerd_py.nat.links import Links
from dockerd_py.nat.model import LinkRule, Rules
from dockerd_py.runtime.monitors import MonitorGone, RequestFailed

log = logging.getLogger(__name__)


class Networking:
    def __init__(
        self,
        networks: Networks,
        links: Links,
        firewall: Callable[[], Coroutine[Any, Any, Firewall]],
        naming: Naming,
        events: EventLog,
    ) -> None:
        """firewall: opens it, when it is first needed."""
        self._networks = networks
        self._links = links
        self._open_firewall = firewall
        self._firewall: Firewall | None = None
        self._naming = naming
        naming.running = self._running
        self._events = events
        self._host_ports = HostPorts()
        self._live: dict[str, Live] = {}
        self._ending: dict[str, Live] = {}
        self._hidden: list[Record] = []  # those of another storage driver that run
        self._tasks: set[asyncio.Task[None]] = set()
        self._mending: asyncio.Task[None] | None = None
        self._recovered = False
        self._addressing = Addressing(networks, self.has_place)
        self.link_rules: Callable[[], tuple[LinkRule, ...]] = tuple
        networks.is_used = self._users_of
        networks.on_change = self._apply

    # Before a start

    def plan(self, record: Record) -> None:
        """Decide on addresses, interfaces and host ports, and hold these; into ``record.state``.

        Raises NoSuchNetwork, Conflict, BadParameter, NetworkFailed; nothing is held then.
        """
        endpoints: list[Endpoint] = []
        try:
            for number, asked in enumerate(one for one in record.host.networks if self._is_plugged(one)):
                endpoints.append(self._addressing.plan(record, asked, f"eth{number}"))
            front = netviews.front_of(self._networks, endpoints)
            forwards = self._naming.forwards(record, endpoints)
            held = self._hold_ports(record, front)
        except BaseException:
            self._addressing.give_back(record, endpoints, but=record.state.endpoints)
            raise
        self._addressing.give_back(record, record.state.endpoints, but=endpoints)
        self._live[record.id] = Live(front=front.id if front else "", held=held)
        record.state = with_state(
            record,
            endpoints=tuple(endpoints),
            ports=tuple(map(_published, held)),
            forwards=forwards,
        )

    def begin(self, record: Record) -> None:
        """Work at what was planned, until `namespace` and `publish` await it or `release` gives it up."""
        live = self._live[record.id]
        if record.state.endpoints:
            live.mappings = netviews.mappings(self._networks, record)
            live.relayed = netviews.relayed(self._networks, record)
            mended = None
            if any(self._networks.lacks_bridge(endpoint.network_id) for endpoint in record.state.endpoints):
                mended = self._mending = self._mending or asyncio.create_task(self._mend())
            live.sandbox = asyncio.create_task(self._make_sandbox(record, live, mended))
            live.firewall = asyncio.create_task(self._open_for(live, mended))

    async def namespace(self, record: Record) -> str:
        """The network namespace with all that was planned plugged in, as a file to setns(2) to; "" for one of its own
        with nothing in it.  It lasts until `handed_over`, or as long as processes are in it.  Raises NetworkFailed."""
        live = self._live[record.id]
        if live.sandbox is None:
            return ""
        await asyncio.shield(live.sandbox)
        return f"/proc/{os.getpid()}/fd/{live.namespace}"

    def handed_over(self, record: Record, pid: int) -> None:
        """Its processes, of which ``pid`` is the init, are in its namespace."""
        self._live[record.id].close_namespace()
        self._naming.started(record, pid)

    async def publish(self, record: Record) -> None:
        """The firewall is open; leave the host's ports to the container's monitor.  Raises NetworkFailed."""
        live = self._live[record.id]
        if live.firewall is not None:
            await asyncio.shield(live.firewall)
        if live.held:
            assert record.monitor is not None
            await record.monitor.publish(netviews.relays(self._networks, record, live.held))
            live.close_held()
        live.published = True
        for endpoint in record.state.endpoints:
            self._publish_event("connect", record, endpoint)

    # While it runs

    def plan_more(self, record: Record, asked: EndpointRequest) -> Endpoint:
        """What a running container is to have on one more network: for its state, and for `plug_running` then.

        Raises NetworkFailed, Conflict."""
        taken = {endpoint.interface for endpoint in record.state.endpoints}
        interface = next(name for name in (f"eth{n}" for n in range(len(taken) + 1)) if name not in taken)
        return self._addressing.plan(record, asked, interface)

    async def plug_running(self, record: Record, endpoint: Endpoint) -> None:
        """Put a running container, which has the endpoint in its state, on the network.

        Raises NetworkFailed, NotRunning."""
        namespace = await joining.open_namespace("network", record)
        try:
            await self._links.plug(namespace, netviews.plug(self._networks, record, endpoint))
            await self._naming.moved(record, namespace)
        finally:
            os.close(namespace)
        await self._refresh(record)

    async def unplug_running(self, record: Record, endpoint: Endpoint, before: Sequence[Endpoint]) -> None:
        """Take a running container off a network; its state has the endpoint no longer, but ``before`` has.

        Raises NetworkFailed: it is off all the same, if the firewall or its ports were the trouble."""
        if (live := self._live.get(record.id)) is not None:  # an earlier daemon may not have come so far
            front = netviews.front_of(self._networks, before)
            live.front = front.id if front else ""
        try:
            await self._refresh(record)
        finally:  # nobody is on a network that he is not shown on, whatever is wrong with the firewall
            await self._pull_out(record, endpoint, before)

    async def renamed(self, record: Record) -> None:
        """Others find it by its new name.  Raises NetworkFailed."""
        await self._naming.changed(record)

    async def plug_again(self, record: Record, endpoint: Endpoint) -> None:
        """As `plug_running`, where some of it may have been done.  Raises NetworkFailed, NotRunning."""
        namespace = await joining.open_namespace("network", record)
        try:
            await self._unplug(namespace, endpoint)
        finally:
            os.close(namespace)
        await self.plug_running(record, endpoint)

    async def refresh(self) -> None:
        """Bring the firewall to what runs now: somebody's links have changed.  Raises NetworkFailed."""
        await self._apply()

    @property
    def records(self) -> Callable[[], Iterable[Record]]:
        return self._addressing.records

    @records.setter
    def records(self, records: Callable[[], Iterable[Record]]) -> None:
        self._addressing.records = records

    def has_place(self, record: Record) -> bool:
        """Whether it is on its networks, or about to be."""
        return record.id in self._live

    # After its end

    def ended(self, record: Record) -> None:
        """It runs no longer: its ports are free for whoever starts next.  `release` does the rest."""
        live = self._live.pop(record.id, None)
        if live is not None:
            live.close_held()
            self._ending[record.id] = live
        if record.state.ports:
            record.state = with_state(record, ports=())

    async def release(self, record: Record) -> None:
        """Let go of all but the addresses.  What the kernel does by itself is seen to in the background.

        Raises NetworkFailed."""
        self.ended(record)
        live = self._ending.pop(record.id, None)
        if live is None:
            return
        await live.give_up()
        if not record.state.endpoints:
            return
        if live.published:
            for endpoint in record.state.endpoints:
                self._publish_event("disconnect", record, endpoint)
        await self._naming.forget(record.id)
        self._in_background(self._unplug_all([one.host_interface for one in record.state.endpoints]))
        await self._apply()
        if live.mappings:
            await forget_udp(live.mappings)

    def forget(self, record: Record) -> None:
        """It is removed: its addresses are free."""
        self.give_back(record, record.state.endpoints)

    def give_back(self, record: Record, endpoints: Iterable[Endpoint]) -> None:
        """The addresses that it has there are free."""
        self._addressing.give_back(record, endpoints)

    # Recovery

    def adopt(self, record: Record) -> None:
        """Its addresses are taken: before anything is planned.  Those that run come first."""
        self._addressing.adopt(record)

    def runs(self, record: Record) -> None:
        """An adopted container was found to run."""
        self._live[record.id] = Live(
            netviews.mappings(self._networks, record),
            netviews.relayed(self._networks, record),
            self._front_of(record),
            published=True,
        )

    def runs_hidden(self, record: Record) -> None:
        """A container of another storage driver runs: what it has on its networks stays.

        Its published ports are its monitor's to relay, as nobody here would learn of its end.
        """
        self._hidden.append(record)

    async def recover(self) -> None:
        """All records are adopted: firewall and names are what they should be, and no interface is left over."""
        running = self._running()
        known = {endpoint.host_interface for record in running for endpoint in record.state.endpoints}
        try:
            await netrepair.remove_unknown(self._networks, self._links, known)
            await netrepair.put_back(self._networks, self._links, self._running())
        except PydockerdError as error:
            log.error("%s", error)
        self._recovered = True
        if self._networks.has_default or any(network.driver == BRIDGE for network in self._networks.list()):
            try:
                await self._apply()
            except PydockerdError as error:
                log.error("%s", error)
        try:
            await self._naming.adopt(running)
        except PydockerdError as error:
            log.error("%s", error)

    async def reapply(self) -> None:
        """Somebody may have deleted bridges, emptied the host's firewall, or the host has other name servers.

        Raises NetworkFailed."""
        await self._naming.tell_all()
        await netrepair.put_back(self._networks, self._links, self._running())
        if self._firewall is not None:
            await self._firewall.reapply()

    async def close(self, *, idle: bool) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._firewall is not None:
            await self._firewall.close()
        await self._naming.close(idle=idle)
        await self._links.close()

    # What is shown

    def host_gateway(self) -> str:
        """The host's own address on the default bridge; "" where there is none."""
        for network in self._networks.list():
            if network.name == BRIDGE and network.pools:
                return network.pools[0].gateway
        return ""

    def has_names(self, record: Record) -> bool:
        """Whether the name service answers in it."""
        return self._naming.has(record)

    def attachments(self, record: Record) -> tuple[Attachment, ...]:
        return netviews.attachments(self._networks, record)

    # Below

    def _is_plugged(self, asked: EndpointRequest) -> bool:
        if self._networks.is_absent(asked.network):
            return False
        return self._networks.get(asked.network).driver in (BRIDGE, MACVLAN, IPVLAN)

    def _front_of(self, record: Record) -> str:
        front = netviews.front_of(self._networks, record.state.endpoints)
        return front.id if front else ""

    def _hold_ports(self, record: Record, front: Endpoint | None) -> list[HeldPort]:
        host = record.host
        wanted = ports.wanted(record.config.exposed_ports, host.port_bindings, publish_all=host.publish_all)
        if front is None or not wanted:
            return []
        return self._hold(record, wanted, self._networks.host_ip(self._networks.get(front.network_id)))

    def _hold(self, record: Record, wanted: Sequence[PortWanted], host_ip: str) -> list[HeldPort]:
        ours = {(port.protocol, port.host_port) for one in self.records() for port in one.state.ports}
        return self._host_ports.hold(wanted, host_ip, endpoint=f"{record.name} ({record.id})", ours=ours)

    async def _mend(self) -> None:
        """Somebody has deleted bridges.  Raises NetworkFailed."""
        try:
            await self._networks.restore()
            await netrepair.put_back(self._networks, self._links, self._running())
        finally:
            self._mending = None

    async def _make_sandbox(self, record: Record, live: Live, mended: asyncio.Task[None] | None) -> None:
        live.namespace = await self._links.new_namespace()
        if mended is not None:
            await asyncio.shield(mended)
        for endpoint in record.state.endpoints:
            await self._links.plug(live.namespace, netviews.plug(self._networks, record, endpoint))
        await self._naming.put(record, live.namespace)

    def _running(self) -> list[Record]:
        return [*(record for record in self.records() if record.id in self._live), *self._hidden]

    async def _pull_out(self, record: Record, endpoint: Endpoint, before: Sequence[Endpoint]) -> None:
        """Raises NetworkFailed."""
        try:
            namespace = await joining.open_namespace("network", record)
        except NotRunning:  # by now: all that it had goes with it
            self.give_back(record, [endpoint])
            return
        try:
            await self._unplug(namespace, endpoint)
            self.give_back(record, [endpoint])
            gateway = netviews.gateway_of(self._networks, record.state.endpoints)
            if gateway is not None and netviews.gateway_of(self._networks, before) is endpoint:
                await self._links.lead_out(namespace, netviews.plug(self._networks, record, gateway))
            await self._naming.moved(record, namespace)
        finally:
            os.close(namespace)

    async def _unplug(self, namespace: int, endpoint: Endpoint) -> None:
        if endpoint.host_interface:
            await self._links.unplug(endpoint.host_interface)
        else:
            await self._links.unplug_inside(namespace, endpoint.interface)

    async def _open_for(self, live: Live, mended: asyncio.Task[None] | None) -> None:
        if mended is not None:
            await asyncio.shield(mended)
        await self._apply()
        if live.mappings:
            await forget_udp(live.mappings)

    async def _refresh(self, record: Record) -> None:
        """A running container's networks have changed."""
        live = self._live.get(record.id)
        if live is not None:
            if self._front_of(record) != live.front:
                await self._move_ports(record, live)
            live.mappings = netviews.mappings(self._networks, record)
            live.relayed = netviews.relayed(self._networks, record)
        await self._apply()

    async def _move_ports(self, record: Record, live: Live) -> None:
        """Its published ports lead to another of its networks from now on; or to none, and are given up.

        They keep their numbers.  Raises NetworkFailed.
        """
        live.front = self._front_of(record)
        front = netviews.front_of(self._networks, record.state.endpoints)
        had = record.state.ports
        if record.monitor is None or not (had or front):
            return
        if had and front is not None:
            try:
                await record.monitor.request("aim", address=front.ipv4 or front.ipv6)
            except (MonitorGone, RequestFailed, asyncio.TimeoutError) as error:
                # It is of an earlier version: it lets go of the ports first, and they are free for a moment.
                log.debug("%s: %s", record.id, error)
            else:
                return
        if had:
            try:
                await record.monitor.request("unpublish")
            except (MonitorGone, RequestFailed, asyncio.TimeoutError) as error:
                log.warning("%s: its published ports still lead to the network that it left: %s", record.id, error)
                return
            record.state = with_state(record, ports=())
        if front is None:
            return
        again = [PortWanted(one.port, one.protocol, one.host_ip, one.host_port, one.host_port) for one in had]
        held = self._hold(record, again, "") if again else self._hold_ports(record, front)
        try:
            if held:
                await record.monitor.publish(netviews.relays(self._networks, record, held))
        finally:
            for one in held:
                one.close()
        record.state = with_state(record, ports=tuple(map(_published, held)))

    async def _apply(self) -> None:
        if not self._recovered:
            return  # who runs is not known yet, and what is in force is right
        if self._firewall is None:
            self._firewall = await self._open_firewall()
        await self._firewall.apply(
            Rules(
                bridges=self._networks.rules(),
                mappings=tuple(one for live in self._live.values() for one in live.mappings),
                links=self.link_rules(),
                relayed=tuple(one for live in self._live.values() for one in live.relayed),
            )
        )

    def _publish_event(self, action: str, record: Record, endpoint: Endpoint) -> None:
        try:
            network = self._networks.get(endpoint.network_id)
        except NoSuchNetwork:
            return
        attributes = {"container": record.id, "name": network.name, "type": network.driver}
        self._events.publish("network", action, network.id, attributes)

    def _users_of(self, network_id: str) -> Sequence[str]:
        return [
            record.name
            for record in self._running()
            if any(one.network_id == network_id for one in record.state.endpoints)
        ]

    async def _unplug_all(self, interfaces: Sequence[str]) -> None:
        for interface in filter(None, interfaces):
            try:
                await self._links.unplug(interface)
            except PydockerdError as error:
                log.warning("%s", error)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _published(port: HeldPort) -> PublishedPort:
    return PublishedPort(port.port, port.protocol, port.host_ip, port.host_port)
