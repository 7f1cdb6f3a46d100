"""What the journal reader does before any journal is there."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dockerd_py.errors import PydockerdError
from dockerd_py.units.journal import JournalReader, parse_time

CONTAINER = "0a" * 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"1970-01-01T00:00:00Z", 0),
        (b"2014-03-05T12:30:01.000000001Z", 1394022601_000000001),
        (b"2014-03-05T12:30:01.5Z", 1394022601_500000000),
        (b"2100-12-31T23:59:59.999999999Z", 4133980799_999999999),
    ],
)
def test_times_are_exact_to_the_nanosecond(text: bytes, expected: int) -> None:
    assert parse_time(text) == expected


@pytest.mark.parametrize(
    "text",
    [b"", b"2014-03-05", b"2014-03-05T12:30:01", b"2014-03-05T12:30:01+01:00", b"2014-03-05T12:30:01.1234567890Z"],
)
def test_what_is_no_utc_time_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"time"):
        parse_time(text)


def test_an_empty_directory_has_no_records(tmp_path: Path) -> None:
    reader = JournalReader(str(tmp_path))
    assert list(reader.read(CONTAINER)) == []
    assert list(reader.read(CONTAINER, tail=5)) == []


def test_a_missing_directory_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(PydockerdError, match="the journal cannot be read: No such file"):
        list(JournalReader(str(tmp_path / "gone")).read(CONTAINER))


def test_waiting_for_a_record_ends_in_time(tmp_path: Path) -> None:
    begin = time.monotonic()
    assert not JournalReader(str(tmp_path)).wait_for(CONTAINER, "ab", 1, 0.2)
    assert 0.2 <= time.monotonic() - begin < 2
