"""Points in time as users write them (``--since``, ``--until``), and as the API wants them."""

from __future__ import annotations

import re
import time

_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ms|us|µs|ns|h|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_EPOCH = re.compile(r"\d+(\.\d{1,9})?", re.ASCII)
_FRACTION = re.compile(r"\.(\d+)")


def timestamp(text: str) -> str:
    """Seconds since the epoch, with up to nine digits behind the point, for:

    - such a number itself;
    - a duration before now: "10m", "1h30m", "1.5s";
    - a date, or date and time, of ISO 8601 (RFC 3339), in the local time zone if it names none.
    Raises ValueError.
    """
    if _EPOCH.fullmatch(text):
        return text
    ago = _ago(text)
    if ago is not None:
        return f"{time.time() - ago:.9f}"
    from datetime import datetime

    fraction = _FRACTION.search(text)
    # Python 3.10 reads no "Z", and neither 3 nor 9 digits behind the point alone.
    plain = _FRACTION.sub("", text)
    plain = plain[:-1] + "+00:00" if plain[-1:] in ("Z", "z") else plain
    try:
        moment = datetime.fromisoformat(plain.replace("t", "T"))
    except ValueError:
        wanted = "a date such as 2026-03-01T14:30:00Z, a duration such as 10m, or seconds since 1970"
        raise ValueError(f"it must be {wanted}") from None
    seconds = int(moment.timestamp())
    return f"{seconds}.{fraction[1][:9]}" if fraction else str(seconds)


def _ago(text: str) -> float | None:
    seconds, at = 0.0, 0
    while match := _DURATION.match(text, at):
        seconds += float(match[1]) * _SECONDS[match[2]]
        at = match.end()
    return seconds if at and at == len(text) else None


def check(text: str) -> None:
    timestamp(text)
