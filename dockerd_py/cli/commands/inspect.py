"""`pydocker inspect`: all that is known about containers, images, networks or volumes, as JSON or by a template."""

from __future__ import annotations

from dockerd_py.cli.client import Client, container_path, image_path
from dockerd_py.cli.command import Command
from dockerd_py.cli.errors import CliError, DaemonError
from dockerd_py.cli.inspecting import inspect_each
from dockerd_py.flags import Flag, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def inspect(client: Client, given: Parsed) -> int:
    kind, size = given.string("type"), given.boolean("size")
    return inspect_each(given.args, lambda ref: _look_up(client, ref, kind, size), given.string("format"))


def _look_up(client: Client, ref: str, kind: str, size: bool) -> Any:
    """A container of that name, else an image, else a network, else a volume."""
    if kind in ("", "container"):
        try:
            return client.get(container_path(ref, "/json"), {"size": size or None})
        except DaemonError as error:
            if error.status != 404:
                raise
    if kind in ("", "image"):
        try:
            return client.get(image_path(ref, "/json"))
        except DaemonError as error:
            if error.status != 404:
                raise
    if kind in ("", "network"):
        from dockerd_py.cli.commands import network

        if "/" not in ref and (found := network.find(client, ref)) is not None:
            return found
    if kind in ("", "volume"):
        from dockerd_py.cli.commands import volume

        if "/" not in ref and (found := volume.find(client, ref)) is not None:
            return found
    raise CliError(f"No such {kind or 'container, image, network or volume'}: {ref}")


COMMANDS = {
    "inspect": Command(
        "inspect",
        "[OPTIONS] CONTAINER|IMAGE|NETWORK|VOLUME...",
        "Show all that is known about containers, images, networks or volumes, as JSON.",
        inspect,
        (
            Flag(("-f", "--format"), help='"json", or a template such as {{.State.Status}}', metavar="TEMPLATE"),
            Flag(("-s", "--size"), "bool", help="A container's sizes, too (slow)"),
            Flag("--type", help="Look for nothing else: container, image, network or volume",
                 choices=("", "container", "image", "network", "volume"), metavar="KIND"),
        ),
        least=1,
    )
}  # fmt: skip
