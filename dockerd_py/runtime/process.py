"""One more process in a container (exec) → the ``process`` part of an OCI configuration.

What it shares with the container's init (limits, confinement, user, capabilities) is taken from the configuration
that the container was started with, so that both are the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dockerd_py.runtime.spec import default_environment
from dockerd_py.runtime.users import User


@dataclass(frozen=True)
class ProcessInput:
    """``user`` None: the container's own, whose home is ``home``.  ``console_size``: rows, columns."""

    args: tuple[str, ...]
    environment: tuple[str, ...]  # "K=V", or "K" to take a variable of the container's away
    container_environment: tuple[str, ...]  # what was asked for when it was created
    cwd: str
    terminal: bool
    user: User | None
    capabilities: tuple[str, ...] | None  # None: the container's
    console_size: tuple[int, int] = (0, 0)


def build_process(config: Mapping[str, Any], wanted: ProcessInput) -> dict[str, Any]:
    """``config`` is the container's whole config.json."""
    process = {key: value for key, value in config["process"].items() if key != "consoleSize"}
    process |= {
        "args": list(wanted.args),
        "cwd": wanted.cwd or "/",
        "terminal": wanted.terminal,
        "env": list(_environment(config, wanted)),
    }
    if wanted.user is not None:
        process["user"] = {
            **process["user"],
            "uid": wanted.user.uid,
            "gid": wanted.user.gid,
            "additionalGids": list(wanted.user.groups),
        }
    if wanted.capabilities is not None:
        process["capabilities"] = {name: list(wanted.capabilities) for name in ("bounding", "effective", "permitted")}
    if wanted.terminal and all(wanted.console_size):
        height, width = wanted.console_size
        process["consoleSize"] = {"height": height, "width": width}
    return process


def _environment(config: Mapping[str, Any], wanted: ProcessInput) -> Sequence[str]:
    given = _keys(wanted.container_environment)
    inherited: list[str] = config["process"]["env"]
    home = next((entry[len("HOME=") :] for entry in inherited if entry.startswith("HOME=")), "/")
    if wanted.user is not None:
        home = wanted.user.home
    # the user and the terminal of this process count, unless somebody has said otherwise
    own = [key for key in ("HOME", "TERM") if key not in given]
    kept = [entry for entry in inherited if entry.partition("=")[0] not in own]
    return default_environment(
        [*kept, *wanted.environment], hostname=config.get("hostname", ""), terminal=wanted.terminal, home=home
    )


def _keys(environment: Collection[str]) -> frozenset[str]:
    return frozenset(entry.partition("=")[0] for entry in environment)
