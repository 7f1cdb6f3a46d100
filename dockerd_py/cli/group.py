"""A command that is several: `pydocker volume create`, `pydocker volume ls`, each with flags of its own."""

from __future__ import annotations

from dockerd_py.cli.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from dockerd_py.cli.client import Client
    from dockerd_py.cli.command import Command


class Group:
    """members: the commands by the word that follows the group's name; each is named with both words."""

    def __init__(self, name: str, summary: str, members: dict[str, Command]) -> None:
        self.name = name
        self.summary = summary
        self.members = members

    def run(self, client: Client, argv: Sequence[str]) -> int:
        if argv and argv[0] in ("-h", "-help", "--help"):
            print(self.usage(), end="")
            return 0
        member = self.members.get(argv[0]) if argv else None
        if member is None:
            what = f"has no '{argv[0]}'" if argv else "needs one of its commands"
            raise UsageError(f"\"pydocker {self.name}\" {what}\nSee 'pydocker {self.name} --help'.")
        return member.run(client, argv[1:])

    def usage(self) -> str:
        width = max(map(len, self.members))
        listed = "".join(f"  {word.ljust(width)}   {member.summary}\n" for word, member in self.members.items())
        return f"Usage: pydocker {self.name} COMMAND\n\n{self.summary}\n\nCommands:\n{listed}"
