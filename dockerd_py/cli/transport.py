"""HTTP/1.1 over one socket, for one request: connect, send, read the answer, or take the socket over.

http.client costs 14 ms to import, which is more than most commands take; this is the part of it that is needed.
Bodies are sent with a Content-Length or in chunks; answers are read by Content-Length, in chunks, or to the end of
the connection.  Every failure is a CliError with a sentence.
"""

from __future__ import annotations

import os
import socket

from dockerd_py.cli.errors import ConnectionLost, Unreachable, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DEFAULT_HOST = "unix:///run/pydockerd/docker.sock"

_MAX_HEAD = 256 * 1024
_PIECE = 64 * 1024
_SUN_PATH_MAX = 107  # unix(7): 108 bytes with the final NUL


class Host:
    """Where the daemon listens: ``unix:///path``, ``tcp://address:port``, or bare ``address:port`` (tcp)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.path = ""
        self.address = ("", 0)
        scheme, separator, rest = text.partition("://")
        if not separator:
            scheme, rest = "tcp", text
        if scheme == "unix":
            self.path = rest or DEFAULT_HOST.removeprefix("unix://")
            if not self.path.startswith("/"):
                raise UsageError(f'invalid host "{text}": the socket needs an absolute path, as in {DEFAULT_HOST}')
        elif scheme == "tcp":
            self.address = _tcp_address(text, rest)
        elif scheme == "fd":
            raise UsageError(f'invalid host "{text}": only a daemon can listen on inherited sockets')
        else:
            raise UsageError(f'invalid host "{text}": it must be unix:///path or tcp://address:port')

    def connect(self) -> socket.socket:
        """A connected socket.  Raises Unreachable with what a user can do about it."""
        try:
            return _connect_unix(self.path) if self.path else _connect_tcp(self.address)
        except PermissionError:
            raise Unreachable(self._denied()) from None
        except OSError as error:
            hint = "Is it running?"
            if self.text == DEFAULT_HOST:
                hint += " (systemctl start pydockerd)"
            nobody = isinstance(error, (FileNotFoundError, ConnectionRefusedError))
            reason = "" if nobody else f"{error.strerror or error}. "
            raise Unreachable(f"Cannot connect to the pydockerd daemon at {self.text}. {reason}{hint}") from None

    def _denied(self) -> str:
        message = f"Permission denied for the pydockerd daemon's socket at {self.text}."
        try:
            gid = os.stat(self.path).st_gid
        except OSError:
            return message + " Ask the administrator, or use sudo."
        if gid == 0:
            return message + " Only root may use it: use sudo."
        import grp

        try:
            group = grp.getgrgid(gid).gr_name
        except KeyError:
            group = str(gid)
        return (
            f"{message} It belongs to the group '{group}': use sudo, or have the administrator add you to that group "
            "(whoever is in it can become root)."
        )


class Response:
    """The answer's head, and its body to be read once."""

    def __init__(self, sock: socket.socket, early: bytes = b"") -> None:
        """Waits for the head; the socket is closed if there is none.  early: what was read of the answer already."""
        self._sock = sock
        self._buffer = early
        try:
            self._read_head()
        except BaseException:
            sock.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        """The body, in the pieces in which it arrives."""
        try:
            if self.status in (204, 304):
                return
            if self.headers.get("transfer-encoding", "").lower() == "chunked":
                yield from self._chunked()
            elif "content-length" in self.headers:
                yield from self._counted(self._length(self.headers["content-length"], 10))
            else:
                while piece := self._take():
                    yield piece
        finally:
            self.close()

    def read(self) -> bytes:
        return b"".join(self)

    def take_over(self) -> tuple[socket.socket, bytes]:
        """The socket itself, with the bytes behind the head that were read already."""
        return self._sock, self._buffer

    def close(self) -> None:
        self._sock.close()

    @property
    def pending(self) -> bool:
        """Whether something of the body was read together with the head."""
        return bool(self._buffer)

    def _read_head(self) -> None:
        while b"\r\n\r\n" not in self._buffer:
            if len(self._buffer) > _MAX_HEAD:
                raise ConnectionLost("The daemon's answer is no HTTP: its head is too long.")
            piece = self._receive()
            if not piece:
                raise ConnectionLost("The daemon closed the connection without an answer.")
            self._buffer += piece
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        version, _, rest = lines[0].partition(" ")
        code = rest.partition(" ")[0]
        if not version.startswith("HTTP/1.") or not (code.isdigit() and len(code) == 3):
            raise ConnectionLost(f"The daemon's answer is no HTTP: {lines[0][:80]!r}")
        self.status = int(code)
        self.headers: dict[str, str] = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()

    def _receive(self) -> bytes:
        try:
            return self._sock.recv(_PIECE)
        except OSError as error:
            raise _broken(error) from None

    def _take(self) -> bytes:
        if self._buffer:
            piece, self._buffer = self._buffer, b""
            return piece
        return self._receive()

    def _counted(self, length: int) -> Iterator[bytes]:
        while length:
            piece = self._take()
            if not piece:
                raise ConnectionLost("The daemon closed the connection in the middle of its answer.")
            if len(piece) > length:
                piece, self._buffer = piece[:length], piece[length:]
            length -= len(piece)
            yield piece

    def _chunked(self) -> Iterator[bytes]:
        while length := self._length(self._line().partition(";")[0], 16):
            yield from self._counted(length)
            self._line()
        while self._line():
            pass

    def _line(self) -> str:
        while b"\r\n" not in self._buffer:
            piece = self._receive() if len(self._buffer) <= _MAX_HEAD else b""
            if not piece:
                raise ConnectionLost("The daemon closed the connection in the middle of its answer.")
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line.decode("latin-1")

    def _length(self, text: str, base: int) -> int:
        try:
            length = int(text, base)
        except ValueError:
            length = -1
        if length < 0:
            raise ConnectionLost(f"The daemon's answer is no HTTP: a length of {text[:40]!r}")
        return length


def send(host: Host, method: str, target: str, headers: dict[str, str], body: bytes | None) -> socket.socket:
    """Send one request; ``Response`` of the socket that this returns is the answer."""
    if body is not None or method != "GET":
        headers = {**headers, "Content-Length": str(len(body or b""))}
    sock = host.connect()
    try:
        sock.sendall(_head(method, target, headers) + (body or b""))
    except (BrokenPipeError, ConnectionResetError):
        pass  # it has answered already, and the answer says why
    except OSError as error:
        sock.close()
        raise _broken(error) from None
    return sock


def upload(host: Host, method: str, target: str, headers: dict[str, str], body: Iterable[bytes]) -> Response:
    """Send a request with a long body, and return the answer once its head is here.

    The body goes out in chunks, unless ``headers`` holds its Content-Length.  The daemon may begin its answer while
    it still reads; if that is an error, or if it closes the connection, sending stops there.
    """
    chunked = "Content-Length" not in headers
    if chunked:
        headers = {**headers, "Transfer-Encoding": "chunked"}
    sock = host.connect()
    try:
        sock.setblocking(False)
        sending = _Upload(sock)
        sending.send(_head(method, target, headers))
        for piece in body:
            if piece:
                sending.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            if sending.refused:
                break
        else:
            sending.send(b"0\r\n\r\n" if chunked else b"")
        sock.setblocking(True)
    except BaseException:
        sock.close()
        raise
    return Response(sock, sending.early)


class _Upload:
    """The sending half of an exchange of which the receiving half may begin at any time."""

    def __init__(self, sock: socket.socket) -> None:
        import select

        self._sock = sock
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN | select.POLLOUT)
        self._writable = select.POLLOUT
        self.early = b""
        self.refused = False

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view and not self.refused:
            ((_, events),) = self._poll.poll()
            try:
                if events & ~self._writable:
                    self._receive()
                elif events:
                    view = view[self._sock.send(view) :]
            except BlockingIOError:
                continue
            except (BrokenPipeError, ConnectionResetError):
                self.refused = True
            except OSError as error:
                raise _broken(error) from None

    def _receive(self) -> None:
        piece = self._sock.recv(_PIECE)
        self.early += piece
        failed = self.early[:9] == b"HTTP/1.1 " and self.early[9:10] in (b"4", b"5")
        self.refused = not piece or failed or self.early.endswith(b"\r\n0\r\n\r\n")


def _head(method: str, target: str, headers: dict[str, str]) -> bytes:
    fields = "".join(f"{key}: {value}\r\n" for key, value in {"Host": "pydockerd", **headers}.items())
    return f"{method} {target} HTTP/1.1\r\n{fields}\r\n".encode("latin-1")


def _broken(error: OSError) -> ConnectionLost:
    return ConnectionLost(f"The connection to the daemon broke: {error.strerror or error}.")


def _tcp_address(text: str, rest: str) -> tuple[str, int]:
    name, separator, port = rest.rstrip("/").rpartition(":")
    if name.startswith("[") and name.endswith("]"):
        name = name[1:-1]
    elif ":" in name:
        name = ""
    if not separator or not name or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise UsageError(f'invalid host "{text}": it must be unix:///path or tcp://address:port')
    return name, int(port)


def _connect_tcp(address: tuple[str, int]) -> socket.socket:
    sock = socket.create_connection(address)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return sock


def _connect_unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if len(os.fsencode(path)) <= _SUN_PATH_MAX:
            sock.connect(path)
            return sock
        directory, name = os.path.split(path)
        dir_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sock.connect(f"/proc/self/fd/{dir_fd}/{name}")
        finally:
            os.close(dir_fd)
    except BaseException:
        sock.close()
        raise
    return sock
