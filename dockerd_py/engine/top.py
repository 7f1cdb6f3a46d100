"""The processes of a container as the host's ps(1) shows them, with any of its options.

ps shows every process of the host; what is passed on are the lines whose PID is one of the container's.  So the column
PID must be what it says: an option that gives this title to something else is refused, as are those that name a file.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from dockerd_py import subprocesses
from dockerd_py.engine.model import Processes
from dockerd_py.errors import BadParameter, PydockerdError

DEFAULT_ARGS = "-ef"
MAX_ARGS = 4096
SECONDS = 10.0

_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
_PID = "PID"
# ps(1): "-n" and "N" name a file that ps opens; they may stand behind options that take no value
_NAMELIST = re.compile(r"-[AacdeFfHjLlMmNPTVwyZ]*n|[acefhjlmnrsuvwxXSTL]*N|--namelist")
_TAKES_VALUE = re.compile(r"-[A-Za-z]*[CGgOopqstuU]|--[a-z-]+|[a-zA-Z]*[Oopqtk]")


def split(text: str) -> list[str]:
    """The words of ``text``, quoted as in a shell.  Raises BadParameter."""
    if len(text) > MAX_ARGS:
        raise BadParameter(f"ps_args is longer than {MAX_ARGS} characters")
    try:
        words = shlex.split(text or DEFAULT_ARGS)
    except ValueError as error:
        raise BadParameter(f"ps_args {text!r}: {error}") from None
    before = ""
    for word in words:
        if _NAMELIST.match(word) and not _TAKES_VALUE.fullmatch(before):
            raise BadParameter(f"ps_args: {word!r} is not allowed: it names a file")
        for key, title in _titles(word):
            if _PID in title and (key != "pid" or len(title.split()) > 1):
                raise BadParameter(f'ps_args: "{key}={title}" is not allowed: that title is the process id\'s')
        before = word
    return words


async def show(words: list[str], pids: set[int]) -> Processes:
    """What ``ps`` with ``words`` tells of ``pids``.  Raises PydockerdError with its complaint."""
    # -q spares ps the other processes, but goes with few other options
    done = await _ps([*words, "-q", ",".join(map(str, sorted(pids)))]) if pids else None
    if done is None or done.returncode != 0:
        done = await _ps(words)
    if done.returncode != 0:
        complaint = done.stderr.decode(errors="replace").strip().partition("\n")[0]
        raise PydockerdError(f"ps: {complaint.removeprefix('error: ') or f'it ended with {done.returncode}'}")
    return parse(done.stdout.decode(errors="replace"), pids)


def parse(text: str, pids: set[int]) -> Processes:
    """The lines of ``text`` whose PID is one of ``pids``; the last column keeps its blanks."""
    lines = text.splitlines()
    titles = lines[0].split() if lines else []
    if titles.count(_PID) != 1:
        raise PydockerdError("Couldn't find PID field in ps output")
    place = titles.index(_PID)
    rows = []
    for line in lines[1:]:
        fields = line.split(None, len(titles) - 1)
        if len(fields) > place and fields[place].isdecimal() and int(fields[place]) in pids:
            rows.append(tuple(field.rstrip() for field in fields))
    return Processes(tuple(titles), tuple(rows))


def _titles(word: str) -> Iterator[tuple[str, str]]:
    """The format keys that are given a title, which goes on to the end of the word, blanks and commas included."""
    if word.startswith("--"):
        word = word.partition("=")[2]
    for match in re.finditer(r"(?:^-[oO])?([A-Za-z0-9_%]*)=", word):
        yield match[1], word[match.end() :]


async def _ps(words: list[str]) -> subprocesses.Completed:
    return await subprocesses.run(["ps", *words], check=False, timeout=SECONDS, env=_ENVIRONMENT)
