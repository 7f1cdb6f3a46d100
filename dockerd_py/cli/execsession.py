"""The client's end of an exec: as `session`, but for what the daemon calls by other names.

The exit code is asked for when the stream has ended: the daemon knows it by then.
"""

from __future__ import annotations

import time

from dockerd_py.cli.client import Client
from dockerd_py.cli.errors import CliError, ConnectionLost, DaemonError, Unreachable
from dockerd_py.cli.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

    from dockerd_py.cli.session import ExitSource

_RETRY_SECONDS = 0.25
_GIVE_UP_SECONDS = 90.0


class ExecEnd:
    """The exit code of an exec; see `session.ExitSource`."""

    def __init__(self, client: Client, exec_id: str, session: Session) -> None:
        self._client = client
        self._path = f"/exec/{exec_id}/json"
        self._session = session
        self._lost_since = 0.0
        self.value: int | None = None
        self.runs_on = False

    @property
    def ready(self) -> bool:
        return not self._session.stream_open and not self.runs_on

    def fileno(self) -> int:
        return -1

    def prepare(self, stream_open: bool) -> float:
        return -1.0 if stream_open else _RETRY_SECONDS

    def receive(self) -> None:
        """Raises CliError when the exit code can never be known."""
        try:
            found = self._client.get(self._path)
        except (Unreachable, ConnectionLost):
            self._lost_since = self._lost_since or time.monotonic()
            if time.monotonic() - self._lost_since > _GIVE_UP_SECONDS:
                raise CliError("The daemon went away, and the exit code with it.") from None
            return
        except DaemonError as error:
            if error.status == 404:
                raise CliError("The daemon has forgotten the exit code.") from None
            raise
        if found["Running"]:
            self.runs_on = True
        else:
            self.value = int(found["ExitCode"] or 0)


class ExecSession(Session):
    """An exec's start and its streams, to its end.  Signals are ours: the process has none of its own."""

    def __init__(self, client: Client, exec_id: str, *, tty: bool, stdin: bool, detach_keys: str) -> None:
        super().__init__(client, exec_id, tty=tty, stdin=stdin, sig_proxy=False, detach_keys=detach_keys)

    def _open(self) -> tuple[socket.socket, bytes]:
        return self._client.hijack(self._path("/start"), payload={"Detach": False, "Tty": self._tty})

    def _path(self, rest: str) -> str:
        return f"/exec/{self._id}{rest}"

    def _detached(self, exit_code: ExitSource) -> bool:
        """Whether the stream has ended and the process has not: the user left it, or its monitor did."""
        if not (isinstance(exit_code, ExecEnd) and exit_code.runs_on):
            return False
        if not self._watcher.seen:
            raise CliError("The connection to the process was lost; it may still be running.")
        return True
