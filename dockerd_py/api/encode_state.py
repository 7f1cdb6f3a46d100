"""The state of a container as Docker's JSON, and in the words of the list."""

from __future__ import annotations

import time

from dockerd_py.api import encode_first_year, eras
from dockerd_py.api.fields import JsonObject
from dockerd_py.api.routing import ApiVersion
from dockerd_py.api.times import duration, rfc3339
from dockerd_py.engine.health_model import Health, HealthStatus
from dockerd_py.engine.model import State, Status


def status_text(state: State, version: ApiVersion) -> str:
    """ "Up 3 seconds", "Exited (0) 2 minutes ago", "Created"."""
    if eras.knows_two_states(version):
        return encode_first_year.status(state, duration(time.time_ns() - state.started_at))
    if state.running:
        up = f"Up {duration(time.time_ns() - state.started_at)}"
        return f"{up} ({_condition(state)})" if _condition(state) else up
    if state.status is Status.RESTARTING:
        return f"Restarting ({state.exit_code}) {duration(time.time_ns() - state.finished_at)} ago"
    if state.status is Status.EXITED:
        return f"Exited ({state.exit_code}) {duration(time.time_ns() - state.finished_at)} ago"
    return {Status.REMOVING: "Removal In Progress", Status.DEAD: "Dead"}.get(state.status, "Created")


def _condition(state: State) -> str:
    if state.status is Status.PAUSED:
        return "Paused"
    if state.health is None:
        return ""
    starting = state.health.status is HealthStatus.STARTING
    return "health: starting" if starting else state.health.status.value


def state_object(value: State) -> JsonObject:
    health = {} if value.health is None else {"Health": _health(value.health)}
    return {
        "Status": value.status.value,
        "Running": value.active,
        "Paused": value.status is Status.PAUSED,
        "Restarting": value.status is Status.RESTARTING,
        "OOMKilled": value.oom_killed,
        "Dead": value.status is Status.DEAD,
        "Pid": value.pid,
        "ExitCode": value.exit_code,
        "Error": value.error,
        "StartedAt": rfc3339(value.started_at),
        "FinishedAt": rfc3339(value.finished_at),
        **health,
    }


def _health(value: Health) -> JsonObject:
    return {
        "Status": value.status.value,
        "FailingStreak": value.failing_streak,
        "Log": [
            {
                "Start": rfc3339(probe.start),
                "End": rfc3339(probe.end),
                "ExitCode": probe.exit_code,
                "Output": probe.output,
            }
            for probe in value.log
        ],
    }
