"""A process's standard streams as the monitor holds them: three pipes, or one terminal."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios
from collections.abc import Collection

from dockerd_py import wire

STDIN_LIMIT = 256 * 1024


class Streams:
    """Pipes, for the input if ``open_stdin`` and the ``wanted`` outputs; /dev/null for the others.

    The process's ends stay open until it has been created, then only the process has them.
    """

    def __init__(self, *, open_stdin: bool, wanted: Collection[int] = (1, 2)) -> None:
        self._outputs: dict[int, int] = {}
        self._stdin: int | None = None
        self._pending = bytearray()
        self._ending = False
        self._theirs: list[int] = []
        if open_stdin:
            theirs, self._stdin = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self._stdin, False)
        else:
            theirs = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._theirs.append(theirs)
        self._open_outputs(wanted)

    def _open_outputs(self, wanted: Collection[int]) -> None:
        for stream in (1, 2):
            if stream not in wanted:
                self._theirs.append(os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC))
                continue
            ours, theirs = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(ours, False)
            self._outputs[stream] = ours
            self._theirs.append(theirs)

    def child_fds(self) -> tuple[int, int, int]:
        """What becomes 0, 1 and 2 of the OCI runtime, and so of the container."""
        stdin, stdout, stderr = self._theirs
        return stdin, stdout, stderr

    def created(self) -> None:
        """The container exists and has its ends: close them here, so that its end is the streams' end."""
        for fd in self._theirs:
            os.close(fd)
        self._theirs.clear()

    def outputs(self) -> dict[int, int]:
        """Open output streams: {1 or 2: our descriptor, non-blocking}."""
        return self._outputs

    def close_output(self, stream: int) -> None:
        os.close(self._outputs.pop(stream))

    def stdin_fd(self) -> int | None:
        return self._stdin

    def wants_stdin(self) -> bool:
        """Whether more input may be queued.  True, too, when it will be thrown away: nobody reads it any more."""
        return len(self._pending) < STDIN_LIMIT

    def queue_stdin(self, data: bytes) -> None:
        if self._stdin is not None or self._theirs:
            self._pending += data

    def end_stdin(self) -> None:
        """Close the input once what is queued has been written."""
        self._ending = True

    def flush_stdin(self) -> bool:
        """Write what the container takes.  True when nothing is left to write."""
        while self._pending and self._stdin is not None:
            try:
                count = os.write(self._stdin, self._pending)
            except BlockingIOError:
                return False
            except OSError:  # it closed its end, or hung up its terminal: input goes nowhere from now on
                self._pending.clear()
                self._ending = True
                break
            del self._pending[:count]
        return True

    @property
    def stdin_ending(self) -> bool:
        return self._ending and self._stdin is not None

    def close_stdin(self) -> None:
        if self._stdin is not None:
            os.close(self._stdin)
            self._stdin = None

    def close(self) -> None:
        """Close every descriptor."""
        self.close_stdin()
        for stream in tuple(self._outputs):
            self.close_output(stream)
        for fd in self._theirs:
            os.close(fd)
        self._theirs.clear()

    def resize(self, height: int, width: int) -> None:
        """Set the terminal's window; raises ValueError without one."""
        raise ValueError("it has no terminal")


class Terminal(Streams):
    """The master side of a terminal that the OCI runtime makes and sends through a socket (``--console-socket``)."""

    def __init__(self, *, open_stdin: bool, path: str, height: int, width: int) -> None:
        self._listener: socket.socket | None = wire.bind(path, kind=socket.SOCK_STREAM)
        self._path = path
        self._size = (height, width)
        self._wanted = open_stdin
        super().__init__(open_stdin=False)

    def _open_outputs(self, wanted: Collection[int]) -> None:
        # the runtime's own streams; the container's are the terminal
        self._theirs += [os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC) for _ in (1, 2)]

    def created(self) -> None:
        super().created()
        assert self._listener is not None
        self._listener.settimeout(5)
        connection, _ = self._listener.accept()
        with connection:
            connection.settimeout(5)
            _data, fds, _flags, _address = socket.recv_fds(connection, 4096, 1)
        self._stop_listening()
        if not fds:
            raise OSError("the OCI runtime sent no terminal")
        master = fds[0]
        os.set_blocking(master, False)
        os.set_inheritable(master, False)
        self._outputs[1] = master
        if self._wanted:
            self._stdin = os.dup(master)  # its own descriptor, since epoll knows one entry a descriptor
        if all(self._size):
            self.resize(*self._size)

    def close(self) -> None:
        super().close()
        self._stop_listening()

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            try:
                os.unlink(self._path)
            except FileNotFoundError:
                pass  # with the directory

    def queue_stdin(self, data: bytes) -> None:
        if self._wanted:
            self._pending += data

    def end_stdin(self) -> None:
        """A terminal's input has no end of its own: what was typed is written, no more."""

    def resize(self, height: int, width: int) -> None:
        self._size = (height, width)
        if 1 in self._outputs:
            fcntl.ioctl(self._outputs[1], termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
