"""What the helper programs share: how one begins its answer, fails, and gets mounts of its own.

A helper answers on standard output with one line of JSON, ``{"error", "kind"}`` or a result, and after a result with
whatever bytes belong to it.  A failure in the middle of those bytes is a line on standard error and exit code 1.
``kind`` is the name of a class in ``errors``.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import IO, Any

from dockerd_py.errors import BadArchive, PydockerdError
from dockerd_py.store.archive.answers import show

_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18
_BUFFER = 1 << 18
_DEPTH = 20_000

# The client's names and archives can be to blame for these; the disk can't.
_BLAMELESS = (
    errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EFBIG,
    errno.EMLINK, errno.EROFS, errno.EACCES, errno.EPERM, errno.EBUSY,
)  # fmt: skip

_begun = False


def begin(result: dict[str, Any]) -> IO[bytes]:
    """Say that it goes well; what the result's bytes are written to, to be flushed at their end."""
    global _begun  # noqa: PLW0603 - there is one standard output
    _begun = True
    output = open(1, "wb", buffering=_BUFFER, closefd=False)  # noqa: SIM115 - the process's own
    output.write(json.dumps(result).encode() + b"\n")
    output.flush()
    return output


def run(work: Callable[[], None]) -> None:
    """Do the work and end the process, with an answer whatever comes."""
    sys.setrecursionlimit(_DEPTH)
    code = 0
    try:
        work()
    except BrokenPipeError:
        code = 1  # nobody listens any more
    except BaseException as error:  # noqa: BLE001 - the daemon logs it
        kind, text = _explain(error)
        code = 1
        if _begun:
            os.write(2, text.encode("utf-8", "backslashreplace") + b"\n")
        else:
            begin({"error": text, "kind": kind}).flush()
            code = 0
    # Not sys.exit: a reading thread may wait for ever for a source that nobody needs now.
    os._exit(code)


def own_mounts() -> None:
    """From here on mounts are this process's alone, and end with it, however it ends.  Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0 or libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None):
        number = ctypes.get_errno()
        raise OSError(number, f"cannot have mounts of its own: {os.strerror(number)}")


def _explain(error: BaseException) -> tuple[str, str]:
    if isinstance(error, PydockerdError):
        return type(error).__name__, str(error)
    if isinstance(error, OSError):
        where = f"{show(error.filename)}: " if isinstance(error.filename, str) else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return "StoreError", f"{where}no space left on the disk; free some and try again"
        kind = "BadParameter" if error.errno in _BLAMELESS else "StoreError"
        return kind, f"{where}{error.strerror or error}"
    if isinstance(error, (ValueError, OverflowError, RecursionError, MemoryError)):
        return BadArchive.__name__, f"it is damaged, or too much for one process: {error}"
    return "StoreError", f"the helper failed:\n{traceback.format_exc()}"
