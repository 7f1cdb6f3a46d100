#!/usr/bin/python3
"""Time the same work of Docker's API against several daemons, in turn, in one run.

    peer_bench.py NAME=SOCKET [NAME=SOCKET ...] [--image busybox] [-n 15] [--tar FILE] [--only KEY,KEY]

Prints one row for each figure: the median (and the least) of each daemon, and its ratio to the first one named.
A figure that a daemon cannot give is a dash; why is said on standard error.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import http.client
import io
import json
import random
import socket
import statistics
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

API_VERSION = "v1.41"
LOG_LINES = 100_000
LOG_COMMAND = f'yes "a line of log text that is sixty-four characters long, about so" | head -n {LOG_LINES}'


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float = 120) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Daemon:
    """One engine under measurement, spoken to over one kept connection unless ``fresh`` is asked for."""

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self._path = path
        self._connection: UnixConnection | None = None

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        fresh: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The reply's JSON, or its bytes where it is none.  ``body``: bytes, a file, or a value for JSON.

        Raises RuntimeError for any status of 400 or more.
        """
        kept = None if fresh else self._connection
        connection = kept or UnixConnection(self._path)
        sent = dict(headers or {})
        if body is not None and not isinstance(body, (bytes, io.IOBase)):
            body = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        try:
            connection.request(method, f"/{API_VERSION}{path}", body=body, headers=sent)
            reply = connection.getresponse()
            data = reply.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            if kept is None:
                raise
            # The daemon closed the connection while it was idle.
            self._connection = None
            return self.call(method, path, body, headers=headers)
        if fresh:
            connection.close()
        else:
            self._connection = connection
        if reply.status >= 400:
            raise RuntimeError(f"{method} {path}: {reply.status} {data[:200]!r}")
        try:
            return json.loads(data)
        except ValueError:
            return data

    def create(self, image: str, command: list[str], *, fresh: bool = False, **host: Any) -> str:
        settings = {"Image": image, "Cmd": command, "HostConfig": host}
        created: dict[str, str] = self.call("POST", "/containers/create", settings, fresh=fresh)
        return created["Id"]

    def cycle(self, image: str, *, fresh: bool = False, **host: Any) -> None:
        """Create, start, wait for and remove one container."""
        container = self.create(image, ["/bin/true"], fresh=fresh, **host)
        self.call("POST", f"/containers/{container}/start", fresh=fresh)
        reply = self.call("POST", f"/containers/{container}/wait", fresh=fresh)
        if reply["StatusCode"] != 0:
            raise RuntimeError(f"/bin/true ended with {reply}")
        self.call("DELETE", f"/containers/{container}", fresh=fresh)


def timed(work: Callable[[], object]) -> float:
    """Seconds that ``work`` takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


@dataclass
class Bench:
    """Measures each figure on all daemons alternately, so that a slow moment of the machine meets them alike."""

    daemons: list[Daemon]
    image: str
    only: set[str]
    figures: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def wants(self, *keys: str) -> bool:
        return not self.only or not self.only.isdisjoint(keys)

    def measure(self, key: str, work: Callable[[Daemon], float], times: int, *, warm: bool = True) -> None:
        """``work`` returns seconds.  It runs ``times`` times a daemon, after once uncounted where ``warm``."""
        if not self.wants(key):
            return
        seconds: dict[str, list[float]] = {daemon.name: [] for daemon in self.daemons}
        able = list(self.daemons)
        for turn in range(times + warm):
            for daemon in list(able):
                try:
                    value = work(daemon)
                except (OSError, RuntimeError, http.client.HTTPException) as error:
                    print(f"# {key} {daemon.name}: {error}", file=sys.stderr)
                    able.remove(daemon)
                    seconds[daemon.name] = []
                else:
                    if turn >= warm:
                        seconds[daemon.name].append(value)
        self.figures[key] = seconds
        print(self._row(key, seconds), flush=True)

    def _row(self, key: str, seconds: Mapping[str, list[float]]) -> str:
        base = seconds[self.daemons[0].name]
        cells = [f"{key:20}"]
        for daemon in self.daemons:
            values = seconds[daemon.name]
            if not values:
                cells.append(f"{daemon.name} -")
                continue
            median = statistics.median(values)
            cell = f"{daemon.name} {median * 1e3:9.1f} ms (min {min(values) * 1e3:.1f})"
            if base and daemon is not self.daemons[0]:
                cell += f" x{median / statistics.median(base):.2f}"
            cells.append(cell)
        return "  ".join(cells)

    def runs(self, times: int) -> None:
        image = self.image
        self.measure("ping", lambda daemon: timed(lambda: daemon.call("GET", "/_ping")), 50)
        self.measure("run_none", lambda daemon: timed(lambda: daemon.cycle(image, NetworkMode="none")), times)
        self.measure("run_bridge", lambda daemon: timed(lambda: daemon.cycle(image)), times)
        ports = {"80/tcp": [{"HostPort": ""}]}
        self.measure("run_port", lambda daemon: timed(lambda: daemon.cycle(image, PortBindings=ports)), times)
        self.measure("run_24_by_12", self._parallel, 3, warm=False)
        self.measure("start_100", lambda daemon: self._starts(daemon, 100), 3, warm=False)
        self.measure("exec", self._execs, 5)

    def ports(self, times: int, many: int = 500, each: int = 50) -> None:
        """The start of a container with a published port, alone and beside so many that are published already."""
        beside = f"port_beside_{many}"
        self.measure("port_alone", self._publish, times)
        if not self.wants(beside):
            return
        bindings = {f"{port}/tcp": [{"HostPort": ""}] for port in range(1, each + 1)}
        made = {daemon.name: [self._sleeper(daemon, bindings) for _ in range(many // each)] for daemon in self.daemons}
        try:
            self.measure(beside, self._publish, times)
        finally:
            for daemon in self.daemons:
                for container in made[daemon.name]:
                    daemon.call("DELETE", f"/containers/{container}?force=1")

    def _publish(self, daemon: Daemon) -> float:
        settings = {"Image": self.image, "Cmd": ["sleep", "600"], "ExposedPorts": {"80/tcp": {}}}
        host = {"PortBindings": {"80/tcp": [{"HostPort": ""}]}}
        container = daemon.call("POST", "/containers/create", {**settings, "HostConfig": host})["Id"]
        try:
            return timed(lambda: daemon.call("POST", f"/containers/{container}/start"))
        finally:
            daemon.call("DELETE", f"/containers/{container}?force=1")

    def _sleeper(self, daemon: Daemon, bindings: Mapping[str, Any]) -> str:
        container = daemon.create(self.image, ["sleep", "6000"], PortBindings=bindings)
        daemon.call("POST", f"/containers/{container}/start")
        return container

    def _starts(self, daemon: Daemon, many: int) -> float:
        """So many at once on the default network, each of which gets an address of its own."""
        made = [daemon.create(self.image, ["sleep", "6000"]) for _ in range(many)]

        def each(method: str, tail: str) -> None:
            with concurrent.futures.ThreadPoolExecutor(many) as threads:
                list(threads.map(lambda one: daemon.call(method, f"/containers/{one}{tail}", fresh=True), made))

        try:
            seconds = timed(lambda: each("POST", "/start"))
            shown = [daemon.call("GET", f"/containers/{one}/json") for one in made]
            addresses = {one["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] for one in shown}
            if len(addresses) != many or "" in addresses:
                raise RuntimeError(f"{many} containers have {len(addresses)} addresses")
            return seconds
        finally:
            each("DELETE", "?force=1")

    def _parallel(self, daemon: Daemon) -> float:
        def work() -> None:
            with concurrent.futures.ThreadPoolExecutor(12) as threads:
                list(threads.map(lambda _: daemon.cycle(self.image, fresh=True), range(24)))

        return timed(work)

    def _execs(self, daemon: Daemon) -> float:
        container = daemon.create(self.image, ["sleep", "600"])
        daemon.call("POST", f"/containers/{container}/start")

        def work() -> None:
            for _ in range(5):
                settings = {"Cmd": ["/bin/true"], "AttachStdout": True}
                made = daemon.call("POST", f"/containers/{container}/exec", settings)
                daemon.call("POST", f"/exec/{made['Id']}/start", {"Detach": False, "Tty": False})

        try:
            return timed(work) / 5
        finally:
            daemon.call("DELETE", f"/containers/{container}?force=1")

    def logs(self) -> None:
        self.measure(f"log_write_{LOG_LINES // 1000}k", self._log_write, 3, warm=False)
        self.measure(f"log_read_{LOG_LINES // 1000}k", self._log_read, 3, warm=False)

    def _log_write(self, daemon: Daemon) -> float:
        container = daemon.create(self.image, ["sh", "-c", LOG_COMMAND], NetworkMode="none")

        def work() -> None:
            daemon.call("POST", f"/containers/{container}/start")
            daemon.call("POST", f"/containers/{container}/wait")

        seconds = timed(work)
        kept = daemon.call("GET", f"/containers/{container}/logs?stdout=1").count(b"characters")
        daemon.call("DELETE", f"/containers/{container}")
        if kept != LOG_LINES:
            print(f"# {daemon.name} lost {LOG_LINES - kept} of {LOG_LINES} log lines", file=sys.stderr)
        return seconds

    def _log_read(self, daemon: Daemon) -> float:
        container = daemon.create(self.image, ["sh", "-c", LOG_COMMAND], NetworkMode="none")
        daemon.call("POST", f"/containers/{container}/start")
        daemon.call("POST", f"/containers/{container}/wait")
        seconds = timed(lambda: daemon.call("GET", f"/containers/{container}/logs?stdout=1"))
        daemon.call("DELETE", f"/containers/{container}")
        return seconds

    def builds(self) -> None:
        self.measure(
            "build_8_run", lambda daemon: timed(lambda: self._build(daemon, time.time_ns())), 3, warm=False
        )
        self.measure("build_8_cached", lambda daemon: timed(lambda: self._build(daemon, "same")), 5)

    def _build(self, daemon: Daemon, nonce: object) -> None:
        steps = [f"FROM {self.image}", f"ENV N={nonce}", *(f"RUN echo {step} > /f{step}" for step in range(8))]
        dockerfile = "\n".join([*steps, ""]).encode()
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as archive:
            member = tarfile.TarInfo("Dockerfile")
            member.size = len(dockerfile)
            archive.addfile(member, io.BytesIO(dockerfile))
        headers = {"Content-Type": "application/x-tar"}
        reply = daemon.call("POST", "/build?t=bench:latest&rm=1", context.getvalue(), headers=headers)
        if not isinstance(reply, bytes) or b"Successfully built" not in reply:
            raise RuntimeError(f"the build failed: {reply!r}")

    def imports(self, tar: Path) -> None:
        def work(daemon: Daemon) -> float:
            with tar.open("rb") as body:
                seconds = timed(lambda: import_tar(daemon, "bigbench", body))
            daemon.call("DELETE", "/images/bigbench:latest")
            return seconds

        self.measure("import_tar", work, 3, warm=False)

    def archives(self) -> None:
        """An image of ten layers in and out again, each of a hundred files of 32 KiB."""
        archive = layered_archive(layers=10, files=100, size=32 << 10)
        headers = {"Content-Type": "application/x-tar"}

        def load(daemon: Daemon) -> float:
            seconds = timed(lambda: daemon.call("POST", "/images/load", archive, fresh=True, headers=headers))
            daemon.call("DELETE", "/images/layered:latest?force=1")
            return seconds

        def save(daemon: Daemon) -> float:
            daemon.call("POST", "/images/load", archive, fresh=True, headers=headers)
            seconds = timed(lambda: daemon.call("GET", "/images/layered:latest/get", fresh=True))
            daemon.call("DELETE", "/images/layered:latest?force=1")
            return seconds

        self.measure("load_10", load, 5)
        self.measure("save_10", save, 5)

    def lists(self, many: int) -> None:
        def work(daemon: Daemon) -> float:
            made = [daemon.create(self.image, ["true"], NetworkMode="none") for _ in range(many)]
            path = "/containers/json?all=1"
            seconds = statistics.median(timed(lambda: daemon.call("GET", path)) for _ in range(5))
            for container in made:
                daemon.call("DELETE", f"/containers/{container}")
            return seconds

        self.measure(f"ps_{many}", work, 1, warm=False)


def import_tar(daemon: Daemon, name: str, body: IO[bytes]) -> None:
    path = f"/images/create?fromSrc=-&repo={name}&tag=latest"
    daemon.call("POST", path, body, fresh=True, headers={"Content-Type": "application/x-tar"})


def layered_archive(*, layers: int, files: int, size: int) -> bytes:
    """An image ``layered:latest`` as ``docker save`` writes it (image-spec v1.2): each layer has files of its own."""
    blobs = [_layer(number, files, size) for number in range(layers)]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["true"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(blob).hexdigest()}" for blob in blobs]},
        "history": [{"created_by": f"layer {number}"} for number in range(layers)],
    }
    text = json.dumps(config).encode()
    name = f"{hashlib.sha256(text).hexdigest()}.json"
    paths = [f"{number}/layer.tar" for number in range(layers)]
    manifest = [{"Config": name, "RepoTags": ["layered:latest"], "Layers": paths}]
    members = [*zip(paths, blobs, strict=True), (name, text), ("manifest.json", json.dumps(manifest).encode())]
    return _tar(members)


def _layer(number: int, files: int, size: int) -> bytes:
    content = random.Random(number)
    return _tar((f"layer{number}/file{index}", content.randbytes(size)) for index in range(files))


def _tar(members: Iterable[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("daemons", nargs="+", metavar="NAME=SOCKET")
    parser.add_argument("--image", default="busybox:latest")
    parser.add_argument("-n", type=int, default=15, help="how often the short figures are taken")
    parser.add_argument("--tar", type=Path, help="a root filesystem for import_tar; without it, it is left out")
    parser.add_argument("--only", default="", help="keys of the figures wanted, with commas")
    parser.add_argument("--many", type=int, default=200, help="containers for the ps figure")
    options = parser.parse_args()
    daemons = [Daemon(*named.split("=", 1)) for named in options.daemons]
    bench = Bench(daemons, options.image, set(filter(None, options.only.split(","))))
    bench.runs(options.n)
    bench.ports(options.n)
    bench.logs()
    bench.builds()
    if options.tar:
        bench.imports(options.tar)
    bench.archives()
    bench.lists(options.many)


if __name__ == "__main__":
    main()
