"""`pydocker image prune`, `container prune`, `system df` and `insert`."""

from __future__ import annotations

import sys

from dockerd_py.cli import filters
from dockerd_py.cli.client import Client, image_path, messages
from dockerd_py.cli.command import Command
from dockerd_py.cli.errors import CliError, ConnectionLost, UsageError
from dockerd_py.cli.text import printable, size, table
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
    lines = [
        f"untagged: {change['Untagged']}" if change.get("Untagged") else f"deleted: {change['Deleted']}"
        for change in done.get("ImagesDeleted") or ()
    ]
    show_pruned("Deleted Images:", lines, done["SpaceReclaimed"])
    return 0


def system(client: Client, given: Parsed) -> int:
    _verb(given, "system", "df")
    found: dict[str, Any] = client.get("/system/df")
    images, containers = found.get("Images") or [], found.get("Containers") or []
    used = [each for each in images if each.get("Containers", 0) > 0]
    running = [each for each in containers if each.get("State") in ("running", "paused")]
    total = found.get("LayersSize") or 0
    # What would be free without the images that nothing uses: what they share with others stays.
    idle = total - _layers_of(used)
    written = sum(each.get("SizeRw") or 0 for each in containers)
    stopped = written - sum(each.get("SizeRw") or 0 for each in running)
    rows = [["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]]
    rows.append(["Images", str(len(images)), str(len(used)), size(total), _share(idle if used else total, total)])
    volumes = found.get("Volumes") or []
    used_volumes = [each for each in volumes if each["UsageData"]["RefCount"] > 0]
    kept, unused = _bytes_of(volumes), _bytes_of(volumes) - _bytes_of(used_volumes)
    rows.append(["Containers", str(len(containers)), str(len(running)), size(written), _share(stopped, written)])
    rows.append(["Local Volumes", str(len(volumes)), str(len(used_volumes)), size(kept), _share(unused, kept)])
    sys.stdout.write(table(rows))
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


def _layers_of(images: list[dict[str, Any]]) -> int:
    """At least the bytes of their layers: what each has alone, and the largest part that is shared."""
    alone = sum(each["Size"] - max(0, each.get("SharedSize", 0)) for each in images)
    return int(alone + max((max(0, each.get("SharedSize", 0)) for each in images), default=0))


def _bytes_of(volumes: list[dict[str, Any]]) -> int:
    """What is mounted from elsewhere has no size."""
    return sum(max(0, each["UsageData"]["Size"]) for each in volumes)


def _verb(given: Parsed, command: str, verb: str) -> None:
    if given.args[0] != verb:
        raise UsageError(f'"pydocker {command}" has {verb}, and no {given.args[0]}')


def sure(given: Parsed, what: str) -> bool:
    if given.boolean("force"):
        return True
    print(f"WARNING: {what}\nGo on? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def show_pruned(heading: str, lines: Any, reclaimed: int) -> None:
    if lines:
        print(heading)
        for line in lines:
            print(printable(line))
        print()
    print(f"Total reclaimed space: {size(reclaimed)}")


def _share(part: int, whole: int) -> str:
    part = max(0, min(part, whole))
    return f"{size(part)} ({round(100 * part / whole)}%)" if whole else size(part)


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
    "system": Command(
        "system", "df", "Show what images, containers and volumes take on the disk.", system, least=1, most=1
    ),
}
