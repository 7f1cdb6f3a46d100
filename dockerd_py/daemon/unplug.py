"""``pydockerd unplug``: takes a stopped daemon's bridges and firewall rules from the host's network.

Exit code 0 when nothing of them is left, 1 with one line for each thing that is, 2 when it could not look.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence

from dockerd_py import config as settings
from dockerd_py import flags
from dockerd_py.engine import unplug
from dockerd_py.errors import ConfigError, PydockerdError
from dockerd_py.flags import HelpRequested

GONE, LEFT, COULD_NOT_LOOK = 0, 1, 2

_TAKEN = ("graph", "exec-root", "bridge", "config")
_FLAGS = [flag for flag in settings.FLAGS if flag.key in _TAKEN]

USAGE = (
    "Usage: pydockerd unplug [OPTIONS]\n\n"
    "Take the bridges and firewall rules of a daemon that is stopped from the host's network.\n\n"
    + flags.describe(_FLAGS)
)


def main(argv: Sequence[str]) -> int:
    try:
        parsed = settings.parse(argv)
        for flag in settings.FLAGS:
            if flag.key not in _TAKEN and parsed.has(flag.key):
                raise ConfigError(f"{'/'.join(flag.names)} means nothing to unplug: leave it out")
        config = settings.load(parsed)
        if os.geteuid() != 0:
            raise ConfigError("it needs root: use sudo")
        left = asyncio.run(unplug.take_away(config))
    except HelpRequested:
        print(USAGE)
        return GONE
    except PydockerdError as error:
        print(f"pydockerd unplug: {error}", file=sys.stderr)
        return COULD_NOT_LOOK
    for line in left:
        print(line)
    return LEFT if left else GONE
