"""``--init``: a small init of the host's, mounted into the container and put before the command.

It reaps orphans and passes signals on.  The program must be linked statically, since nothing of the host's libraries
is in the container.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from dockerd_py.errors import RuntimeFailed

TARGET = "/sbin/docker-init"
"""Where Docker's clients expect to see it."""

PROGRAMS = (
    "/usr/bin/tini-static",  # package tini
    "/usr/bin/catatonit",  # package catatonit
    "/usr/libexec/podman/catatonit",
    "/usr/libexec/catatonit/catatonit",
)


def find(programs: Sequence[str] = PROGRAMS, *, reaper: bool = False) -> str:
    """The init program of this host; with ``reaper``, one that can work though it is not process 1.

    Raises RuntimeFailed naming the package to install.
    """
    usable = (path for path in programs if not reaper or "tini" in os.path.basename(path).split("-"))
    for path in usable:
        if os.access(path, os.X_OK):
            return path
    packages = "the package tini" if reaper else "the package tini or catatonit"
    raise RuntimeFailed(f"--init needs an init program, and this host has none: install {packages}")


def argv(command: Sequence[str], *, reaper: bool = False) -> tuple[str, ...]:
    """The command with the init before it."""
    return (TARGET, *(["-s"] if reaper else []), "--", *command)
