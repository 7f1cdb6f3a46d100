"""`pydocker volume`: create, ls, inspect, rm and prune."""

from __future__ import annotations

import sys

from dockerd_py.cli import filters, pairs
from dockerd_py.cli.client import Client
from dockerd_py.cli.command import Command, for_each
from dockerd_py.cli.errors import CliError, DaemonError
from dockerd_py.cli.group import Group
from dockerd_py.cli.listing import render
from dockerd_py.flags import Flag, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PRUNE_API = "1.42"  # the first that spares volumes with names

HEADINGS = {
    "Driver": "DRIVER",
    "Name": "VOLUME NAME",
    "Scope": "SCOPE",
    "Mountpoint": "MOUNTPOINT",
    "Labels": "LABELS",
    "CreatedAt": "CREATED",
}


def create(client: Client, given: Parsed) -> int:
    name = given.args[0] if given.args else given.string("name")
    payload = {
        "Name": name,
        "Driver": given.string("driver"),
        "DriverOpts": pairs.parse(given.strings("opt")),
        "Labels": pairs.parse(given.strings("label")),
    }
    print(client.post("/volumes/create", payload=payload)["Name"])
    return 0


def ls(client: Client, given: Parsed) -> int:
    query = {"filters": filters.encoded(given.strings("filter"))}
    found: list[dict[str, Any]] = client.get("/volumes", query).get("Volumes") or []
    found.sort(key=lambda volume: str(volume["Name"]))
    if given.boolean("quiet"):
        sys.stdout.write("".join(f"{volume['Name']}\n" for volume in found))
        return 0
    rows = [
        {
            **{key: str(volume.get(key) or "") for key in HEADINGS},
            "Labels": ",".join(f"{key}={value}" for key, value in sorted((volume.get("Labels") or {}).items())),
        }
        for volume in found
    ]
    sys.stdout.write(render(rows, HEADINGS, ("Driver", "Name"), given.string("format")))
    return 0


def inspect(client: Client, given: Parsed) -> int:
    from dockerd_py.cli.inspecting import inspect_each

    return inspect_each(given.args, lambda name: client.get(path(name)), given.string("format"))


def rm(client: Client, given: Parsed) -> int:
    query = {"force": given.boolean("force") or None}
    return for_each(given.args, lambda name: client.delete(path(name), query))


def prune(client: Client, given: Parsed) -> int:
    from dockerd_py.cli.commands.upkeep import show_pruned, sure

    every = given.boolean("all")
    what = "all volumes that no container has" if every else "all volumes without a name that no container has"
    if not sure(given, f"This removes {what}."):
        return 1
    wanted = [*given.strings("filter"), *(["all=1"] if every else [])]
    newer = Client(client.host, client.debug, api_version=_PRUNE_API)
    done = newer.post("/volumes/prune", {"filters": filters.encoded(wanted)})
    show_pruned("Deleted Volumes:", done.get("VolumesDeleted") or (), done["SpaceReclaimed"])
    return 0


def path(name: str) -> str:
    if name in ("", ".", "..") or "/" in name:
        raise CliError(f'"{name}" is no volume\'s name')
    from urllib.parse import quote

    return f"/volumes/{quote(name, safe='')}"


def find(client: Client, name: str) -> Any:
    """The volume; None where there is none."""
    try:
        return client.get(path(name))
    except DaemonError as error:
        if error.status != 404:
            raise
        return None


_FORMAT = Flag("--format", help='"table", "json", or a template such as {{.Name}}', metavar="TEMPLATE")

COMMANDS = {
    "volume": Group(
        "volume",
        "Manage volumes.",
        {
            "create": Command(
                "volume create",
                "[OPTIONS] [VOLUME]",
                "Make a volume, and print its name.",
                create,
                (
                    Flag(("-d", "--driver"), "string", "local", "There is no other than local"),
                    Flag("--label", "list", help="Set a label", check=pairs.check, metavar="KEY=value"),
                    Flag("--name"),
                    Flag(("-o", "--opt"), "list", help="type, device or o, as of mount(8)", check=pairs.check,
                         metavar="KEY=value"),
                ),
                most=1,
            ),
            "inspect": Command(
                "volume inspect",
                "[OPTIONS] VOLUME...",
                "Show all that is known about volumes, as JSON.",
                inspect,
                (Flag(("-f", "--format"), help='"json", or a template such as {{.Mountpoint}}', metavar="TEMPLATE"),),
                least=1,
            ),
            "ls": Command(
                "volume ls",
                "[OPTIONS]",
                "List volumes.",
                ls,
                (filters.FLAG, _FORMAT, Flag(("-q", "--quiet"), "bool", help="Names only")),
                most=0,
            ),
            "prune": Command(
                "volume prune",
                "[OPTIONS]",
                "Remove the volumes that have no name and that no container has.",
                prune,
                (
                    Flag(("-a", "--all"), "bool", help="Those with names, too"),
                    Flag("--filter", "list", help="Only what matches: label=KEY, label!=KEY", check=filters.check,
                         metavar="key=value"),
                    Flag(("-f", "--force"), "bool", help="Do not ask"),
                ),
                most=0,
            ),
            "rm": Command(
                "volume rm",
                "[OPTIONS] VOLUME...",
                "Remove volumes that no container has.",
                rm,
                (Flag(("-f", "--force"), "bool", help="No error for one that is not there"),),
                least=1,
            ),
        },
    )
}  # fmt: skip
