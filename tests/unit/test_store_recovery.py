"""The root directory: one daemon at a time, and in order again after any death of it."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from store_house import SMALL, a_container, layer_directories, needs_root, opened, rows, run, stream, tree

from dockerd_py.errors import ConfigError
from dockerd_py.store import mounts
from dockerd_py.store.containers import READY
from dockerd_py.store.recovery import Recovered
from dockerd_py.store.store import Store

pytestmark = needs_root

NOTHING = Recovered(0, 0, 0, 0)


async def set_state(store: Store, statement: str, *values: str) -> None:
    await store.db.run(lambda connection: connection.execute(statement, values))


def consistent(store: Store) -> Any:
    """What a check of the whole store would look at; raises AssertionError on the first thing that is wrong."""

    async def check() -> None:
        await store.driver.trash.emptied()
        layers = await rows(store, "layers")
        rw_layers = await rows(store, "rw_layers")
        containers = await rows(store, "containers")
        images = await rows(store, "images")
        assert {row["state"] for row in (*layers, *rw_layers)} <= {"ready"}
        assert {row["phase"] for row in containers} <= {READY}
        assert {row["container_id"] for row in rw_layers} == {row["id"] for row in containers}
        assert layer_directories(store) == {row["cache_id"] for row in (*layers, *rw_layers)}
        chains = {row["chain_id"] for row in layers}
        assert {row["chain_id"] for row in images} | {row["parent_chain"] for row in rw_layers} - {None} == chains
        for row in layers:
            assert (store.driver.target(row["cache_id"]) / "etc/motd").read_bytes() == b"hello\n"
        assert os.listdir(store.driver.trash.directory) == []
        owners = {store.driver.root(row["cache_id"]) for row in rw_layers}
        assert {Path(point.path) for point in mounts.mounts_below(store.root)} <= owners

    return check()


def test_a_root_belongs_to_one_daemon_at_a_time(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path):
            with pytest.raises(ConfigError) as caught:
                await Store.open(tmp_path)
            assert str(caught.value) == (
                f"{tmp_path} is in use by another pydockerd with process id {os.getpid()}, which holds "
                f"{tmp_path}/pydockerd.lock: stop it, or choose another root by -g"
            )
        async with opened(tmp_path):
            pass

    run(steps())


def test_a_killed_daemon_holds_no_lock(tmp_path: Path) -> None:
    program = (
        "import asyncio, os, sys; from pathlib import Path; from dockerd_py.store.store import Store\n"
        "async def steps():\n"
        "    await Store.open(Path(sys.argv[1])); os.kill(os.getpid(), 9)\n"
        "asyncio.run(steps())\n"
    )
    assert subprocess.run([sys.executable, "-c", program, tmp_path], check=False).returncode == -9

    async def steps() -> None:
        async with opened(tmp_path) as store:
            assert await store.recover() == NOTHING

    run(steps())


def test_a_store_that_fails_to_open_lets_go_of_the_root(tmp_path: Path) -> None:
    async def steps() -> None:
        with pytest.raises(ConfigError, match="unknown storage driver"):
            await Store.open(tmp_path, "zfs")
        async with opened(tmp_path) as store:
            assert store.driver.name == "overlay"
            assert store.working_directory == tmp_path / "overlay"

    run(steps())


def test_recovering_a_store_in_order_changes_nothing(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            image = await store.images.import_(stream(SMALL), repo="base")
            row = a_container(store, image.id)
            await store.create_container(row, image.chain_id)
            root = await store.layers.mount_rw(row.id)
            (root / "work").write_text("going on")
            await store.driver.trash.emptied()
            before = tree(tmp_path)
            for _ in range(2):
                assert await store.recover() == NOTHING
            assert tree(tmp_path) == before
        # A daemon that starts again finds its containers' mounts as they were.
        async with opened(tmp_path) as store:
            assert await store.recover() == NOTHING
            assert (store.layers.root(row.id) / "work").read_text() == "going on"
            assert await store.layers.mount_rw(row.id) == root
            assert len(mounts.mounts_below(tmp_path)) == 1
            await store.remove_container(row.id)

    run(steps())


def test_what_was_half_made_is_undone(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            image = await store.images.import_(stream(SMALL), repo="base")
            kept, half = a_container(store, image.id), a_container(store, image.id)
            await store.create_container(kept, image.chain_id)
            # Stopped between the two commits of a create, with the mount made already; and inside an import.
            await store.db.run(lambda connection: store.containers.insert_in(connection, half))
            rw = await store.db.run(lambda connection: store.layers.plan_rw(connection, half.id, image.chain_id))
            await store.layers.make_rw(rw)
            await store.layers.mount_rw(half.id)
            await set_state(
                store, "INSERT INTO layers (cache_id, driver, state) VALUES ('unfinished', 'overlay', 'intended')",
            )
            (store.driver.directory("unfinished") / "diff/etc").mkdir(parents=True)
            assert await store.recover() == Recovered(containers=1, layers=2, directories=2, mounts=1)
            assert [row.id for row in await store.containers.all()] == [kept.id]
            await consistent(store)
            assert await store.recover() == NOTHING

    run(steps())


@pytest.mark.parametrize("directory_gone", [False, True])
def test_what_was_half_removed_is_finished(tmp_path: Path, directory_gone: bool) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            image = await store.images.import_(stream(SMALL), repo="base")
            row = a_container(store, image.id)
            await store.create_container(row, image.chain_id)
            await set_state(store, "UPDATE containers SET phase = 'removing' WHERE id = ?", row.id)
            await store.db.run(lambda connection: store.layers.doom_rw(connection, row.id))
            if directory_gone:
                await store.layers.destroy_rw(row.id)
            assert (await store.recover()).containers == 1
            assert await store.containers.all() == []
            await consistent(store)

    run(steps())


def test_layers_that_were_there_for_a_half_removed_container_alone_go_with_it(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            image = await store.images.import_(stream(SMALL), repo="base")
            row = a_container(store, image.id)
            await store.create_container(row, image.chain_id)
            await store.images.remove(image.id, lambda _: [(row.id, False)], force=True)
            await set_state(store, "UPDATE containers SET phase = 'removing' WHERE id = ?", row.id)
            await store.recover()
            assert layer_directories(store) == set()
            assert not await rows(store, "layers")

    run(steps())


def test_directories_and_mounts_that_no_row_knows_are_taken_away(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            stranger = store.driver.directory("stranger")
            (stranger / "diff").mkdir(parents=True)
            (store.driver.trash.directory / "old").mkdir()
            (tmp_path / ".probe-left").mkdir()
            (tmp_path / "tmp/load-left").mkdir(parents=True)
            (tmp_path / "tmp/load-left/1").touch()
            mounts.mount("tmpfs", stranger / "diff", "tmpfs")
            mounts.mount("tmpfs", store.driver.trash.directory / "old", "tmpfs")
            assert await store.recover() == Recovered(containers=0, layers=0, directories=1, mounts=2)
            await store.driver.trash.emptied()
            assert os.listdir(store.driver.trash.directory) == []
            assert layer_directories(store) == set()
            assert mounts.mounts_below(tmp_path) == []
            assert not (tmp_path / ".probe-left").exists()
            assert os.listdir(tmp_path / "tmp") == []

    run(steps())


def test_another_drivers_half_made_things_are_left_alone(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path, "vfs") as store:
            await set_state(
                store, "INSERT INTO layers (cache_id, driver, state) VALUES ('half', 'vfs', 'intended')",
            )
            (store.driver.directory("half") / "fs").mkdir(parents=True)
        async with opened(tmp_path, "overlay") as store:
            assert await store.recover() == NOTHING
            assert (tmp_path / "vfs/half/fs").is_dir()
        async with opened(tmp_path, "vfs", recover=False) as store:
            assert await store.recover() == Recovered(containers=0, layers=1, directories=1, mounts=0)

    run(steps())


@pytest.mark.parametrize("seed", range(12))
def test_a_daemon_killed_at_any_moment_keeps_what_it_said_and_leaves_nothing_else(tmp_path: Path, seed: int) -> None:
    worker = start(tmp_path)
    assert worker.stdout is not None
    first = worker.stdout.readline()
    time.sleep(random.Random(seed).random() * 0.4)
    worker.send_signal(signal.SIGKILL)
    lines = [first, *worker.stdout.read().splitlines(keepends=True)]
    said = [json.loads(line) for line in lines if line.endswith(b"\n")]
    assert said
    worker.wait()
    images = {item for what, item in said if what == "imported"} - {item for what, item in said if what == "removed"}
    containers = {item for what, item in said if what == "created"} - {item for what, item in said if what == "gone"}
    removing = {item for what, item in said if what in ("removing", "going")}

    async def steps() -> None:
        async with opened(tmp_path, recover=False) as store:
            await store.recover()
            await consistent(store)
            there = {image.id for image in store.images.list()}
            assert images - removing <= there
            assert not there & {item for what, item in said if what == "removed"}
            alive = {row.id for row in await store.containers.all()}
            assert containers - removing <= alive
            assert not alive & {item for what, item in said if what == "gone"}
            for row in await store.containers.all():
                root = await store.layers.mount_rw(row.id)
                assert (root / "etc/motd").read_bytes() == b"hello\n"
                await store.remove_container(row.id)
            assert await store.recover() == NOTHING

    run(steps())


def start(root: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, __file__, str(root)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )


async def worker_main(root: Path) -> None:
    """A daemon that does nothing but import, create, mount and remove, and says what is done once it is."""
    store = await Store.open(root)
    os.chdir(store.working_directory)
    await store.recover()

    def say(action: str, item: str) -> None:
        os.write(1, json.dumps([action, item]).encode() + b"\n")

    async def one(number: int) -> None:
        while True:
            image = await store.images.import_(stream(SMALL), repo=f"r{number}", message=os.urandom(4).hex())
            say("imported", image.id)
            for _ in range(5):
                row = a_container(store, image.id)
                await store.create_container(row, image.chain_id)
                say("created", row.id)
                await store.layers.mount_rw(row.id)
                say("going", row.id)
                await store.remove_container(row.id)
                say("gone", row.id)
            say("removing", image.id)
            await store.images.remove(image.id, lambda _: [])
            say("removed", image.id)

    await asyncio.gather(*(one(number) for number in range(3)))


if __name__ == "__main__":
    asyncio.run(worker_main(Path(sys.argv[1])))
