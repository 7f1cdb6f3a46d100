"""Links, as far as they are functions of what containers are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dockerd_py.engine import links
from dockerd_py.engine.model import ContainerConfig, HostConfig, State
from dockerd_py.engine.network_model import EndpointRequest, Link, PortBinding
from dockerd_py.engine.record import Record
from dockerd_py.errors import BadParameter, LinkedToNothing, NoSuchContainer

NETWORK = EndpointRequest("n" * 64)


def record(name: str, *linked: str, mode: str = "default", **config: Any) -> Record:
    """A container whose id is made of its name; ``linked`` are the names of others."""
    to = tuple(Link(other * 64, other) for other in linked)
    return Record(
        id=name * 64,
        name=name,
        image_id="1" * 64,
        created=0,
        config=ContainerConfig(**config),
        host=HostConfig(network_mode=mode, networks=(NETWORK,), links=to),
        state=State(),
        driver="overlay",
        log_driver="json-file",
        path="sh",
        args=(),
        runtime="crun",
    )


def finding(*records: Record) -> Callable[[str], Record]:
    known = {key: one for one in records for key in (one.id, one.name)}

    def find(ref: str) -> Record:
        if ref not in known:
            raise NoSuchContainer(ref)
        return known[ref]

    return find


def asked(*texts: str, mode: str = "default", networks: tuple[EndpointRequest, ...] = (NETWORK,)) -> HostConfig:
    return HostConfig(network_mode=mode, networks=networks, links=tuple(map(links.parse, texts)))


@pytest.mark.parametrize(
    ("text", "container", "alias"),
    [
        ("db:store", "db", "store"),
        ("db", "db", "db"),
        ("/db:/web/store", "db", "store"),  # as inspect shows it
        ("/db:store", "db", "store"),
        ("0123456789ab:a-b.c_d", "0123456789ab", "a-b.c_d"),
    ],
)
def test_a_link_is_a_container_and_an_alias(text: str, container: str, alias: str) -> None:
    assert links.parse(text) == Link(container, alias)


@pytest.mark.parametrize("text", ["", ":", "a:", ":b", "a:b:c", "a:b c", "a:b\nc", "a:b/c", "/a:/b/", "a:-b", "a:#"])
def test_what_is_no_link_is_refused(text: str) -> None:
    with pytest.raises(BadParameter):
        links.parse(text)


def test_a_link_is_kept_with_the_id_of_its_target() -> None:
    host = links.resolve(asked("a:x", "b", "a:x"), finding(record("a"), record("b")))
    assert host.links == (Link("a" * 64, "x"), Link("b" * 64, "b"))


def test_a_link_to_nothing_names_what_is_not_there() -> None:
    with pytest.raises(LinkedToNothing, match=r"^could not get container for a: No such container: a$"):
        links.resolve(asked("a:x"), finding(record("b")))


@pytest.mark.parametrize(
    ("host", "words"),
    [
        (asked("a:x", "b:x"), "the alias x is given to two links"),
        (asked("a:x", mode="host"), "host type networking can't be used with links"),
        (asked("a:x", mode="container:" + "b" * 64, networks=()), "container type network can't be used with links"),
        (asked("a:x", mode="none"), "the container is to have none"),
        (asked("a:x", networks=()), "the container is to have none"),
        (asked("h:x"), "host type networking can't be used with links"),
        (asked("j:x"), "host type networking can't be used with links"),
    ],
)
def test_links_that_could_have_no_effect_are_refused(host: HostConfig, words: str) -> None:
    others = record("h", mode="host"), record("j", mode="container:" + "h" * 64)
    with pytest.raises(BadParameter, match=words):
        links.resolve(host, finding(record("a"), record("b"), *others))


def test_no_link_is_lost_by_a_start_that_brings_more() -> None:
    before, more = (Link("a" * 64, "x"), Link("b" * 64, "y")), (Link("c" * 64, "y"), Link("d" * 64, "z"))
    assert links.joined("e" * 64, before, more) == (Link("a" * 64, "x"), Link("c" * 64, "y"), Link("d" * 64, "z"))


def test_a_container_is_not_linked_to_itself() -> None:
    with pytest.raises(BadParameter, match="cannot be linked to itself, as me would be"):
        links.joined("e" * 64, (), (Link("e" * 64, "me"),))


def test_ports_come_by_number_and_tcp_first() -> None:
    config = ContainerConfig(exposed_ports=("443", "80/udp", "80/tcp", "53/udp", "8001-8002/tcp", "http/tcp"))
    host = HostConfig(port_bindings=(PortBinding(80), PortBinding(22)))
    assert links.ports_of(config, host) == [
        (22, "tcp"), (53, "udp"), (80, "tcp"), (80, "udp"), (443, "tcp"), (8001, "tcp"), (8002, "tcp"),
    ]  # fmt: skip


def test_a_link_becomes_variables() -> None:
    own = ("HOME=/root", "PATH=/bin", "MODE=a=b", "EMPTY=", "bare")
    assert links.environment("web", "my-db", "172.17.0.2", [(53, "udp"), (5432, "tcp")], own) == (
        "MY_DB_PORT=udp://172.17.0.2:53",
        "MY_DB_PORT_53_UDP=udp://172.17.0.2:53",
        "MY_DB_PORT_53_UDP_ADDR=172.17.0.2",
        "MY_DB_PORT_53_UDP_PORT=53",
        "MY_DB_PORT_53_UDP_PROTO=udp",
        "MY_DB_PORT_5432_TCP=tcp://172.17.0.2:5432",
        "MY_DB_PORT_5432_TCP_ADDR=172.17.0.2",
        "MY_DB_PORT_5432_TCP_PORT=5432",
        "MY_DB_PORT_5432_TCP_PROTO=tcp",
        "MY_DB_NAME=/web/my-db",
        "MY_DB_ENV_MODE=a=b",
        "MY_DB_ENV_EMPTY=",
    )


def test_a_link_without_ports_has_a_name_only() -> None:
    assert links.environment("web", "db", "172.17.0.2", [], ()) == ("DB_NAME=/web/db",)


def test_an_address_of_ipv6_stands_in_brackets_in_an_url() -> None:
    found = links.environment("web", "db", "fd00::2", [(80, "tcp")], ())
    assert found[0] == "DB_PORT=tcp://[fd00::2]:80"
    assert "DB_PORT_80_TCP_ADDR=fd00::2" in found


def test_the_hosts_file_has_a_target_by_alias_hostname_and_name() -> None:
    assert links.names_in_hosts("db", record("a", hostname="box")) == "db box a"
    assert links.names_in_hosts("a", record("a", hostname="a")) == "a"


def test_a_hosts_file_is_right_as_long_as_its_lines_of_links_are() -> None:
    text = "127.0.0.1\tlocalhost\n172.17.0.9\tdb box a\n10.0.0.1\tother db\n# a note\n"
    wanted = [("172.17.0.9", "db box a")]
    assert links.is_current(text, ["db"], wanted)
    assert not links.is_current(text, ["db"], [("172.17.0.8", "db box a")])  # another address
    assert not links.is_current(text, ["db"], [("172.17.0.9", "db box b")])  # another name
    assert not links.is_current(text, ["db"], [])  # the target is on the network no longer
    assert not links.is_current(text, ["db", "queue"], [*wanted, ("172.17.0.7", "queue")])


def names(records: list[Record]) -> str:
    return "".join(one.name for one in records)


def test_targets_come_before_those_that_are_linked_to_them() -> None:
    chain = [record("a", "b", "c"), record("b", "d"), record("c", "d"), record("d"), record("e", "gone")]
    found = names(links.ordered(chain))
    assert sorted(found) == list("abcde")
    assert found.index("d") < min(found.index("b"), found.index("c"))
    assert found.index("a") > max(found.index("b"), found.index("c"))


def test_a_circle_of_links_has_an_order_too() -> None:
    circle = [record("a", "b"), record("b", "c"), record("c", "a"), record("d", "d")]
    assert sorted(names(links.ordered(circle))) == list("abcd")


def test_a_chain_of_links_may_be_long() -> None:
    found = [record("a")]
    for number in range(3000):
        one = record("a")
        one.id = f"{number:064x}"
        one.host = HostConfig(links=(Link(found[-1].id, "before"),))
        found.append(one)
    assert links.ordered(reversed(found)) == found
