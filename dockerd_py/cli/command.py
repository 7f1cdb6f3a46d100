"""What a command is: its flags, how many arguments it takes, and the function that does it."""

from __future__ import annotations

import sys

from dockerd_py.cli.errors import CliError, UsageError
from dockerd_py.flags import Flag, FlagError, HelpRequested, Parsed, describe, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from dockerd_py.cli.client import Client

    Action = Callable[[Client, Parsed], int]


class Command:
    """One command.

    signature: the arguments as the usage shows them.
    action: called with the client and the command line; returns the exit code.
    least, most: how many arguments it takes; most None: any number.
    flags_first: the first argument ends the flags, because what follows belongs to the container's program.
    usage_exit_code: the exit code of a wrong command line.
    """

    def __init__(
        self,
        name: str,
        signature: str,
        summary: str,
        action: Action,
        flags: Sequence[Flag] = (),
        *,
        least: int = 0,
        most: int | None = None,
        flags_first: bool = False,
        usage_exit_code: int = 2,
    ) -> None:
        self.name = name
        self.signature = signature
        self.summary = summary
        self.action = action
        self.flags = tuple(flags)
        self.least = least
        self.most = most
        self.flags_first = flags_first
        self.usage_exit_code = usage_exit_code

    def run(self, client: Client, argv: Sequence[str]) -> int:
        try:
            parsed = parse(self.flags, argv, interspersed=not self.flags_first)
            self._count(parsed.args)
            return self.action(client, parsed)
        except HelpRequested:
            print(self.usage(), end="")
            return 0
        except FlagError as error:
            raise UsageError(f"{error}\n{self._hint()}", self.usage_exit_code) from None
        except UsageError as error:
            raise UsageError(f"{error}\n{self._hint()}", self.usage_exit_code) from None

    def usage(self) -> str:
        text = f"Usage: pydocker {self.name} {self.signature}".rstrip() + f"\n\n{self.summary}\n"
        listed = describe(self.flags)
        return f"{text}\nOptions:\n{listed}" if listed else text

    def _count(self, args: list[str]) -> None:
        if self.least <= len(args) and (self.most is None or len(args) <= self.most):
            return
        if self.most == 0:
            wanted = "no arguments"
        elif self.least == self.most:
            wanted = _arguments("exactly", self.least)
        elif len(args) < self.least:
            wanted = _arguments("at least", self.least)
        else:
            assert self.most is not None
            wanted = _arguments("at most", self.most)
        raise UsageError(f'"pydocker {self.name}" takes {wanted}, not {len(args)}')

    def _hint(self) -> str:
        return f"Usage: pydocker {self.name} {self.signature}".rstrip() + f"\nSee 'pydocker {self.name} --help'."


def for_each(refs: Iterable[str], action: Callable[[str], None]) -> int:
    """Do it to each; print each name that it worked for, each error on standard error.  The exit code: 0 or 1."""
    code = 0
    for ref in refs:
        try:
            action(ref)
        except CliError as error:
            complain(str(error))
            code = 1
        else:
            print(ref, flush=True)
    return code


def complain(message: str) -> None:
    """One message to standard error, after what standard output has so far."""
    _tell(f"pydocker: {message}")


def warn(message: str) -> None:
    """What the user should know although it was done."""
    _tell(f"WARNING: {message}")


def _tell(message: str) -> None:
    from dockerd_py.cli.text import printable

    sys.stdout.flush()
    print(printable(message, keep="\n"), file=sys.stderr, flush=True)


def _arguments(how: str, count: int) -> str:
    return f"{how} {count} argument{'' if count == 1 else 's'}"
