"""``pydockerd fsck``: looks at a stopped daemon's directories, and changes nothing.

Exit code 0 and no output when all is in order, 1 with one line for each finding, 2 when it could not look.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from dockerd_py import config as settings
from dockerd_py import flags
from dockerd_py.engine import fsck
from dockerd_py.errors import ConfigError, PydockerdError
from dockerd_py.flags import Flag, HelpRequested

IN_ORDER, FOUND, COULD_NOT_LOOK = 0, 1, 2

_TAKEN = ("graph", "exec-root", "config")
FLAGS = (Flag(("--deep",), "bool", help="Read every layer, and compare its contents with the digest of what came in"),)
"""Those that the daemon does not have."""

_FLAGS = [*(flag for flag in settings.FLAGS if flag.key in _TAKEN), *FLAGS]

USAGE = (
    "Usage: pydockerd fsck [OPTIONS]\n\nCheck the directories of a daemon that is stopped.\n\n" + flags.describe(_FLAGS)
)


def main(argv: Sequence[str]) -> int:
    try:
        parsed = settings.parse(argv, FLAGS)
        for flag in settings.FLAGS:
            if flag.key not in _TAKEN and parsed.has(flag.key):
                raise ConfigError(f"{'/'.join(flag.names)} means nothing to fsck: leave it out")
        config = settings.load(parsed)
        if os.geteuid() != 0:
            raise ConfigError("it needs root: use sudo")
        found = fsck.check(config, deep=parsed.boolean("deep"))
    except HelpRequested:
        print(USAGE)
        return IN_ORDER
    except PydockerdError as error:
        print(f"pydockerd fsck: {error}", file=sys.stderr)
        return COULD_NOT_LOOK
    for line in found:
        print(line)
    return FOUND if found else IN_ORDER
