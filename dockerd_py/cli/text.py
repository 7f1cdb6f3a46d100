"""How values look to people: ages, sizes, ids, and text from elsewhere made harmless for a terminal."""

from __future__ import annotations

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


def printable(text: str, keep: str = "") -> str:
    """``text`` with every character that a terminal might obey, or that is no character, as an escape.

    ``keep`` lists control characters that stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)


def quoted(text: str) -> str:
    """``text`` between double quotes on one line, as the COMMAND column shows it."""
    return '"' + printable(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def cut(text: str, width: int) -> str:
    """At most ``width`` characters; the last one is an ellipsis where something is missing."""
    return text if len(text) <= width else text[: width - 1] + "…"


def short_id(text: str) -> str:
    return text.rpartition(":")[2][:12]


def size(count: int) -> str:
    """Three digits, 1000-based: 0B, 999B, 1.02kB, 77.8MB."""
    value = float(count)
    unit = 0
    while abs(value) >= 999.5 and unit < len(_UNITS) - 1:
        value /= 1000
        unit += 1
    return f"{value:.3g}{_UNITS[unit]}" if value < 999.5 else f"{value:.0f}{_UNITS[unit]}"


def binary_size(count: int) -> str:
    """Four digits, 1024-based: 23.47GiB."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1023.95:
            return f"{value:.4g}{unit}"
        value /= 1024
    return f"{value:.4g}TiB"


def duration(seconds: float) -> str:
    """Rounded down to one unit: "Less than a second", "5 seconds", "About a minute", "3 weeks", "4 years"."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    days = hours // 24
    if days < 14:
        return f"{days} days"
    if days < 60:
        return f"{days // 7} weeks"
    if days < 730:
        return f"{days // 30} months"
    return f"{days // 365} years"


def age(then: float, now: float) -> str:
    return f"{duration(max(0.0, now - then))} ago"


def columns(text: str) -> int:
    """How many columns of a terminal ``text`` takes."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def table(rows: list[list[str]]) -> str:
    """Rows, the headings first, in columns at least ten wide with three blanks between; none after the last."""
    most = max(map(len, rows), default=0)
    if not most:
        return ""
    rows = [row + [""] * (most - len(row)) for row in rows]
    widths = [max(10, 3 + max(columns(row[i]) for row in rows)) for i in range(most - 1)]
    lines = []
    for row in rows:
        cells = [cell + " " * (width - columns(cell)) for cell, width in zip(row, widths, strict=False)]
        lines.append(("".join(cells) + row[-1]).rstrip())
    return "\n".join(lines) + "\n"


def _escaped(char: str) -> str:
    named = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char)
    if named:
        return named
    code = ord(char)
    if code < 0x20:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
