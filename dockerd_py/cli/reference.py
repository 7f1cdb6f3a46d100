"""Image references, as far as the client must take them apart; the daemon judges whether they are well-formed."""

from __future__ import annotations


def split_reference(reference: str) -> tuple[str, str]:
    """``host:5000/a/b:tag`` as ("host:5000/a/b", "tag"); the tag is "" where there is none."""
    repo, separator, tag = reference.rpartition(":")
    if not separator or "/" in tag:
        return reference, ""
    return repo, tag
