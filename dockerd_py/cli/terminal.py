"""The user's own terminal: raw while a container's is shown on it, and always put back.

Whoever uses `raw` must end by leaving its block: signals that would end the program are turned into an exception
there by the session's loop, and a last resort at the interpreter's end covers the rest.
"""

from __future__ import annotations

import os
import termios

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any


def is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def size(fd: int) -> tuple[int, int] | None:
    """Rows and columns; None where ``fd`` is no terminal or does not know them."""
    try:
        columns, rows = os.get_terminal_size(fd)
    except OSError:
        return None
    return (rows, columns) if rows and columns else None


class raw:  # noqa: N801 - used like a function: ``with raw(0):``
    """Every key goes to the container, none is interpreted here; what was set before comes back at the end.

    Output processing is off too: the container's own terminal does it.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before: list[Any] | None = None

    def __enter__(self) -> raw:
        self.again()
        return self

    def again(self) -> None:
        """After a stop: whoever had the terminal meanwhile has set it as they like."""
        if self._before is None:
            import atexit

            self._before = termios.tcgetattr(self._fd)
            atexit.register(self.restore)
        mode = [*self._before[:6], [*self._before[6]]]
        mode[0] &= ~(
            termios.IGNBRK
            | termios.BRKINT
            | termios.PARMRK
            | termios.ISTRIP
            | termios.INLCR
            | termios.IGNCR
            | termios.ICRNL
            | termios.IXON
        )
        mode[1] &= ~termios.OPOST
        mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        mode[6][termios.VMIN] = 1
        mode[6][termios.VTIME] = 0
        termios.tcsetattr(self._fd, termios.TCSANOW, mode)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.restore()

    def restore(self) -> None:
        """Put the terminal back; doing it twice is harmless."""
        before, self._before = self._before, None
        if before is None:
            return
        import atexit

        atexit.unregister(self.restore)
        try:
            # Now, not when all output is through: that may be never.
            termios.tcsetattr(self._fd, termios.TCSANOW, before)
        except termios.error:
            pass  # the terminal itself is gone
