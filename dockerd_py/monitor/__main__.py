"""``python3 -I -m dockerd_py.monitor SOCKET [--lifeline FD]``: run the fork server."""

from __future__ import annotations

import sys

from dockerd_py.monitor import forkserver


def main(argv: list[str]) -> int:
    match argv:
        case [path]:
            forkserver.serve(path)
        case [path, "--lifeline", fd]:
            forkserver.serve(path, lifeline=int(fd))
        case _:
            print("usage: python3 -I -m dockerd_py.monitor SOCKET [--lifeline FD]", file=sys.stderr)
            return 2
    return 0


sys.exit(main(sys.argv[1:]))
