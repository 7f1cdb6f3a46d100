"""Whether an administrator has stopped a unit: what systemd itself wrote about it into the journal.

systemd tells clients of jobs other than their own only once they subscribe to all that it does, which costs it more
than the start of a scope.  It logs each stop job's begin, though (JOB_TYPE=stop; systemd.journal-fields(7)), before
it sends the first signal; so the line is in journald's queue when the container ends.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket

log = logging.getLogger(__name__)

SYNCHRONIZE = "/run/systemd/journal/io.systemd.journal"
ANSWER_WITHIN = 3.0  # seconds


def was_stopped(unit: str, since: int) -> bool:
    """Whether a stop job for ``unit`` began after ``since`` (nanoseconds since the epoch).  Blocks.

    False, with a warning, where the journal cannot tell.
    """
    try:
        from systemd._reader import LOCAL_ONLY, _Reader  # noqa: PLC0415 - the daemon also runs without it
    except ImportError as error:
        log.warning("whether %s was stopped cannot be seen: %s; install python3-systemd", unit, error)
        return False
    synchronize()
    try:
        with contextlib.closing(_Reader(flags=LOCAL_ONLY)) as reader:
            for match in (f"UNIT={unit}", "JOB_TYPE=stop", "_PID=1"):
                reader.add_match(match)
            reader.seek_realtime(since // 1000)
            return bool(reader._next())
    except OSError as error:
        log.warning("whether %s was stopped cannot be seen in the journal: %s", unit, error.strerror)
        return False


def synchronize() -> None:
    """Wait until journald has written what it was sent before (its Varlink method io.systemd.Journal.Synchronize)."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_WITHIN)
        try:
            connection.connect(SYNCHRONIZE)
            connection.sendall(json.dumps({"method": "io.systemd.Journal.Synchronize"}).encode() + b"\0")
            while (data := connection.recv(4096)) and not data.endswith(b"\0"):
                pass
        except OSError as error:
            log.debug("journald does not synchronize: %s", error)
