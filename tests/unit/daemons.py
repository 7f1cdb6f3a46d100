"""A real daemon on a root of its own, for tests: started, asked over HTTP, killed, looked at afterwards."""

from __future__ import annotations

import http.client
import io
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import wire
from bundles import make_rootfs
from wire import Reply, frames

NO_NETWORK = ("-b", "none")
"""Dozens of daemons run side by side in the machine's own network namespace: none of them touches that."""


def spawn(argv: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(argv, stderr=log, env=environment, cwd="/")


class Daemon:
    """One root directory and the daemons that serve it one after the other."""

    def __init__(self, directory: Path, *flags: str, network: bool = False) -> None:
        """network: it has its networks, and so needs a network namespace of its own."""
        self.directory = directory
        self.root = directory / "root"
        self.run = directory / "run"
        self.socket = directory / "sock"
        self.pidfile = directory / "pid"
        self.log = directory / "daemon.log"
        self.flags = flags
        self.network = network
        self.spawn: Callable[..., Any] = spawn  # of argv and log
        self.process: Any = None  # a subprocess.Popen, or what `spawn` returns

    def argv(self, *flags: str) -> list[str]:
        return [
            *(sys.executable, "-m", "dockerd_py.daemon.main", "-D", "-H", f"unix://{self.socket}"),
            *("-g", str(self.root), "-p", str(self.pidfile), "--exec-root", str(self.run)),
            *(() if self.network else NO_NETWORK),
            *(flags or self.flags),
        ]

    def start(self, *flags: str) -> None:
        self.launch(*flags)
        assert self.await_ready(), self.log.read_text()[-10_000:]

    def launch(self, *flags: str) -> None:
        """Start it, and don't wait."""
        with open(self.log, "ab") as log:
            self.process = self.spawn(self.argv(*flags), log)

    def await_ready(self) -> bool:
        """False for a daemon that has ended instead."""
        until(lambda: self.ready() or self.process is None or self.process.poll() is not None, 30)
        return self.process is not None and self.process.poll() is None

    def ready(self) -> bool:
        try:
            return self.get("/_ping").status == 200
        except (OSError, http.client.HTTPException):
            return False

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        """Wait for the end of a daemon that somebody has killed; its exit code."""
        assert self.process is not None
        code = self.process.wait(30)
        self.process = None
        return code

    def close(self) -> None:
        """Clear and stop; what is left over afterwards is for the test to look at."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        self.clear()
        self.stop()

    def clear(self) -> None:
        """Remove every container and volume."""
        self.clear_containers()
        for volume in self.get("/volumes").json["Volumes"]:
            self.delete(f"/volumes/{volume['Name']}")

    def clear_containers(self) -> None:
        for container in self.get("/containers/json?all=1").json:
            self.delete(f"/containers/{container['Id']}?force=1")

    def call(
        self, method: str, path: str, body: object = None, timeout: float = 60, version: str = "1.43"
    ) -> Reply:
        return self.ask(method, f"/v{version}{path}", body, timeout)

    def ask(self, method: str, url: str, body: object = None, timeout: float = 60) -> Reply:
        """As `call`, with the url as it is, without a version put before it."""
        return wire.ask(self.socket, method, url, body, timeout)

    def connect(self, timeout: float = 20) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout)
        connection.connect(str(self.socket))
        return connection

    def exchange(self, data: bytes, *, half_close: bool = False) -> bytes:
        """Send raw bytes; everything up to the end of the connection."""
        with self.connect() as connection:
            connection.sendall(data)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            return wire.read_to_end(connection)

    def get(self, path: str, **options: Any) -> Reply:
        return self.call("GET", path, **options)

    def post(self, path: str, body: object = None, **options: Any) -> Reply:
        return self.call("POST", path, body, **options)

    def delete(self, path: str) -> Reply:
        return self.call("DELETE", path)

    # What a test does all the time

    def import_busybox(self, name: str = "busybox") -> None:
        reply = self.post(f"/images/create?fromSrc=-&repo={name}", busybox_tar(self.directory))
        assert reply.status == 200, reply.data
        assert b'"error"' not in reply.data, reply.data

    def create(self, *command: str, name: str = "", host: dict[str, Any] | None = None, **config: Any) -> str:
        settings = {"NetworkMode": "none", **(host or {})}
        body = {"Image": "busybox", "Cmd": list(command), "HostConfig": settings, **config}
        reply = self.post("/containers/create" + (f"?name={name}" if name else ""), body)
        assert reply.status == 201, reply.data
        return str(reply.json["Id"])

    def run_detached(self, *command: str, **options: Any) -> str:
        container = self.create(*command, **options)
        reply = self.post(f"/containers/{container}/start")
        assert reply.status == 204, reply.data
        return container

    def run_to_end(self, *command: str, **options: Any) -> tuple[int, bytes]:
        """(exit code, the two streams as one)."""
        container = self.run_detached(*command, **options)
        return self.wait(container), self.logs(container)

    def wait(self, container: str) -> int:
        reply = self.post(f"/containers/{container}/wait")
        assert reply.status == 200, reply.data
        return int(reply.json["StatusCode"])

    def inspect(self, container: str) -> Any:
        reply = self.get(f"/containers/{container}/json")
        assert reply.status == 200, reply.data
        return reply.json

    def logs(self, container: str, query: str = "stdout=1&stderr=1") -> bytes:
        reply = self.get(f"/containers/{container}/logs?{query}")
        assert reply.status == 200, reply.data
        return b"".join(payload for _stream, payload in frames(reply.data))

    # What must not be left over

    def held(self) -> tuple[int, int, int]:
        """What the daemon itself holds: (tasks, open files, listeners to events)."""
        info = self.get("/info").json
        return info["NGoroutines"], info["NFd"], info["NEventsListener"]

    def resting(self) -> tuple[int, int, int]:
        """`held`, once nothing of what was asked before is in it any more."""
        trash = self.root / "overlay/trash"
        until(lambda: not trash.exists() or not list(trash.iterdir()))  # it is emptied later, by a task
        deadline = time.monotonic() + 10
        seen = [self.held()]
        while len(seen) < 4 or len(set(seen[-4:])) > 1:
            assert time.monotonic() < deadline, seen
            time.sleep(0.02)
            seen.append(self.held())
        return seen[-1]

    def mounts(self) -> list[str]:
        text = Path("/proc/self/mountinfo").read_text()
        return [line for line in text.splitlines() if f"{self.directory}/" in line]

    def processes(self) -> list[str]:
        """Command lines of processes that name this directory."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    text = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                except OSError:
                    continue
                if str(self.directory) in text and int(entry.name) != os.getpid():
                    found.append(text)
        return found

    def leftovers(self) -> list[str]:
        """Whatever a container might have left, once all of them are removed."""
        found = [f"mount {line}" for line in self.mounts()]
        for directory in (self.root / "containers", self.root / "spool", self.run / "containers", self.run / "runtime"):
            if directory.is_dir():
                found += [str(path) for path in directory.iterdir()]
        volumes = self.root / "volumes"
        return found + [str(path) for path in volumes.iterdir() if path.name != ".trash"]


_tar: bytes = b""


def busybox_tar(directory: Path) -> bytes:
    global _tar  # noqa: PLW0603 - the same for every test
    if not _tar:
        rootfs = make_rootfs(directory / "rootfs-for-tar")
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.add(rootfs, arcname=".")
        _tar = buffer.getvalue()
    return _tar


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Wait for a condition, or fail."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)
