"""``python3 -I -S .../dockerd_py/nat/dns/__main__.py SOCKET [--lifeline FD]``: run the name service.

It is started by its path, so that Python needs neither `site` nor what that finds.
"""

from __future__ import annotations

import sys


def main(argv: list[str]) -> int:
    sys.path.append(__file__.rsplit("/", 4)[0])

    import gc
    import logging
    import os
    import socket

    from dockerd_py.nat.dns import service

    def ready() -> None:
        """sd_notify(3)"""
        gc.freeze()
        if connected is not None:
            connected.send(b"READY=1")
            connected.close()

    logging.basicConfig(level=logging.INFO, format="pydockerd-dns: %(message)s", stream=sys.stderr)
    address = os.environ.pop("NOTIFY_SOCKET", "")
    connected = None
    if address:  # its path is out of reach once the service is ready
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        connected.connect("\0" + address[1:] if address.startswith("@") else address)
    match argv:
        case [path]:
            service.serve(path, lifeline=None, ready=ready)
        case [path, "--lifeline", fd]:
            service.serve(path, lifeline=int(fd), ready=ready)
        case _:
            print(f"usage: {__file__} SOCKET [--lifeline FD]", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
