"""`pydocker run` and `create`: a new container, and for `run` the whole of its life.

Exit codes of run: the container's own; 125 when pydocker or the daemon failed, 126 when the command cannot be
executed, 127 when there is none of that name.
"""

from __future__ import annotations

import os

from dockerd_py.cli import terminal
from dockerd_py.cli.client import Client, container_path
from dockerd_py.cli.command import Command, complain, warn
from dockerd_py.cli.errors import CliError, ConnectionLost, DaemonError, Unreachable
from dockerd_py.cli.options import FLAGS, RUN_FLAGS, Settings, settings
from dockerd_py.flags import Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

FAILED = 125
NOT_EXECUTABLE = 126
NOT_FOUND = 127


def create(client: Client, given: Parsed) -> int:
    wanted = settings(given, detach=False)
    with IdFile(given.string("cidfile")) as id_file:
        id_ = _create(client, wanted, id_file)
    print(id_)
    return 0


def run(client: Client, given: Parsed) -> int:
    detach = given.boolean("detach")
    wanted = settings(given, detach=detach)
    if wanted.tty and "stdin" in wanted.attached and not terminal.is_terminal(0):
        raise CliError("-i and -t together need a terminal, and standard input is none: leave -t out", FAILED)
    try:
        with IdFile(given.string("cidfile")) as id_file:
            id_ = _create(client, wanted, id_file)
        if detach:
            return _detached(client, id_, wanted)
        return _attached(client, id_, wanted, given)
    except (DaemonError, ConnectionLost, Unreachable) as error:
        raise CliError(str(error), FAILED) from None


class IdFile:
    """``--cidfile``: made before the container is, so that no container is left without it; gone if none was made."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._written = False

    def __enter__(self) -> IdFile:
        if self._path:
            try:
                self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            except FileExistsError:
                message = f"{self._path} exists: is its container still there? Remove the file, or name another one"
                raise CliError(message, FAILED) from None
            except OSError as error:
                raise CliError(f"{self._path}: {error.strerror}", FAILED) from None
        return self

    def write(self, id_: str) -> None:
        if self._path:
            os.write(self._fd, id_.encode())
        self._written = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._path:
            return
        os.close(self._fd)
        if not self._written:
            os.unlink(self._path)


def _create(client: Client, wanted: Settings, id_file: IdFile) -> str:
    created = client.post("/containers/create", {"name": wanted.name or None}, wanted.body)
    id_: str = created["Id"]
    if wanted.networks:
        _connect(client, id_, wanted)
    id_file.write(id_)
    for warning in created.get("Warnings") or ():
        warn(warning)
    return id_


def _connect(client: Client, id_: str, wanted: Settings) -> None:
    """To all networks, or there is no container."""
    from dockerd_py.cli.commands import network

    try:
        for name, endpoint in wanted.networks.items():
            network.join(client, name, id_, endpoint)
    except BaseException:
        _remove(client, id_)
        raise


def _detached(client: Client, id_: str, wanted: Settings) -> int:
    _start(client, id_, wanted)
    print(id_)
    return 0


def _attached(client: Client, id_: str, wanted: Settings, given: Parsed) -> int:
    from dockerd_py.cli.session import ExitCode, Session

    started = False
    try:
        with Session(
            client,
            id_,
            tty=wanted.tty,
            stdin="stdin" in wanted.attached,
            stdout="stdout" in wanted.attached,
            stderr="stderr" in wanted.attached,
            sig_proxy=given.boolean("sig-proxy"),
            detach_keys=given.string("detach-keys"),
        ) as session:
            exit_code = ExitCode(client, id_, "removed" if wanted.auto_remove else "next-exit")
            _start(client, id_, wanted)
            started = True
            if wanted.attached == {"stdin"}:
                print(id_)
            return session.run(exit_code)
    except BaseException:
        if not started and wanted.auto_remove:
            _remove(client, id_)
        raise


def _start(client: Client, id_: str, wanted: Settings) -> None:
    try:
        client.post(container_path(id_, "/start"))
    except DaemonError as error:
        if wanted.auto_remove:
            _remove(client, id_)
        raise CliError(str(error), _exit_code(error.reason)) from None


def _remove(client: Client, id_: str) -> None:
    """Remove what never ran, if the daemon has not done so already."""
    try:
        client.delete(container_path(id_), {"v": True, "force": True})
    except DaemonError as error:
        if error.status not in (404, 409):
            complain(str(error))
    except CliError as error:
        complain(str(error))


def _exit_code(reason: str) -> int:
    """The API has no field for it: daemons say in words why a start failed, and clients read them."""
    text = reason.lower()
    if any(words in text for words in ("permission denied", "is a directory", "not executable", "exec format error")):
        return NOT_EXECUTABLE
    if any(words in text for words in ("executable file not found", "no such file or directory", "command not found")):
        return NOT_FOUND
    return FAILED


COMMANDS = {
    "run": Command(
        "run",
        "[OPTIONS] IMAGE [COMMAND] [ARG...]",
        "Run a command in a new container. Its exit code is ours.",
        run,
        RUN_FLAGS,
        least=1,
        flags_first=True,
        usage_exit_code=FAILED,
    ),
    "create": Command(
        "create",
        "[OPTIONS] IMAGE [COMMAND] [ARG...]",
        "Create a container without starting it, and print its id.",
        create,
        FLAGS,
        least=1,
        flags_first=True,
    ),
}
