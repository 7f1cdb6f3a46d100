"""Health checks as values: what is asked for, and how a container is.  Durations are nanoseconds, 0 means not given."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from dockerd_py.errors import BadParameter

MILLISECOND = 1_000_000
SECOND = 1_000_000_000
DEFAULT_INTERVAL = 30 * SECOND
DEFAULT_TIMEOUT = 30 * SECOND
DEFAULT_START_INTERVAL = 5 * SECOND
DEFAULT_RETRIES = 3
DEFAULT_SHELL = ("/bin/sh", "-c")

KEPT_PROBES = 5

_KEYS = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start_period": "StartPeriod",
    "start_interval": "StartInterval",
    "retries": "Retries",
}


@dataclass(frozen=True)
class Healthcheck:
    """How a container's health is looked at.  What is not given is the image's, else the default."""

    test: tuple[str, ...] = ()  # ("NONE",), ("CMD", program, argument...) or ("CMD-SHELL", line)
    interval: int = 0  # from the end of one probe to the next
    timeout: int = 0
    start_period: int = 0  # in which a container that has not been healthy yet may fail
    start_interval: int = 0  # the interval during the start period
    retries: int = 0  # failures in a row that make it unhealthy


class HealthStatus(str, enum.Enum):
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True)
class Probe:
    """One look at a container.  Times are nanoseconds since the epoch."""

    start: int
    end: int
    exit_code: int  # 0: healthy; -1: it could not be run, or not to its end
    output: str


@dataclass(frozen=True)
class Health:
    status: HealthStatus = HealthStatus.STARTING
    failing_streak: int = 0
    log: tuple[Probe, ...] = ()  # the last KEPT_PROBES, the newest last


def merge(own: Healthcheck | None, image: Healthcheck | None) -> Healthcheck | None:
    """A container's check over its image's, field by field."""
    if own is None or image is None:
        return own or image
    taken = {field.name: getattr(own, field.name) or getattr(image, field.name) for field in fields(Healthcheck)}
    return Healthcheck(**taken)


def check(wanted: Healthcheck | None) -> None:
    """Raises BadParameter by the name of the field."""
    if wanted is None:
        return
    for field, key in _KEYS.items():
        value = getattr(wanted, field)
        if field == "retries":
            if value < 0:
                raise BadParameter("Retries in Healthcheck cannot be negative")
        elif value and value < MILLISECOND:
            raise BadParameter(f"{key} in Healthcheck cannot be less than 1ms")
    if not wanted.test:
        return
    kind, *command = wanted.test
    if kind not in ("NONE", "CMD", "CMD-SHELL"):
        raise BadParameter(f"Test in Healthcheck begins with NONE, CMD or CMD-SHELL, not with {kind!r}")
    if kind != "NONE" and not command:
        raise BadParameter(f"Test in Healthcheck has no command after {kind}")


def command_of(wanted: Healthcheck | None, shell: tuple[str, ...] = ()) -> tuple[str, ...]:
    """What is run to look at a container; () where nothing is."""
    if wanted is None or not wanted.test or wanted.test[0] == "NONE":
        return ()
    kind, *command = wanted.test
    return (*(shell or DEFAULT_SHELL), *command) if kind == "CMD-SHELL" else tuple(command)


def at_start(wanted: Healthcheck | None, before: Health | None) -> Health | None:
    """The health of a container that has just been started; what was seen before stays readable, as in Docker."""
    if not command_of(wanted):
        return None
    return Health(log=before.log if before else ())


def at_end(before: Health | None) -> Health | None:
    """What does not run is not healthy."""
    return before and replace(before, status=HealthStatus.UNHEALTHY)


def after_probe(before: Health, probe: Probe, wanted: Healthcheck, started_at: int) -> Health:
    log = (*before.log, probe)[-KEPT_PROBES:]
    if probe.exit_code == 0:
        return Health(HealthStatus.HEALTHY, 0, log)
    if before.status is HealthStatus.STARTING and probe.start - started_at < wanted.start_period:
        return replace(before, log=log)
    streak = before.failing_streak + 1
    failed = streak >= (wanted.retries or DEFAULT_RETRIES)
    return Health(HealthStatus.UNHEALTHY if failed else before.status, streak, log)


def interval(wanted: Healthcheck, health: Health, since_start: int) -> int:
    """How long to wait for the next probe, ``since_start`` nanoseconds after the container's start."""
    if since_start < wanted.start_period and health.status is HealthStatus.STARTING:
        return wanted.start_interval or DEFAULT_START_INTERVAL
    return wanted.interval or DEFAULT_INTERVAL


def from_json(value: Mapping[str, Any]) -> Healthcheck:
    """Of an image's configuration.  It comes from elsewhere: what is of another type is as if it were not given."""
    test = value.get("Test")
    words = isinstance(test, list) and all(isinstance(word, str) for word in test)
    return Healthcheck(
        tuple(test) if words and test else (),
        **{field: _number(value.get(key)) for field, key in _KEYS.items()},
    )


def to_json(wanted: Healthcheck) -> dict[str, Any]:
    """As images and the API spell it; what is not given is left out."""
    found: dict[str, Any] = {key: getattr(wanted, field) for field, key in _KEYS.items() if getattr(wanted, field)}
    return {"Test": list(wanted.test), **found} if wanted.test else found


def _number(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
