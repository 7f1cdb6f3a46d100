"""`pydocker logs`: what a container has written, and what it goes on to write."""

from __future__ import annotations

import sys

from dockerd_py.cli import moments
from dockerd_py.cli.client import Client, container_path
from dockerd_py.cli.command import Command
from dockerd_py.cli.output import Output
from dockerd_py.flags import Flag, Parsed


def logs(client: Client, given: Parsed) -> int:
    ref = given.args[0]
    tty = client.get(container_path(ref, "/json"))["Config"]["Tty"]
    query = {
        "stdout": True,
        "stderr": True,
        "follow": given.boolean("follow") or None,
        "timestamps": given.boolean("timestamps") or None,
        "since": moments.timestamp(given.string("since")) if given.string("since") else None,
        "until": moments.timestamp(given.string("until")) if given.string("until") else None,
        "tail": given.string("tail"),
    }
    output = Output(tty)
    sys.stdout.flush()
    for piece in client.request("GET", container_path(ref, "/logs"), query):
        output.show(piece)
    return 0


def _lines(text: str) -> None:
    if text != "all" and not (text.isascii() and text.isdigit()):
        raise ValueError("it must be a number of lines, or all")


COMMANDS = {
    "logs": Command(
        "logs",
        "[OPTIONS] CONTAINER",
        "Show what a container has written.",
        logs,
        (
            Flag(("-f", "--follow"), "bool", help="Go on as it writes more, until it ends"),
            Flag("--since", help="What is not older than this", check=moments.check, metavar="TIME|DURATION"),
            Flag(("-n", "--tail"), "string", "all", "The last lines only", check=_lines),
            Flag(("-t", "--timestamps"), "bool", help="With the time of each line"),
            Flag("--until", help="What is not younger than this", check=moments.check, metavar="TIME|DURATION"),
        ),
        least=1,
        most=1,
    )
}
