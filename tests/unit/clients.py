"""Docker's command lines and docker-compose as this machine has them, unmodified."""

from __future__ import annotations

import os
import re
import subprocess

API_VERSION = "1.43"


def version_of(program: list[str]) -> int:
    """The first number of a docker command line's version."""
    shown = subprocess.run([program[-1], "--version"], check=True, capture_output=True, text=True).stdout
    version = re.search(r"version (\d+)", shown)
    assert version is not None, shown
    return int(version[1])


def _argv(path: str) -> list[str]:
    # from 29 on it asks for no API older than 1.44, unless it is told to
    return ["env", f"DOCKER_API_VERSION={API_VERSION}", path] if version_of([path]) >= 29 else [path]


DOCKERS = [
    _argv(path) for path in ("/usr/local/bin/docker", "/usr/bin/docker") if os.access(path, os.X_OK)
]
"""Argument vectors to which a command is appended; the tests use each of them beside our own."""


def compose() -> str:
    """docker-compose 1.29, the last that is a Python program, or "": some releases have a later one, or none."""
    path = "/usr/bin/docker-compose"
    if not os.access(path, os.X_OK):
        return ""
    done = subprocess.run([path, "version", "--short"], check=False, capture_output=True, text=True)
    return path if done.stdout.startswith("1.29.") else ""


def is_older(program: list[str], version: int) -> bool:
    """Whether an argument vector begins with a docker command line older than that."""
    return any(program[: len(argv)] == argv and version_of(argv) < version for argv in DOCKERS)
