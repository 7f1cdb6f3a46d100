"""Lines for a file of Docker's json-file form, which is cut into several when it grows too large."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Mapping, Sequence
from json import dumps
from json.encoder import encode_basestring_ascii

from dockerd_py.monitor.lines import Piece
from dockerd_py.monitor.logwriters import RETRY_SECONDS, STDOUT, timestamp


class JsonFileWriter:
    """One JSON object a line: ``{"log": "...\\n", "stream": "stdout", "attrs": {...}, "time": "..."}``.

    Bytes that are not UTF-8 are written as lone surrogates (``\\udcXX``, PEP 383), from which a reader gets them
    back.  With ``max_size`` a file ends with the record that reaches so many bytes; it is then called ``PATH.1``,
    what was called so ``PATH.2``, and so on, and no more than ``max_files`` are kept.
    """

    def __init__(
        self, path: str, *, max_size: int = 0, max_files: int = 1, attributes: Mapping[str, str] | None = None
    ) -> None:
        self._path = path
        self._max_size = max_size
        self._max_files = max_files
        self._attributes = f',"attrs":{dumps(dict(attributes), separators=(",", ":"))}' if attributes else ""
        self._pending = bytearray()
        self._whole = True  # the last record was written to its end
        self._retry_at: float | None = None
        self._open()

    def add(self, stream: int, when: int, first_ordinal: int, pieces: Sequence[Piece]) -> None:
        name = "stdout" if stream == STDOUT else "stderr"
        tail = f',"stream":"{name}"{self._attributes},"time":"{timestamp(when)}"}}\n'
        quote = encode_basestring_ascii
        text = [
            '{"log":' + quote(data.decode("utf-8", "surrogateescape") + ("\n" if ended else "")) + tail
            for data, ended in pieces
        ]
        self._pending += "".join(text).encode("ascii")

    def flush(self) -> bool:
        self._retry_at = None
        try:
            while self._pending:
                if self._max_size and self._size >= self._max_size and self._whole:
                    self._rotate()
                count = os.write(self._fd, memoryview(self._pending)[: self._room()])
                self._whole = self._pending[count - 1] == ord("\n")
                self._size += count
                del self._pending[:count]
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._retry_at = time.monotonic() + RETRY_SECONDS
            return False
        return True

    def wait_fd(self) -> int | None:
        return None

    def retry_at(self) -> float | None:
        return self._retry_at

    def mark(self) -> dict[str, int]:
        return {"offset": self._size, "file": self._file}

    def close(self) -> None:
        os.close(self._fd)

    def _open(self, flags: int = 0) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | flags, 0o640)
        status = os.fstat(self._fd)
        self._size, self._file = status.st_size, status.st_ino

    def _room(self) -> int:
        """How many of the pending bytes go into this file: up to the end of the record that fills it."""
        if not self._max_size:
            return len(self._pending)
        end = self._pending.find(b"\n", max(0, self._max_size - self._size - 1))
        return end + 1 if end >= 0 else len(self._pending)

    def _rotate(self) -> None:
        """Begin a new file.  A crash in between loses no record: each step is a rename, the oldest one first."""
        for number in range(self._max_files - 1, 0, -1):
            older = f"{self._path}.{number}"
            newer = f"{self._path}.{number - 1}" if number > 1 else self._path
            with contextlib.suppress(FileNotFoundError):
                os.rename(newer, older)
        if self._max_files < 2:
            os.unlink(self._path)
        os.close(self._fd)
        self._open()
