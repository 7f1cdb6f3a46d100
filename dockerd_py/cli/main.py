"""Entry point of `pydocker`: the flags before the command, the choice of the command, and every way to end.

Exit codes: the command's own; 1 what the daemon refused, or no daemon; 2 a wrong command line; 64 a wrong template;
130 interrupted; `run` keeps 125, 126 and 127 as its manual says.  Nobody ever sees a traceback for what they typed.
"""

from __future__ import annotations

import os
import sys

from dockerd_py.cli import commands
from dockerd_py.cli.command import complain
from dockerd_py.cli.errors import CliError, UsageError
from dockerd_py.cli.transport import DEFAULT_HOST, Host
from dockerd_py.flags import Flag, FlagError, HelpRequested, describe, parse
from dockerd_py.version import VERSION

FLAGS = (
    Flag(("-D", "--debug"), "bool", help="Show each request to the daemon"),
    Flag(("-H", "--host"), "list", help="The daemon's address: unix:///path or tcp://address:port"),
    Flag(("-v", "--version"), "bool", help="Print the version and end"),
)

HINT = "See 'pydocker --help'."


def main() -> int:
    """Run the command line in ``sys.argv``; returns the exit code."""
    for fd in range(3):
        # What was closed must not become a socket's number.
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = _ended(sys.argv[1:])
        sys.stdout.flush()
    except OSError as error:
        # What is still to be written would fail again at the interpreter's end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if isinstance(error, BrokenPipeError):
            return 141  # whoever read us has gone: so do we, without a word
        print(f"pydocker: standard output: {error.strerror}", file=sys.stderr)
        return 1
    return code


def _ended(argv: list[str]) -> int:
    try:
        return _run(argv)
    except CliError as error:
        if str(error):
            complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        if error.filename is None:
            raise
        complain(f"{error.filename}: {error.strerror}")
        return 1


def _run(argv: list[str]) -> int:
    try:
        parsed = parse(FLAGS, argv)
    except FlagError as error:
        raise UsageError(f"{error}\n{HINT}") from None
    except HelpRequested:
        print(usage(), end="")
        return 0
    if parsed.boolean("version"):
        print(f"pydocker version {VERSION}")
        return 0
    hosts = parsed.strings("host")
    if len(hosts) > 1:
        raise UsageError(f"more than one -H: a client has one daemon, not {len(hosts)}\n{HINT}")
    if not parsed.args:
        print(usage(), end="", file=sys.stderr)
        return 2
    name, *rest = parsed.args
    if name == "help":
        return _help(rest)
    command = commands.find(name)
    if command is None:
        raise UsageError(f"'{name}' is not a pydocker command\n{HINT}")
    from dockerd_py.cli.client import Client, default_host

    try:
        host = Host((hosts[0] if hosts else default_host()) or DEFAULT_HOST)
    except UsageError as error:
        raise UsageError(f"{error}\n{HINT}") from None
    debug = parsed.boolean("debug") or bool(os.environ.get("DEBUG"))
    return command.run(Client(host, debug), rest)


def usage() -> str:
    width = max(map(len, commands.SUMMARIES))
    listed = "".join(f"  {name.ljust(width)}   {line}\n" for name, (_, line) in commands.SUMMARIES.items())
    return (
        "Usage: pydocker [OPTIONS] COMMAND [ARG...]\n\n"
        f"Runs containers by way of the pydockerd daemon.\n\nOptions:\n{describe(FLAGS)}\nCommands:\n{listed}\n"
        "'pydocker COMMAND --help' says more about a command.\n"
        "Environment: PYDOCKER_HOST, else DOCKER_HOST, is the daemon's address where no -H gives one\n"
        f"({DEFAULT_HOST} where nothing does).\n"
    )


def _help(names: list[str]) -> int:
    if not names:
        print(usage(), end="")
        return 0
    command = commands.find(names[0])
    if command is None:
        raise UsageError(f"'{names[0]}' is not a pydocker command\n{HINT}")
    print(command.usage(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
