"""Two bridges with two containers each, an outside, and a firewall between them, for tests."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from net_ground import Echo, Ground, Space

from dockerd_py.nat.firewall import Firewall, open_firewall
from dockerd_py.nat.model import BridgeRules, LinkRule, Mapping, Rules

BACKENDS = ("nftables", "iptables")

TOOLS = {"nftables": "iptables-nft", "iptables": "iptables-legacy"}

BR0 = BridgeRules("br0", ("172.30.0.0/24", "fd30::/64"))

BR1 = BridgeRules("br1", ("172.31.0.0/24", "fd31::/64"))


class Stage:
    """br0 with the containers one and two, br1 with three and four; a port 80 of TCP and one of UDP in each."""

    def __init__(self, backend: str, *, strict: bool) -> None:
        self.backend, self.strict = backend, strict
        self.ground = Ground(bridge_netfilter=strict)
        self.host, self.outside = self.ground.host, self.ground.outside
        self.ground.bridge("br0", "172.30.0.1/24", "fd30::1/64")
        self.ground.bridge("br1", "172.31.0.1/24", "fd31::1/64")
        self.one = self.ground.container("one", "br0", "172.30.0.2/24", "fd30::2/64")
        self.two = self.ground.container("two", "br0", "172.30.0.3/24", "fd30::3/64")
        self.three = self.ground.container("three", "br1", "172.31.0.2/24", "fd31::2/64")
        self.four = self.ground.container("four", "br1", "172.31.0.3/24", "fd31::3/64")
        self.firewalls: list[Firewall] = []
        if strict:
            self.policy("DROP")
        self.firewall = self.open()
        self.echoes = ExitStack()
        for space in (self.outside, self.one, self.two, self.three, self.four):
            for protocol in ("tcp", "udp"):
                self.echoes.enter_context(Echo(space, protocol, 80))

    def open(self, instance: str = "") -> Firewall:
        firewall = self.host.do(open_firewall(self.backend, instance, enabled=True))
        self.firewalls.append(firewall)
        return firewall

    def tool(self, *words: str, six: bool = False) -> str:
        name = TOOLS[self.backend]
        return self.host.run("ip6" + name[2:] if six else name, *words)

    def policy(self, policy: str) -> None:
        for six in (False, True):
            self.tool("-P", "FORWARD", policy, six=six)

    def apply(
        self,
        *bridges: BridgeRules,
        ports: tuple[Mapping, ...] = (),
        links: tuple[LinkRule, ...] = (),
        relayed: tuple[tuple[str, int], ...] = (),
    ) -> None:
        self.host.do(self.firewall.apply(Rules(bridges or (BR0, BR1), ports, links, relayed)))

    def state(self) -> str:
        return kernel_state(self.host, self.backend)

    def close(self) -> None:
        self.echoes.close()
        for firewall in self.firewalls:
            self.host.do(firewall.close())
        self.ground.close()


def kernel_state(host: Space, backend: str) -> str:
    """All rules that there are, without what differs from one reading to the next; what has no order is sorted."""
    if backend == "nftables":
        listed = json.loads(host.run("nft", "-j", "list", "ruleset"))["nftables"]
        chains: dict[str, list[str]] = {}
        for entry in listed:
            ((kind, value),) = entry.items()
            value.pop("handle", None)
            if "elem" in value:
                value["elem"] = sorted(json.dumps(one) for one in value["elem"])
            place = " ".join(value.get(key, "") for key in ("family", "table", "chain", "name"))
            line = re.sub(r'"(packets|bytes)": \d+', r'"\1": 0', json.dumps(entry, sort_keys=True))
            chains.setdefault(f"{place} {kind}", []).append(line)
        return "\n".join(line for place in sorted(chains) for line in chains[place])
    text = []
    for six in ("", "6"):
        for table in ("filter", "mangle", "nat"):
            lines = host.run(f"ip{six}tables-legacy-save", "-t", table).splitlines()
            lines = [re.sub(r"\[\d+:\d+\]", "", line) for line in lines if not line.startswith("#")]
            text += [line for line in lines if "-j DNAT" not in line]
            text += sorted(line for line in lines if "-j DNAT" in line)
    return "\n".join(text)


@pytest.fixture(scope="module", params=[f"{backend}-{kind}" for backend in BACKENDS for kind in ("plain", "strict")])
def the_stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    backend, kind = request.param.split("-")
    stage = Stage(backend, strict=kind == "strict")
    yield stage
    stage.close()


@pytest.fixture
def stage(the_stage: Stage) -> Iterator[Stage]:
    yield the_stage
    the_stage.host.do(the_stage.firewall.clear())


@pytest.fixture(params=BACKENDS)
def own(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A stage that a test may spoil."""
    stage = Stage(request.param, strict=False)
    yield stage
    stage.close()


def port(host_port: int, address: str, *, host_ip: str = "", protocol: str = "tcp", bridge: str = "br0") -> Mapping:
    return Mapping(protocol, host_ip or ("::" if ":" in address else "0.0.0.0"), host_port, bridge, address, 80)


def flush(stage: Stage) -> None:
    if stage.backend == "nftables":
        stage.host.run("nft", "flush ruleset")
        return
    for six in (False, True):
        for table in ("filter", "mangle", "nat"):
            stage.tool("-t", table, "-F", six=six)
            stage.tool("-t", table, "-X", six=six)
