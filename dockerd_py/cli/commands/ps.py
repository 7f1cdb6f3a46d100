"""`pydocker ps`: the containers, newest first."""

from __future__ import annotations

import sys
import time

from dockerd_py.cli import filters, port_options, text
from dockerd_py.cli.client import Client
from dockerd_py.cli.command import Command
from dockerd_py.cli.listing import render
from dockerd_py.flags import Flag, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEADINGS = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "RunningFor": "CREATED",
    "Status": "STATUS",
    "State": "STATE",
    "Ports": "PORTS",
    "Names": "NAMES",
    "Labels": "LABELS",
    "Mounts": "MOUNTS",
    "Networks": "NETWORKS",
    "Size": "SIZE",
}
COLUMNS = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")
COMMAND_WIDTH = 20


def ps(client: Client, given: Parsed) -> int:
    limit = 1 if given.boolean("latest") else given.integer("last")
    format_ = given.string("format")
    with_sizes = given.boolean("size") or ".Size" in format_
    query = {
        "all": given.boolean("all") or None,
        "limit": limit if limit > 0 else None,
        "size": with_sizes or None,
        "filters": filters.encoded(given.strings("filter")),
    }
    items: list[dict[str, Any]] = client.get("/containers/json", query)
    full = given.boolean("no-trunc")
    if given.boolean("quiet") and not format_:
        sys.stdout.write("".join(f"{item['Id'] if full else text.short_id(item['Id'])}\n" for item in items))
        return 0
    now = time.time()
    columns = (*COLUMNS, "Size") if with_sizes else COLUMNS
    sys.stdout.write(render([_row(item, full, now) for item in items], HEADINGS, columns, format_))
    return 0


def _row(item: dict[str, Any], full: bool, now: float) -> dict[str, str]:
    command = item.get("Command") or ""
    names = [name.lstrip("/") for name in item.get("Names") or ()]
    mounts = [mount.get("Name") or mount.get("Source") or "" for mount in item.get("Mounts") or ()]
    size = f"{text.size(item.get('SizeRw') or 0)} (virtual {text.size(item.get('SizeRootFs') or 0)})"
    return {
        "ID": item["Id"] if full else text.short_id(item["Id"]),
        "Image": item["Image"] if full or not item["Image"].startswith("sha256:") else text.short_id(item["Image"]),
        "Command": text.quoted(command if full else text.cut(command, COMMAND_WIDTH)),
        "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(item["Created"])),
        "RunningFor": text.age(item["Created"], now),
        "Status": item.get("Status") or "",
        "State": item.get("State") or "",
        "Ports": port_options.column(item.get("Ports") or []),
        # A name with a slash within is a link's, which is another container's view of this one.
        "Names": ",".join(names if full else [name for name in names if "/" not in name]),
        "Labels": ",".join(f"{key}={value}" for key, value in sorted((item.get("Labels") or {}).items())),
        "Mounts": ",".join(mounts if full else [text.cut(mount, 15) for mount in mounts]),
        "Networks": ",".join(sorted((item.get("NetworkSettings") or {}).get("Networks") or ())),
        "Size": size,
    }


COMMANDS = {
    "ps": Command(
        "ps",
        "[OPTIONS]",
        "List the running containers, the newest first.",
        ps,
        (
            Flag(("-a", "--all"), "bool", help="Those that do not run, too"),
            filters.FLAG,
            Flag("--format", help='"table", "json", or a template such as {{.ID}} {{.Names}}', metavar="TEMPLATE"),
            Flag(("-l", "--latest"), "bool", help="The newest one only, running or not"),
            Flag(("-n", "--last"), "int", -1, "The newest n only, running or not"),
            Flag("--no-trunc", "bool", help="Cut nothing short"),
            Flag(("-q", "--quiet"), "bool", help="Ids only"),
            Flag(("-s", "--size"), "bool", help="Sizes, too (slow)"),
        ),
        most=0,
    )
}
