"""Times as Docker spells them: RFC 3339 with nanoseconds, Unix seconds with a fraction, and "3 minutes ago".

The engine counts in nanoseconds since the epoch, 0 meaning never; Docker's never is the year 1.
"""

from __future__ import annotations

import datetime
import re
import time

from dockerd_py.errors import BadParameter

NEVER = "0001-01-01T00:00:00Z"
SECOND = 1_000_000_000

_UNIX = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,9})[0-9]*)?")
_RFC3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[Tt ]([0-9]{2}:[0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9})[0-9]*)?)?"
    r"(?:([Zz])|([+-])([0-9]{2}):([0-9]{2}))?)?"
)


def rfc3339(nanoseconds: int) -> str:
    """``2024-05-01T12:00:00.123456789Z``, with trailing zeros of the fraction left out, as Go prints it."""
    if nanoseconds <= 0:
        return NEVER
    seconds, fraction = divmod(nanoseconds, SECOND)
    head = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{head}.{fraction:09d}".rstrip("0").rstrip(".") + "Z"


_GO_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|h|m|s)")
_GO_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


class Stamper:
    """Renders the times of many log lines: nine digits always, and the date computed once a second only."""

    def __init__(self) -> None:
        self._second = -1
        self._prefix = b""

    def stamp(self, nanoseconds: int) -> bytes:
        seconds, fraction = divmod(nanoseconds, SECOND)
        if seconds != self._second:
            self._second = seconds
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(seconds)).encode()
        return b"%b%09dZ" % (self._prefix, fraction)


def parse_time(text: str, where: str) -> int:
    """Nanoseconds for a query parameter: Unix seconds with an optional fraction, or RFC 3339 (a date alone and a
    time without a zone count as UTC).  Empty and "0" mean none and yield 0.  BadParameter for anything else."""
    if not text:
        return 0
    if match := _UNIX.fullmatch(text):
        return int(match[1]) * SECOND + int((match[2] or "").ljust(9, "0"))
    if match := _RFC3339.fullmatch(text):
        date, minutes, seconds, fraction, _zulu, sign, zone_hours, zone_minutes = match.groups()
        try:
            moment = datetime.datetime.fromisoformat(f"{date}T{minutes or '00:00'}:{seconds or '00'}+00:00")
        except ValueError:
            raise _bad_time(where, text) from None
        offset = (int(zone_hours or 0) * 3600 + int(zone_minutes or 0) * 60) * (-1 if sign == "-" else 1)
        whole = int(moment.timestamp()) - offset
        return max(0, whole * SECOND + int((fraction or "").ljust(9, "0")))
    raise _bad_time(where, text)


def parse_moment(text: str, where: str) -> int:
    """As `parse_time`, or a duration before now as Go writes it ("10m", "1h30m").  BadParameter."""
    parts = _GO_PART.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return time.time_ns() - int(sum(float(number) * _GO_UNITS[unit] for number, unit in parts) * SECOND)
    return parse_time(text, where)


def duration(nanoseconds: int) -> str:
    """How long something took, in one word or two ("Less than a second", "About an hour", "3 weeks")."""
    seconds = max(0, nanoseconds) // SECOND
    minutes = seconds // 60
    hours = (seconds + 1800) // 3600
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return "1 second" if seconds == 1 else f"{seconds} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    for limit, length, unit in ((14, 1, "days"), (60, 7, "weeks"), (730, 30, "months")):
        if hours < 24 * limit:
            return f"{hours // 24 // length} {unit}"
    return f"{hours // 24 // 365} years"


def _bad_time(where: str, text: str) -> BadParameter:
    return BadParameter(
        f'Bad parameter: {where} must be a Unix time such as 1700000000.5 or an RFC 3339 date, not "{text}"'
    )
