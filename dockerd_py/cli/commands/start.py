"""`pydocker start`: start containers again, and show one of them if asked to."""

from __future__ import annotations

from dockerd_py.cli import keys
from dockerd_py.cli.client import Client, container_path
from dockerd_py.cli.command import Command, for_each
from dockerd_py.cli.errors import UsageError
from dockerd_py.flags import Flag, Parsed


def start(client: Client, given: Parsed) -> int:
    attach, interactive = given.boolean("attach"), given.boolean("interactive")
    if not attach and not interactive:
        return for_each(given.args, lambda ref: client.post(container_path(ref, "/start")))
    if len(given.args) > 1:
        raise UsageError("only one container can be started and attached to at a time")
    return _attached(client, given.args[0], interactive, given)


def _attached(client: Client, ref: str, interactive: bool, given: Parsed) -> int:
    from dockerd_py.cli.session import ExitCode, Session

    found = client.get(container_path(ref, "/json"))
    id_, config = found["Id"], found["Config"]
    with Session(
        client,
        id_,
        tty=config["Tty"],
        stdin=interactive and config["OpenStdin"],
        sig_proxy=given.boolean("sig-proxy"),
        detach_keys=given.string("detach-keys"),
    ) as session:
        auto_remove = (found.get("HostConfig") or {}).get("AutoRemove")
        if found["State"]["Running"]:
            exit_code = ExitCode(client, id_, "not-running")
        else:
            exit_code = ExitCode(client, id_, "removed" if auto_remove else "next-exit")
            client.post(container_path(id_, "/start"))
        return session.run(exit_code)


COMMANDS = {
    "start": Command(
        "start",
        "[OPTIONS] CONTAINER...",
        "Start containers that were created or have ended.",
        start,
        (
            Flag(("-a", "--attach"), "bool", help="Show its output, pass signals on, end with its exit code"),
            Flag("--detach-keys", help="Keys that leave it running", check=keys.parse, metavar="KEYS"),
            Flag(("-i", "--interactive"), "bool", help="The same, and pass our standard input on"),
            Flag("--sig-proxy", "bool", True, "Pass signals on to it"),
        ),
        least=1,
    )
}
