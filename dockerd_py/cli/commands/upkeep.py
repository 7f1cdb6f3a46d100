"""`pydocker image prune`, `container prune` and `insert`."""

from __future__ import annotations

import sys

from dockerd_py.cli import filters
from dockerd_py.cli.client import Client, image_path, messages
from dockerd_py.cli.command import Command
from dockerd_py.cli.errors import CliError, ConnectionLost, UsageError
from dockerd_py.cli.text import printable, size
from dockerd_py.flags import Flag, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_INSERT_API = "1.10"  # the last version that has it


def container(client: Client, given: Parsed) -> int:
    _verb(given, "container", "prune")
    if not sure(given, "This removes all containers that do not run."):
        return 1
    done = client.post("/containers/prune", {"filters": filters.encoded(given.strings("filter"))})
    show_pruned("Deleted Containers:", done.get("ContainersDeleted") or (), done["SpaceReclaimed"])
    return 0


def image(client: Client, given: Parsed) -> int:
    _verb(given, "image", "prune")
    every = given.boolean("all")
    what = "all images that no container uses" if every else "all images without a name that nothing uses"
    if not sure(given, f"This removes {what}."):
        return 1
    wanted = [*given.strings("filter"), f"dangling={'false' if every else 'true'}"]
    done = client.post("/images/prune", {"filters": filters.encoded(wanted)})
    show_pruned("Deleted Images:", image_changes(done), done["SpaceReclaimed"])
    return 0


def insert(client: Client, given: Parsed) -> int:
    name, url, path = given.args
    old = Client(client.host, client.debug, api_version=_INSERT_API)
    status = ""
    for message in messages(old.request("POST", image_path(name, "/insert"), {"url": url, "path": path})):
        if failure := message.get("error") or (message.get("errorDetail") or {}).get("message"):
            raise CliError(failure)
        status = str(message.get("status") or status)
    if not status:
        raise ConnectionLost("The daemon closed the connection without an answer.")
    print(printable(status))
    return 0


def _verb(given: Parsed, command: str, verb: str) -> None:
    if given.args[0] != verb:
        raise UsageError(f'"pydocker {command}" has {verb}, and no {given.args[0]}')


def image_changes(done: dict[str, Any]) -> list[str]:
    """What the removal of images did, a line each."""
    return [
        f"untagged: {change['Untagged']}" if change.get("Untagged") else f"deleted: {change['Deleted']}"
        for change in done.get("ImagesDeleted") or ()
    ]


def sure(given: Parsed, what: str) -> bool:
    if given.boolean("force"):
        return True
    print(f"WARNING: {what}\nGo on? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def show_list(heading: str, lines: Any) -> None:
    """Nothing where there are no lines."""
    if lines:
        print(heading)
        for line in lines:
            print(printable(line))
        print()


def show_pruned(heading: str, lines: Any, reclaimed: int) -> None:
    show_list(heading, lines)
    print(f"Total reclaimed space: {size(reclaimed)}")


_FORCE = Flag(("-f", "--force"), "bool", help="Do not ask")
_FILTER = Flag("--filter", "list", help="Only what matches: until=TIME, label=KEY, label!=KEY", metavar="key=value")
_FILTER.check = filters.check

COMMANDS = {
    "container": Command(
        "container",
        "prune [OPTIONS]",
        "Remove all containers that do not run.",
        container,
        (_FILTER, _FORCE),
        least=1,
        most=1,
    ),
    "image": Command(
        "image",
        "prune [OPTIONS]",
        "Remove the images that have no name and that nothing uses.",
        image,
        (Flag(("-a", "--all"), "bool", help="Those with names that no container uses, too"), _FILTER, _FORCE),
        least=1,
        most=1,
    ),
    "insert": Command(
        "insert",
        "IMAGE URL PATH",
        "Make an image of another one and a file that the daemon fetches from a URL, and print its id.",
        insert,
        least=3,
        most=3,
    ),
}
