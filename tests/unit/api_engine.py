"""A real ApiServer on a real socket, over an engine that keeps its containers in memory.

The engine here does no more than the contract says: it records what the front door asked of it, and answers with
values that a test put there.  What is tested is the front door alone.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import http.client
import json
import os
import socket
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dockerd_py.api.server import ApiServer
from dockerd_py.engine.events import EventLog
from dockerd_py.engine.model import (
    AttachOptions,
    Container,
    ContainerConfig,
    Created,
    HostConfig,
    Image,
    ImageChange,
    LogOptions,
    LogRecord,
    Progress,
    ProgressSink,
    State,
    Status,
    SystemInfo,
    WaitCondition,
    WaitResult,
)
from dockerd_py.errors import AlreadyInState, BadArchive, NoSuchContainer, NoSuchImage

IMAGE_ID = "1" * 64


def make_image(**changes: Any) -> Image:
    image = Image(
        id=IMAGE_ID,
        parent_id="",
        created=1_700_000_000_000_000_000,
        size=4711,
        tags=("busybox:latest",),
        digests=(),
        diff_ids=("sha256:" + "2" * 64,),
        config=ContainerConfig(cmd=("sh",), env=("PATH=/bin",), labels={"k": "v"}),
        author="",
        comment="Imported from -",
        architecture="amd64",
        os="linux",
        docker_version="",
        driver="overlay",
    )
    return replace(image, **changes)


def make_container(**changes: Any) -> Container:
    container = Container(
        id="a" * 64,
        name="nice_name",
        image_id=IMAGE_ID,
        created=1_700_000_000_000_000_000,
        config=ContainerConfig(image="busybox", cmd=("echo", "hi")),
        host=HostConfig(),
        state=State(),
        path="echo",
        args=("hi",),
        driver="overlay",
        log_driver="json-file",
        log_path="/log",
        runtime="crun",
        scope="container-" + "a" * 64 + ".scope",
        cgroup="",
        mounts=(),
        hostname_path="/hostname",
        hosts_path="/hosts",
        resolv_conf_path="/resolv.conf",
    )
    return replace(container, **changes)


class MemoryContainers:
    def __init__(self) -> None:
        self.all: dict[str, Container] = {}
        self.asked: list[tuple[Any, ...]] = []
        self.records: list[list[LogRecord]] = []
        self.exits: dict[str, asyncio.Future[WaitResult]] = {}
        self.waits_cancelled = 0
        self.logs_closed = 0
        self.fail: BaseException | None = None
        self.attached: list[tuple[AttachOptions, int, bytes]] = []

    def put(self, container: Container) -> Container:
        self.all[container.id] = container
        return container

    def get(self, ref: str) -> Container:
        for container in self.all.values():
            if ref in (container.id, container.name, "/" + container.name) or container.id.startswith(ref):
                return container
        raise NoSuchContainer(ref)

    def list(self, *, all: bool = False) -> list[Container]:
        return [one for one in self.all.values() if all or one.state.running]

    async def sizes(self, ref: str) -> Container:
        return replace(self.get(ref), size_rw=10, size_root_fs=20)

    async def create(self, config: ContainerConfig, host: HostConfig, name: str = "", *, min_memory: int) -> Created:
        self.asked.append(("create", config, host, name, min_memory))
        if self.fail is not None:
            raise self.fail
        container = make_container(id=os.urandom(32).hex(), name=name or "made", config=config, host=host)
        return Created(self.put(container).id, ("a warning",))

    async def start(self, ref: str) -> None:
        container = self.get(ref)
        if container.state.running:
            raise AlreadyInState(f"container {container.name} is running already")
        self.put(replace(container, state=State(Status.RUNNING, pid=1, started_at=1)))

    async def stop(self, ref: str, timeout: int | None = None) -> None:
        self.asked.append(("stop", ref, timeout))
        container = self.get(ref)
        if not container.state.running:
            raise AlreadyInState(f"container {container.name} is not running")
        self.put(replace(container, state=State(Status.EXITED, started_at=1, finished_at=2)))

    async def restart(self, ref: str, timeout: int | None = None) -> None:
        self.asked.append(("restart", ref, timeout))

    async def kill(self, ref: str, signal: str = "SIGKILL") -> None:
        self.asked.append(("kill", self.get(ref).id, signal))

    async def wait(self, ref: str, condition: WaitCondition = WaitCondition.NOT_RUNNING) -> WaitResult:
        container = self.get(ref)
        future = self.exits.setdefault(container.id, asyncio.get_running_loop().create_future())
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self.waits_cancelled += 1
            raise

    async def remove(self, ref: str, *, force: bool = False, volumes: bool = False) -> None:
        self.asked.append(("remove", ref, force, volumes))
        del self.all[self.get(ref).id]

    async def logs(self, ref: str, options: LogOptions) -> AsyncIterator[list[LogRecord]]:
        self.asked.append(("logs", options))
        try:
            for batch in self.records:
                yield batch
            if options.follow:
                await asyncio.get_running_loop().create_future()
        finally:
            self.logs_closed += 1

    async def check_attach(self, ref: str, options: AttachOptions) -> Container:
        return self.get(ref)

    async def attach(self, ref: str, options: AttachOptions, fd: int, early: bytes) -> None:
        """Echo in capitals what the client sends, then say how much it was."""
        self.attached.append((options, len(early), early[:100]))

        def serve() -> None:
            with socket.socket(fileno=fd) as connection:
                connection.setblocking(True)
                total = len(early)
                with contextlib.suppress(OSError):
                    connection.sendall(early[:100].upper())
                    while data := connection.recv(65536):
                        total += len(data)
                    connection.sendall(b"<%d>" % total)

        threading.Thread(target=serve, daemon=True).start()

    async def resize(self, ref: str, height: int, width: int) -> None:
        self.asked.append(("resize", ref, height, width))


class MemoryImages:
    def __init__(self) -> None:
        self.all = [make_image()]
        self.asked: list[tuple[Any, ...]] = []
        self.received = 0
        self.broke_off: BaseException | None = None
        self.progress: list[Progress] = []
        self.fail_after_progress = False

    def list(self) -> list[Image]:
        return self.all

    def get(self, ref: str) -> Image:
        for image in self.all:
            bare = ref.removeprefix("sha256:")
            if {ref, f"{ref}:latest"} & set(image.tags) or (bare and image.id.startswith(bare)):
                return image
        raise NoSuchImage(ref)

    async def import_(self, source: AsyncIterator[bytes], *, progress: ProgressSink, **settings: Any) -> str:
        self.asked.append(("import", settings))
        for step in self.progress:
            progress(step)
            await asyncio.sleep(0.01)
        if self.fail_after_progress:
            raise BadArchive("this is no tar")
        try:
            async for chunk in source:
                self.received += len(chunk)
        except BaseException as error:
            self.broke_off = error
            raise
        if not self.received:
            raise BadArchive("the archive is empty")
        return IMAGE_ID

    async def remove(self, ref: str, *, force: bool = False, prune: bool = True) -> list[ImageChange]:
        self.asked.append(("remove", ref, force, prune))
        image = self.get(ref)
        return [ImageChange(untagged=image.tags[0]), ImageChange(deleted=image.id)]

    async def tag(self, ref: str, repo: str, tag: str, force: bool) -> None:
        self.asked.append(("tag", self.get(ref).id, repo, tag, force))


class MemoryEngine:
    def __init__(self) -> None:
        self.containers = MemoryContainers()
        self.images = MemoryImages()
        self.events = EventLog()
        self.config = SimpleNamespace()

    async def info(self) -> SystemInfo:
        return SystemInfo(
            id="ID", name="host", containers=1, running=0, paused=0, stopped=1, images=1, driver="overlay",
            driver_status=(("Backing Filesystem", "extfs"),), log_driver="journald", cgroup_driver="systemd",
            cgroup_version="2", root="/var/lib/pydockerd", debug=False, kernel_version="6.1", operating_system="Debian",
            os_version="12", architecture="x86_64", cpus=2, memory=1 << 30, memory_limit=True, swap_limit=True,
            cpu_limit=True, pids_limit=True, ipv4_forwarding=True, file_descriptors=10, event_listeners=0,
            runtime="crun", runtime_version="1.8", init_system="systemd", warnings=(),
        )  # fmt: skip


class Served:
    """A running server: its engine, and ways to talk to it."""

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop, engine: MemoryEngine, server: ApiServer) -> None:
        self.path = path
        self.loop = loop
        self.engine = engine
        self.server = server

    def connect(self, timeout: float = 10) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout)
        connection.connect(str(self.path))
        return connection

    def call(
        self, method: str, url: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """One request on a connection of its own."""
        client = http.client.HTTPConnection("localhost", timeout=10)
        client.sock = self.connect()
        if isinstance(body, dict):
            body, headers = json.dumps(body), {"Content-Type": "application/json", **(headers or {})}
        client.request(method, url, body=body, headers=headers or {}, encode_chunked=hasattr(body, "__next__"))
        response = client.getresponse()
        data = response.read()
        client.close()
        return response, data

    def json(self, method: str, url: str, body: Any = None) -> Any:
        response, data = self.call(method, url, body)
        assert response.status < 300, data
        return json.loads(data) if data else None

    def exchange(self, data: bytes, *, half_close: bool = False) -> bytes:
        """Send raw bytes and return everything up to the end of the connection."""
        with self.connect() as connection:
            connection.sendall(data)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            return read_to_end(connection)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def do(self, function: Any, *arguments: Any) -> Any:
        """Call a plain function in the server's loop."""
        result: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self.loop.call_soon_threadsafe(lambda: result.set_result(function(*arguments)))
        return result.result(10)


def read_to_end(connection: socket.socket) -> bytes:
    data = b""
    while piece := connection.recv(65536):
        data += piece
    return data


def read_head(connection: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        piece = connection.recv(1)
        assert piece, data
        data += piece
    return data


def eventually(condition: Any, seconds: float = 5) -> None:
    import time

    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)


@contextlib.contextmanager
def serving(directory: Path) -> Iterator[Served]:
    path = directory / "api.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    engine = MemoryEngine()
    server = ApiServer(engine)  # type: ignore[arg-type]
    served = Served(path, loop, engine, server)
    served.run(server.start([listener]))
    try:
        yield served
    finally:
        served.run(server.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
