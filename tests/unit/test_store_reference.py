"""Image references: what is one, what it is called, and what is none."""

from __future__ import annotations

import pytest

from dockerd_py.errors import BadParameter
from dockerd_py.store.reference import Reference, check_tag, id_prefix, parse

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("busybox", Reference("busybox")),
        ("busybox:1.36", Reference("busybox", "1.36")),
        ("me/app:v_1", Reference("me/app", "v_1")),
        ("localhost/app", Reference("localhost/app")),
        ("host:5000/repo", Reference("host:5000/repo")),
        ("host:5000/repo:tag", Reference("host:5000/repo", "tag")),
        ("registry.example.com/a/b-c/d__e.f:T", Reference("registry.example.com/a/b-c/d__e.f", "T")),
        ("[::1]:5000/repo:t", Reference("[::1]:5000/repo", "t")),
        ("Example.COM/repo", Reference("Example.COM/repo")),
        (f"repo@{DIGEST}", Reference("repo", "", DIGEST)),
        (f"host:1/repo:t@{DIGEST}", Reference("host:1/repo", "t", DIGEST)),
        ("docker.io/library/busybox:1", Reference("busybox", "1")),
        ("docker.io/busybox", Reference("busybox")),
        ("index.docker.io/me/app", Reference("me/app")),
        ("library/busybox", Reference("busybox")),
        ("docker.io/library/a/b", Reference("library/a/b")),
    ],
)
def test_a_reference_is_taken_apart(text: str, expected: Reference) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", ":", "a:", ":tag", "a b", "-a", "a-", "a/-b", "a//b", "/a", "a/", "a..b", "a___b", "a:t:u", "a:-t",
     "a:" + "t" * 129, "a@", "a@sha256", "a@sha256:zz", "ho_st:5000/a", "host:port/a", "ä", "a\n", "../a", "a@b@c"],
)  # fmt: skip
def test_what_breaks_the_grammar_is_an_invalid_reference_format(text: str) -> None:
    with pytest.raises(BadParameter, match="invalid reference format"):
        parse(text)


@pytest.mark.parametrize("text", ["Busybox", "me/App:1", "host:5000/Repo"])
def test_capital_letters_in_a_repository_are_named_as_the_fault(text: str) -> None:
    with pytest.raises(BadParameter, match="invalid reference format: repository name must be lowercase"):
        parse(text)


def test_sixty_four_hex_digits_are_no_repository_as_they_look_like_an_id() -> None:
    with pytest.raises(BadParameter, match="cannot specify 64-byte hexadecimal strings"):
        parse("a" * 64)


def test_a_name_beyond_255_characters_is_refused() -> None:
    assert parse("a" * 255).repository == "a" * 255
    with pytest.raises(BadParameter, match="more than 255 characters"):
        parse("a" * 256)


def test_a_tag_is_checked_and_defaults_to_latest() -> None:
    assert check_tag("") == "latest"
    assert check_tag("v1.2-rc_3") == "v1.2-rc_3"
    with pytest.raises(BadParameter, match="invalid tag format"):
        check_tag("no/slash")


def test_the_beginning_of_an_id_is_recognised() -> None:
    assert id_prefix("abc123") == "abc123"
    assert id_prefix("sha256:abc") == "abc"
    assert id_prefix("xyz") is None
    assert id_prefix("") is None
    assert id_prefix("a" * 65) is None


def test_a_reference_is_printed_as_it_is_written() -> None:
    for text in ("a", "a:b", "h:1/a:b", f"a@{DIGEST}", f"a:b@{DIGEST}"):
        assert str(parse(text)) == text
