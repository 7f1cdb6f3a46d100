"""What a container wrote, put out as it is: its standard output on ours, its standard error on ours."""

from __future__ import annotations

import os

from dockerd_py.cli.command import complain
from dockerd_py.cli.stdcopy import STDERR, STDOUT, Demultiplexer


class Output:
    """The stream of one container: raw when it has a terminal, else in frames."""

    def __init__(self, tty: bool) -> None:
        self._demultiplexer = None if tty else Demultiplexer()

    def show(self, data: bytes) -> None:
        """Raises BrokenPipeError where nobody reads us any more, and ConnectionLost for broken frames."""
        if self._demultiplexer is None:
            write_all(1, data)
            return
        for stream, piece in self._demultiplexer.feed(data):
            if stream == STDOUT:
                write_all(1, piece)
            elif stream == STDERR:
                write_all(2, piece)
            else:
                complain(piece.decode("utf-8", "replace").strip())


def write_all(fd: int, data: bytes) -> None:
    """Write it all, also where somebody else made the file non-blocking.  Raises OSError, BrokenPipeError first."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            import select

            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()
