"""The engine's own use of exec: a process is run to its end without a client (as health checks do)."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from daemons import busybox_tar

from dockerd_py import wire
from dockerd_py.config import Config, NetworkConfig
from dockerd_py.engine import execs
from dockerd_py.engine.engine import Engine
from dockerd_py.engine.model import ContainerConfig, ExecConfig, HostConfig
from dockerd_py.errors import CommandNotFound, NoSuchExec, NotRunning, NotSupported
from dockerd_py.runtime.monitors import Monitor


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[tuple[Engine, str]]:
    """An engine with a container that sleeps."""
    before = Path.cwd()
    config = Config(
        root=directory / "root", exec_root=directory / "run", pidfile=None, network=NetworkConfig(bridge="none")
    )
    engine = await Engine.open(config)
    try:

        async def upload() -> AsyncIterator[bytes]:
            yield busybox_tar(directory)

        await engine.images.import_(upload(), repo="busybox", tag="latest")
        config = ContainerConfig(image="busybox", cmd=("sleep", "100"))
        made = await engine.containers.create(config, HostConfig(network_mode="none"))
        await engine.containers.start(made.id)
        try:
            yield engine, made.id
        finally:
            await engine.containers.remove(made.id, force=True)
    finally:
        await engine.close()
        os.chdir(before)


def with_engine(directory: Path, scene: Callable[[Engine, str], Awaitable[None]]) -> None:
    async def main() -> None:
        async with running(directory) as (engine, container):
            await scene(engine, container)

    asyncio.run(main())


def command(*argv: str, **more: object) -> ExecConfig:
    return ExecConfig(argv, attach_stdout=True, attach_stderr=True, **more)  # type: ignore[arg-type]


def test_run_gives_the_exit_code_and_as_much_output_as_was_asked_for(tmp_path: Path) -> None:
    async def scene(engine: Engine, container: str) -> None:
        script = "echo out; sleep 0.1; echo err >&2; exit 3"
        assert await engine.execs.run(container, command("sh", "-c", script), timeout=30) == (3, b"out\nerr\n", False)
        flood = command("sh", "-c", "head -c 3000000 /dev/zero")
        assert await engine.execs.run(container, flood, timeout=30, limit=5) == (0, bytes(5), False)
        with pytest.raises(CommandNotFound):
            await engine.execs.run(container, command("nosuch"), timeout=30)

    with_engine(tmp_path, scene)


def test_run_kills_what_takes_too_long(tmp_path: Path) -> None:
    async def scene(engine: Engine, container: str) -> None:
        begin = time.monotonic()
        result = await engine.execs.run(container, command("sh", "-c", "echo up; exec sleep 60"), timeout=1)
        assert result == (137, b"up\n", True)
        assert time.monotonic() - begin < 30
        assert engine.containers.get(container).exec_ids == ()
        await asyncio.sleep(0)
        assert len((await engine.top(container)).rows) == 1

    with_engine(tmp_path, scene)


def test_a_run_that_is_cancelled_leaves_no_process(tmp_path: Path) -> None:
    async def scene(engine: Engine, container: str) -> None:
        for delay in (0.0, *(0.005 + number / 1000 for number in range(15)), 0.5):
            task = asyncio.ensure_future(engine.execs.run(container, command("sleep", "60"), timeout=50))
            await asyncio.sleep(delay)
            task.cancel()
            await asyncio.wait((task,), timeout=20)
            assert task.cancelled()
            alone = 0  # looks in a row: it may come up for a moment before it is killed
            for _ in range(100):
                alone = alone + 1 if len((await engine.top(container)).rows) == 1 else 0
                if alone == 4:
                    break
                await asyncio.sleep(0.05)
            assert alone == 4

    with_engine(tmp_path, scene)


def test_a_run_ends_with_its_container(tmp_path: Path) -> None:
    async def scene(engine: Engine, container: str) -> None:
        task = asyncio.ensure_future(engine.execs.run(container, command("sleep", "60"), timeout=50))
        await asyncio.sleep(0.5)
        await engine.containers.kill(container)
        assert (await task).exit_code == 137
        with pytest.raises(NotRunning):
            await engine.execs.run(container, command("true"), timeout=5)

    with_engine(tmp_path, scene)


def test_what_rests_is_forgotten_in_time_and_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execs, "KEPT", 5)

    async def scene(engine: Engine, container: str) -> None:
        made = [engine.execs.create(container, command("true")) for _ in range(8)]
        engine.execs.get(made[-1])
        assert len(engine.containers.get(container).exec_ids) == 5
        with pytest.raises(NoSuchExec):
            engine.execs.get(made[0])
        await engine.execs.run(container, command("true"), timeout=30)
        monkeypatch.setattr(execs, "KEPT_SECONDS", 0.0)
        await engine.execs.start(made[-1])
        while True:
            try:
                await engine.execs.inspect(made[-1])
            except NoSuchExec:
                break
            await asyncio.sleep(0.02)

    with_engine(tmp_path, scene)


def test_a_monitor_of_an_older_version_is_named_as_the_reason(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def old_monitor() -> None:
        while True:
            message, fds = wire.receive(theirs)
            wire.close_all(fds)
            if message is None:
                return
            error = f"this monitor (version 1) does not know {message['op']!r}"
            wire.send(theirs, {"seq": message["seq"], "error": error})

    async def scene(engine: Engine, container: str) -> None:
        record = engine.containers.record(container)
        own, record.monitor = record.monitor, Monitor(ours)
        try:
            with pytest.raises(NotSupported, match="was started by an older version"):
                await engine.execs.run(container, command("true"), timeout=30)
            await engine.execs.adopt(record, record.monitor)
        finally:
            record.monitor.close()
            record.monitor = own

    thread = threading.Thread(target=old_monitor)
    thread.start()
    with_engine(tmp_path, scene)
    thread.join()
