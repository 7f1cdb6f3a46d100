"""The commands by name: which module holds each (as ``COMMANDS``), and the line that the help shows for it.

A command's module is imported when the command is used, and not before.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dockerd_py.cli.command import Command

SUMMARIES = {
    "attach": ("attach", "Attach to a running container"),
    "create": ("run", "Create a container without starting it"),
    "events": ("events", "Show what happens, as it happens"),
    "export": ("archives", "Write a container's files as a tarball"),
    "images": ("images", "List images"),
    "import": ("import_", "Make an image from the contents of a tarball"),
    "info": ("info", "Show what the daemon runs on and how it is set up"),
    "inspect": ("inspect", "Show all that is known about containers or images"),
    "kill": ("lifecycle", "Send a signal to containers"),
    "load": ("archives", "Load images from an archive"),
    "logs": ("logs", "Show what a container has written"),
    "ps": ("ps", "List containers"),
    "restart": ("lifecycle", "Restart containers"),
    "rm": ("lifecycle", "Remove containers"),
    "rmi": ("images", "Remove images"),
    "run": ("run", "Run a command in a new container"),
    "save": ("archives", "Write images as an archive"),
    "start": ("start", "Start containers"),
    "stop": ("lifecycle", "Stop containers"),
    "tag": ("images", "Give an image another name"),
    "version": ("info", "Show the versions of client and daemon"),
    "wait": ("lifecycle", "Wait until containers end, and print their exit codes"),
}


def find(name: str) -> Command | None:
    """The command of that name; None where there is none."""
    entry = SUMMARIES.get(name)
    if entry is None:
        return None
    from importlib import import_module

    commands: dict[str, Command] = import_module(f"{__name__}.{entry[0]}").COMMANDS
    return commands[name]
