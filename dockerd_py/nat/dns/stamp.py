"""Which code this is: a daemon of another one has the service start again."""

from __future__ import annotations

import os
import zlib

from dockerd_py import wire


def of_code() -> str:
    """A checksum of the service's modules, and of the wire, as they are on the disk now."""
    checksum = 0
    directory = os.path.dirname(os.path.abspath(__file__))
    paths = [os.path.join(directory, name) for name in sorted(os.listdir(directory)) if name.endswith(".py")]
    for path in (*paths, os.path.abspath(wire.__file__)):
        with open(path, "rb") as file:
            checksum = zlib.crc32(file.read(), zlib.crc32(os.path.basename(path).encode(), checksum))
    return f"{checksum:08x}"


CODE = of_code()
