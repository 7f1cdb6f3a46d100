"""The firewall beside others, after others, and by many at once; and which backend it is."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from firewall_stage import BACKENDS, BR0, BR1, TOOLS, Stage, flush, kernel_state, port
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from net_ground import Echo, Ground, Space, ask, reached

from dockerd_py.errors import BadParameter, NetworkFailed
from dockerd_py.nat.firewall import choose, open_firewall
from dockerd_py.nat.model import BridgeRules, LinkRule, Rules

# --- beside others ---


def test_a_policy_that_is_set_later_does_not_cut_containers_off(own: Stage) -> None:
    own.apply(ports=(port(8080, "172.30.0.2"),))
    own.policy("DROP")
    own.tool("-A", "FORWARD", "-j", "DROP")
    assert ask(own.one, "tcp", Ground.FAR, 80) == "outside 192.0.2.1"
    assert ask(own.outside, "tcp", Ground.HOST, 8080).startswith("one")
    assert ask(own.one, "tcp", "172.30.0.3", 80).startswith("two")


def test_a_policy_in_the_other_kind_of_tables_does_not_cut_containers_off(own: Stage) -> None:
    other = TOOLS["iptables" if own.backend == "nftables" else "nftables"]
    for six in ("", "6"):
        own.host.run(other.replace("ip", f"ip{six}", 1), "-P", "FORWARD", "DROP")
    before = own.host.run(other, "-S")
    own.apply(ports=(port(8080, "172.30.0.2"), port(8080, "fd30::2")))
    assert ask(own.one, "tcp", Ground.FAR, 80) == "outside 192.0.2.1"
    assert ask(own.outside, "tcp", Ground.HOST, 8080).startswith("one")
    assert ask(own.outside, "tcp", Ground.HOST6, 8080).startswith("one")
    own.apply(BR1)
    assert ask(own.three, "tcp", Ground.FAR, 80) == "outside 192.0.2.1"
    own.host.do(own.firewall.clear())
    assert own.host.run(other, "-S") == before


def test_a_forward_chain_that_somebody_has_made_by_hand_will_do() -> None:
    with Ground() as ground:
        ground.host.run(
            "nft",
            "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 10; policy drop; }",
        )
        ground.bridge("br0", "172.30.0.1/24")
        one = ground.container("one", "br0", "172.30.0.2/24")
        firewall = ground.host.do(open_firewall("nftables", "", enabled=True))
        ground.host.do(firewall.apply(Rules((BR0,))))
        with Echo(ground.outside, "tcp", 80):
            assert ask(one, "tcp", Ground.FAR, 80) == "outside 192.0.2.1"
        ground.host.do(firewall.close())


def test_tables_that_nobody_uses_are_not_made(own: Stage) -> None:
    own.apply()
    own.host.do(own.firewall.clear())
    if own.backend == "iptables":
        assert own.host.run("nft", "list", "ruleset") == ""
    else:
        assert legacy_tables(own.host) == ""


@pytest.mark.parametrize("own", ["iptables"], indirect=True)
def test_a_network_without_ipv6_makes_no_legacy_nat_table_for_it(own: Stage) -> None:
    own.apply(BridgeRules("br0", ("172.30.0.0/24",)), ports=(port(8080, "172.30.0.2"),))
    own.host.do(own.firewall.clear())
    assert "nat" not in legacy_tables(own.host, "6")


def legacy_tables(host: Space, family: str = "") -> str:
    with host.entered(), open(f"/proc/thread-self/net/ip{family}_tables_names") as names:
        return names.read()


def test_rules_of_others_stay_as_they_are(own: Stage) -> None:
    own.tool("-A", "FORWARD", "-s", "203.0.113.7", "-m", "conntrack", "--ctstate", "NEW", "-j", "DROP")
    own.tool("-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport", "99", "-j", "REDIRECT", "--to-ports", "98")
    own.tool("-t", "mangle", "-A", "FORWARD", "-j", "MARK", "--set-mark", "7")
    own.tool("-P", "FORWARD", "DROP", six=True)
    own.host.run("nft", "add table inet mine; add chain inet mine c { type filter hook forward priority 5; }")
    own.apply()
    own.host.do(own.firewall.clear())  # leaves an empty FORWARD chain where there was none
    before = own.state()
    own.apply(ports=(port(8080, "172.30.0.2"),), links=(LinkRule("br0", "172.30.0.2", "172.30.0.3", "tcp", 80),))
    own.apply(BR1)
    own.host.do(own.firewall.reapply())
    assert own.state() != before
    own.host.do(own.firewall.clear())
    assert own.state() == before
    assert "203.0.113.7" in before
    assert '"mine"' in before or own.backend == "iptables"


def test_iptables_can_still_read_and_change_the_table(own: Stage) -> None:
    own.apply(ports=(port(8080, "172.30.0.2"),))
    for six in (False, True):
        listed = own.tool("-S", six=six)
        assert "-A FORWARD -j PYDOCKERD" in listed
        assert "-A PYDOCKERD -i br0 -j ACCEPT" in listed
        assert "incompatible" not in listed + own.tool("-vnL", six=six)
        own.tool("-A", "FORWARD", "-s", "fe80::1" if six else "203.0.113.7", "-j", "DROP", six=six)
        own.tool("-I", "FORWARD", "-i", "lo", "-j", "ACCEPT", six=six)
    name = TOOLS[own.backend]
    saved = own.host.run(f"{name}-save", "-t", "filter")
    assert "incompatible" not in saved
    own.host.run(f"{name}-restore", text=saved)
    assert ask(own.outside, "tcp", Ground.HOST, 8080).startswith("one")


def test_a_jump_that_is_no_longer_first_is_put_there_again(own: Stage) -> None:
    own.apply()
    own.tool("-I", "FORWARD", "-j", "DROP")
    assert not reached((own.one, "tcp", Ground.FAR, 80))
    own.host.do(own.firewall.reapply())
    assert ask(own.one, "tcp", Ground.FAR, 80) == "outside 192.0.2.1"
    assert own.tool("-S", "FORWARD").count("PYDOCKERD") == 1


def test_two_daemons_on_one_host_are_apart_and_leave_each_others_rules(own: Stage) -> None:
    other = own.open("c0ffee")
    own.apply(BR0, ports=(port(8080, "172.30.0.2"),))
    alone = own.state()
    own.host.do(other.apply(Rules((BR1,), (port(8081, "172.31.0.2", bridge="br1"),))))
    assert ask(own.outside, "tcp", Ground.HOST, 8080).startswith("one")
    assert ask(own.outside, "tcp", Ground.HOST, 8081).startswith("three")
    assert ask(own.one, "tcp", Ground.HOST, 8081).startswith("three")
    assert not reached(
        (own.one, "tcp", "172.31.0.2", 80),
        (own.three, "tcp", "172.30.0.2", 80),
    )
    own.host.do(other.clear())
    assert own.state() == alone


# --- what others undo, and what earlier daemons left ---


def test_a_flush_is_repaired(own: Stage) -> None:
    own.apply(ports=(port(8080, "172.30.0.2"),))
    before = own.state()
    flush(own)
    own.host.do(own.firewall.reapply())
    assert own.state() == before
    assert ask(own.outside, "tcp", Ground.HOST, 8080).startswith("one")


def test_the_next_change_after_a_flush_puts_everything_back(own: Stage) -> None:
    own.apply(ports=(port(8080, "172.30.0.2"), port(8081, "172.30.0.3")))
    flush(own)
    own.apply(ports=(port(8080, "172.30.0.2"),))
    if own.backend == "iptables":  # what is added finds no chain; what is removed, no rule
        own.apply(ports=(port(8080, "172.30.0.2"), port(8082, "172.30.0.2")))
    assert ask(own.outside, "tcp", Ground.HOST, 8080).startswith("one")
    assert not reached((own.outside, "tcp", Ground.HOST, 8081))


def test_the_first_apply_replaces_what_an_earlier_daemon_left(own: Stage) -> None:
    own.apply(BR0, BR1, ports=(port(8080, "172.30.0.2"), port(8081, "fd30::2")))
    own.host.do(own.firewall.close())
    own.firewalls.clear()
    own.firewall = own.open()
    own.apply(BR0, ports=(port(8082, "172.30.0.2"),))
    after = own.state()
    own.host.do(own.firewall.clear())
    own.apply(BR0, ports=(port(8082, "172.30.0.2"),))
    assert own.state() == after


def test_another_backend_than_before_takes_the_old_ones_rules_away(own: Stage) -> None:
    closed = BridgeRules("br0", BR0.subnets, icc=False)
    own.apply(BR0, ports=(port(8082, "172.30.0.2"),))
    own.host.do(own.firewall.clear())
    nothing = own.state()
    own.apply(closed, BR1, ports=(port(8080, "172.30.0.2"), port(8080, "fd30::2")))
    own.host.do(own.firewall.close())
    own.firewalls.clear()
    before, own.backend = own.backend, next(one for one in BACKENDS if one != own.backend)
    own.firewall = own.open()
    own.apply(BR0, ports=(port(8080, "172.30.0.3"),))
    assert ask(own.one, "tcp", "172.30.0.3", 80) == "two 172.30.0.2"
    assert ask(own.outside, "tcp", Ground.HOST, 8080).startswith("two")
    assert not reached((own.outside, "tcp", Ground.HOST6, 8080))
    own.host.do(own.firewall.clear())
    assert kernel_state(own.host, before) == nothing


# --- many at once ---


def test_many_changes_at_once_are_all_in_force_when_they_return(own: Stage) -> None:
    ports = tuple(port(8000 + number, "172.30.0.2") for number in range(50))

    async def one(number: int) -> str:
        await own.firewall.apply(Rules((BR0,), ports[: number + 1]))
        return await asyncio.to_thread(ask, own.outside, "tcp", Ground.HOST, 8000 + number)

    async def all_of_them() -> list[str]:
        return await asyncio.gather(*(one(number) for number in range(len(ports))))

    assert own.host.do(all_of_them()) == ["one 192.0.2.2"] * len(ports)


def test_of_many_at_once_only_those_fail_that_cannot_be(own: Stage) -> None:
    good, worse = port(8000, "172.30.0.2"), port(8001, "fd30::2", host_ip="0.0.0.0")

    async def all_of_them() -> list[BaseException | None]:
        return await asyncio.gather(
            own.firewall.apply(Rules((BR0,))),
            own.firewall.apply(Rules((BR0,), (good,))),
            own.firewall.apply(Rules((BR0,), (good, worse))),
            return_exceptions=True,
        )

    first, second, third = own.host.do(all_of_them())
    assert first is None
    assert second is None
    assert isinstance(third, BadParameter)
    assert ask(own.outside, "tcp", Ground.HOST, 8000).startswith("one")


def test_who_gives_up_waiting_disturbs_nobody(own: Stage) -> None:
    async def both() -> None:
        first = asyncio.create_task(own.firewall.apply(Rules((BR0,))))
        second = asyncio.create_task(own.firewall.apply(Rules((BR0,), (port(8000, "172.30.0.2"),))))
        await asyncio.sleep(0)
        first.cancel()
        await second

    own.host.do(both())
    assert ask(own.outside, "tcp", Ground.HOST, 8000).startswith("one")


# --- what was applied before makes no difference ---

_addresses = st.sampled_from(["172.30.0.2", "172.30.0.3", "fd30::2", "172.31.0.2", "fd31::2"])
_ports = st.lists(
    st.builds(
        port,
        st.integers(8000, 8005),
        _addresses,
        host_ip=st.sampled_from(["", "", "10.0.0.1", "127.0.0.1", "fd00::1"]),
        protocol=st.sampled_from(["tcp", "udp"]),
    ).filter(lambda mapping: (":" in mapping.host_ip) == (":" in mapping.address)),
    max_size=8,
    unique_by=lambda mapping: (mapping.protocol, mapping.host_ip, mapping.host_port),
)
_links = st.lists(
    st.builds(LinkRule, st.just("br0"), st.just("172.30.0.2"), _addresses, st.just("tcp"), st.integers(80, 83)).filter(
        lambda link: ":" not in link.target
    ),
    max_size=4,
)
_bridges = st.lists(
    st.sampled_from([BR0, BR1, BridgeRules("br2", ("172.32.0.0/24",), internal=True), BridgeRules("br3")]), unique=True
)
_relayed = st.lists(st.tuples(st.sampled_from(["tcp", "udp"]), st.integers(8000, 8003)), max_size=4)
_rules = st.builds(
    lambda bridges, ports, links, relayed: Rules(tuple(bridges), tuple(ports), tuple(links), tuple(relayed)),
    _bridges,
    _ports,
    _links,
    _relayed,
)


@pytest.mark.parametrize("backend", BACKENDS)
def test_any_way_to_the_same_rules_gives_the_same_state(backend: str) -> None:
    with Ground() as ground:
        walking = ground.host.do(open_firewall(backend, "", enabled=True))
        fresh_host = ground.space("fresh")

        @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(_rules, min_size=1, max_size=5))
        def walk(steps: list[Rules]) -> None:
            for step in steps:
                ground.host.do(walking.apply(step))
            fresh = fresh_host.do(open_firewall(backend, "", enabled=True))
            fresh_host.do(fresh.apply(steps[-1]))
            fresh_host.do(fresh.close())
            assert kernel_state(ground.host, backend) == kernel_state(fresh_host, backend)

        walk()
        ground.host.do(walking.close())


# --- which backend ---


def test_without_a_firewall_nothing_is_touched() -> None:
    with Ground() as ground:
        for backend in BACKENDS:
            before = kernel_state(ground.host, backend)
            firewall = ground.host.do(open_firewall(backend, "", enabled=False))
            ground.host.do(firewall.apply(Rules((BR0,), (port(8080, "172.30.0.2"),))))
            ground.host.do(firewall.reapply())
            ground.host.do(firewall.clear())
            assert firewall.name == "none"
            assert kernel_state(ground.host, backend) == before


@pytest.mark.parametrize(
    ("target", "first"), [("xtables-nft-multi", "nftables"), ("xtables-legacy-multi", "iptables"), ("", "nftables")]
)
def test_the_backend_is_the_one_of_the_hosts_own_iptables(
    target: str, first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if target:
        (tmp_path / target).touch(0o755)
        (tmp_path / "alternative").symlink_to(target)
        (tmp_path / "iptables").symlink_to("alternative")
    monkeypatch.setattr(choose, "_WHERE", str(tmp_path))
    assert choose.preferred()[0] == first


def test_a_backend_that_does_not_exist_is_refused_by_name() -> None:
    with Ground() as ground, pytest.raises(NetworkFailed, match="ipfw"):
        ground.host.do(open_firewall("ipfw", "", enabled=True))


def test_without_the_right_to_it_the_error_says_so() -> None:
    program = (
        "import asyncio\n"
        "from dockerd_py.errors import NetworkFailed\n"
        "from dockerd_py.nat.firewall import open_firewall\n"
        "try:\n"
        "    asyncio.run(open_firewall('auto', '', enabled=True))\n"
        "except NetworkFailed as error:\n"
        "    print(error)\n"
    )
    with Ground() as ground:
        said = ground.host.run("setpriv", "--bounding-set=-net_admin", sys.executable, "-c", program)
    assert "nftables does not work" in said
    assert "iptables does not work: Operation not permitted" in said
    assert "--iptables=false" in said


def test_only_the_chosen_backends_library_is_imported() -> None:
    with Ground() as ground:
        for backend, other in (("nftables", "iptc"), ("iptables", "nftables")):
            program = (
                "import asyncio, sys\n"
                "from dockerd_py.nat.firewall import open_firewall\n"
                f"asyncio.run(open_firewall({backend!r}, '', enabled=True))\n"
                f"sys.exit({other!r} in sys.modules)"
            )
            with ground.host.entered():
                done = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
            assert done.returncode == 0
