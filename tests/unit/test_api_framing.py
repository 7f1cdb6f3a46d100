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
    b"GET /x HTTP/1.0\r\n\r\n",
    b"GET /x HTTP/1.1\r\nconnection: keep-alive, Upgrade\r\nupgrade: h2c\r\n\r\n",
)
HIJACKING = (
    ATTACH,
    b"POST /attach HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
    b"POST /attach HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"POST /attach HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 1\r\n\r\nx",
)


def hijacks(head: bytes) -> bool:
    return head.startswith(b"POST /attach ")


def follow(stream: bytes, cuts: list[int]) -> tuple[bytes, bytes | None]:
    """What the parser gets of ``stream``, cut into pieces, and what is held back (None: no hijack)."""
    framing = Framing(hijacks)
    bounds = [0, *sorted(cuts), len(stream)]
    parsed = b""
    for begin, end in itertools.pairwise(bounds):
        passed, held = framing.advance(stream[begin:end])
        parsed += passed
        if held is not None:
            return parsed, held + stream[end:]
    return parsed, None


def hidden(requests: bytes) -> bytes:
    """The requests without a sign of an upgrade."""
    for word in (b"Connection: Upgrade", b"connection: keep-alive, Upgrade"):
        requests = requests.replace(word, b"Pydockerd-Connection:" + word.partition(b":")[2])
    return requests.replace(b"Upgrade: tcp", b"Pydockerd-Upgrade: tcp").replace(
        b"upgrade: h2c", b"Pydockerd-Upgrade: h2c"
    )


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
    assert follow(stream, cuts) == (hidden(requests), after)


def test_one_byte_at_a_time_is_enough() -> None:
    requests = b"".join(ORDINARY) + HIJACKING[2]
    stream = requests + b"tail"
    assert follow(stream, list(range(len(stream)))) == (hidden(requests), b"tail")


@pytest.mark.parametrize("request_", ORDINARY)
def test_ordinary_requests_have_no_end_to_find(request_: bytes) -> None:
    assert follow(request_ * 3, []) == (hidden(request_) * 3, None)


def test_empty_lines_before_a_request_are_left_out() -> None:
    assert follow(b"\r\n\n" + ATTACH + b"x", [1, 3]) == (ATTACH, b"x")


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
    for cuts in ([], list(range(0, len(head), 7))):
        assert follow(head + ATTACH + b"x", cuts) == (head + ATTACH + b"x", None)


def test_memory_and_work_stay_bounded_while_a_head_never_ends() -> None:
    framing = Framing(hijacks)
    passed = sum(len(framing.advance(b"x" * 10_000)[0]) for _ in range(2000))
    assert passed == 20_000_000
    assert len(framing._partial) == 0


def test_a_large_upload_in_small_chunks_is_followed_quickly() -> None:
    import time

    piece = b"1\r\na\r\n" * 40_000
    framing = Framing(hijacks)
    begun = time.monotonic()
    framing.advance(b"POST /i HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(4):
        framing.advance(piece)
    assert framing.advance(b"0\r\n\r\n" + ATTACH + b"rest") == (b"0\r\n\r\n" + ATTACH, b"rest")
    assert time.monotonic() - begun < 3


def test_random_bytes_never_raise() -> None:
    source = random.Random(7)
    for _ in range(200):
        framing = Framing(hijacks)
        for _ in range(5):
            assert framing.advance(source.randbytes(source.randrange(200)) + b"\r\n\r\n")[1] is None
