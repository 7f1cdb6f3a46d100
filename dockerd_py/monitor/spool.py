"""Exit records: how a container ended, written durably by its monitor and read by the daemon when there is one.

A record is one JSON file ``<spool>/<container id>.json``; it exists until the daemon has put it into its database.
"""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple


class ExitRecord(NamedTuple):
    id: str
    exit_code: int  # 0 to 255; 128 + n for signal n
    finished_at: int  # ns since the epoch
    oom_killed: bool
    epoch: str  # of the log lines of this start
    ordinal: int  # of the last log line


def write(directory: str, record: ExitRecord) -> None:
    """Write ``record`` so that it survives a power loss after this call."""
    path = os.path.join(directory, record.id + ".json")
    temporary = path + ".tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, json.dumps(record._asdict()).encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, path)
    dir_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(dir_fd)
    finally:
        os.close(dir_fd)


def read(directory: str, container_id: str) -> ExitRecord | None:
    """The record of one container, or None.  Raises ValueError if the file is damaged."""
    try:
        with open(os.path.join(directory, container_id + ".json"), "rb") as file:
            fields: Any = json.load(file)
    except FileNotFoundError:
        return None
    try:
        return ExitRecord(**fields)
    except TypeError as error:
        raise ValueError(f"the exit record of {container_id} is damaged: {error}") from error


def forget(directory: str, container_id: str) -> None:
    """Take the record away, once it is in the database."""
    for name in (container_id + ".json", container_id + ".json.tmp"):
        try:
            os.unlink(os.path.join(directory, name))
        except FileNotFoundError:
            pass
