"""`pydocker cp`: files out of a container, or into it.

The rules for what lands where are those of cp(1) and of Docker: into a directory that is there, else under the name
that was given; ``/.`` behind a source means what is in it.
"""

from __future__ import annotations

import os
import posixpath
import stat
import sys
from typing import NamedTuple

from dockerd_py.cli import progress, terminal
from dockerd_py.cli.client import Client, answer, container_path
from dockerd_py.cli.command import Command
from dockerd_py.cli.errors import CliError, ConnectionLost, UsageError
from dockerd_py.cli.text import printable
from dockerd_py.cli.transport import Response
from dockerd_py.flags import Flag, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from dockerd_py.cli.client import Query

_GO_DIRECTORY = 1 << 31
_PIECE = 256 * 1024


class Stat(NamedTuple):
    name: str
    is_directory: bool
    link: str  # where a symbolic link leads


def cp(client: Client, given: Parsed) -> int:
    (from_container, source), (to_container, target) = map(_split, given.args)
    if from_container and to_container:
        raise UsageError("copying between containers is not supported")
    if from_container:
        _out(client, from_container, source, target, given)
    elif to_container:
        _in(client, to_container, source, target, given)
    else:
        raise UsageError("must specify at least one container source: CONTAINER:PATH")
    return 0


def _out(client: Client, container: str, source: str, target: str, given: Parsed) -> None:
    if given.boolean("follow-link"):
        found = _stat(client, container, source)
        source = found.link if found and found.link else source
    if target == "-" and terminal.is_terminal(1):
        raise UsageError("standard output is a terminal: redirect the tar archive that is written to it")
    response = client.request("GET", container_path(container, "/archive"), {"path": source})
    if target == "-":
        for piece in response:
            sys.stdout.buffer.write(piece)
        return
    from dockerd_py.cli import localtar

    found = _read_stat(response)
    pieces = progress.shown(_pieces(response), "Copying", None)
    try:
        place = _place_here(found, target, only_content=_means_content(source) or found.name == "/")
        localtar.unpack(pieces, found.name, place, owners=given.boolean("archive"))
    finally:
        pieces.close()
        response.close()


def _in(client: Client, container: str, source: str, target: str, given: Parsed) -> None:
    found = _stat(client, container, target)
    if found and found.link:
        target = found.link
        found = _stat(client, container, target)
    if source == "-":
        if found is None or not found.is_directory:
            raise CliError(f'destination "{container}:{target}" must be a directory')
        if terminal.is_terminal(0):
            raise UsageError("standard input is a terminal: redirect a tar archive into it")
        _put(client, container, target, _standard_input())
        return
    from dockerd_py.cli import localtar

    follow = given.boolean("follow-link") or source.endswith(("/", "/.")) or source == "."
    path = os.path.realpath(source) if follow else os.path.abspath(source)
    try:
        is_directory = stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError as error:
        raise CliError(f"{source}: {error.strerror}") from None
    if source.endswith("/") and not is_directory:
        raise CliError(f"{source}: not a directory")
    name = os.path.basename(os.path.abspath(source)) or "/"
    if found and found.is_directory:
        directory = target
        name = "." if is_directory and _means_content(source) else name
    else:
        if found and is_directory:
            raise CliError(f'cannot copy directory "{source}" to "{container}:{target}", which is a file')
        if target.endswith("/") and not is_directory:
            raise CliError(f'destination "{container}:{target}" must be a directory')
        directory, name = posixpath.split("/" + target.strip("/"))
    _put(client, container, directory, localtar.pack(path, name, owners=given.boolean("archive")))


def _put(client: Client, container: str, directory: str, pieces: Generator[bytes, None, None]) -> None:
    query: Query = {"path": directory, "noOverwriteDirNonDir": True}
    body = progress.shown(pieces, "Copying", None)
    headers = {"Content-Type": "application/x-tar"}
    try:
        client.upload(container_path(container, "/archive"), query, body, headers, method="PUT").read()
    finally:
        body.close()


def _place_here(found: Stat, target: str, *, only_content: bool) -> str:
    """The path that the topmost entry gets here."""
    if os.path.isdir(target):
        real = os.path.realpath(target)
        return real if found.is_directory and only_content else os.path.join(real, found.name.strip("/"))
    if os.path.lexists(target):
        if found.is_directory:
            raise CliError(f'cannot copy directory "{found.name}" to "{target}", which is no directory')
        if target.endswith("/"):
            raise CliError(f"{target}: not a directory")
        return os.path.realpath(target)
    if target.endswith("/") and not found.is_directory:
        raise CliError(f"{target}: no such directory")
    directory = os.path.dirname(os.path.abspath(target))
    if not os.path.isdir(directory):
        raise CliError(f'invalid output path: the directory "{directory}" does not exist')
    return os.path.abspath(target)


def _stat(client: Client, container: str, path: str) -> Stat | None:
    """None where there is nothing; whatever is wrong else, the copy itself says."""
    response = Response(client.begin("HEAD", container_path(container, "/archive"), {"path": path}))
    response.close()
    return _read_stat(response) if response.status == 200 else None


def _read_stat(response: Response) -> Stat:
    import base64
    import json

    try:
        found = json.loads(base64.b64decode(response.headers["x-docker-container-path-stat"]))
        return Stat(found["name"], bool(found["mode"] & _GO_DIRECTORY), found.get("linkTarget") or "")
    except (KeyError, ValueError, TypeError):
        raise ConnectionLost("The daemon did not say what it copies.") from None


def _split(text: str) -> tuple[str, str]:
    """(container, path); no container for a path of this machine: "-", one from "/" or ".", or without a colon."""
    container, colon, path = text.partition(":")
    if not colon or text.startswith(("/", ".")):
        return "", text
    if not path:
        raise UsageError(f"{printable(text)}: Path not specified")
    return container, path


def _means_content(path: str) -> bool:
    return path == "." or path.endswith("/.")


def _pieces(response: Response) -> Generator[bytes, None, None]:
    yield from answer(response)


def _standard_input() -> Generator[bytes, None, None]:
    while piece := os.read(0, _PIECE):
        yield piece


COMMANDS = {
    "cp": Command(
        "cp",
        "[OPTIONS] CONTAINER:PATH PATH|- | PATH|- CONTAINER:PATH",
        'Copy files and directories out of a container, or into it; "-" is a tar archive on a standard stream.',
        cp,
        (
            Flag(("-a", "--archive"), "bool", help="Keep the files' owners"),
            Flag(("-L", "--follow-link"), "bool", help="Copy what a link leads to, not the link"),
        ),
        least=2,
        most=2,
    )
}
