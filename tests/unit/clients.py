"""The docker command lines that this machine has, unmodified: the tests use each of them beside our own."""

from __future__ import annotations

import os
import re
import subprocess

API_VERSION = "1.43"


def _argv(path: str) -> list[str]:
    shown = subprocess.run([path, "--version"], check=True, capture_output=True, text=True).stdout
    version = re.search(r"version (\d+)", shown)
    # from 29 on it asks for no API older than 1.44, unless it is told to
    return ["env", f"DOCKER_API_VERSION={API_VERSION}", path] if version and int(version[1]) >= 29 else [path]


DOCKERS = [
    _argv(path) for path in ("/usr/local/bin/docker", "/usr/bin/docker") if os.access(path, os.X_OK)
]
"""Argument vectors to which a command is appended."""
