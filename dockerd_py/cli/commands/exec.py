"""`pydocker exec`: run one more command in a container that runs."""

from __future__ import annotations

from dockerd_py.cli import keys
from dockerd_py.cli.client import Client, container_path
from dockerd_py.cli.command import Command
from dockerd_py.cli.errors import CliError, DaemonError
from dockerd_py.cli.options import environment, variable
from dockerd_py.flags import Flag, Parsed


def exec_(client: Client, given: Parsed) -> int:
    container, *argv = given.args
    detach = given.boolean("detach")
    tty = given.boolean("tty")
    stdin = given.boolean("interactive") and not detach
    if stdin and tty:
        from dockerd_py.cli import terminal

        if not terminal.is_terminal(0):
            raise CliError("-i and -t together need a terminal, and standard input is none: leave -t out")
    settings = {
        "Cmd": argv,
        "User": given.string("user"),
        "Privileged": given.boolean("privileged"),
        "Tty": tty,
        "AttachStdin": stdin,
        "AttachStdout": not detach,
        "AttachStderr": not detach,
        "Env": environment(given),
        "WorkingDir": given.string("workdir"),
        "DetachKeys": given.string("detach-keys"),
    }
    exec_id: str = client.post(container_path(container, "/exec"), payload=settings)["Id"]
    if detach:
        try:
            client.post(f"/exec/{exec_id}/start", payload={"Detach": True, "Tty": tty})
        except DaemonError as error:
            raise CliError(str(error), _exit_code(client, exec_id)) from None
        return 0

    from dockerd_py.cli.execsession import ExecEnd, ExecSession

    with ExecSession(client, exec_id, tty=tty, stdin=stdin, detach_keys=given.string("detach-keys")) as session:
        return session.run(ExecEnd(client, exec_id, session))


def _exit_code(client: Client, exec_id: str) -> int:
    try:
        return int(client.get(f"/exec/{exec_id}/json")["ExitCode"] or 1)
    except CliError:
        return 1


COMMANDS = {
    "exec": Command(
        "exec",
        "[OPTIONS] CONTAINER COMMAND [ARG...]",
        "Run a command in a running container. Its exit code is ours.",
        exec_,
        (
            Flag(("-d", "--detach"), "bool", help="Leave it to itself"),
            Flag("--detach-keys", help="Keys that leave it running", check=keys.parse, metavar="KEYS"),
            Flag(
                ("-e", "--env"), "list", help="Set a variable (NAME: as it is here)", check=variable,
                metavar="NAME[=value]",
            ),
            Flag("--env-file", "list", help="Set the variables in this file, one a line", metavar="FILE"),
            Flag(("-i", "--interactive"), "bool", help="Pass standard input on"),
            Flag("--privileged", "bool", help="Give it all capabilities"),
            Flag(("-t", "--tty"), "bool", help="Give it a terminal"),
            Flag(("-u", "--user"), help="Run it as this user", metavar="NAME|UID[:GROUP|GID]"),
            Flag(("-w", "--workdir"), help="Run it in this directory", metavar="DIR"),
        ),
        least=2,
        flags_first=True,
    )
}  # fmt: skip
