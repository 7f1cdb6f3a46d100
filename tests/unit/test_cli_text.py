"""How values look in the command line's answers."""

from __future__ import annotations

import re
import time

import pytest

from dockerd_py.cli import moments, text
from dockerd_py.cli.errors import TemplateError
from dockerd_py.cli.listing import render
from dockerd_py.cli.reference import split_reference

MINUTE, HOUR, DAY = 60, 3600, 86400


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "Less than a second"),
        (0.9, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (HOUR - 1, "59 minutes"),
        (HOUR, "About an hour"),
        (1.4 * HOUR, "About an hour"),
        (1.5 * HOUR, "2 hours"),
        (47 * HOUR, "47 hours"),
        (2 * DAY, "2 days"),
        (13 * DAY, "13 days"),
        (14 * DAY, "2 weeks"),
        (59 * DAY, "8 weeks"),
        (60 * DAY, "2 months"),
        (729 * DAY, "24 months"),
        (730 * DAY, "2 years"),
    ],
)
def test_ages_are_told_in_one_unit(seconds: float, shown: str) -> None:
    assert text.duration(seconds) == shown


def test_what_lies_in_the_future_is_new() -> None:
    assert text.age(2000.0, 1000.0) == "Less than a second ago"


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0B"), (999, "999B"), (1000, "1kB"), (1024, "1.02kB"), (9994, "9.99kB"), (99_960, "100kB"),
        (999_499, "999kB"), (999_500, "1MB"), (77_800_000, "77.8MB"), (1_500_000_000, "1.5GB"), (10**18, "1EB"),
        (10**22, "10000EB"),
    ],
)  # fmt: skip
def test_sizes_have_three_digits_and_decimal_units(count: int, shown: str) -> None:
    assert text.size(count) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0B"), (1023, "1023B"), (1024, "1KiB"), (25_200_000_000, "23.47GiB"), (1 << 42, "4TiB")],
)
def test_memory_is_shown_in_binary_units(count: int, shown: str) -> None:
    assert text.binary_size(count) == shown


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain Ünïcode 漢字", "plain Ünïcode 漢字"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x1b[31mred\x7f", "\\x1b[31mred\\u007f"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\x9b2J", "\\u009b2J"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_a_terminal_might_obey_is_escaped(raw: str, shown: str) -> None:
    assert text.printable(raw) == shown
    assert text.printable(raw).isprintable()


def test_line_ends_may_stay_where_they_are_harmless() -> None:
    assert text.printable("a\n\x1bb", keep="\n") == "a\n\\x1bb"


def test_commands_are_quoted_on_one_line() -> None:
    assert text.quoted('sh -c "echo\n\\n"') == '"sh -c \\"echo\\n\\\\n\\""'


def test_columns_are_as_wide_as_what_they_hold() -> None:
    rows = [["ID", "NAME", "SIZE"], ["0123456789abcdef", "漢字", "1B"], ["x", "y", ""]]
    assert text.table(rows).splitlines() == [
        "ID                 NAME      SIZE",
        "0123456789abcdef   漢字      1B",
        "x                  y",
    ]


def test_rows_that_are_too_short_are_filled_up() -> None:
    assert text.table([["A", "B"], ["1"]]) == "A         B\n1\n"
    assert text.table([]) == ""


HEADINGS = {"ID": "IMAGE ID", "Tag": "TAG"}
ROWS = [{"ID": "abc", "Tag": "a\x1b\n"}, {"ID": "def", "Tag": "b"}]


def test_a_table_shows_no_control_characters() -> None:
    assert render(ROWS, HEADINGS, ["ID", "Tag"]) == "IMAGE ID   TAG\nabc        a\\x1b\\n\ndef        b\n"


def test_a_template_is_a_line_for_each() -> None:
    assert render(ROWS, HEADINGS, [], "{{.ID}}:{{.Tag}}") == "abc:a\\x1b\\n\ndef:b\n"
    assert render(ROWS[1:], HEADINGS, [], r"{{.ID}}\t{{.Tag}}") == "def\tb\n"


def test_a_table_of_a_template_has_headings() -> None:
    assert render(ROWS[1:], HEADINGS, [], r"table {{.Tag}}\t{{.ID}}") == "TAG       IMAGE ID\nb         def\n"


def test_a_misspelt_field_is_an_error_where_there_is_nothing_to_list() -> None:
    with pytest.raises(TemplateError, match=r"there is no \.Tga"):
        render([], HEADINGS, [], "{{.Tga}}")


def test_json_is_an_object_a_line() -> None:
    assert render(ROWS[1:], HEADINGS, [], "json") == '{"ID":"def","Tag":"b"}\n'


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("busybox", ("busybox", "")),
        ("busybox:1.36", ("busybox", "1.36")),
        ("host:5000/a/b", ("host:5000/a/b", "")),
        ("host:5000/a/b:tag", ("host:5000/a/b", "tag")),
        ("", ("", "")),
    ],
)
def test_a_tag_is_what_follows_the_last_colon_behind_the_last_slash(reference: str, parts: tuple[str, str]) -> None:
    assert split_reference(reference) == parts


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("1700000000", "1700000000"),
        ("1700000000.123456789", "1700000000.123456789"),
        ("2023-11-14T22:13:20Z", "1700000000"),
        ("2023-11-14T22:13:20.5Z", "1700000000.5"),
        ("2023-11-14T22:13:20.123456789Z", "1700000000.123456789"),
        ("2023-11-14t23:13:20+01:00", "1700000000"),
        ("2023-11-14 23:13:20+01:00", "1700000000"),
    ],
)
def test_a_moment_is_told_in_seconds(written: str, seconds: str) -> None:
    assert moments.timestamp(written) == seconds


def test_a_date_without_a_zone_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "JST-9")  # needs no file of zones
    time.tzset()
    try:
        assert moments.timestamp("2023-11-15T07:13:20") == "1700000000"
        assert moments.timestamp("2023-11-15") == str(1700000000 - 7 * HOUR - 13 * MINUTE - 20)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(("written", "ago"), [("10m", 600), ("1h30m", 5400), ("1.5s", 1.5), ("500ms", 0.5)])
def test_a_duration_is_counted_back_from_now(written: str, ago: float) -> None:
    found = moments.timestamp(written)
    assert re.fullmatch(r"\d+\.\d{9}", found)
    assert abs(time.time() - ago - float(found)) < 5


@pytest.mark.parametrize("written", ["yesterday", "2023-13-01", "10x", "m", "-5m", "1h and more", ".", "Z"])
def test_what_is_no_moment_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="a date such as"):
        moments.timestamp(written)
