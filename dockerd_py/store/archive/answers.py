"""What the helper programs say: one line of JSON, on a pipe that is read only when the program has ended."""

from __future__ import annotations

import errno
import json
import os
from typing import Any

# An archive can ask for these; the disk can't.
_ARCHIVE_ERRORS = (
    errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.ELOOP, errno.ENOTDIR, errno.EFBIG, errno.EMLINK,
)  # fmt: skip

_SHOWN = 200
_LONGEST = 4000  # characters of a message; a pipe takes 64 KiB before somebody reads it


def write_answer(fd: int, answer: dict[str, Any]) -> None:
    """``{"error", "kind"}``, whose text may quote what a stranger wrote, or a result."""
    error = answer.get("error")
    if isinstance(error, str) and len(error) > _LONGEST:
        answer = {**answer, "error": f"{error[:_LONGEST]}..."}
    os.write(fd, json.dumps(answer).encode())


def explain(error: OSError) -> dict[str, str]:
    """What stopped the writing of files: the archive is to blame for some of it, the disk for the rest."""
    where = f"{show(os.fsdecode(error.filename))}: " if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return {"kind": "store", "error": f"{where}no space left on the disk; free some and try again"}
    kind = "archive" if error.errno in _ARCHIVE_ERRORS else "store"
    return {"kind": kind, "error": f"{where}{error.strerror or error}"}


def show(name: str) -> str:
    """A name for a message: printable, whatever bytes are in it, and not too long."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
