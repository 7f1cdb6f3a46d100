"""What counts as false where a text says yes or no: in queries, and in the bodies of the first year."""

from __future__ import annotations

_FALSE = frozenset(("", "0", "no", "false", "none"))


def is_true(text: str) -> bool:
    """Docker's rule: "", "0", "no", "false" and "none" are false, anything else is true."""
    return text.strip().lower() not in _FALSE
