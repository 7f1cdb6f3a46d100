"""Signals as users write them: KILL, SIGKILL, sigkill, 9, RTMIN+3."""

from __future__ import annotations

import signal

from dockerd_py.errors import BadParameter


def parse(text: str) -> int:
    """The number of a signal.  Raises BadParameter."""
    name = text.strip().upper()
    if name.isdecimal():
        number = int(name)
        if 1 <= number <= signal.SIGRTMAX:
            return number
        raise BadParameter(f"Invalid signal: {text}")
    bare = name.removeprefix("SIG")
    for base, step in (("RTMIN", 1), ("RTMAX", -1)):
        sign = "+" if step > 0 else "-"
        if bare.startswith(base + sign) and bare[len(base) + 1 :].isdecimal():
            number = int(getattr(signal, "SIG" + base)) + step * int(bare[len(base) + 1 :])
            if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
                return number
            raise BadParameter(f"Invalid signal: {text}")
    known = _MORE.get(bare) or signal.Signals.__members__.get("SIG" + bare)
    if known is None:
        raise BadParameter(f"Invalid signal: {text}")
    return int(known)


# signal(7); Python 3.10 does not know it.
_MORE = {"STKFLT": 16}
