"""Which code this is: the same for a fork server and a daemon of one version, and another after an upgrade."""

from __future__ import annotations

import os
import zlib

from dockerd_py import wire


def of_code() -> str:
    """A checksum of the monitor's modules, and of the wire, as they are on the disk now."""
    checksum = 0
    directory = os.path.dirname(os.path.abspath(__file__))
    names = (os.path.join(directory, name) for name in sorted(os.listdir(directory)))
    for path in (*names, os.path.abspath(wire.__file__)):
        if path.endswith(".py"):
            with open(path, "rb") as file:
                checksum = zlib.crc32(file.read(), zlib.crc32(os.path.basename(path).encode(), checksum))
    return f"{checksum:08x}"
