"""How crun is called, and what its complaints mean.

Only create, start, kill, delete, exec and state are ever used, always with the cgroup manager disabled: pause,
resume, update and ps look for control groups of crun's own making, and ``update`` would write to the root one.
The scope does their work.

`explain` is the one place where the runtime's words become errors of ours.  Docker's clients read the words too:
they exit with 127 for "executable file not found" or "no such file or directory", with 126 for "permission
denied", so these stand in the messages exactly so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from dockerd_py.errors import CommandNotExecutable, CommandNotFound, PydockerdError, RuntimeFailed

BINARY = "/usr/bin/crun"
TEMPORARY = "crun.*"
"""What it makes in the directory that `_LIBCONTAINER_STATEDIR` names, and leaves if it is killed there."""
FIFO = "exec.fifo"
"""In a container's state: its init waits at one end for `Crun.start` at the other."""


@dataclass(frozen=True)
class Crun:
    """Argument vectors for one crun and one state directory (``root``, of ours alone)."""

    root: str
    binary: str = BINARY

    def create(
        self, container: str, *, bundle: str, pid_file: str, log: str = "", console_socket: str = ""
    ) -> list[str]:
        """Make the container, its process waiting for `start`.

        The caller's standard streams become the process's; with a terminal the pty's master comes as a file
        descriptor over ``console_socket``, a listening unix socket.  Its path may be relative to ``bundle``, which
        crun makes its working directory: of an absolute one, not every crun takes more than 107 bytes (sun_path).
        """
        options = ["--bundle", bundle, "--pid-file", pid_file]
        if console_socket:
            options += ["--console-socket", console_socket]
        return [*self._call("create", log), *options, container]

    def start(self, container: str, *, log: str = "") -> list[str]:
        return [*self._call("start", log), container]

    def kill(self, container: str, signal: int, *, log: str = "") -> list[str]:
        """By number: crun takes an unknown name for no signal and says that all went well."""
        return [*self._call("kill", log), container, str(signal)]

    def delete(self, container: str, *, force: bool = False, log: str = "") -> list[str]:
        """Unless ``force``, the container must not run any more and its process must have been reaped."""
        return [*self._call("delete", log), *(["--force"] if force else []), container]

    def exec(
        self,
        container: str,
        *,
        process: str,
        pid_file: str = "",
        detach: bool = False,
        log: str = "",
        console_socket: str = "",
    ) -> list[str]:
        """``process`` is a JSON file: the ``process`` part of a configuration."""
        options = ["--process", process]
        if pid_file:
            options += ["--pid-file", pid_file]
        if console_socket:
            options += ["--console-socket", console_socket]
        if detach:
            options.append("--detach")
        return [*self._call("exec", log), *options, container]

    def state(self, container: str) -> list[str]:
        return [*self._call("state", ""), container]

    def _call(self, verb: str, log: str) -> list[str]:
        # Plain text, not JSON: an exec(2) that fails after `start` is told on the container's own stderr.
        options = [f"--log=file:{log}", "--log-format=text"] if log else []
        return [self.binary, "--root", self.root, "--cgroup-manager=disabled", *options, verb]


@dataclass(frozen=True)
class Runc(Crun):
    """runc, as well as it goes: it cannot leave control groups alone, so the configuration has to name the scope's.

    It takes the group away with the container, which is before the scope's end.
    """

    STATE_FILE: ClassVar[str] = "state.json"

    def _call(self, verb: str, log: str) -> list[str]:
        options = ["--log", log, "--log-format", "text"] if log else []
        return [self.binary, "--root", self.root, *options, verb]


def mount_to_hide(cgroup: Path = Path("/sys/fs/cgroup")) -> str:
    """The mount that must be out of crun's sight during create, or "".

    crun refuses a host with both versions of control groups as soon as one controller is on version 2, even
    where it is to leave control groups alone.  Without that mount it sees plain version 1.
    """
    unified = cgroup / "unified"
    try:
        return str(unified) if (unified / "cgroup.controllers").read_text().strip() else ""
    except (FileNotFoundError, NotADirectoryError):
        return ""


EXEC_FAILED = "OCI runtime exec failed: exec failed: unable to start container process: "


def explain(log_text: str, command: str, prefix: str = "") -> PydockerdError:
    """What ``log_text``, the log of a failed create or exec (text or JSON lines), says of ``command``.

    CommandNotFound (127), CommandNotExecutable (126), else RuntimeFailed with the runtime's own words.
    """
    text = _messages(log_text)
    prefix = prefix or _prefix(text)
    for pattern, kind, reason in _COMMAND_FAILURES:
        found = pattern.search(text)
        # crun may have put the container's working directory before the name
        if found and (found.groupdict().get("name") or command).endswith(command):
            if not command:  # crun takes "" for the directory that it searches
                kind = CommandNotFound
            if kind is CommandNotFound and "/" not in command:
                reason = "executable file not found in $PATH"
            return kind(f'{prefix}exec: "{command}": {reason.format(command=command)}')
    last = text.rpartition("\n")[2]  # what stands before it are warnings
    return RuntimeFailed(prefix + (last or "it failed without a word; the journal or dmesg may tell more"))


def _prefix(text: str) -> str:
    runtime = "runc" if text.startswith(_RUNC) else "crun"
    return f"failed to create task for container: OCI runtime create failed: {runtime}: "


_RUNC = "runc create failed: "
_MISSING = "stat {command}: no such file or directory"
_NO_FILE = "is a directory or no regular file: permission denied"
_OPEN = r"(?:open executable|cannot open `(?P<name>.*)`): "


def _says(pattern: str) -> re.Pattern[str]:
    return re.compile("^" + pattern, re.MULTILINE | re.DOTALL)  # a command may hold newlines


# Up to 1.8 (Debian 12) crun says "open executable" and no name, later versions "cannot open" and one, which they say
# of other files too.
_COMMAND_FAILURES: Sequence[tuple[re.Pattern[str], type[PydockerdError], str]] = (
    (_says(r"executable file `.*` not found"), CommandNotFound, _MISSING),
    (_says(r"cannot find `(?P<name>.*)` in \$PATH"), CommandNotFound, _MISSING),
    (_says(_OPEN + r"(Not a directory|Invalid argument|No such file)"), CommandNotFound, _MISSING),
    (_says(_OPEN + r"Permission denied"), CommandNotExecutable, "permission denied"),
    (_says(r"the path `(?P<name>.*)` exists but it is not executable"), CommandNotExecutable, "permission denied"),
    (_says(r"open executable: Operation not permitted"), CommandNotExecutable, _NO_FILE),
    (_says(r"runc create failed: .*: executable file not found in \$PATH"), CommandNotFound, _MISSING),
    (_says(r"runc create failed: .*exec: .*: (no such file or directory|not a directory)"), CommandNotFound, _MISSING),
    (_says(r"runc create failed: .*exec: .*: permission denied"), CommandNotExecutable, "permission denied"),
    (_says(r"the path `(?P<name>.*)` is not a regular file"), CommandNotExecutable, _NO_FILE),
    (
        _says(_OPEN + r"Too many levels"),
        CommandNotExecutable,
        "too many levels of symbolic links: permission denied",
    ),
    (
        _says(r"exec( container process[^\n]* `.*`)?: No such file"),
        CommandNotFound,
        "its interpreter is missing: no such file or directory",
    ),
    (
        _says(r"exec( container process[^\n]* `.*`)?: Exec format error"),
        CommandNotExecutable,
        "exec format error: permission denied",
    ),
)

_LOGFMT = re.compile(r'time="[^"]*" level=(?P<level>\w+) msg="(?P<message>(?:\\.|[^"\\])*)".*')
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def _messages(log_text: str) -> str:
    """The lines of a log as plain text; of JSON lines, and of runc's, the errors alone."""
    messages = []
    for line in _ANSI.sub("", log_text).split("\n"):
        if found := _LOGFMT.fullmatch(line):  # runc's
            if found["level"] == "error":
                messages.append(re.sub(r"\\(.)", r"\1", found["message"]))
            continue
        try:
            entry = json.loads(line)
        except ValueError:
            messages.append(line)
            continue
        if isinstance(entry, dict) and entry.get("level", "error") == "error":
            messages.append(str(entry.get("msg", line)))
    return "\n".join(messages).strip()
