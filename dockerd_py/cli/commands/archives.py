"""`pydocker export`, `save` and `load`: archives between the daemon and a file here, or a pipe."""

from __future__ import annotations

import os
import stat
import sys

from dockerd_py.cli import progress, terminal, uploads
from dockerd_py.cli.client import Client, container_path, messages
from dockerd_py.cli.command import Command
from dockerd_py.cli.errors import CliError, UsageError
from dockerd_py.cli.text import printable, size
from dockerd_py.flags import Flag, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from dockerd_py.cli.transport import Response

_OUTPUT = Flag(("-o", "--output"), help="Write to a file instead of standard output", metavar="FILE")


def export(client: Client, given: Parsed) -> int:
    output = given.string("output")
    _check_output(output)
    _receive(client.request("GET", container_path(given.args[0], "/export")), output, "Exporting")
    return 0


def save(client: Client, given: Parsed) -> int:
    output = given.string("output")
    _check_output(output)
    _receive(client.request("GET", "/images/get", {"names": list(given.args)}), output, "Saving")
    return 0


def load(client: Client, given: Parsed) -> int:
    name = given.string("input")
    quiet = given.boolean("quiet")
    if not name and terminal.is_terminal(0):
        raise UsageError("standard input is a terminal: redirect an archive into it, or name one with -i")
    fd = 0
    if name:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise CliError(f"{name}: {error.strerror}") from None
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        raise CliError(f"{name}: a directory; it must be an archive of images")
    total = uploads.bytes_left(fd)
    body = uploads.pieces(fd, total)
    if not quiet:
        body = progress.shown(body, "Sending", total)
    try:
        response = client.upload("/images/load", {"quiet": quiet}, body, uploads.headers_for(total))
    finally:
        body.close()  # puts the terminal back where sending stopped early
    _report(messages(response))
    return 0


def _check_output(name: str) -> None:
    if not name and terminal.is_terminal(1):
        raise UsageError("standard output is a terminal: redirect it, or name a file with -o")
    if name and os.path.isdir(name):
        raise CliError(f"{name}: a directory; it must be a file")


def _receive(response: Response, output: str, what: str) -> None:
    """Write the answer to standard output, or to a file that is there only once it is whole."""
    pieces = progress.shown((piece for piece in response), what, None)
    try:
        if not output:
            sys.stdout.flush()
            for piece in pieces:
                _write(1, piece)
            return
        _into_file(pieces, output)
    finally:
        pieces.close()


def _into_file(pieces: Iterable[bytes], output: str) -> None:
    try:
        special = os.path.exists(output) and not os.path.isfile(output)  # /dev/null, a pipe
        aside = output if special else f"{output}.part-{os.getpid()}"
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | (0 if special else os.O_EXCL) | os.O_CLOEXEC, 0o600)
        try:
            for piece in pieces:
                _write(fd, piece)
            if not special:
                os.rename(aside, output)
        except BaseException:
            if not special:
                os.unlink(aside)
            raise
        finally:
            os.close(fd)
    except OSError as error:
        raise CliError(f"{output}: {error.strerror}") from None


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _report(news: Iterable[Any]) -> None:
    """What was loaded to standard output; how far each layer is to standard error, where somebody looks."""
    watched = sys.stderr.isatty()
    shown = False
    for message in news:
        if failure := message.get("error") or (message.get("errorDetail") or {}).get("message"):
            raise CliError(failure)
        detail = message.get("progressDetail") or {}
        if watched and detail.get("total"):
            line = f"{message.get('id', '')}: {size(detail.get('current', 0))} of {size(detail['total'])}"
            print(f"\r\x1b[K{printable(line)}", end="", file=sys.stderr, flush=True)
            shown = True
        if text := message.get("stream"):
            if shown:
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)
                shown = False
            print(printable(text.rstrip("\n")))


COMMANDS = {
    "export": Command(
        "export",
        "[OPTIONS] CONTAINER",
        "Write a container's root filesystem as a tarball.",
        export,
        (_OUTPUT,),
        least=1,
        most=1,
    ),
    "load": Command(
        "load",
        "[OPTIONS]",
        "Load images from an archive on standard input, plain or compressed.",
        load,
        (
            Flag(("-i", "--input"), help="Read from a file instead of standard input", metavar="FILE"),
            Flag(("-q", "--quiet"), "bool", help="Show no progress"),
        ),
        most=0,
    ),
    "save": Command(
        "save",
        "[OPTIONS] IMAGE...",
        "Write images, with all their layers, as one archive; a repository without a tag stands for all its tags.",
        save,
        (_OUTPUT,),
        least=1,
    ),
}
