"""Containers' rows and writable layers: made in two commits, removed in two, and nothing left in between."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from pathlib import Path

import pytest
from store_house import (
    SMALL,
    a_container,
    layer_directories,
    member,
    needs_root,
    opened,
    rows,
    run,
    stream,
    tar,
)

from dockerd_py.errors import BadParameter, Conflict, NoSuchContainer, StoreError
from dockerd_py.store import mounts
from dockerd_py.store.containers import READY
from dockerd_py.store.image_index import StoredImage
from dockerd_py.store.layer_ids import chain_id
from dockerd_py.store.store import Store

pytestmark = needs_root


async def base(store: Store, data: bytes = SMALL) -> StoredImage:
    return await store.images.import_(stream(data), repo="base")


@pytest.mark.parametrize("driver", ["overlay", "vfs"])
def test_a_container_lives_from_create_to_remove(tmp_path: Path, driver: str) -> None:
    async def steps() -> None:
        async with opened(tmp_path, driver) as store:
            image = await base(store)
            row = a_container(store, image.id)
            await store.create_container(row, image.chain_id)
            (stored,) = await store.containers.all()
            assert (stored.id, stored.phase) == (row.id, READY)
            root = await store.layers.mount_rw(row.id)
            assert root == store.layers.root(row.id)
            assert (root / "etc/motd").read_text() == "hello\n"
            (root / "new").write_text("1234")
            assert await store.layers.rw_size(row.id) == 4
            assert await store.layers.root_size(image.chain_id) == 6
            await store.layers.unmount_rw(row.id)
            await store.remove_container(row.id)
            await store.remove_container(row.id)
            assert await store.containers.all() == []
            assert len(layer_directories(store)) == 1
            assert not await rows(store, "rw_layers")

    run(steps())


def test_creating_costs_two_commits_and_removing_two(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            image = await base(store)
            statements: list[str] = []
            await store.db.run(lambda connection: connection.set_trace_callback(statements.append))
            row = a_container(store, image.id)
            await store.create_container(row, image.chain_id)
            await store.layers.mount_rw(row.id)
            await store.layers.unmount_rw(row.id)
            assert statements.count("COMMIT") - 1 == 2  # the first is of the transaction that began to count
            await store.remove_container(row.id)
            assert statements.count("COMMIT") - 1 == 4

    run(steps())


def test_a_taken_name_is_a_conflict_in_dockers_words(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            image = await base(store)
            first = a_container(store, image.id, "web")
            await store.create_container(first, image.chain_id)
            with pytest.raises(Conflict) as caught:
                await store.create_container(a_container(store, image.id, "web"), image.chain_id)
            assert str(caught.value) == (
                f'Conflict. The container name "/web" is already in use by container "{first.id}". You have to remove '
                "(or rename) that container to be able to reuse that name."
            )
            assert len(await store.containers.all()) == 1
            other = a_container(store, image.id, "db")
            await store.create_container(other, image.chain_id)
            with pytest.raises(Conflict, match='"/web" is already in use'):
                await store.containers.rename(other.id, "web")
            await store.containers.rename(other.id, "cache")
            assert {row.name for row in await store.containers.all()} == {"web", "cache"}

    run(steps())


def test_settings_and_state_are_kept_as_they_were_given(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            row = a_container(store, settings='{"a": 1}', state='{"s": "created"}')
            await store.create_container(row, None)
            await store.containers.update_state(row.id, '{"s": "running"}')
            await store.containers.update_settings(row.id, '{"a": 2}')
        async with opened(tmp_path) as store:
            (stored,) = await store.containers.all()
            assert (stored.settings, stored.state) == ('{"a": 2}', '{"s": "running"}')
            with pytest.raises(NoSuchContainer):
                await store.containers.update_state("0" * 64, "{}")

    run(steps())


def test_ten_mounts_and_unmounts_of_one_container_at_once_end_well(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            image = await base(store)
            row = a_container(store, image.id)
            await store.create_container(row, image.chain_id)
            await asyncio.gather(*(store.layers.mount_rw(row.id) for _ in range(10)))
            assert len(mounts.mounts_below(store.driver.home)) == 1
            assert store.layers.is_mounted(row.id)
            await asyncio.gather(*(store.layers.unmount_rw(row.id) for _ in range(10)))
            assert mounts.mounts_below(store.driver.home) == []
            assert not store.layers.is_mounted(row.id)

    run(steps())


def test_a_mounted_container_is_removed_whole(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            image = await base(store)
            row = a_container(store, image.id)
            await store.create_container(row, image.chain_id)
            await store.layers.mount_rw(row.id)
            await store.remove_container(row.id)
            assert mounts.mounts_below(store.driver.home) == []
        assert os.listdir(store.driver.trash.directory) == []

    run(steps())


def test_a_create_that_is_cancelled_is_whole_or_nothing(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            image = await base(store)
            for turns in range(12):
                row = a_container(store, image.id)
                task = asyncio.create_task(store.create_container(row, image.chain_id))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            for row in await store.containers.all():
                assert row.phase == READY
                await store.layers.mount_rw(row.id)
                await store.remove_container(row.id)
            assert len(layer_directories(store)) == 1

    run(steps())


def test_an_image_removed_by_force_leaves_its_layers_to_its_containers(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            image = await base(store)
            row = a_container(store, image.id)
            await store.create_container(row, image.chain_id)
            await store.images.remove(image.id, lambda _: [(row.id, False)], force=True)
            root = await store.layers.mount_rw(row.id)
            assert (root / "etc/motd").exists()
            await store.remove_container(row.id)
            assert layer_directories(store) == set()
            assert not await rows(store, "layers")

    run(steps())


def test_a_container_on_an_image_that_has_just_gone_is_a_conflict(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            image = await base(store)
            await store.images.remove("base", lambda _: [])
            with pytest.raises(Conflict, match="the image is being removed"):
                await store.create_container(a_container(store, image.id), image.chain_id)
            assert await store.containers.all() == []

    run(steps())


def test_a_layer_that_cannot_be_made_leaves_no_container(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            image = await base(store)
            for path in store.driver.home.iterdir():
                if path != store.driver.trash.directory:
                    path.rename(tmp_path / "elsewhere")  # the image's layer is lost
            with pytest.raises(StoreError, match="cannot make layer"):
                await store.create_container(a_container(store, image.id), image.chain_id)
            assert await store.containers.all() == []
            assert layer_directories(store) == set()

    run(steps())


def test_layers_lie_on_each_other_by_chain_id(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:
            image = await base(store)
            upper = tar(member("etc/.wh.motd"), member("top", data=b"up"))

            def record(connection: sqlite3.Connection, layer: object) -> None:
                connection.execute(
                    "INSERT INTO images VALUES ('overlay', 'two', '{}', 0, NULL, ?, 0)", (layer.chain_id,),  # type: ignore[attr-defined]
                )

            async with store.layers.unpacked(stream(upper), parent=image.chain_id) as layer:
                await store.layers.adopt(layer, record)
            assert layer.chain_id == chain_id(image.chain_id, layer.diff_id)
            assert [each.chain_id for each in store.layers.chain(layer.chain_id)] == [layer.chain_id, image.chain_id]
            row = a_container(store)
            await store.create_container(row, layer.chain_id)
            root = await store.layers.mount_rw(row.id)
            assert (root / "top").read_text() == "up"
            assert not (root / "etc/motd").exists()
            assert await store.layers.root_size(layer.chain_id) == 8
            await store.remove_container(row.id)

    run(steps())


def test_the_chain_id_is_the_image_specifications() -> None:
    one, two = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    assert chain_id(None, one) == one
    # printf '%s %s' ONE TWO | sha256sum
    assert chain_id(one, two) == "sha256:9932074217c35353d2e03a3f5a86549f7c67bfeb0ba53e23d69f4d4c8f7958f5"


def test_a_128th_layer_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path) as store:

            def insert(connection: sqlite3.Connection) -> None:
                parent = None
                for number in range(127):
                    connection.execute(
                        "INSERT INTO layers VALUES (?, 'overlay', ?, 'd', ?, 0, 'ready')",
                        (f"c{number}", f"sha256:{number}", parent),
                    )
                    parent = f"sha256:{number}"

            await store.db.run(insert)
            await store.layers.load()
            with pytest.raises(BadParameter, match="max depth exceeded: an image can have 127 layers"):
                async with store.layers.unpacked(stream(SMALL), parent="sha256:126"):
                    pass

    run(steps())
