"""`pydocker import`: an image from a tarball, which is a file here, standard input, or at a URL the daemon fetches."""

from __future__ import annotations

import os
import stat
import sys

from dockerd_py.cli import progress, terminal, uploads
from dockerd_py.cli.client import Client, messages
from dockerd_py.cli.command import Command
from dockerd_py.cli.errors import CliError, ConnectionLost, UsageError
from dockerd_py.cli.reference import split_reference
from dockerd_py.cli.text import printable
from dockerd_py.flags import Flag, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockerd_py.cli.client import Query
    from dockerd_py.cli.transport import Response


def import_(client: Client, given: Parsed) -> int:
    source = given.args[0]
    repo, tag = split_reference(given.args[1]) if len(given.args) > 1 else ("", "")
    query = {
        "repo": repo or None,
        "tag": tag or None,
        "message": given.string("message") or None,
        "changes": given.strings("change") or None,
    }
    if source.startswith(("http://", "https://")):
        response = _request(client, {"fromSrc": source, **query}, -1)
    elif source == "-":
        if terminal.is_terminal(0):
            raise UsageError("standard input is a terminal: redirect a tarball into it, or name a file")
        response = _request(client, {"fromSrc": "-", **query}, 0)
    else:
        try:
            fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise CliError(f"{source}: {error.strerror}") from None
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise CliError(f"{source}: a directory; it must be a tarball (tar -C {source} -c . | pydocker import -)")
        response = _request(client, {"fromSrc": "-", **query}, fd)
    print(_image_id(response))
    return 0


def _request(client: Client, query: Query, fd: int) -> Response:
    """fd: where the tarball is read from; -1 where the daemon fetches it."""
    if fd < 0:
        return client.request("POST", "/images/create", query)
    total = uploads.bytes_left(fd)
    body = progress.shown(uploads.pieces(fd, total), "Sending", total)
    try:
        return client.upload("/images/create", query, body, uploads.headers_for(total))
    finally:
        body.close()  # puts the terminal back where sending stopped early


def _image_id(response: Response) -> str:
    """The last status of the stream of messages; what comes before is shown where somebody looks."""
    status = ""
    for message in messages(response):
        if failure := message.get("error") or (message.get("errorDetail") or {}).get("message"):
            raise CliError(failure)
        news = str(message.get("status") or status)
        if status and news != status and sys.stderr.isatty():
            print(printable(status), file=sys.stderr)
        status = news
    if not status:
        raise ConnectionLost("The daemon closed the connection without an answer.")
    return printable(status)


COMMANDS = {
    "import": Command(
        "import",
        "[OPTIONS] FILE|URL|- [REPOSITORY[:TAG]]",
        "Make an image from the contents of a tarball, and print its id.",
        import_,
        (
            Flag(("-c", "--change"), "list", help="Apply a Dockerfile instruction to it", metavar="INSTRUCTION"),
            Flag(("-m", "--message"), help="Say what it is", metavar="TEXT"),
        ),
        least=1,
        most=2,
    )
}
