"""`pydocker port`: where on the host a container's ports are published."""

from __future__ import annotations

from dockerd_py.cli.client import Client, container_path
from dockerd_py.cli.command import Command
from dockerd_py.cli.errors import CliError
from dockerd_py.flags import Flag, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def port(client: Client, given: Parsed) -> int:
    container, *asked = given.args
    found = client.get(container_path(container, "/json"))
    ports: dict[str, Any] = (found.get("NetworkSettings") or {}).get("Ports") or {}
    quiet = given.boolean("quiet")
    if asked:
        number, _, protocol = asked[0].partition("/")
        places = ports.get(f"{number}/{protocol.lower() or 'tcp'}")
        if not places:
            raise CliError(f"No public port '{asked[0]}' published for {container}")
        lines = [_place(place, quiet) for place in places]
    else:
        lines = [
            _place(place, quiet) if quiet else f"{name} -> {_place(place, quiet)}"
            for name, places in sorted(ports.items(), key=_order)
            for place in places or ()
        ]
    for line in dict.fromkeys(lines):
        print(line)
    return 0


def _place(place: dict[str, str], quiet: bool) -> str:
    if quiet:
        return place["HostPort"]
    address = place["HostIp"]
    return f"[{address}]:{place['HostPort']}" if ":" in address else f"{address}:{place['HostPort']}"


def _order(entry: tuple[str, object]) -> tuple[int, str]:
    number, _, protocol = entry[0].partition("/")
    return int(number), protocol


COMMANDS = {
    "port": Command(
        "port",
        "[OPTIONS] CONTAINER [PORT[/PROTOCOL]]",
        "Show where on the host the ports of a container are published, or one of them.",
        port,
        (Flag(("-q", "--quiet"), "bool", help="The numbers of the host's ports only"),),
        least=1,
        most=2,
    )
}
