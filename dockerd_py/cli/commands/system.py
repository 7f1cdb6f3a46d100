"""`pydocker system df` and `system prune`."""

from __future__ import annotations

import sys

from dockerd_py.cli import filters
from dockerd_py.cli.client import Client
from dockerd_py.cli.command import Command
from dockerd_py.cli.commands.upkeep import image_changes, show_list, sure
from dockerd_py.cli.errors import UsageError
from dockerd_py.cli.group import Group
from dockerd_py.cli.text import size, table
from dockerd_py.flags import Flag, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PRUNE_API = "1.42"  # the first that spares volumes with names


def df(client: Client, _given: Parsed) -> int:
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


def prune(client: Client, given: Parsed) -> int:
    every, volumes = given.boolean("all"), given.boolean("volumes")
    wanted = given.strings("filter")
    if volumes and any(text.partition("=")[0].strip() == "until" for text in wanted):
        raise UsageError("the filter until does not go with --volumes: volumes have no age that counts")
    what = ["containers that do not run", "networks that no container is on"]
    what += ["volumes without a name that no container has"] if volumes else []
    what += ["images that no container uses" if every else "images without a name that nothing uses"]
    if not sure(given, f"This removes all {', all '.join(what[:-1])} and all {what[-1]}."):
        return 1
    newer = Client(client.host, client.debug, api_version=_PRUNE_API)
    query = {"filters": filters.encoded(wanted)}
    done = newer.post("/containers/prune", query)
    reclaimed = done["SpaceReclaimed"]
    show_list("Deleted Containers:", done.get("ContainersDeleted") or ())
    show_list("Deleted Networks:", newer.post("/networks/prune", query).get("NetworksDeleted") or ())
    if volumes:
        done = newer.post("/volumes/prune", query)
        reclaimed += done["SpaceReclaimed"]
        show_list("Deleted Volumes:", done.get("VolumesDeleted") or ())
    dangling = f"dangling={'false' if every else 'true'}"
    done = newer.post("/images/prune", {"filters": filters.encoded([*wanted, dangling])})
    show_list("Deleted Images:", image_changes(done))
    print(f"Total reclaimed space: {size(reclaimed + done['SpaceReclaimed'])}")
    return 0


def _layers_of(images: list[dict[str, Any]]) -> int:
    """At least the bytes of their layers: what each has alone, and the largest part that is shared."""
    alone = sum(each["Size"] - max(0, each.get("SharedSize", 0)) for each in images)
    return int(alone + max((max(0, each.get("SharedSize", 0)) for each in images), default=0))


def _bytes_of(volumes: list[dict[str, Any]]) -> int:
    """What is mounted from elsewhere has no size."""
    return sum(max(0, each["UsageData"]["Size"]) for each in volumes)


def _share(part: int, whole: int) -> str:
    part = max(0, min(part, whole))
    return f"{size(part)} ({round(100 * part / whole)}%)" if whole else size(part)


COMMANDS = {
    "system": Group(
        "system",
        "Show what takes how much room, and clean up.",
        {
            "df": Command(
                "system df", "", "Show what images, containers and volumes take on the disk.", df, most=0
            ),
            "prune": Command(
                "system prune",
                "[OPTIONS]",
                "Remove what nothing uses: containers that do not run, networks, images.",
                prune,
                (
                    Flag(("-a", "--all"), "bool", help="Images with names that no container uses, too"),
                    Flag("--filter", "list", help="Only what matches: until=TIME, label=KEY, label!=KEY",
                         check=filters.check, metavar="key=value"),
                    Flag(("-f", "--force"), "bool", help="Do not ask"),
                    Flag("--volumes", "bool", help="Volumes without a name, too"),
                ),
                most=0,
            ),
        },
    )
}  # fmt: skip
