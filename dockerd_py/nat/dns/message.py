"""The part of the Domain Name System's format that the service looks into (RFC 1035, RFC 6891 for EDNS).

Of a question: header, question and the OPT record, nothing else, and whatever comes it is either a `Query`, a
`Refusal` that says how to answer, or dropped.  Of an upstream server's answer: header and question.  All other records
pass as bytes.  What goes upstream is written anew, so no stray byte of a container's gets there.
"""

from __future__ import annotations

import ipaddress
import random
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

A, PTR, AAAA, OPT, IXFR, AXFR, ANY = 1, 12, 28, 41, 251, 252, 255
IN = 1
NO_ERROR, FORMAT_ERROR, SERVER_FAILURE, NO_SUCH_NAME, NOT_IMPLEMENTED, REFUSED = range(6)
BAD_VERSION = 16

TTL = 600  # seconds
MIN_UDP = 512
MAX_UDP = 4096  # what the service says that it takes, and the most that it lets an upstream server send
MAX_QUERY = 4096  # bytes
MAX_MESSAGE = 65535

_HEADER = struct.Struct(">HHHHHH")
_RECORD = struct.Struct(">HHIH")  # behind the name
_QR, _TC, _RD, _RA = 0x8000, 0x0200, 0x0100, 0x0080
_OPCODE = 0x7800
_ASKED_UPSTREAM = 0x0130  # RD, AD and CD
_DNSSEC_OK = 0x8000
_TO_QUESTION = b"\xc0\x0c"  # a name that is the question's: a pointer (RFC 1035 4.1.4)


class Refusal(Exception):
    """A message that gets ``reply`` at once; nothing, if it is empty."""

    def __init__(self, reply: bytes = b"") -> None:
        super().__init__()
        self.reply = reply


class Query(NamedTuple):
    """One question."""

    id: int
    flags: int
    name: bytes  # lower case, "web.example"; b"" for the root, and for a name with a dot inside a label
    kind: int  # A, AAAA, ...
    question: bytes  # as it was asked
    edns: bool
    size: int  # bytes that the asker takes by UDP, at least MIN_UDP
    dnssec: bool

    @property
    def key(self) -> tuple[bytes, int, bool, int, bool]:
        """The same for questions that one upstream answer does for."""
        return self.question.lower(), self.flags & _ASKED_UPSTREAM, self.edns, self.size, self.dnssec

    def upstream(self, number: int) -> bytes:
        """What a server is asked, under the id ``number``."""
        header = _HEADER.pack(number, self.flags & _ASKED_UPSTREAM, 1, 0, 0, int(self.edns))
        return header + self.question + (_opt(min(self.size, MAX_UDP), dnssec=self.dnssec) if self.edns else b"")

    def reply(self, code: int = NO_ERROR, records: Sequence[bytes] = (), limit: int = MAX_MESSAGE) -> bytes:
        """An answer of our own.  What exceeds ``limit`` bytes is left out, and TC set."""
        tail = _opt(MAX_UDP, dnssec=self.dnssec, code=code) if self.edns else b""
        room = limit - 12 - len(self.question) - len(tail)
        fitting: list[bytes] = []
        for record in records:
            room -= len(record)
            if room < 0:
                break
            fitting.append(record)
        flags = _QR | self.flags & (_OPCODE | _RD) | _RA | code & 15
        if len(fitting) < len(records):
            flags |= _TC
        header = _HEADER.pack(self.id, flags, 1, len(fitting), 0, int(self.edns))
        return b"".join((header, self.question, *fitting, tail))

    def relay(self, answer: bytes, limit: int = MAX_MESSAGE) -> bytes:
        """A server's answer, which `answers` has found right, for this asker."""
        if len(answer) > limit:
            flags = int.from_bytes(answer[2:4], "big") | _TC
            tail = _opt(MAX_UDP, dnssec=self.dnssec) if self.edns else b""
            return _HEADER.pack(self.id, flags, 1, 0, 0, int(self.edns)) + self.question + tail
        # the letters of the name as this one wrote them; the answer may be to somebody else's question, too
        return self.id.to_bytes(2, "big") + answer[2:12] + self.question + answer[12 + len(self.question) :]

    def answers(self, answer: bytes, number: int) -> bool:
        """Whether this is the answer to `upstream` with that number."""
        if len(answer) < 12 + len(self.question):
            return False
        given, flags, count, *_ = _HEADER.unpack_from(answer)
        return (
            given == number
            and bool(flags & _QR)
            and not flags & _OPCODE
            and count == 1
            and answer[12 : 12 + len(self.question)].lower() == self.question.lower()
        )


def code_of(answer: bytes) -> int:
    """The response code of an answer, without EDNS's more."""
    return answer[3] & 15


def is_truncated(answer: bytes) -> bool:
    return bool(answer[2] & (_TC >> 8))


def parse(data: bytes) -> Query:
    """Raises Refusal."""
    if len(data) < 12:
        raise Refusal
    number, flags, questions, *others = _HEADER.unpack_from(data)
    if flags & _QR:
        raise Refusal
    if flags & _OPCODE:
        raise Refusal(_bare(number, flags, NOT_IMPLEMENTED))
    try:
        if questions != 1 or len(data) > MAX_QUERY:
            raise _Malformed
        labels, position = _name(data, 12)
        kind, group = struct.unpack_from(">HH", data, position)
        position += 4
        edns = _find_opt(data, position, sum(others))
    except (_Malformed, struct.error, IndexError):
        raise Refusal(_bare(number, flags, FORMAT_ERROR)) from None
    # only the internet's names are ours; an empty name is nobody's
    local = group in (IN, ANY) and not any(b"." in label for label in labels)
    query = Query(
        number,
        flags,
        b".".join(labels).lower() if local else b"",
        kind,
        data[12:position],
        edns is not None,
        MIN_UDP if edns is None else max(MIN_UDP, edns[0]),
        edns is not None and bool(edns[1] & _DNSSEC_OK),
    )
    if edns is not None and edns[1] >> 16 & 0xFF:
        raise Refusal(query.reply(BAD_VERSION))
    if kind in (AXFR, IXFR):
        raise Refusal(query.reply(REFUSED))
    return query


def address_record(address: bytes) -> bytes:
    """An A or AAAA record for the name that is asked for."""
    kind = A if len(address) == 4 else AAAA
    return _TO_QUESTION + _RECORD.pack(kind, IN, TTL, len(address)) + address


def pointer_record(name: bytes) -> bytes:
    """A PTR record for the address that is asked for.  Raises ValueError for what can't be written as a name."""
    data = encode_name(name)
    return _TO_QUESTION + _RECORD.pack(PTR, IN, TTL, len(data)) + data


def encode_name(name: bytes) -> bytes:
    """"web.example" as labels.  Raises ValueError."""
    labels = name.split(b".")
    if any(not 0 < len(label) < 64 for label in labels):
        raise ValueError(f"no name for the domain name system: {name!r}")
    data = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    if len(data) > 255:
        raise ValueError(f"too long a name for the domain name system: {name!r}")
    return data


def reverse_address(name: bytes) -> bytes:
    """The address that a name below in-addr.arpa or ip6.arpa stands for, packed; b"" if it is none of these."""
    labels = name.split(b".")
    try:
        match labels[-2:]:
            case [b"in-addr", b"arpa"]:
                return ipaddress.IPv4Address(b".".join(labels[-3::-1]).decode("ascii")).packed
            case [b"ip6", b"arpa"] if len(labels) == 34 and all(len(label) == 1 for label in labels[:32]):
                return bytes.fromhex(b"".join(labels[31::-1]).decode("ascii"))
    except ValueError:
        pass  # a name like any other
    return b""


def shuffled(records: Iterable[bytes]) -> list[bytes]:
    """In any order: a turn of a counter would give pairs of questions, for A and AAAA, always the same one first."""
    mixed = list(records)
    random.shuffle(mixed)
    return mixed


class _Malformed(Exception):
    pass


def _bare(number: int, flags: int, code: int) -> bytes:
    return _HEADER.pack(number, _QR | flags & (_OPCODE | _RD) | _RA | code, 0, 0, 0, 0)


def _opt(size: int, *, dnssec: bool, code: int = 0) -> bytes:
    return b"\0" + _RECORD.pack(OPT, size, code >> 4 << 24 | (_DNSSEC_OK if dnssec else 0), 0)


def _name(data: bytes, position: int) -> tuple[list[bytes], int]:
    """The labels of a question's name, which has nothing before it that it could point to."""
    labels = []
    start = position
    while length := data[position]:
        if length > 63 or position + length - start > 253:
            raise _Malformed
        labels.append(data[position + 1 : position + 1 + length])
        position += 1 + length
    return labels, position + 1


def _find_opt(data: bytes, position: int, count: int) -> tuple[int, int] | None:
    """(UDP size, extended code, version and flags) of the OPT record among ``count`` ones, None if there is none."""
    found = None
    for _ in range(count):
        root = data[position] == 0
        while length := data[position]:
            if length > 63:
                position += 1  # a pointer ends a name
                break
            position += 1 + length
        kind, size, flags, length = _RECORD.unpack_from(data, position + 1)
        position += 11 + length
        if position > len(data):
            raise _Malformed
        if kind == OPT:
            if found is not None or not root:
                raise _Malformed
            found = (size, flags)
    return found
