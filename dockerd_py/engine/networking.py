"""What a container has on its networks: planned, made for its start, changed while it runs, and let go at its end.

The order in which a crash can undo it: `plan` decides on addresses and host ports, in memory; the caller writes them
down; `begin` makes the namespace and plugs it in, and opens the firewall, beside the rest of the start; `publish`
leaves the host's ports to the monitor.  All of that ends with the container's last process but for the firewall's
rules, which are a function of what runs.  `release` undoes all of it; addresses stay with a container that has ended,
as long as others find one.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from dockerd_py import ids
from dockerd_py.engine import joining, ports
from dockerd_py.engine.events import EventLog
from dockerd_py.engine.links import parse as parse_link
from dockerd_py.engine.nameservice import NameEntry, NameService, NetworkNames
from dockerd_py.engine.network_model import (
    BRIDGE,
    IPVLAN,
    MACVLAN,
    Attachment,
    Endpoint,
    EndpointRequest,
    Network,
    PublishedPort,
)
from dockerd_py.engine.networks import PARENT, Networks
from dockerd_py.engine.record import Record, with_state
from dockerd_py.errors import NetworkFailed, NoSuchNetwork, PydockerdError
from dockerd_py.nat.conntrack import forget_udp
from dockerd_py.nat.firewall.base import Firewall
from dockerd_py.nat.hostports import HeldPort, HostPorts
from dockerd_py.nat.ipam import Addresses, mac_of
from dockerd_py.nat.links import Links
from dockerd_py.nat.model import LinkRule, Mapping, Plug, Rules
from dockerd_py.runtime.monitors import Relayed

log = logging.getLogger(__name__)


@dataclass
class Live:
    """What a container that runs, or starts, has in the firewall; and what it holds until it runs."""

    mappings: tuple[Mapping, ...] = ()
    held: list[HeldPort] = field(default_factory=list)  # until its monitor has them
    namespace: int = -1  # until its processes are in there
    sandbox: asyncio.Task[None] | None = None
    firewall: asyncio.Task[None] | None = None
    published: bool = False

    def close_namespace(self) -> None:
        if self.namespace >= 0:
            os.close(self.namespace)
            self.namespace = -1

    def close_held(self) -> None:
        for one in self.held:
            one.close()
        self.held.clear()

    async def give_up(self) -> None:
        """Stop what `begin` has begun, whatever has become of it."""
        tasks = [task for task in (self.sandbox, self.firewall) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.close_namespace()


class Networking:
    def __init__(
        self,
        networks: Networks,
        links: Links,
        firewall: Callable[[], Coroutine[Any, Any, Firewall]],
        names: NameService,
        events: EventLog,
        *,
        servers: tuple[str, ...] = (),
    ) -> None:
        """firewall: opens it, when it is first needed.  servers: the name servers of containers that name none."""
        self._networks = networks
        self._links = links
        self._open_firewall = firewall
        self._firewall: Firewall | None = None
        self._names = names
        self._events = events
        self._servers = servers
        self._host_ports = HostPorts()
        self._live: dict[str, Live] = {}
        self._ending: dict[str, Live] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.records: Callable[[], Iterable[Record]] = tuple
        self.link_rules: Callable[[], tuple[LinkRule, ...]] = tuple
        networks.is_used = self._users_of
        networks.on_change = self._apply

    # Before a start

    def plan(self, record: Record) -> None:
        """Decide on addresses, interfaces and host ports, and hold these; into ``record.state``.

        Raises NoSuchNetwork, Conflict, BadParameter, NetworkFailed; nothing is held then.
        """
        endpoints: list[Endpoint] = []
        before = {endpoint.network_id: endpoint for endpoint in record.state.endpoints}
        try:
            for number, asked in enumerate(one for one in record.host.networks if self._is_plugged(one)):
                endpoints.append(self._plan_one(record, asked, before.get(asked.network), f"eth{number}"))
            held = self._hold_ports(record, endpoints)
        except BaseException:
            self.give_back(record, [one for one in endpoints if one.network_id not in before])
            raise
        self._live[record.id] = Live(held=held)
        record.state = with_state(record, endpoints=tuple(endpoints), ports=tuple(map(_published, held)))

    def begin(self, record: Record) -> None:
        """Work at what was planned, until `namespace` and `publish` await it or `release` gives it up."""
        live = self._live[record.id]
        if record.state.endpoints:
            live.mappings = self._mappings(record)
            live.sandbox = asyncio.create_task(self._make_sandbox(record, live))
            live.firewall = asyncio.create_task(self._open_for(live))

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
        if self._names.has(record.id):
            self._names.started(record.id, pid)

    async def publish(self, record: Record) -> None:
        """The firewall is open; leave the host's ports to the container's monitor.  Raises NetworkFailed."""
        live = self._live[record.id]
        if live.firewall is not None:
            await asyncio.shield(live.firewall)
        if live.held:
            assert record.monitor is not None
            await record.monitor.publish(self._relays(record, live.held))
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
        return self._plan_one(record, asked, None, interface)

    async def plug_running(self, record: Record, endpoint: Endpoint) -> None:
        """Put a running container, which has the endpoint in its state, on the network.

        Raises NetworkFailed, NotRunning."""
        namespace = await joining.open_namespace("network", record)
        try:
            plug = self._plug_for(record, endpoint, gateway=self._gateway_of(record) is endpoint)
            await self._links.plug(namespace, plug)
            await self._tell_names(record, namespace)
        finally:
            os.close(namespace)
        await self._refresh(record)

    async def unplug_running(self, record: Record, endpoint: Endpoint) -> None:
        """Take a running container off a network; its state has the endpoint no longer."""
        await self._refresh(record)
        namespace = await joining.open_namespace("network", record)
        try:
            await self._tell_names(record, namespace)
            if endpoint.host_interface:
                await self._links.unplug(endpoint.host_interface)
            else:
                await self._links.unplug_inside(namespace, endpoint.interface)
        finally:
            os.close(namespace)
        self.give_back(record, [endpoint])

    async def renamed(self, record: Record) -> None:
        """Others find it by its new name.  Raises NetworkFailed."""
        if self._names.has(record.id):
            await self._names.change(self._entry(record))

    async def is_plugged(self, endpoint: Endpoint) -> bool:
        network = self._networks.get(endpoint.network_id)
        return network.driver != BRIDGE or endpoint.host_interface in await self._links.ports_of(network.bridge)

    async def refresh(self) -> None:
        """Bring the firewall to what runs now: somebody's links have changed.  Raises NetworkFailed."""
        await self._apply()

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
        await self._names.forget(record.id)
        self._in_background(self._unplug_all([one.host_interface for one in record.state.endpoints]))
        await self._apply()
        if live.mappings:
            await forget_udp(live.mappings)

    def forget(self, record: Record) -> None:
        """It is removed: its addresses are free."""
        self.give_back(record, record.state.endpoints)

    # Recovery

    def adopt(self, record: Record) -> None:
        """Its addresses are taken: before anything is planned.  Those that run come first."""
        kept = []
        for endpoint in record.state.endpoints:
            try:
                for address, addresses in self._with_addresses(endpoint):
                    addresses.take_back(address)
            except (PydockerdError, KeyError) as error:
                log.debug("%s: its address on network %s is gone: %s", record.id, endpoint.network_id, error)
                continue
            kept.append(endpoint)
        if len(kept) < len(record.state.endpoints) and not record.state.running:
            record.state = with_state(record, endpoints=tuple(kept))

    def runs(self, record: Record) -> None:
        """An adopted container was found to run."""
        self._live[record.id] = Live(self._mappings(record), published=True)

    async def recover(self) -> None:
        """All records are adopted: firewall and names are what they should be, and no interface is left over."""
        known = {
            endpoint.host_interface
            for record in self.records()
            if record.id in self._live
            for endpoint in record.state.endpoints
        }
        for network in self._networks.list():
            if network.driver == BRIDGE and network.id not in self._networks.broken:
                for interface in await self._links.ports_of(network.bridge):
                    if interface.startswith(VETH) and interface not in known:
                        log.info("removing %s, which no container has", interface)
                        await self._links.unplug(interface)
        if self._networks.has_default or any(network.driver == BRIDGE for network in self._networks.list()):
            try:
                await self._apply()
            except PydockerdError as error:
                log.error("%s", error)
        named = [(self._entry(one), one.state.pid) for one in self.records() if one.id in self._live and
                 self.has_names(one)]  # fmt: skip
        try:
            await self._names.adopt(named)
        except PydockerdError as error:
            log.error("%s", error)

    async def reapply(self) -> None:
        """Somebody may have emptied the host's firewall.  Raises NetworkFailed."""
        if self._firewall is not None:
            await self._firewall.reapply()

    async def close(self, *, idle: bool) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._firewall is not None:
            await self._firewall.close()
        await self._names.close(idle=idle)
        await self._links.close()

    # What is shown

    def attachments(self, record: Record) -> tuple[Attachment, ...]:
        found = []
        by_network = {endpoint.network_id: endpoint for endpoint in record.state.endpoints}
        for asked in record.host.networks:
            try:
                network = self._networks.get(asked.network)
            except PydockerdError:
                continue  # the network was removed meanwhile
            names = names_of(record, asked) if network.name != BRIDGE else ()
            bare = Attachment(network.name, network.id, asked, network.driver, network.bridge, names)
            endpoint = by_network.get(network.id)
            found.append(_shown(bare, network, endpoint) if endpoint and record.state.running else bare)
        return tuple(found)

    def host_gateway(self) -> str:
        """The host's own address on the default bridge; "" where there is none."""
        for network in self._networks.list():
            if network.name == BRIDGE and network.pools:
                return network.pools[0].gateway
        return ""

    def has_names(self, record: Record) -> bool:
        """Whether it is on a network on which containers find each other by name."""
        return any(self._networks.get(one.network_id).name != BRIDGE for one in record.state.endpoints)

    # Below

    def _plan_one(
        self, record: Record, asked: EndpointRequest, before: Endpoint | None, interface: str
    ) -> Endpoint:
        network = self._networks.get(asked.network)
        self._networks.check_whole(network)
        endpoint_id = ids.new_id()
        endpoint = Endpoint(
            network_id=network.id,
            id=endpoint_id,
            interface=interface,
            host_interface=VETH + endpoint_id[: 15 - len(VETH)] if network.driver == BRIDGE else "",
        )
        wanted = {4: asked.ipv4, 6: asked.ipv6}
        had = {4: before.ipv4, 6: before.ipv6} if before else {4: "", 6: ""}
        found: dict[int, str] = {}
        with ExitStack() as undo:
            for addresses in self._networks.addresses(network.id):
                version = addresses.subnet.version
                if had[version] and wanted[version] in ("", had[version]):
                    found[version] = had[version]
                else:
                    found[version] = self._take(addresses, wanted[version], network)
                    undo.callback(addresses.release, found[version])
            undo.pop_all()
        own = record.config.mac_address if asked == record.host.networks[0] else ""
        mac = asked.mac or own or (mac_of(found[4]) if 4 in found else before.mac if before else "")
        return replace(endpoint, ipv4=found.get(4, ""), ipv6=found.get(6, ""), mac=mac)

    def _is_plugged(self, asked: EndpointRequest) -> bool:
        return self._networks.get(asked.network).driver in (BRIDGE, MACVLAN, IPVLAN)

    def _take(self, addresses: Addresses, wanted: str, network: Network) -> str:
        """An address; when there is none, that of a container that does not run.  Raises NetworkFailed, Conflict."""
        try:
            return addresses.take(wanted)
        except NetworkFailed:
            if wanted:
                raise
            for record in self.records():
                if record.id in self._live:
                    continue
                for endpoint in record.state.endpoints:
                    if endpoint.network_id == network.id:
                        self.give_back(record, [endpoint])
                        left = tuple(one for one in record.state.endpoints if one is not endpoint)
                        record.state = with_state(record, endpoints=left)
                        return addresses.take()
            raise

    def give_back(self, record: Record, endpoints: Iterable[Endpoint]) -> None:
        """Their addresses are free."""
        for endpoint in endpoints:
            try:
                for address, addresses in self._with_addresses(endpoint):
                    addresses.release(address)
            except NoSuchNetwork:
                log.debug("%s: network %s is gone", record.id, endpoint.network_id)

    def _with_addresses(self, endpoint: Endpoint) -> list[tuple[str, Addresses]]:
        given = {4: endpoint.ipv4, 6: endpoint.ipv6}
        return [
            (given[addresses.subnet.version], addresses)
            for addresses in self._networks.addresses(endpoint.network_id)
            if given[addresses.subnet.version]
        ]

    def _hold_ports(self, record: Record, endpoints: Sequence[Endpoint]) -> list[HeldPort]:
        front = self._front(endpoints)
        if front is None:
            return []
        host = record.host
        wanted = ports.wanted(record.config.exposed_ports, host.port_bindings, publish_all=host.publish_all)
        if not wanted:
            return []
        ours = {(port.protocol, port.host_port) for one in self.records() for port in one.state.ports}
        return self._host_ports.hold(
            wanted,
            self._networks.host_ip(self._networks.get(front.network_id)),
            endpoint=f"{record.name} ({record.id})",
            ours=ours,
        )

    def _front(self, endpoints: Sequence[Endpoint]) -> Endpoint | None:
        """The one by which published ports are reached: of the first bridge that packets from outside get to."""
        for endpoint in endpoints:
            try:
                network = self._networks.get(endpoint.network_id)
            except NoSuchNetwork:
                continue
            if network.driver == BRIDGE and not network.internal:
                return endpoint
        return None

    def _relays(self, record: Record, held: Iterable[HeldPort]) -> list[Relayed]:
        front = self._front(record.state.endpoints)
        if front is None:
            return []
        return [
            Relayed(one.socket.fileno(), one.protocol, front.ipv4 or front.ipv6, one.port)
            for one in held
            if one.socket is not None
        ]

    async def _make_sandbox(self, record: Record, live: Live) -> None:
        live.namespace = await self._links.new_namespace()
        gateway = self._gateway_of(record)
        for endpoint in record.state.endpoints:
            await self._links.plug(live.namespace, self._plug_for(record, endpoint, gateway=endpoint is gateway))
        if self.has_names(record):
            await self._names.put(self._entry(record), live.namespace)

    async def _tell_names(self, record: Record, namespace: int) -> None:
        """A running container's networks have changed."""
        if not self.has_names(record):
            await self._names.forget(record.id)
        elif self._names.has(record.id):
            await self._names.change(self._entry(record))
        else:
            await self._names.put(self._entry(record), namespace, pid=record.state.pid)

    def _entry(self, record: Record) -> NameEntry:
        """What the name service knows of it."""
        found, inside = [], True
        asked = {one.network: one for one in record.host.networks}
        for endpoint in record.state.endpoints:
            network = self._networks.get(endpoint.network_id)
            inside = inside and network.internal
            if network.name != BRIDGE:
                one = asked[network.id]
                links = [(link.alias, link.container) for link in (*record.host.links, *map(parse_link, one.links))]
                names = names_of(record, one)
                found.append(
                    NetworkNames(network.id, network.name, endpoint.ipv4, endpoint.ipv6, names, tuple(links))
                )
        return NameEntry(
            record.id,
            tuple(found),
            servers=record.host.resolver.dns or self._servers,
            own_loopback=bool(record.host.resolver.dns),
            forwards=not inside,
        )

    async def _open_for(self, live: Live) -> None:
        await self._apply()
        if live.mappings:
            await forget_udp(live.mappings)

    def _gateway_of(self, record: Record) -> Endpoint | None:
        """The endpoint by which packets to everywhere else leave: the first that is not of an internal network."""
        for endpoint in record.state.endpoints:
            if not self._networks.get(endpoint.network_id).internal:
                return endpoint
        return None

    def _plug_for(self, record: Record, endpoint: Endpoint, *, gateway: bool) -> Plug:
        network = self._networks.get(endpoint.network_id)
        given = {4: endpoint.ipv4, 6: endpoint.ipv6}
        own, gateways = [], []
        for pool in network.pools:
            subnet = ipaddress.ip_network(pool.subnet)
            if given[subnet.version]:
                own.append(f"{given[subnet.version]}/{subnet.prefixlen}")
                if gateway and pool.gateway:
                    gateways.append(pool.gateway)
        mode = network.options.get("ipvlan_mode" if network.driver == IPVLAN else "macvlan_mode", "")
        return Plug(
            interface=endpoint.interface,
            mac="" if network.driver == IPVLAN else endpoint.mac,
            addresses=tuple(own),
            gateways=tuple(gateways),
            mtu=self._networks.mtu_of(network),
            kind=network.driver,
            parent=network.bridge or network.options[PARENT],
            host_interface=endpoint.host_interface,
            mode=mode,
        )

    def _mappings(self, record: Record) -> tuple[Mapping, ...]:
        """Where the firewall sends what comes to the published ports."""
        front = self._front(record.state.endpoints)
        if front is None:
            return ()
        bridge = self._networks.get(front.network_id).bridge
        found = []
        for port in record.state.ports:
            address = front.ipv6 if ":" in port.host_ip else front.ipv4
            if address:  # else the monitor relays it
                found.append(Mapping(port.protocol, port.host_ip, port.host_port, bridge, address, port.port))
        return tuple(found)

    async def _refresh(self, record: Record) -> None:
        live = self._live.get(record.id)
        if live is not None:
            live.mappings = self._mappings(record)
        await self._apply()

    async def _apply(self) -> None:
        if self._firewall is None:
            self._firewall = await self._open_firewall()
        await self._firewall.apply(
            Rules(
                bridges=self._networks.rules(),
                mappings=tuple(one for live in self._live.values() for one in live.mappings),
                links=self.link_rules(),
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
            for record in self.records()
            if record.id in self._live and any(one.network_id == network_id for one in record.state.endpoints)
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


VETH = "veth"


def names_of(record: Record, asked: EndpointRequest) -> tuple[str, ...]:
    """By which others on the network find it."""
    own = (record.name, *asked.aliases, record.id[:12], record.config.hostname)
    return tuple(dict.fromkeys(name for name in own if name))


def _published(port: HeldPort) -> PublishedPort:
    return PublishedPort(port.port, port.protocol, port.host_ip, port.host_port)


def _shown(bare: Attachment, network: Network, endpoint: Endpoint) -> Attachment:
    prefixes, gateways = {4: 0, 6: 0}, {4: "", 6: ""}
    for pool in network.pools:
        subnet = ipaddress.ip_network(pool.subnet)
        prefixes[subnet.version], gateways[subnet.version] = subnet.prefixlen, pool.gateway
    return replace(
        bare,
        endpoint_id=endpoint.id,
        mac=endpoint.mac,
        ipv4=endpoint.ipv4,
        prefix4=prefixes[4] if endpoint.ipv4 else 0,
        gateway4=gateways[4] if endpoint.ipv4 else "",
        ipv6=endpoint.ipv6,
        prefix6=prefixes[6] if endpoint.ipv6 else 0,
        gateway6=gateways[6] if endpoint.ipv6 else "",
    )
