"""Which code this is: the same for a fork server and a daemon of one version, and another after an upgrade."""

from __future__ import annotations

import os
import zlib


def of_code() -> str:
    """A checksum of the monitor's modules as they are on the disk now."""
    checksum = 0
    directory = os.path.dirname(os.path.abspath(__file__))
    for name in sorted(os.listdir(directory)):
        if name.endswith(".py"):
            with open(os.path.join(directory, name), "rb") as file:
                checksum = zlib.crc32(file.read(), zlib.crc32(name.encode(), checksum))
    return f"{checksum:08x}"
