"""Ids and names of containers."""

from __future__ import annotations

import re
import secrets

from dockerd_py.errors import BadParameter

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")
MAX_NAME = 200
"""A name is part of a unit's name (``container-NAME.service``), which may have 255 characters (systemd.unit(5))."""


def new_id() -> str:
    """64 random hex digits.  Never all decimal in the first 12: those would read as a number."""
    while True:
        candidate = secrets.token_hex(32)
        if not candidate[:12].isdecimal():
            return candidate


def check_name(name: str) -> str:
    """``name`` without its leading slash.  Raises BadParameter."""
    bare = name.removeprefix("/")
    if not _NAME.match(bare):
        raise BadParameter(
            f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, at least two of them"
        )
    if len(bare) > MAX_NAME:
        raise BadParameter(f"Invalid container name: {len(bare)} characters are too many, {MAX_NAME} are allowed")
    return bare
