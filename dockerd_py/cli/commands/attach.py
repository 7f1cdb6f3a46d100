"""`pydocker attach`: see and feed a container that runs already."""

from __future__ import annotations

from dockerd_py.cli import keys
from dockerd_py.cli.client import Client, container_path
from dockerd_py.cli.command import Command
from dockerd_py.cli.errors import CliError
from dockerd_py.flags import Flag, Parsed


def attach(client: Client, given: Parsed) -> int:
    from dockerd_py.cli import terminal
    from dockerd_py.cli.session import ExitCode, Session

    found = client.get(container_path(given.args[0], "/json"))
    state, config = found["State"], found["Config"]
    if not state["Running"]:
        raise CliError("You cannot attach to a stopped container, start it first")
    if state.get("Paused"):
        raise CliError("You cannot attach to a paused container, unpause it first")
    stdin = config["OpenStdin"] and not given.boolean("no-stdin")
    if stdin and config["Tty"] and not terminal.is_terminal(0):
        raise CliError("The container has a terminal, and standard input is none (--no-stdin shows the output alone)")
    with Session(
        client,
        found["Id"],
        tty=config["Tty"],
        stdin=stdin,
        sig_proxy=given.boolean("sig-proxy"),
        detach_keys=given.string("detach-keys"),
    ) as session:
        return session.run(ExitCode(client, found["Id"], "not-running"), redraw=True)


COMMANDS = {
    "attach": Command(
        "attach",
        "[OPTIONS] CONTAINER",
        "Attach to a running container: its output is shown, our input and signals are passed on to it.",
        attach,
        (
            Flag("--detach-keys", help="Keys that leave it running", check=keys.parse, metavar="KEYS"),
            Flag("--no-stdin", "bool", help="Do not pass standard input on"),
            Flag("--sig-proxy", "bool", True, "Pass signals on to it"),
        ),
        least=1,
        most=1,
    )
}
