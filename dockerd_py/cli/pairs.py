"""KEY=value, as the values of flags."""

from __future__ import annotations


def check(text: str) -> None:
    """Raises ValueError for one without a key; without "=" the value is empty."""
    if not text.partition("=")[0]:
        raise ValueError("it must be KEY=value")


def both(text: str) -> None:
    """Raises ValueError for one without a key, or without "="."""
    key, sign, _ = text.partition("=")
    if not key.strip() or not sign:
        raise ValueError("it must be KEY=value")


def parse(texts: list[str]) -> dict[str, str]:
    return {key: value for key, _, value in (text.partition("=") for text in texts)}
