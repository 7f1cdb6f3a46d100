"""What one archive may take: so many bytes unpacked, and not the last of the disk's free space.

A few kilobytes, compressed well, become as many gigabytes as their maker likes; the disk they would fill is also that
of the containers' logs and of the daemon's records.
"""

from __future__ import annotations

import errno
import os

from dockerd_py.errors import BadArchive

_RESERVE = 0.05  # of what was free at the beginning: bytes, and files
_MOST_RESERVED = 1 << 30
_LEAST_RESERVED = 16 << 20  # on a disk that is nearly full, what was just removed has to fit again
_LONGEST_STEP = 8 << 20  # bytes of an archive between two looks at the disk
_SHORTEST_STEP = 256 << 10


class Allowance:
    """limit: bytes of the archive, uncompressed, headers included; 0: as many as there is room for.

    where: a path or descriptor on the file system that it goes to.
    """

    def __init__(self, limit: int, where: str | int) -> None:
        self._limit = limit
        self._where = where
        self._taken = 0
        self._look_at = 0
        room = os.statvfs(where)
        reserve = min(int(room.f_bavail * room.f_frsize * _RESERVE), _MOST_RESERVED)
        self._bytes = reserve if reserve >= _LEAST_RESERVED else 0
        self._files = int(room.f_favail * _RESERVE)
        # A file may be no more than a header of 512 bytes.
        steps = (_LONGEST_STEP, self._bytes // 2 or _LONGEST_STEP, self._files // 2 * 512 or _LONGEST_STEP)
        self._step = max(_SHORTEST_STEP, min(steps))

    def take(self, size: int) -> None:
        """``size`` more bytes come.  Raises BadArchive for too many of them, and OSError (ENOSPC) before the disk is
        full."""
        self._taken += size
        if self._limit and self._taken > self._limit:
            raise BadArchive(
                f"unpacked it is larger than the {self._limit} bytes that the daemon's --unpack-limit leaves for it"
            )
        if self._taken >= self._look_at:
            self._look_at = self._taken + self._step
            room = os.statvfs(self._where)
            if room.f_bavail * room.f_frsize < self._bytes or room.f_favail < self._files:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
