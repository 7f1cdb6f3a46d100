"""Where a request that takes its connection over ends, however the bytes arrive."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dockerd_py.api.framing import MAX_HEAD, Framing

ATTACH = b"POST /attach HTTP/1.1\r\nHost: d\r\n\r\n"
ORDINARY = (
    b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n",
    b"POST /create HTTP/1.1\r\nContent-Length: 12\r\n\r\nPOST /attach",
    b"POST /create HTTP/1.1\r\nContent-Length:34\r\n\r\n" + ATTACH,
    b"POST /i HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n1;x=y\r\nz\r\n0\r\n\r\n",
    b"POST /i HTTP/1.1\r\ntransfer-encoding: CHUNKED \r\n\r\n22\r\n" + ATTACH + b"\r\n0\r\nTrailer: x\r\n\r\n",
    b"\r\nGET /x HTTP/1.0\r\n\r\n",
)
HIJACKING = (
    ATTACH,
    b"POST /attach HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
    b"POST /attach HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"GET /other HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
)


def hijacks(head: bytes) -> bool:
    return head.startswith(b"POST /attach ")


def find_end(stream: bytes, cuts: list[int]) -> int | None:
    framing = Framing(hijacks)
    bounds = [0, *sorted(cuts), len(stream)]
    for begin, end in itertools.pairwise(bounds):
        found = framing.advance(stream[begin:end])
        if found is not None:
            return begin + found
    return None


@settings(max_examples=200, deadline=None)
@given(
    before=st.lists(st.sampled_from(ORDINARY), max_size=4),
    last=st.sampled_from(HIJACKING),
    after=st.binary(max_size=40),
    data=st.data(),
)
def test_the_end_is_found_behind_any_requests_and_at_any_cut(
    before: list[bytes], last: bytes, after: bytes, data: st.DataObject
) -> None:
    requests = b"".join(before) + last
    stream = requests + after
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=6))
    assert find_end(stream, cuts) == len(requests)


def test_one_byte_at_a_time_is_enough() -> None:
    requests = b"".join(ORDINARY) + HIJACKING[2]
    stream = requests + b"tail"
    assert find_end(stream, list(range(len(stream)))) == len(requests)


@pytest.mark.parametrize("request_", ORDINARY)
def test_ordinary_requests_have_no_end_to_find(request_: bytes) -> None:
    assert find_end(request_ * 3, []) is None


@pytest.mark.parametrize(
    "head",
    [
        b"POST /x HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /x HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /x HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST /x HTTP/1.1\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n",
        b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nnothex\r\n",
        b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 9000 + b"\r\n",
        b"POST /x HTTP/1.1\r\nX: " + b"x" * MAX_HEAD + b"\r\n\r\n",
    ],
)
def test_after_a_request_that_cannot_be_followed_nothing_is_hijacked(head: bytes) -> None:
    assert find_end(head + ATTACH, []) is None
    assert find_end(head + ATTACH, list(range(0, len(head), 7))) is None


def test_memory_and_work_stay_bounded_while_a_head_never_ends() -> None:
    framing = Framing(hijacks)
    for _ in range(2000):
        framing.advance(b"x" * 100_000)
    assert len(framing._partial) == 0


def test_a_large_upload_in_small_chunks_is_followed_quickly() -> None:
    import time

    piece = b"1\r\na\r\n" * 40_000
    framing = Framing(hijacks)
    begun = time.monotonic()
    framing.advance(b"POST /i HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(4):
        framing.advance(piece)
    assert framing.advance(b"0\r\n\r\n" + ATTACH + b"rest") == 5 + len(ATTACH)
    assert time.monotonic() - begun < 3


def test_random_bytes_never_raise() -> None:
    source = random.Random(7)
    for _ in range(200):
        framing = Framing(hijacks)
        for _ in range(5):
            framing.advance(source.randbytes(source.randrange(200)) + b"\r\n\r\n")
