"""Which addresses containers have: decided before a start, kept while they are stopped, in memory throughout.

What is decided is the caller's to write down, in the container's row; the rows are read back by `adopt`.  A row may say
what is true no longer (the daemon's settings have changed, or another container has got the address), so who has an
address is known here, and nobody gives back what is another's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import replace

from dockerd_py import ids
from dockerd_py.engine.network_model import BRIDGE, Endpoint, EndpointRequest, Network
from dockerd_py.engine.networks import Networks
from dockerd_py.engine.record import Record, with_state
from dockerd_py.errors import NetworkFailed, NoSuchNetwork, PydockerdError
from dockerd_py.nat.ipam import Addresses, mac_of

log = logging.getLogger(__name__)

VETH = "veth"
INTERFACE_LENGTH = 15  # IFNAMSIZ of netdevice(7), without the NUL


class Addressing:
    def __init__(self, networks: Networks, has_place: Callable[[Record], bool]) -> None:
        """has_place: whether a container is on its networks, or about to be."""
        self._networks = networks
        self._has_place = has_place
        self._holders: dict[tuple[str, str], str] = {}  # by network and address, the container that has it
        self.records: Callable[[], Iterable[Record]] = tuple

    def plan(self, record: Record, asked: EndpointRequest, interface: str) -> Endpoint:
        """What a container is to have on one network: the addresses that it had there before, if it had any.

        Raises NoSuchNetwork, Conflict, BadParameter, NetworkFailed; no address is taken then.
        """
        network = self._networks.get(asked.network)
        self._networks.check_whole(network)
        before = next((one for one in record.state.endpoints if one.network_id == network.id), None)
        wanted = {4: asked.ipv4, 6: asked.ipv6}
        had = {4: before.ipv4, 6: before.ipv6} if before else {4: "", 6: ""}
        found: dict[int, str] = {}
        with ExitStack() as undo:
            for addresses in self._networks.addresses(network.id):
                version = addresses.subnet.version
                if wanted[version] in ("", had[version]) and self._keeps(record, addresses, network, had[version]):
                    found[version] = had[version]
                else:
                    found[version] = self._take(addresses, wanted[version], network)
                    self._holders[network.id, found[version]] = record.id
                    undo.callback(self._release, addresses, network.id, found[version])
            undo.pop_all()
        endpoint_id = ids.new_id()
        own = record.config.mac_address if asked == record.host.networks[0] else ""
        return Endpoint(
            network_id=network.id,
            id=endpoint_id,
            interface=interface,
            host_interface=(VETH + endpoint_id)[:INTERFACE_LENGTH] if network.driver == BRIDGE else "",
            mac=asked.mac or own or (mac_of(found[4]) if 4 in found else ""),
            ipv4=found.get(4, ""),
            ipv6=found.get(6, ""),
        )

    def give_back(self, record: Record, endpoints: Iterable[Endpoint], *, but: Iterable[Endpoint] = ()) -> None:
        """The addresses in ``endpoints`` are free, as far as they are the container's, and not in ``but``."""
        kept = {(one.network_id, address) for one in but for address in (one.ipv4, one.ipv6)}
        for endpoint in endpoints:
            for address in filter(None, (endpoint.ipv4, endpoint.ipv6)):
                key = endpoint.network_id, address
                if key in kept or self._holders.get(key) != record.id:
                    continue
                del self._holders[key]
                with suppress(NoSuchNetwork):
                    for addresses in self._networks.addresses(endpoint.network_id):
                        if address in addresses:
                            addresses.release(address)

    def adopt(self, record: Record) -> None:
        """Its addresses are taken: before anything is planned.  Those that run come first."""
        kept = tuple(filter(None, (self._adopt(record, endpoint) for endpoint in record.state.endpoints)))
        if not record.state.running:  # one that runs has what it has
            record.state = with_state(record, endpoints=kept)

    def _adopt(self, record: Record, endpoint: Endpoint) -> Endpoint | None:
        """With the addresses that are its own; None without any."""
        found = {4: "", 6: ""}
        with suppress(NoSuchNetwork):
            for address, addresses in self._with_addresses(endpoint):
                try:
                    addresses.take_back(address)
                except PydockerdError as error:
                    log.debug("%s: its address %s is gone: %s", record.id, address, error)
                    continue
                self._holders[endpoint.network_id, address] = record.id
                found[addresses.subnet.version] = address
        return replace(endpoint, ipv4=found[4], ipv6=found[6]) if any(found.values()) else None

    def _take(self, addresses: Addresses, wanted: str, network: Network) -> str:
        """An address; when there is none, that of a container that does not run.  Raises NetworkFailed, Conflict."""
        try:
            return addresses.take(wanted)
        except NetworkFailed:
            if wanted or not self._reclaim(addresses, network):
                raise
        return addresses.take()

    def _reclaim(self, addresses: Addresses, network: Network) -> bool:
        """Take an address from a container that does not run and did not ask for just that one."""
        version = addresses.subnet.version
        for record in self.records():
            if self._has_place(record):
                continue
            asked = next((one for one in record.host.networks if one.network == network.id), None)
            for endpoint in record.state.endpoints:
                has, fixed = {4: (endpoint.ipv4, "ipv4"), 6: (endpoint.ipv6, "ipv6")}[version]
                is_its_own = endpoint.network_id == network.id and self._holders.get((network.id, has)) == record.id
                if is_its_own and not (asked and getattr(asked, fixed)):
                    self._release(addresses, network.id, has)
                    without = replace(endpoint, **{fixed: ""})
                    left = tuple(without if one is endpoint else one for one in record.state.endpoints)
                    record.state = with_state(record, endpoints=left)
                    return True
        return False

    def _keeps(self, record: Record, addresses: Addresses, network: Network, address: str) -> bool:
        return self._holders.get((network.id, address)) == record.id and not addresses.is_reserved(address)

    def _release(self, addresses: Addresses, network_id: str, address: str) -> None:
        del self._holders[network_id, address]
        addresses.release(address)

    def _with_addresses(self, endpoint: Endpoint) -> list[tuple[str, Addresses]]:
        given = {4: endpoint.ipv4, 6: endpoint.ipv6}
        return [
            (given[addresses.subnet.version], addresses)
            for addresses in self._networks.addresses(endpoint.network_id)
            if given[addresses.subnet.version]
        ]
