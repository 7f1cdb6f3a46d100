"""The flags of a health check, and what the API is sent for them."""

from __future__ import annotations

from dockerd_py.cli.errors import UsageError
from dockerd_py.flags import Flag, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FLAGS = (
    Flag("--health-cmd", help="Command, for a shell, that fails when the container is not healthy", metavar="COMMAND"),
    Flag("--health-interval", "duration", 0, "Time between two of them, 30s by default", metavar="DURATION"),
    Flag("--health-retries", "int", 0, "Failures in a row that make it unhealthy, 3 by default"),
    Flag("--health-start-interval", "duration", 0, "The interval in the start period, 5s by default",
         metavar="DURATION"),
    Flag("--health-start-period", "duration", 0, "Time that it may fail after its start", metavar="DURATION"),
    Flag("--health-timeout", "duration", 0, "Time until the command is killed, 30s by default", metavar="DURATION"),
    Flag("--no-healthcheck", "bool", help="Without the health check of its image"),
)  # fmt: skip


def healthcheck(given: Parsed) -> dict[str, Any]:
    """{} where nothing is asked for.  Raises UsageError for what contradicts itself."""
    command = given.string("health-cmd")
    found: dict[str, Any] = {
        "Test": ["CMD-SHELL", command] if command else [],
        "Interval": given.integer("health-interval"),
        "Timeout": given.integer("health-timeout"),
        "StartPeriod": given.integer("health-start-period"),
        "StartInterval": given.integer("health-start-interval"),
        "Retries": given.integer("health-retries"),
    }
    found = {key: value for key, value in found.items() if value}
    if not given.boolean("no-healthcheck"):
        return found
    if found:
        raise UsageError("Conflicting options: --no-healthcheck and --health-*")
    return {"Test": ["NONE"]}
