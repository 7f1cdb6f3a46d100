"""Addresses through whatever containers, their daemon and its settings go through: none is lost or given twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from typing import Any, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dockerd_py.engine import forms
from dockerd_py.engine.addressing import Addressing
from dockerd_py.engine.model import ContainerConfig, HostConfig, State, Status
from dockerd_py.engine.network_model import EndpointRequest, Network
from dockerd_py.engine.networks import Networks
from dockerd_py.engine.record import Record, with_state
from dockerd_py.errors import BadParameter, Conflict, NetworkFailed, NoSuchNetwork
from dockerd_py.nat.ipam import Addresses
from dockerd_py.nat.model import Pool

SUBNETS = ("10.9.0.0/29", "10.9.0.8/29")
GATEWAYS = (1, 2)
IDS = ("a", "b")


@dataclass
class Pools:
    """The part of `Networks` that addresses come from."""

    networks: dict[str, Network]
    pools: dict[str, list[Addresses]] = field(default_factory=dict)

    def get(self, ref: str) -> Network:
        if ref not in self.networks:
            raise NoSuchNetwork(ref)
        return self.networks[ref]

    def check_whole(self, network: Network) -> None:
        pass

    def addresses(self, network_id: str) -> Sequence[Addresses]:
        self.get(network_id)
        return self.pools.setdefault(network_id, [Addresses(one, "") for one in self.networks[network_id].pools])


def network(network_id: str, subnet: str, gateway: int) -> Network:
    """Two or three containers find a place on it."""
    own = ip_network(subnet)
    pool = Pool(subnet, str(own[gateway]), aux={str(number): str(own[number]) for number in (5, 6)})
    return Network(network_id, f"network {network_id}", 0, "bridge", pools=(pool, Pool("fd00::/126", "fd00::1")))


class Machine(RuleBasedStateMachine):
    """Containers on two networks, and the rows that a daemon has written of them."""

    def __init__(self) -> None:
        super().__init__()
        self.records: dict[str, Record] = {}
        self.rows: dict[str, str] = {}
        self.count = 0
        self.boot({one: network(one, SUBNETS[number], 1) for number, one in enumerate(IDS)})
        for one in IDS:
            self.create(on={one}, number=0)
            self.begin(self.records[f"{self.count}"], fails=False)

    def boot(self, networks: dict[str, Network]) -> None:
        """A daemon begins: what the rows say is all that it knows, and those that run were told of."""
        self.pools = Pools(networks)
        self.addressing = Addressing(cast("Networks", self.pools), lambda record: record.state.running)
        self.addressing.records = self.records.values
        for key, record in self.records.items():
            record.state = forms.load_state(self.rows[key])[0]
        for record in sorted(self.records.values(), key=lambda one: not one.state.running):
            self.addressing.adopt(record)

    def save(self, record: Record) -> None:
        self.rows[record.id] = json.dumps(json.loads(forms.dump_state(record.state)))

    def some(self, data: st.DataObject, *, running: bool) -> Record | None:
        found = [one for one in self.records.values() if one.state.running == running]
        return data.draw(st.sampled_from(found)) if found else None

    @rule(on=st.sets(st.sampled_from(IDS), min_size=1), number=st.sampled_from((0, 0, 0, 2, 3)))
    def create(self, on: set[str], number: int) -> None:
        self.count += 1
        asked = [
            EndpointRequest(one, ipv4=str(self.pools.addresses(one)[0].subnet[number]) if number else "")
            for one in sorted(on & self.pools.networks.keys())
        ]
        host = HostConfig(networks=tuple(asked))
        record = Record(f"{self.count}", "", "", 0, ContainerConfig(), host, State(), "", "", "", (), "")
        self.records[record.id] = record
        self.save(record)

    @rule(data=st.data(), fails=st.booleans())
    def start(self, data: st.DataObject, fails: bool) -> None:
        if record := self.some(data, running=False):
            self.begin(record, fails=fails)

    @rule(data=st.data(), fails=st.booleans())
    def start_again(self, data: st.DataObject, fails: bool) -> None:
        if record := self.some(data, running=True):
            self.stop(record)
            self.begin(record, fails=fails)

    def begin(self, record: Record, *, fails: bool) -> None:
        """As `Networking.plan` does it; ``fails``: for want of a port."""
        endpoints = []
        try:
            for asked in record.host.networks:
                endpoints.append(self.addressing.plan(record, asked, "eth0"))
            if fails:
                raise NetworkFailed("")
        except (NetworkFailed, Conflict, BadParameter, NoSuchNetwork):
            self.addressing.give_back(record, endpoints, but=record.state.endpoints)
            return
        self.addressing.give_back(record, record.state.endpoints, but=endpoints)
        for one in endpoints:
            for addresses, own in zip(self.pools.addresses(one.network_id), (one.ipv4, one.ipv6), strict=True):
                assert own in addresses
                assert not addresses.is_reserved(own)
        record.state = with_state(record, endpoints=tuple(endpoints), status=Status.RUNNING, pid=1)
        self.save(record)

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        if record := self.some(data, running=True):
            self.stop(record)

    def stop(self, record: Record) -> None:
        record.state = with_state(record, status=Status.EXITED, pid=0)
        self.save(record)

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        if record := self.some(data, running=False):
            self.addressing.give_back(record, record.state.endpoints)
            del self.records[record.id], self.rows[record.id]

    @rule(data=st.data(), which=st.sampled_from(IDS))
    def disconnect(self, data: st.DataObject, which: str) -> None:
        record = self.some(data, running=True) or self.some(data, running=False)
        if record is not None:
            left = tuple(one for one in record.host.networks if one.network != which)
            record.host = replace(record.host, networks=left)
            going = [one for one in record.state.endpoints if one.network_id == which]
            record.state = with_state(record, endpoints=tuple(x for x in record.state.endpoints if x not in going))
            self.save(record)
            self.addressing.give_back(record, going)

    @rule(which=st.sampled_from(IDS))
    def remove_network(self, which: str) -> None:
        used = any(one.network_id == which for each in self.running() for one in each.state.endpoints)
        if not used and self.count > 8:  # else there would soon be nothing to do
            self.pools.networks.pop(which, None)
            self.pools.pools.pop(which, None)

    @rule(other=st.booleans(), gateway=st.sampled_from(GATEWAYS), stops=st.booleans())
    def restart(self, other: bool, gateway: int, stops: bool) -> None:
        """Killed, and started with another subnet or gateway; ``stops``: no container outlives it."""
        if stops:
            for each in self.running():
                self.stop(each)
        order = SUBNETS[::-1] if other else SUBNETS
        there = self.pools.networks
        self.boot({one: network(one, order[number], gateway) for number, one in enumerate(IDS) if one in there})

    def running(self) -> list[Record]:
        return [one for one in self.records.values() if one.state.running]

    @invariant()
    def nobody_has_anothers_address(self) -> None:
        had: list[Any] = [
            (one.network_id, address)
            for record in self.running()
            for one in record.state.endpoints
            for address in (one.ipv4, one.ipv6)
            if address
        ]
        assert len(had) == len(set(had))

    @invariant()
    def what_is_taken_is_what_containers_have(self) -> None:
        for key in self.pools.networks:
            for addresses in self.pools.addresses(key):
                had = {
                    address
                    for record in self.records.values()
                    for one in record.state.endpoints
                    for address in (one.ipv4, one.ipv6)
                    if one.network_id == key and address and address in addresses
                }
                assert addresses.in_use <= had


TestAddressing = Machine.TestCase
TestAddressing.settings = settings(max_examples=400, stateful_step_count=50, deadline=None)
