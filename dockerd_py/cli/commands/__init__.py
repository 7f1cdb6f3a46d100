"""The commands by name: which module holds each (as ``COMMANDS``), and the line that the help shows for it.

A command's module is imported when the command is used, and not before.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockerd_py.cli.command import Command
    from dockerd_py.cli.group import Group

SUMMARIES = {
    "attach": ("attach", "Attach to a running container"),
    "commit": ("contents", "Make an image of a container"),
    "container": ("upkeep", "Clean up containers"),
    "cp": ("cp", "Copy files out of a container, or into it"),
    "create": ("run", "Create a container without starting it"),
    "diff": ("contents", "Show what a container changed in its image's files"),
    "events": ("events", "Show what happens, as it happens"),
    "exec": ("exec", "Run a command in a running container"),
    "export": ("archives", "Write a container's files as a tarball"),
    "history": ("history", "Show how an image was made"),
    "image": ("upkeep", "Clean up images"),
    "images": ("images", "List images"),
    "import": ("import_", "Make an image from the contents of a tarball"),
    "info": ("info", "Show what the daemon runs on and how it is set up"),
    "insert": ("upkeep", "Make an image of another one and a file from a URL"),
    "inspect": ("inspect", "Show all that is known about containers, images, networks or volumes"),
    "kill": ("lifecycle", "Send a signal to containers"),
    "load": ("archives", "Load images from an archive"),
    "logs": ("logs", "Show what a container has written"),
    "network": ("network", "Manage networks"),
    "pause": ("lifecycle", "Freeze the processes of containers"),
    "port": ("port", "Show where a container's ports are published"),
    "ps": ("ps", "List containers"),
    "rename": ("lifecycle", "Give a container another name"),
    "restart": ("lifecycle", "Restart containers"),
    "rm": ("lifecycle", "Remove containers"),
    "rmi": ("images", "Remove images"),
    "run": ("run", "Run a command in a new container"),
    "save": ("archives", "Write images as an archive"),
    "start": ("start", "Start containers"),
    "stats": ("stats", "Show what containers use"),
    "stop": ("lifecycle", "Stop containers"),
    "system": ("system", "Show what takes how much room, and clean up"),
    "tag": ("images", "Give an image another name"),
    "top": ("top", "Show the processes of a container"),
    "unpause": ("lifecycle", "Let the processes of paused containers go on"),
    "update": ("stats", "Change the limits of containers"),
    "version": ("info", "Show the versions of client and daemon"),
    "volume": ("volume", "Manage volumes"),
    "wait": ("lifecycle", "Wait until containers end, and print their exit codes"),
}


def find(name: str) -> Command | Group | None:
    """The command of that name; None where there is none."""
    entry = SUMMARIES.get(name)
    if entry is None:
        return None
    from importlib import import_module

    commands: dict[str, Command | Group] = import_module(f"{__name__}.{entry[0]}").COMMANDS
    return commands[name]
