"""`pydocker stats` and `pydocker update`: what containers use, and what they may use."""

from __future__ import annotations

import sys
import time

from dockerd_py.cli import options
from dockerd_py.cli.client import Client, container_path
from dockerd_py.cli.command import Command, for_each
from dockerd_py.cli.errors import CliError, UsageError
from dockerd_py.cli.listing import render
from dockerd_py.cli.text import short_id, size
from dockerd_py.flags import Flag, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEADINGS = {
    "Container": "CONTAINER",
    "ID": "CONTAINER ID",
    "Name": "NAME",
    "CPUPerc": "CPU %",
    "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %",
    "NetIO": "NET I/O",
    "BlockIO": "BLOCK I/O",
    "PIDs": "PIDS",
}
COLUMNS = ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")
PERIOD = 1.0  # seconds between two tables
CLEAR = "\x1b[H\x1b[J"


def stats(client: Client, given: Parsed) -> int:
    format_ = given.string("format")
    full = given.boolean("no-trunc")
    once = given.boolean("no-stream")
    terminal = sys.stdout.isatty()
    before: dict[str, Any] = {}
    for ref in given.args:
        client.get(container_path(ref, "/json"))  # a name that is none is told before anything is shown
    query = {"all": given.boolean("all") or None}
    while True:
        refs = given.args or [each["Id"] for each in client.get("/containers/json", query)]
        samples = {ref: sample for ref in refs if (sample := _sample(client, ref)) is not None}
        if before or not samples:
            rows = [_row(ref, before.get(ref, {}), sample, full) for ref, sample in samples.items()]
            text = render(rows, HEADINGS, COLUMNS, format_)
            sys.stdout.write(CLEAR + text if terminal and not once else text)
            sys.stdout.flush()
            if once:
                return 0
        before = samples
        time.sleep(PERIOD)


def update(client: Client, given: Parsed) -> int:
    change = options.limits(given)
    if given.has("restart"):
        change["RestartPolicy"] = options.parse_restart(given.string("restart"))
    if not change:
        raise UsageError("name at least one limit to change; see pydocker update --help")
    return for_each(given.args, lambda ref: client.post(container_path(ref, "/update"), payload=change))


def _sample(client: Client, ref: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = client.get(container_path(ref, "/stats"), {"stream": "0", "one-shot": "1"})
    except CliError:
        return None  # it was removed meanwhile
    return found


def _row(ref: str, before: dict[str, Any], now: dict[str, Any], full: bool) -> dict[str, str]:
    memory = now["memory_stats"]
    used, limit = _memory_used(memory), memory.get("limit", 0)
    networks = (now.get("networks") or {}).values()
    blocks = (now["blkio_stats"]["io_service_bytes_recursive"]) or ()
    return {
        "Container": ref,
        "ID": now["id"] if full else short_id(now["id"]),
        "Name": now["name"].lstrip("/"),
        "CPUPerc": f"{_processor_share(before.get('cpu_stats') or {}, now['cpu_stats']):.2f}%",
        "MemUsage": f"{size(used)} / {size(limit)}",
        "MemPerc": f"{100 * used / limit if limit else 0:.2f}%",
        "NetIO": f"{size(sum(n['rx_bytes'] for n in networks))} / {size(sum(n['tx_bytes'] for n in networks))}",
        "BlockIO": " / ".join(size(sum(b["value"] for b in blocks if b["op"] == op)) for op in ("read", "write")),
        "PIDs": str(now["pids_stats"].get("current", 0)),
    }


def _processor_share(before: dict[str, Any], now: dict[str, Any]) -> float:
    """Percent of one processor between two samples, as Docker's client counts."""
    if "system_cpu_usage" not in before or "system_cpu_usage" not in now:
        return 0.0
    spent = now["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
    whole = now["system_cpu_usage"] - before["system_cpu_usage"]
    return max(0.0, 100 * now["online_cpus"] * spent / whole) if whole > 0 else 0.0


def _memory_used(memory: dict[str, Any]) -> int:
    """Without what the kernel can drop at any time (the page cache that is not in use)."""
    details = memory.get("stats") or {}
    idle = details.get("total_inactive_file", details.get("inactive_file", 0))
    usage = int(memory.get("usage", 0))
    return usage - idle if idle < usage else usage


COMMANDS = {
    "stats": Command(
        "stats",
        "[OPTIONS] [CONTAINER...]",
        "Show what containers use, anew every second; without names, all that run.",
        stats,
        (
            Flag(("-a", "--all"), "bool", help="Also those that do not run"),
            Flag("--format", help="Show by this template, or as json", metavar="TEMPLATE"),
            Flag("--no-stream", "bool", help="Once only"),
            Flag("--no-trunc", "bool", help="Ids in full length"),
        ),
    ),
    "update": Command(
        "update",
        "[OPTIONS] CONTAINER...",
        "Change the limits of containers, and when they are started again.",
        update,
        (*options.LIMIT_FLAGS, options.RESTART_FLAG),
        least=1,
    ),
}
