"""`pydocker history`: the steps of an image's making."""

from __future__ import annotations

import sys
import time

from dockerd_py.cli import text
from dockerd_py.cli.client import Client, image_path
from dockerd_py.cli.command import Command
from dockerd_py.cli.listing import render
from dockerd_py.flags import Flag, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEADINGS = {
    "ID": "IMAGE",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "CreatedBy": "CREATED BY",
    "Size": "SIZE",
    "Comment": "COMMENT",
}
COLUMNS = ("ID", "CreatedSince", "CreatedBy", "Size", "Comment")
COMMAND_WIDTH = 45


def history(client: Client, given: Parsed) -> int:
    steps: list[dict[str, Any]] = client.get(image_path(given.args[0], "/history"))
    full = given.boolean("no-trunc")
    ids = [step["Id"] if full or step["Id"].startswith("<") else text.short_id(step["Id"]) for step in steps]
    if given.boolean("quiet"):
        sys.stdout.write("".join(f"{id_}\n" for id_ in ids))
        return 0
    now = time.time()
    human = given.boolean("human")
    rows = [
        {
            "ID": id_,
            "CreatedSince": text.age(step["Created"], now) if step["Created"] > 0 else "N/A",
            "CreatedAt": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(step["Created"])),
            "CreatedBy": step["CreatedBy"] if full else text.cut(step["CreatedBy"], COMMAND_WIDTH),
            "Size": text.size(step["Size"]) if human else str(step["Size"]),
            "Comment": step.get("Comment") or "",
        }
        for id_, step in zip(ids, steps, strict=True)
    ]
    columns = COLUMNS if human else tuple("CreatedAt" if name == "CreatedSince" else name for name in COLUMNS)
    sys.stdout.write(render(rows, HEADINGS, columns, given.string("format")))
    return 0


COMMANDS = {
    "history": Command(
        "history",
        "[OPTIONS] IMAGE",
        "Show the steps of an image's making, the last one first.",
        history,
        (
            Flag("--format", help='"table", "json", or a template such as {{.ID}} {{.CreatedBy}}', metavar="TEMPLATE"),
            Flag(("-H", "--human"), "bool", True, "Sizes and times for people"),
            Flag("--no-trunc", "bool", help="Cut nothing short"),
            Flag(("-q", "--quiet"), "bool", help="Ids only"),
        ),
        least=1,
        most=1,
    )
}
