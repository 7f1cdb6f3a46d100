"""What can go wrong for a user of `pydocker`: each ends the program with its own exit code and one sentence."""

from __future__ import annotations


class CliError(Exception):
    """Ends the command.  ``str()`` is the sentence for standard error."""

    exit_code = 1

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        super().__init__(message)
        if exit_code is not None:
            self.exit_code = exit_code


class UsageError(CliError):
    """The command line itself is wrong; a hint at --help follows the message."""

    exit_code = 2


class TemplateError(CliError):
    """A --format that cannot be understood, or that names what the object has not."""

    exit_code = 64


class DaemonError(CliError):
    """The daemon answered with an error; ``status`` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"Error response from daemon: {message}")
        self.status = status
        self.reason = message


class Unreachable(CliError):
    """Nothing answers at the daemon's address, or we may not connect to it."""


class ConnectionLost(CliError):
    """The connection broke, or what came over it is no HTTP."""


class Terminated(CliError):
    """A signal asked us to end."""

    def __init__(self, signum: int, message: str = "") -> None:
        super().__init__(message, 128 + signum)
