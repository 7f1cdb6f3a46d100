"""Beside firewalld, whose side of the bus is played by a small service with the same names.

It answers as firewalld's zones do, and its reload flushes everything, as that of its iptables backend does.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from dbus_next import DBusError
from dbus_next.aio import MessageBus
from dbus_next.service import ServiceInterface, method, signal
from net_ground import Echo, Ground, ask
from private_bus import PrivateBus

from dockerd_py.nat.firewall import Firewall, open_firewall
from dockerd_py.nat.firewall.firewalld import NAME, PATH, ZONES
from dockerd_py.nat.model import BridgeRules, Mapping, Rules

BR0 = BridgeRules("br0", ("172.30.0.0/24",))
BR1 = BridgeRules("br1", ("172.31.0.0/24",))


class Zones(ServiceInterface):
    def __init__(self) -> None:
        super().__init__(ZONES)
        self.zone_of: dict[str, str] = {}

    @method()
    def getZoneOfInterface(self, interface: "s") -> "s":  # noqa: F821
        return self.zone_of.get(interface, "")

    @method()
    def addInterface(self, zone: "s", interface: "s") -> "s":  # noqa: F821
        if interface in self.zone_of:
            raise DBusError(NAME + ".Exception", f"ZONE_CONFLICT: '{interface}' already bound to a zone")
        self.zone_of[interface] = zone
        return zone

    @method()
    def removeInterface(self, zone: "s", interface: "s") -> "s":  # noqa: F821
        if self.zone_of.get(interface) != zone:
            raise DBusError(NAME + ".Exception", f"UNKNOWN_INTERFACE: '{interface}'")
        del self.zone_of[interface]
        return zone


class Main(ServiceInterface):
    def __init__(self) -> None:
        super().__init__(NAME)

    @signal()
    def Reloaded(self) -> None:
        return None


class Fake:
    """firewalld's names on the bus, while entered."""

    def __init__(self, ground: Ground, address: str) -> None:
        self._ground, self._address = ground, address
        self.zones, self._main = Zones(), Main()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        bus = await MessageBus(bus_address=self._address).connect()
        bus.export(PATH, self.zones)
        bus.export(PATH, self._main)
        await bus.request_name(NAME)
        try:
            yield
        finally:
            await bus.release_name(NAME)
            bus.disconnect()
            self.zones.zone_of.clear()

    async def reload(self) -> None:
        self._ground.host.run("nft", "flush ruleset")
        self.zones.zone_of.clear()
        self._main.Reloaded()

    async def until(self, zone_of: dict[str, str]) -> None:
        for _ in range(1000):
            if self.zones.zone_of == zone_of:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{self.zones.zone_of} instead of {zone_of}")


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Ground, Fake]]:
    with PrivateBus(open_to_all=True) as bus, Ground() as ground:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
        ground.bridge("br0", "172.30.0.1/24")
        yield ground, Fake(ground, bus.address)


async def opened() -> Firewall:
    return await open_firewall("nftables", "", enabled=True)


def test_bridges_come_into_its_zone_and_leave_it(stage: tuple[Ground, Fake]) -> None:
    ground, fake = stage

    async def story() -> None:
        async with fake.running():
            firewall = await opened()
            await firewall.apply(Rules((BR0, BR1)))
            assert fake.zones.zone_of == {"br0": "trusted", "br1": "trusted"}
            await firewall.apply(Rules((BR1,)))
            assert fake.zones.zone_of == {"br1": "trusted"}
            await firewall.clear()
            assert fake.zones.zone_of == {}
            await firewall.close()

    ground.host.do(story())


def test_a_bridge_that_the_administrator_has_put_somewhere_stays_there(stage: tuple[Ground, Fake]) -> None:
    ground, fake = stage

    async def story() -> None:
        async with fake.running():
            fake.zones.zone_of["br0"] = "dmz"
            firewall = await opened()
            await firewall.apply(Rules((BR0, BR1)))
            assert fake.zones.zone_of == {"br0": "dmz", "br1": "trusted"}
            await firewall.clear()
            assert fake.zones.zone_of == {"br0": "dmz"}
            await firewall.close()

    ground.host.do(story())


def test_after_a_reload_rules_and_zones_are_back(stage: tuple[Ground, Fake]) -> None:
    ground, fake = stage
    one = ground.container("one", "br0", "172.30.0.2/24")

    async def story() -> str:
        async with fake.running():
            firewall = await opened()
            await firewall.apply(Rules((BR0,), (Mapping("tcp", "0.0.0.0", 8080, "br0", "172.30.0.2", 80),)))
            await fake.reload()
            await fake.until({"br0": "trusted"})
            answer = await asyncio.to_thread(ask, ground.outside, "tcp", Ground.HOST, 8080)
            await firewall.close()
            return answer

    with Echo(one, "tcp", 80):
        assert ground.host.do(story()) == "one 192.0.2.2"


def test_firewalld_that_starts_later_is_met_then(stage: tuple[Ground, Fake]) -> None:
    ground, fake = stage

    async def story() -> None:
        firewall = await opened()
        await firewall.apply(Rules((BR0,)))
        async with fake.running():
            await fake.until({"br0": "trusted"})
        async with fake.running():
            await fake.until({"br0": "trusted"})
        await firewall.apply(Rules((BR1,)))
        await firewall.close()

    ground.host.do(story())


def test_without_a_bus_the_firewall_works_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent")

    async def story() -> str:
        firewall = await opened()
        await firewall.apply(Rules((BR0,)))
        await firewall.close()
        return firewall.name

    coroutine: Coroutine[Any, Any, str] = story()
    with Ground() as ground:
        assert ground.host.do(coroutine) == "nftables"
