"""The helper program: unpack the tar on standard input into a directory, and say in JSON how it went.

Started by ``client`` with the directory, the kind of whiteouts, the directory for the archive's skeleton ("": none
is kept), the most bytes that the archive may have uncompressed (0: no limit) and the descriptor for the answer.  It
makes the directory its root before it looks at the archive's names, bounds its own memory, and ends with one line of
JSON: ``{"diff_id", "taken", "size", "entries", "lost"}`` or ``{"error", "kind"}`` with kind "archive" or "store".
Should the daemon die, its end of the pipe closes, the archive ends too early, and so does this.
"""

from __future__ import annotations

import os
import resource
import traceback
from typing import Any

from dockerd_py.errors import BadArchive
from dockerd_py.store.archive.allowance import Allowance
from dockerd_py.store.archive.answers import explain, write_answer
from dockerd_py.store.archive.extract import Extractor
from dockerd_py.store.archive.skeleton import SkeletonWriter
from dockerd_py.store.archive.stream import RawInput, TarStream, open_decompressed

_MEMORY = 1 << 30


def main(target: str, whiteouts: str, keep: str, limit: str, answer_fd: str) -> None:
    try:
        answer = _unpack(target, whiteouts, keep, int(limit))
    except BadArchive as error:
        answer = {"kind": "archive", "error": str(error)}
    except OSError as error:
        answer = explain(error)
    except MemoryError:
        answer = {"kind": "archive", "error": "the archive needs too much memory to unpack"}
    except (ValueError, OverflowError, RecursionError) as error:
        # What tarfile and the system calls say to numbers and names that no file can have.
        answer = {"kind": "archive", "error": f"the archive is damaged: {error}"}
    except BaseException:  # noqa: BLE001 - the daemon logs it; nobody reads our own stderr
        answer = {"kind": "store", "error": f"the helper failed:\n{traceback.format_exc()}"}
    write_answer(int(answer_fd), answer)
    # Not sys.exit: the reading thread may wait for ever for a source that nobody needs now.
    os._exit(0)


def _unpack(target: str, whiteouts: str, keep: str, limit: int) -> dict[str, Any]:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    os.umask(0)
    source = open_decompressed(RawInput(0))
    skeleton = None
    if keep:
        skeleton = SkeletonWriter(os.open(keep, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    os.chdir(target)
    os.chroot(".")
    os.chdir("/")
    stream = TarStream(source, skeleton.raw if skeleton else None, Allowance(limit, "."))
    extractor = Extractor(whiteouts, skeleton)
    extractor.extract(stream)
    digest = stream.finish()
    if skeleton is not None:
        skeleton.finish()
    return {
        "diff_id": f"sha256:{digest}",
        "taken": stream.tell(),
        "size": extractor.size,
        "entries": extractor.count,
        "lost": extractor.lost,
    }

