"""Imports python-iptables without the programs that its own import starts.

By itself it asks ldconfig, gcc and ld where four libraries are, a second's work. The dynamic linker knows; what it
does not find is still looked for in the long way.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import threading
from types import ModuleType

_SONAMES = {
    "c": ("libc.so.6",),
    "xtables": ("libxtables.so.12",),
    "ip4tc": ("libip4tc.so.2",),
    "ip6tc": ("libip6tc.so.2",),
}
_LIBDIR = "XTABLES_LIBDIR"

_lock = threading.Lock()


def load_iptc() -> ModuleType:
    """The module iptc. Blocking. Raises ImportError, also where a library that it needs is missing."""
    with _lock:
        the_long_way = ctypes.util.find_library

        def find(name: str) -> str | None:
            for soname in _SONAMES.get(name, ()):
                if _opens(soname):
                    return soname
            # Its own wrapper library lies beside it, where it looks by itself.
            return None if "xtwrapper" in name else the_long_way(name)

        ctypes.util.find_library = find
        told = _LIBDIR not in os.environ and (directory := _extensions())
        try:
            if told:
                os.environ[_LIBDIR] = directory
            import iptc  # noqa: PLC0415
        except Exception as error:  # noqa: BLE001 - its own, which only a loaded python-iptables could name
            raise ImportError(f"python-iptables does not load: {error}") from None
        finally:
            ctypes.util.find_library = the_long_way
            if told:
                del os.environ[_LIBDIR]
        module: ModuleType = iptc
        return module


def _opens(soname: str) -> bool:
    try:
        ctypes.CDLL(soname)
    except OSError:
        return False
    return True


def _extensions() -> str:
    """Where libxtables has its extensions: beside itself."""
    if not _opens("libxtables.so.12"):
        return ""
    with open("/proc/self/maps") as maps:
        for line in maps:
            path = line.split(maxsplit=5)[-1].strip()
            if os.path.basename(path).startswith("libxtables.so"):
                directory = os.path.join(os.path.dirname(path), "xtables")
                if os.path.isdir(directory):
                    return directory
    return ""
