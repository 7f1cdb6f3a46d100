"""What a container gets to know about the others, from the real service over real sockets."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from dnslib import QTYPE
from name_house import House
from name_house import house as open_house

from dockerd_py.nat.dns import redirect
from dockerd_py.nat.dns.model import NetworkNames

NO_SUCH_NAME, SERVER_FAILURE = 3, 2


@pytest.fixture(scope="module")
def the_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with open_house(tmp_path_factory.mktemp("house")) as it:
        yield it


@pytest.fixture
def house(the_house: House) -> Iterator[House]:
    """Without a container."""
    yield the_house
    the_house.clear()


def on(network: str, number: int, *names: str, **more: object) -> NetworkNames:
    return NetworkNames(f"id-of-{network}", network, f"10.0.0.{number}", f"fd00::{number:x}", names, **more)


def test_names_aliases_and_ids_are_found_in_any_case(house: House) -> None:
    asker, web = house.container(), house.container()
    house.put(asker, on("shop", 2, "cart"))
    house.put(web, on("shop", 3, "Web", "www", "0123456789ab"))
    for name in ("web", "WEB", "www", "0123456789ab", "web.shop", "WWW.Shop", "web."):
        assert asker.addresses(name) == ["10.0.0.3"], name
        assert asker.addresses(name, "AAAA") == ["fd00::3"], name
    assert web.addresses("cart") == ["10.0.0.2"]
    assert asker.addresses("cart") == ["10.0.0.2"]


def test_an_answer_has_the_askers_spelling_and_a_life_of_600_seconds(house: House) -> None:
    asker = house.container()
    house.put(asker, on("shop", 2, "cart"))
    answer = asker.ask("CaRt")
    assert str(answer.rr[0].rname) == "CaRt."
    assert answer.rr[0].ttl == 600
    assert answer.header.ra
    assert answer.header.rd


def test_a_known_name_without_that_type_has_no_data_and_goes_nowhere(house: House) -> None:
    asker = house.container()
    house.put(asker, NetworkNames("n", "four", "10.0.0.2", "", ("cart",)))
    for kind in ("AAAA", "MX", "TXT", "SRV"):
        answer = asker.ask("cart", kind)
        assert answer.header.rcode == 0
        assert answer.rr == []
    assert [QTYPE[each.rtype] for each in asker.ask("cart", "ANY").rr] == ["A"]


def test_the_networks_of_a_container_are_joined_and_others_unseen(house: House) -> None:
    both, left, right = house.container(), house.container(), house.container()
    house.put(both, on("left", 2, "both"), on("right", 3, "both"))
    house.put(left, on("left", 4, "one", "service"))
    house.put(right, on("right", 5, "two", "service"))
    assert both.addresses("one") == ["10.0.0.4"]
    assert both.addresses("two") == ["10.0.0.5"]
    assert both.addresses("service") == ["10.0.0.4", "10.0.0.5"]
    assert both.addresses("service.right") == ["10.0.0.5"]
    assert left.addresses("service") == ["10.0.0.4"]
    assert left.addresses("both") == ["10.0.0.2"]
    for stranger in ("two", "two.right", "service.right"):
        with pytest.raises(LookupError, match=str(NO_SUCH_NAME)):
            left.addresses(stranger)


def test_containers_that_share_an_alias_are_all_told_each_first_at_times(house: House) -> None:
    asker = house.container()
    house.put(asker, on("shop", 2, "cart"))
    for number in (3, 4, 5):
        house.put(house.container(), on("shop", number, f"web_{number}", "web"))
    seen = set()
    for _ in range(200):
        found = [str(each.rdata) for each in asker.ask("web").rr]
        assert sorted(found) == ["10.0.0.3", "10.0.0.4", "10.0.0.5"]
        seen.add(found[0])
    assert seen == {"10.0.0.3", "10.0.0.4", "10.0.0.5"}


def test_a_link_is_an_alias_for_one_pair_of_eyes(house: House) -> None:
    asker, other, db = house.container(), house.container(), house.container()
    house.put(asker, on("shop", 2, "cart", links=(("store", db.id), ("Web", "database"), ("gone", "f" * 64))))
    house.put(other, on("shop", 3, "web"))
    house.put(db, on("shop", 4, "database"))
    assert asker.addresses("store") == ["10.0.0.4"]
    assert asker.addresses("store.shop") == ["10.0.0.4"]
    assert asker.addresses("web") == ["10.0.0.4"], "what it calls so itself comes first"
    assert other.addresses("web") == ["10.0.0.3"]
    for container, name in ((other, "store"), (asker, "gone")):
        with pytest.raises(LookupError, match=str(NO_SUCH_NAME)):
            container.addresses(name)


def test_addresses_are_looked_up_in_reverse_on_own_networks_only(house: House) -> None:
    asker, web = house.container(), house.container()
    house.put(asker, on("shop", 2, "cart"))
    house.put(web, on("shop", 3, "Web", "www"), NetworkNames("n", "other", "10.9.0.3", "", ("Web",)))
    assert asker.addresses("3.0.0.10.in-addr.arpa", "PTR") == ["Web.shop."]
    reverse6 = ".".join("3" + "0" * 27 + "00df") + ".ip6.arpa"
    assert asker.addresses(reverse6, "PTR") == ["Web.shop."]
    assert asker.addresses("3.0.0.10.in-addr.arpa", "A") == []
    with pytest.raises(LookupError, match=str(NO_SUCH_NAME)):
        asker.addresses("3.0.9.10.in-addr.arpa", "PTR")
    assert web.addresses("3.0.9.10.in-addr.arpa", "PTR") == ["Web.other."]


def test_what_changes_is_seen_at_once_and_by_all(house: House) -> None:
    asker, web = house.container(), house.container()
    house.put(asker, on("shop", 2, "cart"))
    entry = house.put(web, on("shop", 3, "web"))
    renamed = entry._replace(networks=(on("shop", 7, "front"), on("bank", 8, "front")))
    assert house.request("change", entry=renamed.to_json()) == {"known": True}
    assert asker.addresses("front") == ["10.0.0.7"]
    assert asker.addresses("7.0.0.10.in-addr.arpa", "PTR") == ["front.shop."]
    for gone in ("web", "front.bank"):
        with pytest.raises(LookupError):
            asker.addresses(gone)
    with pytest.raises(LookupError):
        asker.addresses("3.0.0.10.in-addr.arpa", "PTR")
    assert web.addresses("front") == ["10.0.0.7", "10.0.0.8"]
    unknown = entry._replace(container_id="e" * 64)
    assert house.request("change", entry=unknown.to_json()) == {"known": False}


def test_an_entry_that_is_none_is_refused_by_name_and_changes_nothing(house: House) -> None:
    asker = house.container()
    entry = house.put(asker, on("shop", 2, "cart"))
    broken = entry._replace(networks=(NetworkNames("id-of-shop", "shop", "10.0.0.300", "", ("cart",)),))
    assert "10.0.0.300" in house.request("change", entry=broken.to_json())["error"]
    assert "no entry" in house.request("change", entry={"container_id": 7})["error"]
    assert asker.addresses("cart") == ["10.0.0.2"]


def test_who_is_on_internal_networks_only_learns_of_no_other_names(house: House) -> None:
    asked = []
    house.upstream("127.0.0.21", lambda query, by: asked.append(query) or query.reply().pack())  # type: ignore[func-returns-value]
    asker = house.container()
    house.put(asker, on("cellar", 2, "cart"), servers=("127.0.0.21",), forwards=False)
    assert asker.addresses("cart") == ["10.0.0.2"]
    with pytest.raises(LookupError, match=str(SERVER_FAILURE)):
        asker.addresses("example.org")
    assert asked == []


def test_what_does_not_fit_is_cut_and_told_whole_by_tcp_and_to_who_takes_more(house: House) -> None:
    asker = house.container()
    house.put(asker, on("shop", 2, "cart"))
    crowd = [house.container() for _ in range(60)]
    for number, each in enumerate(crowd, 10):
        house.put(each, on("shop", number, f"web_{number}", "web"))
    everybody = sorted(f"10.0.0.{number}" for number in range(10, 70))
    short = asker.ask("web")
    assert short.header.tc
    assert 20 < len(short.rr) < 60
    assert len(short.pack()) <= 512
    assert asker.addresses("web", tcp=True) == everybody
    long = asker.ask("web", edns=4096)
    assert not long.header.tc
    assert sorted(str(each.rdata) for each in long.rr) == everybody
    assert [QTYPE[each.rtype] for each in long.ar] == ["OPT"]


@pytest.mark.parametrize("tool", [["getent", "ahosts", "web"], ["busybox", "nslookup", "web", "127.0.0.11"]])
def test_the_tools_of_a_host_find_a_name(house: House, tool: list[str], tmp_path: Path) -> None:
    asker = house.container()
    house.put(asker, on("shop", 2, "cart", "web"))
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("nameserver 127.0.0.11\noptions ndots:0\n")
    script = 'mount --bind "$0" "$(realpath /etc/resolv.conf)" && exec "$@"'
    found = subprocess.run(
        ["nsenter", f"--net=/proc/{asker.pid}/ns/net", "unshare", "-m", "sh", "-c", script, str(resolv), *tool],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert "10.0.0.2" in found.stdout, found
    assert "fd00::2" in found.stdout, found


@pytest.mark.parametrize("reuse", [None, socket.SO_REUSEADDR, socket.SO_REUSEPORT])
def test_a_container_may_have_a_name_server_of_its_own_at_every_address(house: House, reuse: int | None) -> None:
    asker = house.container()
    house.put(asker, on("shop", 2, "cart"))
    with asker.socket(socket.SOCK_DGRAM) as udp, asker.socket(socket.SOCK_STREAM) as tcp:
        for sock in (udp, tcp):
            if reuse is not None:
                sock.setsockopt(socket.SOL_SOCKET, reuse, 1)
            sock.bind(("0.0.0.0", 53))
        tcp.listen()
        udp.setblocking(False)
        assert asker.addresses("cart") == ["10.0.0.2"]
        assert asker.addresses("cart", tcp=True) == ["10.0.0.2"]
        with pytest.raises(BlockingIOError):
            udp.recv(1)


def test_without_nf_tables_the_service_itself_is_at_that_address(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(udp: int, tcp: int) -> None:
        raise OSError(errno.EPROTONOSUPPORT, "no such protocol")

    monkeypatch.setattr(redirect, "install", missing)
    asker = house.container()
    with asker.socket(socket.SOCK_DGRAM) as early:
        early.bind(("0.0.0.0", 53))
        with pytest.raises(OSError, match=r"127\.0\.0\.11 in the container: Address already in use"):
            house.put(asker, on("shop", 2, "cart"))
    house.put(asker, on("shop", 2, "cart"))
    assert asker.addresses("cart") == ["10.0.0.2"]
    assert asker.addresses("cart", tcp=True) == ["10.0.0.2"]
    with asker.socket(socket.SOCK_DGRAM) as late, pytest.raises(OSError, match="in use"):
        late.bind(("0.0.0.0", 53))


def test_the_service_has_no_privilege_left(house: House) -> None:
    status = Path(f"/proc/{house.process.pid}/status").read_text().splitlines()
    fields = dict(line.split(":\t", 1) for line in status if ":\t" in line)
    for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"):
        assert int(fields[name], 16) == 0, name
    assert fields["NoNewPrivs"] == "1"
    assert "0" not in fields["Uid"].split()
    assert "0" not in fields["Gid"].split()
    assert fields["Groups"].strip() == ""
    assert os.path.samefile(f"/proc/{house.process.pid}/root", house.directory / "names")


def test_an_unknown_request_is_refused_by_name(house: House) -> None:
    assert "'dance'" in house.request("dance")["error"]
    assert "version 1" in house.request("hello", version=99)["error"]
