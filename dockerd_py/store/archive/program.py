"""What the helper programs share: how one begins its answer, fails, and gets mounts of its own.

A helper answers on standard output with one line of JSON, ``{"error", "kind"}`` or a result, and after a result with
whatever bytes belong to it.  A failure in the middle of those bytes is a line of the same JSON on standard error and
exit code 1.  ``kind`` is the name of a class in ``errors``.

A helper lives for one piece of work, so the time that its imports take is part of that work's.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import sys
from collections.abc import Callable
from typing import IO, Any, NamedTuple

from dockerd_py.errors import BadArchive, PydockerdError

_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18
_BUFFER = 1 << 18
_DEPTH = 20_000
_MAX_TEXT = 4000  # characters, of up to 12 bytes as JSON; a pipe takes 64 KiB before the daemon reads it
_MAX_SHOWN = 200


class Blame(NamedTuple):
    """Whose fault an OSError is: with one of these numbers a ``kind``, else the store's."""

    kind: str
    numbers: tuple[int, ...]


NOBODY = Blame("StoreError", ())
ARCHIVE = Blame(
    "BadArchive",
    (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.ELOOP, errno.ENOTDIR, errno.EFBIG, errno.EMLINK),
)
CLIENT = Blame(
    "BadParameter", (*ARCHIVE.numbers, errno.EISDIR, errno.EROFS, errno.EACCES, errno.EPERM, errno.EBUSY),
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


def run(work: Callable[[], None], blame: Blame = NOBODY) -> None:
    """Do the work and end the process, with an answer whatever comes."""
    code = 0
    try:
        work()
    except BrokenPipeError:
        code = 1  # nobody listens any more
    except BaseException as error:  # noqa: BLE001 - the daemon logs it
        kind, text = _explain(error, blame)
        answer = {"error": text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "...", "kind": kind}
        if _begun:
            with contextlib.suppress(BrokenPipeError):
                os.write(2, json.dumps(answer).encode() + b"\n")
            code = 1
        else:
            with contextlib.suppress(BrokenPipeError):  # a daemon that was killed meanwhile does not hear it
                begin(answer)
    # Not sys.exit: a reading thread may wait for ever for a source that nobody needs now.
    os._exit(code)


def change_root(directory: str) -> None:
    """Nothing outside of ``directory`` has a name for this process from here on.  Raises OSError."""
    os.chdir(directory)
    os.chroot(".")
    os.chdir("/")


def show(name: str | bytes) -> str:
    """A name for a message: printable, whatever bytes are in it, and not too long."""
    raw = name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name
    text = raw.decode("utf-8", "backslashreplace")
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."


def walk_deep() -> None:
    """For who walks a tree: a container nests its directories as it likes, and each level takes a descriptor."""
    sys.setrecursionlimit(_DEPTH)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def own_mounts() -> None:
    """From here on mounts are this process's alone, and end with it, however it ends.  Raises OSError."""
    import ctypes  # noqa: PLC0415 - a millisecond, which most helpers save

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0 or libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None):
        number = ctypes.get_errno()
        raise OSError(number, f"cannot have mounts of its own: {os.strerror(number)}")


def _explain(error: BaseException, blame: Blame) -> tuple[str, str]:
    if isinstance(error, PydockerdError):
        return type(error).__name__, str(error)
    if isinstance(error, OSError):
        where = f"{show(error.filename)}: " if isinstance(error.filename, (str, bytes)) and error.filename else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return "StoreError", f"{where}no space left on the disk; free some and try again"
        return blame.kind if error.errno in blame.numbers else "StoreError", f"{where}{error.strerror or error}"
    if isinstance(error, MemoryError):
        return BadArchive.__name__, "the archive needs too much memory"
    if isinstance(error, (ValueError, OverflowError, RecursionError)):
        # What tarfile and the system calls say to numbers and names that no file can have.
        return BadArchive.__name__, f"the archive is damaged: {error}"
    return "StoreError", f"the helper failed: {error!r} {' < '.join(_places(error))}"


def _places(error: BaseException) -> list[str]:
    """Where it was raised, the innermost first.  No module can be loaded any more to tell it better."""
    found = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        found.append(f"{os.path.basename(code.co_filename)}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return found[::-1]
