"""``python3 -I -S .../dockerd_py/monitor/__main__.py SOCKET [--lifeline FD]``: run the fork server.

It is started by its path, so that Python needs neither `site` nor what that finds: every monitor shares this memory.
"""

from __future__ import annotations

import sys


def main(argv: list[str]) -> int:
    sys.path.append(__file__.rsplit("/", 3)[0])

    from dockerd_py.monitor import forkserver  # noqa: PLC0415 - found by the line above

    match argv:
        case [path]:
            forkserver.serve(path)
        case [path, "--lifeline", fd]:
            forkserver.serve(path, lifeline=int(fd))
        case _:
            print(f"usage: {__file__} SOCKET [--lifeline FD]", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
