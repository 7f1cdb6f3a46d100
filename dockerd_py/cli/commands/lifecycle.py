"""`pydocker stop`, `kill`, `restart`, `wait` and `rm`: what is done to each of several containers."""

from __future__ import annotations

from dockerd_py.cli.client import Client, container_path
from dockerd_py.cli.command import Command, complain, for_each
from dockerd_py.cli.errors import CliError, UsageError
from dockerd_py.flags import Flag, Parsed

TIME = Flag(
    ("-t", "--time"), "int", 0, "Seconds to wait until it is killed; -1: for ever (default: the container's own)",
    metavar="SECONDS",
)  # fmt: skip


SIGNAL = Flag(("-s", "--signal"), help="Signal to send instead of its own stop signal", metavar="SIGNAL")


def stop(client: Client, given: Parsed) -> int:
    query = _ending(given)
    return for_each(given.args, lambda ref: client.post(container_path(ref, "/stop"), query))


def restart(client: Client, given: Parsed) -> int:
    query = _ending(given)
    return for_each(given.args, lambda ref: client.post(container_path(ref, "/restart"), query))


def kill(client: Client, given: Parsed) -> int:
    signal = given.string("signal")
    return for_each(given.args, lambda ref: client.post(container_path(ref, "/kill"), {"signal": signal}))


def pause(client: Client, given: Parsed) -> int:
    return for_each(given.args, lambda ref: client.post(container_path(ref, "/pause")))


def unpause(client: Client, given: Parsed) -> int:
    return for_each(given.args, lambda ref: client.post(container_path(ref, "/unpause")))


def rename(client: Client, given: Parsed) -> int:
    old, new = given.args
    client.post(container_path(old, "/rename"), {"name": new})
    return 0


def rm(client: Client, given: Parsed) -> int:
    names = ("force", "link")
    query = {**{name: given.boolean(name) or None for name in names}, "v": given.boolean("volumes") or None}
    return for_each(given.args, lambda ref: client.delete(container_path(ref), query))


def wait(client: Client, given: Parsed) -> int:
    code = 0
    for ref in given.args:
        try:
            result = client.post(container_path(ref, "/wait"))
        except CliError as error:
            complain(str(error))
            code = 1
            continue
        print(result["StatusCode"], flush=True)
        if message := (result.get("Error") or {}).get("Message"):
            complain(f"{ref}: {message}")
    return code


def _ending(given: Parsed) -> dict[str, str | int | None]:
    query: dict[str, str | int | None] = {"signal": given.string("signal") or None}
    if not given.has("time"):
        return query
    if given.integer("time") < -1:
        raise UsageError(f"-t {given.integer('time')}: it must be a number of seconds, or -1 for no limit")
    return {**query, "t": given.integer("time")}


COMMANDS = {
    "stop": Command(
        "stop",
        "[OPTIONS] CONTAINER...",
        "Stop containers: send each its stop signal (SIGTERM by default), and kill it if it does not end in time.",
        stop,
        (SIGNAL, TIME),
        least=1,
    ),
    "restart": Command(
        "restart", "[OPTIONS] CONTAINER...", "Stop containers, and start them again.", restart, (SIGNAL, TIME), least=1
    ),
    "kill": Command(
        "kill",
        "[OPTIONS] CONTAINER...",
        "Send a signal to the main process of each container.",
        kill,
        (Flag(("-s", "--signal"), "string", "KILL", "Its name or number"),),
        least=1,
    ),
    "pause": Command(
        "pause", "CONTAINER...", "Freeze all processes of containers, until pydocker unpause.", pause, least=1
    ),
    "unpause": Command("unpause", "CONTAINER...", "Let the processes of paused containers go on.", unpause, least=1),
    "rename": Command("rename", "CONTAINER NAME", "Give a container another name.", rename, least=2, most=2),
    "wait": Command("wait", "CONTAINER...", "Wait until each container ends, and print its exit code.", wait, least=1),
    "rm": Command(
        "rm",
        "[OPTIONS] CONTAINER...",
        "Remove containers, or links.",
        rm,
        (
            Flag(("-f", "--force"), "bool", help="Also those that run: they are killed"),
            Flag(("-l", "--link"), "bool", help="Not the containers but links, which are named PARENT/ALIAS"),
            Flag(("-v", "--volumes"), "bool", help="With the volumes that have no name"),
        ),
        least=1,
    ),
}
