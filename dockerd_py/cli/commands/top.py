"""`pydocker top`: a container's processes, as the host's ps shows them."""

from __future__ import annotations

from dockerd_py.cli.client import Client, container_path
from dockerd_py.cli.command import Command
from dockerd_py.cli.text import printable, table
from dockerd_py.flags import Parsed


def top(client: Client, given: Parsed) -> int:
    from shlex import join

    container, *options = given.args
    found = client.get(container_path(container, "/top"), {"ps_args": join(options) or None})
    rows = [found["Titles"], *(found["Processes"] or ())]
    print(table([[printable(cell) for cell in row] for row in rows]), end="")
    return 0


COMMANDS = {
    "top": Command(
        "top",
        "CONTAINER [PS OPTIONS]",
        "Show the processes of a running container. The options are ps's own; -ef by default.",
        top,
        least=1,
        flags_first=True,
    )
}
