"""`pydocker events`: one line for each thing that happens."""

from __future__ import annotations

import time

from dockerd_py.cli import filters, moments
from dockerd_py.cli.client import Client, messages
from dockerd_py.cli.command import Command
from dockerd_py.cli.text import printable
from dockerd_py.flags import Flag, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def events(client: Client, given: Parsed) -> int:
    from dockerd_py.cli.template import Template, to_json

    query = {
        "since": moments.timestamp(given.string("since")) if given.string("since") else None,
        "until": moments.timestamp(given.string("until")) if given.string("until") else None,
        "filters": filters.encoded(given.strings("filter")),
    }
    format_ = given.string("format")
    template = Template(format_, printable) if format_ not in ("", "json") else None
    for event in messages(client.request("GET", "/events", query)):
        print(template.render(event) if template else to_json(event) if format_ else _line(event), flush=True)
    return 0


def _line(event: dict[str, Any]) -> str:
    nanoseconds = event.get("timeNano") or event["time"] * 1_000_000_000
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    local = time.localtime(seconds)
    zone = time.strftime("%z", local)
    actor = event.get("Actor") or {}
    attributes = ", ".join(f"{key}={value}" for key, value in sorted((actor.get("Attributes") or {}).items()))
    subject = f"{event.get('Type') or ''} {event.get('Action') or event.get('status') or ''} "
    subject += actor.get("ID") or event.get("id") or ""
    when = f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{fraction:09d}{zone[:3]}:{zone[3:]}"
    return printable(f"{when} {subject}" + (f" ({attributes})" if attributes else ""))


COMMANDS = {
    "events": Command(
        "events",
        "[OPTIONS]",
        "Show what happens, as it happens.",
        events,
        (
            filters.FLAG,
            Flag("--format", help='"json", or a template such as {{.Action}} {{.Actor.ID}}', metavar="TEMPLATE"),
            Flag("--since", help="Begin with what has happened since", check=moments.check, metavar="TIME|DURATION"),
            Flag("--until", help="End then", check=moments.check, metavar="TIME|DURATION"),
        ),
        most=0,
    )
}
