"""``--filter key=value``, as the API wants it: the daemon knows the keys, not we."""

from __future__ import annotations

from dockerd_py.flags import Flag

FLAG = Flag(("-f", "--filter"), "list", help="Show only what matches: key=value", metavar="key=value")


def check(text: str) -> None:
    if not text.partition("=")[0] or "=" not in text:
        raise ValueError("a filter is key=value")


FLAG.check = check


def encoded(filters: list[str]) -> str | None:
    """The JSON for the query's ``filters``; None when there are none."""
    if not filters:
        return None
    import json

    gathered: dict[str, list[str]] = {}
    for text in filters:
        key, _, value = text.partition("=")
        gathered.setdefault(key.strip(), []).append(value.strip())
    return json.dumps(gathered)
