"""The client's end of an attached container: its streams, the user's signals and terminal, and its exit code.

One loop on poll(2) moves everything: what the container writes goes to our standard output and error as it comes;
what we read from standard input is sent on, never more than a bounded amount ahead of a container that does not read,
and its end is passed on as the connection's half-close; signals go to the container; a changed window resizes its
terminal.  A slow reader of ours slows only us.  The connection for the exit code may break (the daemon restarts)
while the stream lives on: it is made anew until it works.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

from dockerd_py.cli import keys, terminal
from dockerd_py.cli.client import Client, answer, container_path, decode
from dockerd_py.cli.command import complain
from dockerd_py.cli.errors import CliError, ConnectionLost, DaemonError, Terminated, Unreachable
from dockerd_py.cli.output import Output
from dockerd_py.cli.transport import Response

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from types import FrameType, TracebackType
    from typing import Any, Protocol

    class ExitSource(Protocol):
        """Where the exit code comes from; `ExitCode` says what is what."""

        value: int | None

        @property
        def ready(self) -> bool: ...
        def fileno(self) -> int: ...
        def prepare(self, stream_open: bool) -> float: ...
        def receive(self) -> None: ...


FAILED = 125  # the exit code of `run` for what is pydocker's or the daemon's fault

_PIECE = 32 * 1024
_MAX_AHEAD = 256 * 1024  # of standard input, for a container that does not read it
_PATIENCE = 3  # interrupts that the container may ignore before we leave it alone
_DRAIN_SECONDS = 10.0  # for output that is still on its way when the exit code is here
_RETRY_SECONDS = 0.25
_GIVE_UP_SECONDS = 90.0
_DETACH_SECONDS = 0.1

# Not those of job control: they stop and continue us, and the container runs on.
_FORWARDED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
)
_ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
_STOPPING = (signal.SIGTSTP, signal.SIGCONT)


class Signals:
    """Signals as bytes on a pipe, within a block.

    forward: they come on the pipe; the third SIGINT or SIGTERM raises Terminated nevertheless, so that a container
        that ignores them cannot hold us.
    Without it, with ``ending``: those that would end us raise Terminated, so that blocks are left in good order, and
        those that stop and continue us come on the pipe.
    """

    def __init__(self, *, forward: bool, ending: bool) -> None:
        self._forward = forward
        self._ending = ending
        self._insistence = 0
        self._before: list[tuple[int, Any]] = []
        self.fd = -1

    def __enter__(self) -> Signals:
        self.fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        self._on(signal.SIGWINCH)
        for number in _FORWARDED if self._forward else (*_ENDING, *_STOPPING) if self._ending else ():
            # Who was started with a signal ignored (nohup, a background job) goes on ignoring it.
            if signal.getsignal(number) != signal.SIG_IGN:
                self._on(number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._before:
            signal.signal(number, handler)
        os.close(self.fd)
        os.close(self._write_fd)

    def read(self) -> bytes:
        """The numbers of the signals that came."""
        try:
            return os.read(self.fd, 256)
        except BlockingIOError:
            return b""

    def _on(self, number: int) -> None:
        self._before.append((number, signal.signal(number, self._came)))

    def _came(self, number: int, frame: FrameType | None) -> None:
        if number in (signal.SIGWINCH, *_STOPPING):
            return
        if not self._forward:
            raise Terminated(number)
        if number in (signal.SIGINT, signal.SIGTERM):
            self._insistence += 1
            if self._insistence >= _PATIENCE:
                raise Terminated(number, "Interrupted three times: leaving. The container may still be running.")


class ExitCode:
    """The answer to ``POST /containers/<id>/wait``, wherever it stands.

    Asked for before the container is started, so that its end cannot be missed.
    """

    def __init__(self, client: Client, id_: str, condition: str) -> None:
        self._client = client
        self._path = container_path(id_, "/wait")
        # A second time the end itself may be past; that the container is gone is still to come, or an error.
        self._again = "removed" if condition == "removed" else "not-running"
        self._id = id_
        self._response: Response | None = client.request("POST", self._path, {"condition": condition})
        self._sock, _ = self._response.take_over()
        self._lost_since = 0.0
        self.value: int | None = None

    def fileno(self) -> int:
        """-1 while there is no connection."""
        return self._sock.fileno()

    @property
    def ready(self) -> bool:
        return self._response is not None and self._response.pending

    def receive(self) -> None:
        """Take what has arrived.  Raises CliError when the exit code can never be known."""
        try:
            if self._response is None:
                self._response = answer(Response(self._sock))
                self._lost_since = 0.0
                if not self._response.pending:
                    return
            result = decode(self._response.read())
        except ConnectionLost:
            self._lose()
            return
        except DaemonError as error:
            if error.status == 404:
                message = f"{self._id[:12]} was removed before its exit code could be asked for"
                raise CliError(message, FAILED) from None
            raise
        self.value = result["StatusCode"]
        failure: str = (result.get("Error") or {}).get("Message", "")
        if failure:
            raise CliError(failure, FAILED)

    def prepare(self, stream_open: bool) -> float:
        """Ask again where the connection was lost; the seconds to wait at most.

        Raises CliError when the daemon has been away for too long.
        """
        if self.fileno() >= 0:
            return -1.0
        try:
            self._sock = self._client.begin("POST", self._path, {"condition": self._again})
        except (Unreachable, ConnectionLost):
            if time.monotonic() - self._lost_since > _GIVE_UP_SECONDS:
                raise CliError("The daemon went away, and the exit code with it.", FAILED) from None
        return -1.0 if self.fileno() >= 0 else _RETRY_SECONDS

    def close(self) -> None:
        self._sock.close()

    def _lose(self) -> None:
        self._sock.close()
        self._response = None
        self._lost_since = self._lost_since or time.monotonic()


class Session:
    """An attach, from before the container's start to its end.

    Used as a block: entering it attaches, so that nothing is missed of what is started within.
    """

    def __init__(
        self,
        client: Client,
        id_: str,
        *,
        tty: bool,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        sig_proxy: bool = True,
        detach_keys: str = "",
    ) -> None:
        self._client = client
        self._id = id_
        self._tty = tty
        self._stdin_open = stdin
        self._signals = Signals(forward=sig_proxy and not tty, ending=tty)
        self._watcher = keys.Watcher(keys.parse(detach_keys or keys.DEFAULT) if tty and stdin else b"")
        self._query = {
            "stream": True,
            "stdin": stdin or None,
            "stdout": stdout or None,
            "stderr": stderr or None,
            "detachKeys": detach_keys or None,
        }
        self._output = Output(tty)
        self._unsent = bytearray()
        self._stream_open = True
        self._raw: terminal.raw | None = None
        self._last_news = 0.0  # when the stream last brought something, or the exit code came
        self._sock: socket.socket

    def __enter__(self) -> Session:
        self._sock, self._early = self._open()
        self._signals.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._signals.__exit__(kind, error, traceback)
        self._sock.close()

    def run(self, exit_code: ExitSource, *, redraw: bool = False) -> int:
        """Move the streams until the container has ended, or the user has detached from it.

        redraw: the container's program is to draw its screen anew.
        Returns the container's exit code; 0 after a detach.  Raises CliError, Terminated, BrokenPipeError.
        """
        sys.stdout.flush()
        if not self._tty:
            return self._run(exit_code)
        self._resize(redraw)
        if not self._stdin_open or not terminal.is_terminal(0):
            return self._run(exit_code)
        with terminal.raw(0) as self._raw:
            code = self._run(exit_code)
        if exit_code.value is None:
            print("\nread escape sequence", file=sys.stderr)
        return code

    @property
    def stream_open(self) -> bool:
        return self._stream_open

    def _open(self) -> tuple[socket.socket, bytes]:
        return self._client.hijack(self._path("/attach"), self._query)

    def _path(self, rest: str) -> str:
        return container_path(self._id, rest)

    def _run(self, exit_code: ExitSource) -> int:
        self._sock.setblocking(False)
        if self._early:
            self._output.show(self._early)
        while True:
            if exit_code.value is None and exit_code.ready:
                self._ended(exit_code)
            if exit_code.value is not None and (
                not self._stream_open or time.monotonic() - self._last_news > _DRAIN_SECONDS
            ):
                return exit_code.value
            if self._detached(exit_code):
                return 0
            self._wait(exit_code)

    def _wait(self, exit_code: ExitSource) -> None:
        poll = select.poll()
        poll.register(self._signals.fd, select.POLLIN)
        timeout = -1.0
        if exit_code.value is None:
            timeout = exit_code.prepare(self._stream_open)
            if exit_code.fileno() >= 0:
                poll.register(exit_code.fileno(), select.POLLIN)
        else:
            timeout = _RETRY_SECONDS
        if self._stream_open:
            poll.register(self._sock.fileno(), select.POLLIN | (select.POLLOUT if self._unsent else 0))
            if self._stdin_open and len(self._unsent) < _MAX_AHEAD:
                poll.register(0, select.POLLIN)
        elif self._watcher.seen:
            timeout = _DETACH_SECONDS
        for fd, events in poll.poll(timeout * 1000 if timeout >= 0 else None):
            if fd == self._signals.fd:
                self._pass_on(self._signals.read())
            elif fd == exit_code.fileno():
                self._ended(exit_code)
            elif fd == self._sock.fileno():
                if events & select.POLLOUT:
                    self._write()
                if events & ~select.POLLOUT:
                    self._read()
            else:
                self._read_stdin()

    def _ended(self, exit_code: ExitSource) -> None:
        exit_code.receive()
        self._last_news = time.monotonic()

    def _read(self) -> None:
        try:
            data = self._sock.recv(_PIECE * 2)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._last_news = time.monotonic()
        if data:
            self._output.show(data)
        else:
            self._stream_open = False

    def _read_stdin(self) -> None:
        try:
            data = os.read(0, _PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # a terminal that we are no longer in the foreground of, or that has gone
        if not data:
            self._stdin_open = False
        self._watcher.feed(data)
        self._unsent += data
        self._write()

    def _write(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._sock.send(self._unsent)]
            if not self._stdin_open:
                import socket

                self._sock.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            return
        except OSError:
            # The container reads no more; what it writes is still to be shown.
            self._stdin_open = False
            self._unsent.clear()

    def _pass_on(self, numbers: bytes) -> None:
        for number in numbers:
            if number == signal.SIGWINCH:
                if self._tty:
                    self._resize()
                continue
            if number in _STOPPING:
                self._stop(number)
                continue
            try:
                name = signal.Signals(number).name
                self._client.post(container_path(self._id, "/kill"), {"signal": name})
            except DaemonError as error:
                if error.status not in (404, 409):  # it ended meanwhile
                    complain(str(error))
            except (Unreachable, ConnectionLost) as error:
                complain(str(error))

    def _stop(self, number: int) -> None:
        """Stop as we were asked to, or go on after a stop: the terminal is the shell's meanwhile."""
        if number == signal.SIGTSTP:
            if self._raw is not None:
                self._raw.restore()
            handler = signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            signal.signal(number, handler)
        if self._raw is not None:
            self._raw.again()
        self._resize(redraw=True)

    def _resize(self, redraw: bool = False) -> None:
        found = terminal.size(1) or terminal.size(0)
        if found is None:
            return
        rows, columns = found
        path = self._path("/resize")
        try:
            if redraw:
                # A program draws its screen anew when it is told of a new size, not of the same.
                self._client.post(path, {"h": rows + 1, "w": columns})
            self._client.post(path, {"h": rows, "w": columns})
        except CliError as error:
            if self._client.debug:
                complain(str(error))

    def _detached(self, exit_code: ExitSource) -> bool:
        """Whether the stream ended because the user left, and not because the container did."""
        if self._stream_open or not self._watcher.seen or exit_code.value is not None:
            return False
        if time.monotonic() - self._last_news < _DETACH_SECONDS:
            return False  # time for the exit code, if that is why
        try:
            state = self._client.get(container_path(self._id, "/json"))["State"]
        except CliError:
            return False
        return bool(state["Running"])
