"""The other end of the command line's socket: answers that a test writes down byte by byte, and what was asked.

It knows nothing of containers; what is tested against it is how `pydocker` speaks and listens.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]

PROGRAM = "import sys; sys.argv[0] = 'pydocker'\nfrom dockerd_py.cli.main import main\nsys.exit(main())"

Answer = bytes | Callable[["Request"], None]


class Request:
    """One request as it came, and its connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.data = b""
        while b"\r\n\r\n" not in self.data:
            piece = connection.recv(65536)
            if not piece:
                raise ConnectionError
            self.data += piece
        head, _, self.data = self.data.partition(b"\r\n\r\n")
        line, *lines = head.decode().split("\r\n")
        self.method, self.target, _ = line.split(" ")
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def body(self) -> bytes:
        """All of the request's body."""
        if self.headers.get("transfer-encoding") == "chunked":
            body = b""
            while True:
                while b"\r\n" not in self.data:
                    self.data += self.connection.recv(65536)
                size, _, self.data = self.data.partition(b"\r\n")
                length = int(size, 16)
                while len(self.data) < length + 2:
                    self.data += self.connection.recv(65536)
                if not length:
                    return body
                body += self.data[:length]
                self.data = self.data[length + 2 :]
        length = int(self.headers.get("content-length", "0"))
        while len(self.data) < length:
            self.data += self.connection.recv(65536)
        return self.data[:length]


class Daemon:
    """Listens on a unix socket; ``answers`` maps "METHOD /path" (without /v1.xx and query) to what is sent back."""

    def __init__(self, directory: Path, answers: dict[str, Answer]) -> None:
        self.path = directory / "docker.sock"
        self.answers = answers
        self.asked: list[Request] = []
        self.bodies: list[bytes] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(os.fspath(self.path))
        self._listener.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @property
    def lines(self) -> list[str]:
        """What was asked for: method and target, without the API's version."""
        return [f"{request.method} /{request.target.split('/', 2)[2]}" for request in self.asked]

    def command(self, *argv: str, **options: object) -> subprocess.CompletedProcess[str]:
        """`pydocker` with these arguments, to its end."""
        with self.start(*argv, **options) as process:
            out, err = process.communicate(timeout=30)
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def start(self, *argv: str, **options: object) -> subprocess.Popen[str]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        settings: dict[str, object] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            "cwd": REPOSITORY,
            "env": {**environment, "PYDOCKER_HOST": f"unix://{self.path}", "TZ": "UTC"},
            **options,
        }
        return subprocess.Popen([sys.executable, "-c", PROGRAM, *argv], **settings)  # type: ignore[call-overload]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(ConnectionError):  # a client that leaves is no failure of ours
            request = Request(connection)
            self.asked.append(request)
            key = f"{request.method} /{request.path.split('/', 2)[2]}"
            answer = self.answers.get(key, failure(404, f"nothing at {key}"))
            if callable(answer):
                answer(request)
            else:
                self.bodies.append(request.body())
                connection.sendall(answer)


def reply(value: object, status: str = "200 OK") -> bytes:
    data = json.dumps(value).encode()
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data
    )


def failure(status: int, message: str) -> bytes:
    return reply({"message": message}, f"{status} Error")


NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
NOT_MODIFIED = b"HTTP/1.1 304 Not Modified\r\n\r\n"
UPGRADED = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"


def chunked(*pieces: bytes) -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"
