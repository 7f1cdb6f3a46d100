"""Networks: making, showing and removing them, and the addresses that are given out on them.

All of them are in memory; the database is written before an answer is given.  A network's row comes before its bridge
and goes after it.  Which container is on which network is in the containers' own rows.
"""

from __future__ import annotations

import asyncio
import builtins
import ipaddress
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from dockerd_py import ids
from dockerd_py.config import NetworkConfig
from dockerd_py.engine import forms
from dockerd_py.engine.events import EventLog
from dockerd_py.engine.network_model import (
    BRIDGE,
    HOST,
    HOST_DRIVER,
    NONE,
    NULL_DRIVER,
    Network,
    NetworkRequest,
    Pool,
)
from dockerd_py.engine.network_options import (
    BRIDGE_NAME,
    DEFAULT,
    HOST_IP,
    ICC,
    MASQUERADE,
    MTU,
    check,
    flag,
    own_bridge,
)
from dockerd_py.errors import AmbiguousId, BadParameter, Conflict, Denied, NoSuchNetwork, NotSupported, PydockerdError
from dockerd_py.nat import subnets
from dockerd_py.nat.ipam import Addresses, check_pools
from dockerd_py.nat.links import Links, exists
from dockerd_py.nat.model import Bridge, BridgeRules
from dockerd_py.store.networks import READY, REMOVING, NetworkRow
from dockerd_py.store.store import Store
from dockerd_py.store.tasks import uninterrupted

log = logging.getLogger(__name__)

NO_BRIDGE = "none"  # of -b


class Networks:
    def __init__(
        self, config: NetworkConfig, store: Store, links: Links, events: EventLog, *, instance: str = ""
    ) -> None:
        """instance: what tells the daemon's own bridge from another daemon's; "" for the host's own daemon."""
        self._config = config
        self._store = store
        self._links = links
        self._events = events
        self._own_bridge = own_bridge(instance)
        self._by_id: dict[str, Network] = {}
        self._addresses: dict[str, list[Addresses]] = {}
        self._making = asyncio.Lock()  # two networks must not choose the same subnet
        self._absent: Network | None = None
        self.broken: dict[str, PydockerdError] = {}  # networks whose bridge could not be made, and why
        self.mtu = config.mtu
        self._prepared = False
        self.on_change: Callable[[], Awaitable[None]] = _nothing  # the firewall is to know of bridges
        self.is_used: Callable[[str], Sequence[str]] = lambda network_id: ()  # names of containers that run on it

    @property
    def has_default(self) -> bool:
        return self._config.bridge != NO_BRIDGE

    @property
    def default(self) -> Network | None:
        """The one that containers are on which ask for none."""
        return next((one for one in self._by_id.values() if one.name == BRIDGE), None) if self.has_default else None

    def has_icc(self, network: Network) -> bool:
        """Whether its containers reach each other without a link."""
        return flag(network, ICC, default=True)

    # What a user asks

    def list(self) -> list[Network]:
        """The oldest first."""
        return sorted(self._by_id.values(), key=lambda network: (network.created, network.id))

    def get(self, ref: str) -> Network:
        """By full id, name, or unique prefix of an id, in this order.  Raises NoSuchNetwork, AmbiguousId."""
        if (found := self._by_id.get(ref)) is not None:
            return found
        for network in self._by_id.values():
            if network.name == ref:
                return network
        matches = [network for network in self._by_id.values() if ref and network.id.startswith(ref)]
        if len(matches) > 1:
            raise AmbiguousId(ref)
        if not matches:
            raise NoSuchNetwork(ref)
        return matches[0]

    async def create(self, request: NetworkRequest) -> Network:
        """Make a network and its bridge.  Raises BadParameter, NotSupported, Conflict, NetworkFailed."""
        check(request)
        self._check_firewall(request)
        async with self._making:
            return await uninterrupted(self._create(request))

    async def remove(self, ref: str) -> None:
        """Raises NoSuchNetwork, Denied for a predefined one, and when containers that run are on it."""
        network = self.get(ref)
        if network.predefined:
            raise Denied(f"{network.name} is a pre-defined network and cannot be removed")
        async with self._making:
            self.get(network.id)
            await uninterrupted(self._remove(network))

    async def prune(self, keep: Callable[[Network], bool]) -> tuple[str, ...]:
        """Remove the networks that no container that runs is on, but for those to ``keep``.  Their names."""
        gone = []
        for network in self.list():
            if network.predefined or self.is_used(network.id) or keep(network):
                continue
            try:
                await self.remove(network.id)
            except (NoSuchNetwork, Denied):
                continue  # removed, or taken, by somebody else
            gone.append(network.name)
        self._events.publish("network", "prune", "", {"reclaimed": "0"})
        return tuple(gone)

    # What containers need

    def is_absent(self, network_id: str) -> bool:
        """Whether it is the default one, which this daemon is to do without: another one may have it again."""
        return self._absent is not None and self._absent.id == network_id

    def is_given(self, network: Network) -> bool:
        """Whether its bridge is an administrator's own: what is on it may be anybody's, and it is never taken away."""
        return network.name == BRIDGE and network.bridge != self._own_bridge

    def addresses(self, network_id: str) -> Sequence[Addresses]:
        """What there is to give out on a network: one of a family at most.  Raises NoSuchNetwork."""
        if network_id not in self._addresses:
            raise NoSuchNetwork(network_id)
        return self._addresses[network_id]

    def check_whole(self, network: Network) -> None:
        """Raises what has kept the network's bridge from being made, or NotSupported where it could not be closed."""
        if network.id in self.broken:
            raise self.broken[network.id]
        self._check_firewall(network)

    def lacks_bridge(self, network_id: str) -> bool:
        """Whether its bridge is gone, and we would make it again."""
        network = self.get(network_id)
        return network.driver == BRIDGE and not self.is_given(network) and not exists(network.bridge)

    def _check_firewall(self, network: Network | NetworkRequest) -> None:
        if not self._config.iptables and not flag(network, ICC, default=True):
            what = f"network {network.name}" if network.name else "the network"
            raise NotSupported(
                f"{what} is to keep its containers apart ({ICC}=false), which needs the firewall: this daemon does "
                "without (--iptables=false)"
            )

    def rules(self) -> tuple[BridgeRules, ...]:
        """What the firewall does for each bridge."""
        found = []
        for network in self.list():
            if network.driver != BRIDGE or network.id in self.broken:
                continue
            if not self.has_icc(network) and not exists(network.bridge):
                # Somebody has deleted it.  The firewall refuses to close what is not there, and other networks need it.
                log.warning("the bridge %s of network %s is gone", network.bridge, network.name)
                continue
            found.append(
                BridgeRules(
                    name=network.bridge,
                    subnets=tuple(pool.subnet for pool in network.pools),
                    internal=network.internal,
                    icc=self.has_icc(network),
                    masquerade=flag(network, MASQUERADE, default=True) and not network.internal,
                )
            )
        return tuple(found)

    def mtu_of(self, network: Network) -> int:
        return int(network.options.get(MTU) or 0) or self.mtu

    def host_ip(self, network: Network) -> str:
        """Where ports of containers on it are published that name no address."""
        return network.options.get(HOST_IP) or self._config.ip

    # Opening

    async def open(self) -> None:
        """Bring the rows and the kernel together: after a crash, a reboot and a change of settings alike.

        A bridge that cannot be had breaks its own network only.  Raises StoreError.
        """
        for row in await self._store.networks.all():
            network = forms.load_network(row.id, row.name, row.created, row.settings)
            if row.state == READY and network.name == BRIDGE and not self.has_default:
                self._absent = network
            elif row.state == READY:
                self._by_id[network.id] = network
            else:
                log.info("network %s was half made or half removed: it goes", network.name)
                await self._take_away(network)
        for name, driver in ((HOST, HOST_DRIVER), (NONE, NULL_DRIVER)):
            if not any(network.name == name for network in self._by_id.values()):
                await self._add(Network(ids.new_id(), name, time.time_ns(), driver))
        if self._absent is not None:
            await self._remove_bridge(self._absent)
        if self.has_default or any(network.driver == BRIDGE for network in self._by_id.values()):
            await self._prepare_host()
        if self.has_default:
            await self._open_default()
        await self.restore()
        for network in self._by_id.values():
            if network.id not in self._addresses:
                self._give_out(network)

    async def restore(self) -> None:
        """Make every bridge that is not there, and bring the others to what they should be."""
        own = [one for one in self._by_id.values() if one.driver == BRIDGE and one.pools]
        await asyncio.gather(*map(self._have_bridge, own))

    async def _prepare_host(self) -> None:
        """What bridges need of it, before there is any."""
        self._prepared = True
        try:
            self.mtu = self._config.mtu or await self._links.default_mtu()
            if self._config.ip_forward:
                with_ipv6 = self._config.ipv6 or any(one.has_ipv6 for one in self._by_id.values())
                await self._links.set_forwarding(ipv6=with_ipv6)
        except PydockerdError as error:
            log.error("%s", error)

    async def _open_default(self) -> None:
        """The network that containers are on which ask for none."""
        found = self.default
        before = found or Network(ids.new_id(), BRIDGE, time.time_ns(), BRIDGE)
        wanted = replace(
            before,
            options={
                DEFAULT: "true",
                ICC: str(self._config.icc).lower(),
                MASQUERADE: str(self._config.ip_masq).lower(),
                HOST_IP: self._config.ip,
                BRIDGE_NAME: self._config.bridge or self._own_bridge,
                MTU: str(self.mtu),
            },
            ipv6=self._config.ipv6,
            bridge=self._config.bridge or self._own_bridge,
        )
        try:
            wanted = replace(wanted, pools=await self._default_pools(before))
        except PydockerdError as error:
            log.error("the network %s cannot be had: %s", BRIDGE, error)
            self.broken[wanted.id] = error
        if found is None:
            await self._add(wanted)
        elif wanted.id in self.broken:  # what it was may be right for the next daemon
            self._by_id[wanted.id] = replace(wanted, pools=())
        elif wanted != found:
            if found.bridge != wanted.bridge and found.bridge == self._own_bridge:
                await self._links.remove_bridge(found.bridge)
            await self._store.networks.set_settings(wanted.id, forms.dump_network(wanted))
            self._by_id[wanted.id] = wanted

    async def _default_pools(self, before: Network) -> tuple[Pool, ...]:
        """Where the default bridge lies.  Raises NetworkFailed, BadParameter."""
        config = self._config
        ranges = {4: config.fixed_cidr, 6: config.fixed_cidr_v6}
        if config.bridge:
            found = map(ipaddress.ip_interface, await self._links.addresses_of(config.bridge))
            by_family: dict[int, ipaddress.IPv4Interface | ipaddress.IPv6Interface] = {}
            for one in found:
                if not one.ip.is_link_local:
                    by_family.setdefault(one.version, one)
            if 4 not in by_family:
                raise BadParameter(f"the bridge {config.bridge} has no IPv4 address: it needs one")
            own = [one for version, one in sorted(by_family.items()) if version == 4 or config.ipv6]
            pools = [Pool(str(one.network), str(one.ip), ranges[one.version]) for one in own]
        else:
            pools = [await self._own_pool(before)]
            if ranges[4]:
                pools = [replace(pools[0], ip_range=ranges[4])]
            if config.ipv6:
                pools.append(Pool(ranges[6]) if ranges[6] else self._own_pool_v6(before))
        checked = check_pools(pools)
        for pool in checked:
            self._check_overlap(pool, but=before.id)
        return checked

    async def _own_pool(self, before: Network) -> Pool:
        if self._config.bip:
            address = ipaddress.ip_interface(self._config.bip)
            return Pool(str(address.network), str(address.ip))
        taken = [*await self._links.occupied(but=self._own_bridge), *self._subnets(but=before.id)]
        if before.pools:
            kept = ipaddress.ip_network(before.pools[0].subnet)
            overlaps = any(kept.overlaps(ipaddress.ip_network(one)) for one in taken if ":" not in one)
            if not overlaps or await self._links.ports_of(self._own_bridge):  # who runs is not cut off
                return replace(before.pools[0], ip_range="")
            log.warning("the host has come to use addresses of %s: the default bridge moves elsewhere", kept)
        if any(":" not in base for base, _ in self._config.address_pools):
            subnet = subnets.choose(taken, self._config.address_pools)
            return Pool(str(subnet), str(subnet[1]))
        found = subnets.choose_for_bridge(taken)
        return Pool(str(found.network), str(found.ip))

    def _own_pool_v6(self, before: Network) -> Pool:
        taken = self._subnets(but=before.id)
        kept = next((pool for pool in before.pools if ":" in pool.subnet and pool.subnet not in taken), None)
        return kept or Pool(str(subnets.choose_v6(before.id, taken, self._config.address_pools)))

    # Below

    async def _create(self, request: NetworkRequest) -> Network:
        if any(network.name == request.name for network in self._by_id.values()):
            raise Conflict(f"network with name {request.name} already exists")
        network_id = ids.new_id()
        network = Network(
            id=network_id,
            name=request.name,
            created=time.time_ns(),
            driver=request.driver,
            internal=request.internal,
            attachable=request.attachable,
            ipv6=request.ipv6,
            labels=request.labels,
            options=request.options,
            ipam_driver=request.ipam_driver,
            ipam_options=request.ipam_options,
            pools=await self._choose_pools(request, network_id),
            bridge=(request.options.get(BRIDGE_NAME) or f"br-{network_id[:12]}") if request.driver == BRIDGE else "",
        )
        bridges = {one.bridge for one in self._by_id.values()} | {self._own_bridge}
        if network.bridge and (network.bridge in bridges or exists(network.bridge)):
            raise Conflict(f"there is an interface {network.bridge} already: name another one, or none")
        row = NetworkRow(network.id, network.name, network.created, forms.dump_network(network))
        made = False
        await self._store.networks.insert(row)
        try:
            if network.driver == BRIDGE:
                if not self._prepared:
                    await self._prepare_host()
                if network.has_ipv6 and self._config.ip_forward:
                    await self._links.set_forwarding(ipv6=True)
                await self._links.ensure_bridge(self._bridge_of(network))
                made = True
            await self._store.networks.set_state(network.id, READY)
        except BaseException:
            await self._take_away(network, made=made)
            raise
        self._by_id[network.id] = network
        self._give_out(network)
        await self._tell_firewall()
        self._publish("create", network)
        return network

    async def _choose_pools(self, request: NetworkRequest, network_id: str) -> tuple[Pool, ...]:
        """With a subnet of each family that it has, and gateways.  Raises BadParameter, Denied, NetworkFailed."""
        taken = [*self._subnets(), *(await self._links.occupied())]
        pools = list(check_pools(pool for pool in request.pools if pool.subnet))
        for pool in pools:
            self._check_overlap(pool)
        families = {ipaddress.ip_network(pool.subnet).version for pool in pools}
        if 4 not in families:
            bare = next((pool for pool in request.pools if not pool.subnet), Pool(""))
            pools.insert(0, replace(bare, subnet=str(subnets.choose(taken, self._config.address_pools))))
        if request.ipv6 and 6 not in families:
            pools.append(Pool(str(subnets.choose_v6(network_id, taken, self._config.address_pools))))
        return check_pools(pools)

    def _check_overlap(self, pool: Pool, but: str = "") -> None:
        wanted = ipaddress.ip_network(pool.subnet)
        for subnet in self._subnets(but):
            other = ipaddress.ip_network(subnet)
            if other.version == wanted.version and other.overlaps(wanted):
                raise Denied(f"Pool overlaps with other one on this address space: {wanted} with {other}")

    async def _remove(self, network: Network) -> None:
        if users := self.is_used(network.id):
            raise Denied(
                f"error while removing network: network {network.name} id {network.id} has active endpoints: "
                + ", ".join(users)
            )
        await self._store.networks.set_state(network.id, REMOVING)
        del self._by_id[network.id]
        self._addresses.pop(network.id, None)
        self.broken.pop(network.id, None)
        await self._tell_firewall()
        await self._take_away(network)
        self._publish("destroy", network)

    async def _tell_firewall(self) -> None:
        """What it cannot do now keeps containers from starting, and nothing else: it is tried again for each."""
        try:
            await self.on_change()
        except PydockerdError as error:
            log.error("%s", error)

    async def _take_away(self, network: Network, *, made: bool = True) -> None:
        """The bridge, then the row.  A bridge that stays keeps the row: recovery tries again."""
        if made and not await self._remove_bridge(network):
            return
        await self._store.networks.delete(network.id)

    async def _remove_bridge(self, network: Network) -> bool:
        """Whether there is none any more, or none of ours."""
        if network.driver == BRIDGE and not self.is_given(network):
            try:
                await self._links.remove_bridge(network.bridge)
            except PydockerdError as error:
                log.error("the bridge of network %s stays: %s", network.name, error)
                return False
        return True

    async def _add(self, network: Network) -> None:
        row = NetworkRow(network.id, network.name, network.created, forms.dump_network(network), READY)
        await self._store.networks.insert(row)
        self._by_id[network.id] = network

    async def _have_bridge(self, network: Network) -> None:
        try:
            await self._links.ensure_bridge(self._bridge_of(network))
            self.broken.pop(network.id, None)
        except PydockerdError as error:
            log.error("network %s: %s", network.name, error)
            self.broken[network.id] = error

    def _bridge_of(self, network: Network) -> Bridge:
        own = tuple(
            f"{pool.gateway}/{ipaddress.ip_network(pool.subnet).prefixlen}" for pool in network.pools if pool.gateway
        )
        given = network.name == BRIDGE and bool(self._config.bridge)
        return Bridge(network.bridge, own, self.mtu_of(network), given)

    def _give_out(self, network: Network) -> None:
        named = f"{network.name} ({network.id})"
        self._addresses[network.id] = [Addresses(pool, named) for pool in network.pools]

    def _subnets(self, but: str = "") -> builtins.list[str]:
        return [pool.subnet for network in self._by_id.values() if network.id != but for pool in network.pools]

    def _publish(self, action: str, network: Network) -> None:
        self._events.publish("network", action, network.id, {"name": network.name, "type": network.driver})


async def _nothing() -> None:
    pass
