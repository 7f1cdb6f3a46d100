"""`pydocker commit` and `diff`: what a container changed, and an image made of it."""

from __future__ import annotations

import sys

from dockerd_py.cli.client import Client, container_path
from dockerd_py.cli.command import Command
from dockerd_py.cli.errors import UsageError
from dockerd_py.cli.reference import split_reference
from dockerd_py.cli.text import printable
from dockerd_py.flags import Flag, Parsed

_KINDS = "CAD"


def commit(client: Client, given: Parsed) -> int:
    container, *names = given.args
    repo, tag = split_reference(names[0]) if names else ("", "")
    if len(names) > 1:  # as the first year's scripts give it
        repo, tag = names
    query = {
        "container": container,
        "repo": repo or None,
        "tag": tag or None,
        "comment": given.string("message") or None,
        "author": given.string("author") or None,
        "pause": given.boolean("pause"),
        "changes": given.strings("change") or None,
    }
    print(client.post("/commit", query, _settings(given.string("run")))["Id"])
    return 0


def diff(client: Client, given: Parsed) -> int:
    changes = client.get(container_path(given.args[0], "/changes")) or ()
    sys.stdout.write("".join(f"{_KINDS[each['Kind']]} {printable(each['Path'])}\n" for each in changes))
    return 0


def _settings(text: str) -> object | None:
    if not text:
        return None
    import json

    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--run: it is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise UsageError('--run: it must be a JSON object, such as {"Cmd": ["sh"]}')
    return value


COMMANDS = {
    "commit": Command(
        "commit",
        "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
        "Make an image of a container as it is now, and print its id.",
        commit,
        (
            Flag(("-a", "--author"), help="Who made it", metavar="TEXT"),
            Flag(("-c", "--change"), "list", help="Apply a Dockerfile instruction to it", metavar="INSTRUCTION"),
            Flag(("-m", "--message"), help="Say what it is", metavar="TEXT"),
            Flag(("-p", "--pause"), "bool", True, "Pause the container meanwhile"),
            Flag("--run", help='Settings over the container\'s own, as in {"Cmd": ["sh"]}', metavar="JSON"),
        ),
        least=1,
        most=3,
    ),
    "diff": Command(
        "diff",
        "CONTAINER",
        "Show what a container changed in its image's files: A is added, C changed, D deleted.",
        diff,
        least=1,
        most=1,
    ),
}
