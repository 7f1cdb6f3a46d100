"""Questions that are not ours: to the container's upstream servers and back, and what these may do to us."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from dnslib import QTYPE, RCODE, RR, DNSQuestion, DNSRecord
from dnslib import A as Address
from name_house import Container, House, Upstream, until
from name_house import house as open_house

from dockerd_py.nat.dns import forward, message
from dockerd_py.nat.dns.model import NameEntry, NetworkNames

FIRST, SECOND, THIRD = "127.0.0.21", "127.0.0.22", "127.0.0.23"


@pytest.fixture(scope="module")
def the_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with open_house(tmp_path_factory.mktemp("house")) as it:
        yield it


@pytest.fixture
def house(the_house: House) -> Iterator[House]:
    """Without a container and without a server upstream."""
    yield the_house
    the_house.clear()


def asker(house: House, *servers: str) -> Container:
    container = house.container()
    house.put(container, NetworkNames("n", "shop", "10.0.0.2", "", ("cart",)), servers=servers)
    return container


def right(query: DNSRecord, by: str) -> bytes:
    return told(query, "192.0.2.7")


def told(query: DNSRecord, *addresses: str) -> bytes:
    reply = query.reply()
    for address in addresses:
        reply.add_answer(RR(query.q.qname, QTYPE.A, rdata=Address(address)))
    packed: bytes = reply.pack()
    return packed


def code(name: str) -> object:
    def answer(query: DNSRecord, by: str) -> bytes:
        reply = query.reply()
        reply.header.rcode = getattr(RCODE, name)
        packed: bytes = reply.pack()
        return packed

    return answer


def silent(query: DNSRecord, by: str) -> None:
    return None


def test_what_is_not_ours_is_asked_upstream(house: House) -> None:
    upstream = house.upstream(FIRST, right)
    one = asker(house, FIRST)
    for name in ("example.org", "unknown", "cart.example.lan", "shop"):
        assert one.addresses(name) == ["192.0.2.7"]
        assert one.addresses(name, tcp=True) == ["192.0.2.7"]
    assert [name for name, _ in upstream.asked[::2]] == ["example.org.", "unknown.", "cart.example.lan.", "shop."]
    assert one.addresses("cart") == ["10.0.0.2"]
    assert len(upstream.asked) == 8


def test_a_name_that_does_not_exist_stays_so(house: House) -> None:
    house.upstream(FIRST, code("NXDOMAIN"))
    second = house.upstream(SECOND, right)
    with pytest.raises(LookupError, match=str(RCODE.NXDOMAIN)):
        asker(house, FIRST, SECOND).addresses("example.org")
    assert second.asked == []


def test_without_a_server_no_other_name_exists(house: House) -> None:
    with pytest.raises(LookupError, match=str(RCODE.NXDOMAIN)):
        asker(house).addresses("example.org")


@pytest.mark.parametrize("answer", [code("SERVFAIL"), code("REFUSED"), silent], ids=["failing", "refusing", "silent"])
def test_the_next_server_is_asked_when_one_does_not_help(house: House, answer: object) -> None:
    first = house.upstream(FIRST, answer)  # type: ignore[arg-type]
    house.upstream(SECOND, right)
    assert asker(house, FIRST, SECOND).addresses("example.org") == ["192.0.2.7"]
    assert len(first.asked) == 1


def test_where_nobody_listens_the_next_one_is_asked_at_once(house: House) -> None:
    house.upstream(THIRD, right)
    one = asker(house, FIRST, "2001:db8::1", "fe80::1%nowhere", "nonsense", SECOND, THIRD)
    begun = time.monotonic()
    assert one.addresses("example.org") == ["192.0.2.7"]
    assert time.monotonic() - begun < forward.ATTEMPT_SECONDS


def test_a_lost_question_is_asked_again(house: House) -> None:
    seen = []

    def second_time(query: DNSRecord, by: str) -> bytes | None:
        seen.append(query.header.id)
        return right(query, by) if len(seen) > 1 else None

    house.upstream(FIRST, second_time)
    assert asker(house, FIRST).addresses("example.org") == ["192.0.2.7"]
    assert len(set(seen)) == 2, "under another id"


def test_when_nobody_answers_the_asker_is_told_within_five_seconds(house: House) -> None:
    upstream = house.upstream(FIRST, silent)
    with pytest.raises(LookupError, match=str(RCODE.SERVFAIL)):
        asker(house, FIRST).addresses("example.org", timeout=5)
    assert len(upstream.asked) == forward.ATTEMPTS
    with pytest.raises(LookupError, match=str(RCODE.SERVFAIL)):
        asker(house, SECOND).addresses("example.org", timeout=5)


def test_a_forged_answer_is_passed_over(house: House) -> None:
    def forged(query: DNSRecord, by: str) -> bytes:
        wrong = DNSRecord.parse(told(query, "203.0.113.66"))
        for change in ("id", "name", "kind", "question"):
            other = DNSRecord.parse(wrong.pack())
            match change:
                case "id":
                    other.header.id ^= 1
                case "name":
                    other.questions = [DNSQuestion("example.com")]
                case "kind":
                    other.questions = [DNSQuestion("example.org", QTYPE.AAAA)]
                case _:
                    other.header.qr = 0
            upstream._udp.sendto(other.pack(), sender[0])
        return right(query, by)

    sender: list[object] = []
    upstream = house.upstream(FIRST, forged)
    upstream._udp = _Noting(upstream._udp, sender)  # type: ignore[assignment]
    assert asker(house, FIRST).addresses("example.org") == ["192.0.2.7"]


class _Noting:
    """A socket, and who sent what it received last."""

    def __init__(self, sock: socket.socket, senders: list[object]) -> None:
        self._sock = sock
        self._senders = senders

    def __getattr__(self, name: str) -> object:
        return getattr(self._sock, name)

    def recvfrom(self, size: int) -> tuple[bytes, object]:
        data, sender = self._sock.recvfrom(size)
        self._senders[:] = [sender]
        return data, sender


def test_a_cut_answer_is_passed_on_by_udp_and_completed_for_who_asks_by_tcp(house: House) -> None:
    everybody = [f"192.0.2.{number}" for number in range(1, 200)]

    def long(query: DNSRecord, by: str) -> bytes:
        if by == "tcp":
            return told(query, *everybody)
        reply = query.reply()
        reply.header.tc = 1
        packed: bytes = reply.pack()
        return packed

    upstream = house.upstream(FIRST, long)
    one = asker(house, FIRST)
    assert one.ask("example.org").header.tc
    assert [by for _, by in upstream.asked] == ["udp"]
    assert one.addresses("example.org", tcp=True) == sorted(everybody)
    assert [by for _, by in upstream.asked] == ["udp", "udp", "tcp"]


def test_the_size_that_the_asker_takes_is_said_upstream_and_kept_to(house: House) -> None:
    sizes = []

    def long(query: DNSRecord, by: str) -> bytes:
        sizes.append(query.ar[0].edns_len if query.ar else 0)
        return told(query, *[f"192.0.2.{number}" for number in range(1, 200)])

    house.upstream(FIRST, long)
    one = asker(house, FIRST)
    assert len(one.ask("example.org", edns=4096).rr) == 199
    for edns in (0, 1232):
        short = one.ask("example.org", edns=edns)
        assert short.header.tc
        assert len(short.pack()) <= max(512, edns)
        assert bool(short.ar) == bool(edns), "OPT is answered by OPT alone"
    assert sizes == [4096, 0, 1232]


def test_the_answer_has_the_spelling_of_who_asked(house: House) -> None:
    def shouting(query: DNSRecord, by: str) -> bytes:
        return right(query, by).replace(b"example", b"EXAMPLE")

    house.upstream(FIRST, shouting)
    assert str(asker(house, FIRST).ask("eXample.org").q.qname) == "eXample.org."


def test_the_same_question_is_asked_upstream_once_while_it_waits(house: House) -> None:
    go = threading.Event()

    def patient(query: DNSRecord, by: str) -> bytes:
        go.wait(1)
        return right(query, by)

    upstream = house.upstream(FIRST, patient)
    one = asker(house, FIRST)
    with one.socket(socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.11", 53))
        sock.settimeout(10)
        for number in range(20):
            query = DNSRecord.question("example.org" if number % 2 else "EXAMPLE.org")
            query.header.id = number
            sock.send(query.pack())
        until(lambda: len(upstream.asked) == 1, 5)
        go.set()
        answers = [DNSRecord.parse(sock.recv(4096)) for _ in range(20)]
    assert sorted(each.header.id for each in answers) == list(range(20))
    assert all(str(each.q.qname).startswith("example" if each.header.id % 2 else "EXAMPLE") for each in answers)
    assert len(upstream.asked) == 1


def test_a_container_that_is_its_own_upstream_server_goes_round_once(house: House) -> None:
    """A forwarder in a container that asks 127.0.0.11, with itself as that one's server."""
    one = house.container()

    def ask_us(query: DNSRecord, by: str) -> bytes | None:
        again = DNSRecord.question(str(query.q.qname))
        with one.socket(socket.SOCK_DGRAM) as sock:
            sock.connect(("127.0.0.11", 53))
            sock.send(again.pack())
        return None

    upstream = house.upstream(FIRST, ask_us)
    house.put(one, NetworkNames("n", "shop", "10.0.0.2", "", ("cart",)), servers=(FIRST,))
    with pytest.raises(LookupError):
        one.addresses("example.org")
    assert len(upstream.asked) == forward.ATTEMPTS


def _told(container: Container) -> bool:
    try:
        return container.addresses("cart", timeout=0.5) == ["10.0.0.2"]
    except TimeoutError:
        return False


def test_a_flood_of_questions_leaves_descriptors_for_the_next_container(tmp_path: Path) -> None:
    with open_house(tmp_path, "prlimit", "--nofile=200:200") as house:
        house.upstream(FIRST, silent)
        house.upstream(SECOND, right)
        with asker(house, FIRST).socket(socket.SOCK_DGRAM) as sock:
            sock.settimeout(10)
            sock.connect(("127.0.0.11", 53))
            for number in range(250):
                sock.send(DNSRecord.question(f"{number}.example.org").pack())
            sock.recv(512)  # the first that is refused
            assert asker(house, SECOND).addresses("example.org") == ["192.0.2.7"]


def test_a_flood_of_questions_is_bounded_and_disturbs_nobody_else(house: House) -> None:
    upstream = house.upstream(FIRST, silent)
    house.upstream(SECOND, right)
    bad, good = asker(house, FIRST), asker(house, SECOND)
    before = house.memory()
    end = threading.Event()
    refused = [0]

    def flood() -> None:
        with bad.socket(socket.SOCK_DGRAM) as sock:
            sock.connect(("127.0.0.11", 53))
            sock.setblocking(False)
            number = 0
            while not end.is_set():
                number += 1
                head = struct.pack(">HHHHHH", number & 0xFFFF, 0x100, 1, 0, 0, 0)
                label = str(number).encode()
                try:
                    sock.send(head + bytes([len(label)]) + label + b"\3org\0\0\1\0\1")
                    refused[0] += message.code_of(sock.recv(4096)) == message.REFUSED
                except BlockingIOError:
                    continue

    flooding = threading.Thread(target=flood)
    flooding.start()
    try:
        until(lambda: refused[0] > 2000, 20)
        for number in range(50):
            assert good.addresses(f"{number}.org", timeout=2) == ["192.0.2.7"]
            assert good.addresses("cart", timeout=2) == ["10.0.0.2"]
        until(lambda: _told(bad), 20)  # its own names, too, though its own flood takes most of its socket's place
    finally:
        end.set()
        flooding.join()
    assert len(upstream.asked) <= 3 * forward.MAX_WAITING * forward.ATTEMPTS
    assert house.memory() - before < 8 << 20


def test_tcp_clients_are_bounded_and_the_next_ones_get_their_turn(house: House) -> None:
    house.upstream(FIRST, right)
    bad, good = asker(house, FIRST), asker(house, FIRST)
    idle = []
    try:
        for _ in range(50):
            idle.append(bad.socket(socket.SOCK_STREAM))
            idle[-1].setblocking(False)
            assert idle[-1].connect_ex(("127.0.0.11", 53)) in (0, 115)
        assert good.addresses("example.org", tcp=True) == ["192.0.2.7"]
        assert bad.addresses("example.org") == ["192.0.2.7"]
        for sock in idle[:40]:
            sock.close()
        assert bad.addresses("example.org", tcp=True) == ["192.0.2.7"]
    finally:
        for sock in idle:
            sock.close()


def test_many_questions_on_one_connection_are_answered_in_turn(house: House) -> None:
    house.upstream(FIRST, right)
    one = asker(house, FIRST)
    with one.socket(socket.SOCK_STREAM) as sock:
        sock.settimeout(10)
        sock.connect(("127.0.0.11", 53))
        queries = [DNSRecord.question("cart" if number % 2 else f"{number}.org") for number in range(20)]
        stream = b"".join(len(data).to_bytes(2, "big") + data for data in (query.pack() for query in queries))
        for byte in range(0, len(stream), 7):
            sock.sendall(stream[byte : byte + 7])
        sock.shutdown(socket.SHUT_WR)
        taken = b""
        while piece := sock.recv(65536):
            taken += piece
    for query in queries:
        size = int.from_bytes(taken[:2], "big")
        answer = DNSRecord.parse(taken[2 : 2 + size])
        taken = taken[2 + size :]
        assert answer.header.id == query.header.id
        assert len(answer.rr) == 1
    assert taken == b""


def inside(house: House, container: Container, address: str, answer: object) -> None:
    """A name server in the container itself."""
    house.upstreams.append(Upstream(container.namespace, address, answer))  # type: ignore[arg-type]


def test_a_server_at_the_containers_own_loopback_is_the_containers(house: House) -> None:
    hosts = house.upstream("127.0.0.1", lambda query, by: told(query, "192.0.2.8"))
    one, other = house.container(), house.container()
    names = NetworkNames("n", "shop", "10.0.0.2", "", ("cart",))
    inside(house, one, "127.0.0.1", right)
    house.put(one, names, servers=("127.0.0.11", "127.0.0.1", "::1"), own_loopback=True)
    house.put(other, names, servers=("127.0.0.1",))
    assert one.addresses("example.org") == ["192.0.2.7"]
    assert one.addresses("example.org", tcp=True) == ["192.0.2.7"]
    assert hosts.asked == []
    assert other.addresses("example.org") == ["192.0.2.8"]


@pytest.mark.parametrize("server", ["0.0.0.0", "::ffff:127.0.0.1", "::ffff:0.0.0.0"])
def test_other_spellings_of_the_loopback_are_the_containers_too(house: House, server: str) -> None:
    hosts = house.upstream("127.0.0.1", lambda query, by: told(query, "192.0.2.8"))
    one = house.container()
    inside(house, one, "127.0.0.1", right)
    house.put(one, NetworkNames("n", "shop", "10.0.0.2", "", ("cart",)), servers=(server,), own_loopback=True)
    assert one.addresses("example.org") == ["192.0.2.7"]
    assert hosts.asked == []


@pytest.mark.parametrize("server", ["::", "::1"])
def test_the_containers_own_ipv6_loopback_is_not_taken_for_the_hosts(house: House, server: str) -> None:
    entry = NameEntry("0" * 64, servers=(server, "192.0.2.9"), own_loopback=True)
    assert [one.address[0] for one in forward.servers_of(entry)] == ["192.0.2.9"]


def test_when_nobody_answers_at_the_containers_loopback_the_next_server_is_asked(house: House) -> None:
    one = house.container()
    inside(house, one, "127.0.0.2", right)
    entry = house.put(one, NetworkNames("n", "shop", "10.0.0.2", "", ("cart",)), servers=("127.0.0.3",))
    with pytest.raises(LookupError, match=str(RCODE.SERVFAIL)):
        one.addresses("example.org")
    changed = entry._replace(servers=("127.0.0.3", "127.0.0.2"), own_loopback=True)
    house.request("change", entry=changed.to_json())
    assert one.addresses("example.org") == ["192.0.2.7"]


def test_a_forwarder_in_the_container_that_asks_us_again_goes_round_once(house: House) -> None:
    one = house.container()

    def ask_us(query: DNSRecord, by: str) -> None:
        with one.socket(socket.SOCK_DGRAM) as sock:
            sock.connect(("127.0.0.11", 53))
            sock.send(DNSRecord.question(str(query.q.qname)).pack())

    inside(house, one, "127.0.0.1", ask_us)
    house.put(one, NetworkNames("n", "shop", "10.0.0.2", "", ("cart",)), servers=("127.0.0.1",), own_loopback=True)
    with pytest.raises(LookupError, match=str(RCODE.SERVFAIL)):
        one.addresses("example.org")
    assert len(house.upstreams[-1].asked) == forward.ATTEMPTS
