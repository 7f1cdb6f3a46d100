"""Packets that nobody should send: none of them ends the service, and none gets a wrong answer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from dnslib import EDNS0, RCODE, RR, A, DNSRecord
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from name_house import Container, House
from name_house import house as open_house

from dockerd_py.nat.dns import message
from dockerd_py.nat.dns.message import Query, Refusal
from dockerd_py.nat.dns.model import NetworkNames

QUESTION = DNSRecord.question("cart").pack()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with open_house(tmp_path_factory.mktemp("house")) as it:
        yield it


@pytest.fixture(scope="module")
def asker(house: House) -> Container:
    container = house.container()
    house.put(container, NetworkNames("n", "shop", "10.0.0.2", "", ("cart",)))
    return container


def parsed(data: bytes) -> Query | bytes:
    try:
        return message.parse(data)
    except Refusal as refusal:
        return refusal.reply


def mutated() -> st.SearchStrategy[bytes]:
    """A real question with some bytes changed, something put in, and its end cut off."""
    plain = DNSRecord.question("web.example.org", "AAAA")
    plain.add_ar(EDNS0(udp_len=1232, flags="do"))
    base = plain.pack()

    def change(edits: list[tuple[int, int]], place: int, more: bytes, cut: int) -> bytes:
        data = bytearray(base)
        for where, value in edits:
            data[where % len(data)] = value
        data[place % len(data) : place % len(data)] = more
        return bytes(data[: len(data) - cut % len(data)])

    edits = st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), max_size=6)
    return st.builds(change, edits, st.integers(0, 80), st.binary(max_size=20), st.sampled_from([0, 0, 0, 1, 5, 30]))


@settings(max_examples=2000, deadline=None)
@given(st.one_of(st.binary(max_size=100), mutated()))
@example(b"\0" * 12)
@example(QUESTION[:12] + b"\xc0\x0c\0\1\0\1")
@example(QUESTION[:4] + b"\0\1\0\0\0\0\xff\xff" + QUESTION[12:])
def test_any_bytes_are_a_question_or_refused_or_dropped(data: bytes) -> None:
    found = parsed(data)
    if isinstance(found, Query):
        upstream = found.upstream(7)
        assert len(upstream) <= len(data) + 20
        again = message.parse(upstream)
        assert (again.name, again.kind, again.question) == (found.name, found.kind, found.question)
        reply = found.reply(records=[message.address_record(b"\n\0\0\1")] * 100, limit=found.size)
        assert len(reply) <= found.size
        assert reply[:2] == data[:2]
        assert found.answers(found._replace(id=7).reply(), 7)
    elif found:
        assert found[:2] == data[:2]
        assert found[2] & 0x80
        assert message.code_of(found) or len(found) > 12


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_from_upstream_are_the_answer_or_none(data: bytes) -> None:
    query = message.parse(QUESTION)
    for answer in (data, QUESTION[:2] + b"\x81\x80" + data, b"\0\7\x81\x80" + QUESTION[4:] + data):
        if query.answers(answer, 7):
            relayed = query.relay(answer, 512)
            assert relayed[:2] == QUESTION[:2]
            assert len(relayed) <= 512


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=100), mutated()))
def test_whatever_a_container_sends_the_service_goes_on(asker: Container, data: bytes) -> None:
    for tcp in (False, True):
        try:
            asker.send(data, tcp=tcp, timeout=0.01)
        except (TimeoutError, EOFError, ConnectionResetError, BrokenPipeError):
            continue


def test_after_all_that_names_are_still_told(asker: Container, house: House) -> None:
    assert asker.addresses("cart") == ["10.0.0.2"]
    assert house.process.poll() is None


def test_what_is_no_plain_question_is_refused_with_the_reason(asker: Container) -> None:
    def code_of(data: bytes) -> int:
        return int(DNSRecord.parse(asker.send(data)).header.rcode)

    assert code_of(QUESTION[:5] + b"\2" + QUESTION[6:] + QUESTION[12:]) == RCODE.FORMERR
    assert code_of(QUESTION[:2] + b"\x29" + QUESTION[3:]) == RCODE.NOTIMP, "an update"
    assert code_of(QUESTION[:-1]) == RCODE.FORMERR
    assert code_of(DNSRecord.question("cart", "AXFR").pack()) == RCODE.REFUSED
    newer = DNSRecord.question("cart")
    newer.add_ar(EDNS0(version=1, udp_len=1232))
    answer = DNSRecord.parse(asker.send(newer.pack()))
    assert answer.ar[0].ttl >> 24 == 1, "BADVERS"
    assert answer.rr == []


def test_answers_are_not_answered(asker: Container) -> None:
    reply = DNSRecord.question("cart").reply()
    reply.add_answer(RR("cart", rdata=A("10.0.0.9")))
    with pytest.raises(TimeoutError):
        asker.send(reply.pack(), timeout=0.2)


def test_a_dot_inside_a_label_is_no_separator(asker: Container) -> None:
    data = QUESTION[:12] + b"\x09cart.shop\0\0\1\0\1"
    assert DNSRecord.parse(asker.send(data)).header.rcode == RCODE.NXDOMAIN
    assert asker.addresses("cart.shop") == ["10.0.0.2"]
