"""`pydocker inspect`: all that is known about containers, images, networks or volumes, as JSON or by a template."""

from __future__ import annotations

import sys

from dockerd_py.cli.client import Client, container_path, image_path
from dockerd_py.cli.command import Command, complain
from dockerd_py.cli.errors import CliError, DaemonError
from dockerd_py.cli.template import Template, to_json
from dockerd_py.cli.text import printable
from dockerd_py.flags import Flag, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def inspect(client: Client, given: Parsed) -> int:
    format_ = given.string("format")
    # Raw, so that a script gets what is there; a terminal gets nothing that it would obey.
    clean = (lambda text: printable(text, keep="\n\t")) if sys.stdout.isatty() else str
    template = Template(format_, clean) if format_ not in ("", "json") else None
    found: list[Any] = []
    failures: list[str] = []
    for ref in given.args:
        try:
            found.append(_look_up(client, ref, given.string("type"), given.boolean("size")))
        except CliError as error:
            failures.append(str(error))
    if template is not None:
        for value in found:
            print(template.render(value))
    elif format_ == "json":
        for value in found:
            print(to_json(value))
    else:
        print(to_json(found, indent=4))
    for failure in failures:
        complain(failure)
    return 1 if failures else 0


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
