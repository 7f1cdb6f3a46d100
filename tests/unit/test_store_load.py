"""Loading into the store: layers are held while nothing stands on them, and what fails leaves nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import json
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from random import Random

import pytest
from store_house import a_container, directory, layer_directories, member, needs_root, opened, rows, run, stream, tar

from dockerd_py.errors import BadArchive, BadParameter, Conflict, NoSuchImage
from dockerd_py.store import mounts
from dockerd_py.store.archive.spooled import spooled
from dockerd_py.store.store import Store

pytestmark = needs_root

BASE = tar(
    directory("etc"), member("etc/a", data=b"base"), member("etc/b", data=b"base"), directory("d"), member("d/x")
)  # fmt: skip
MIDDLE = tar(directory("etc"), member("etc/.wh.a"), member("etc/b", data=b"middle"))
TOP = tar(directory("d"), member("d/.wh..wh..opq"), member("d/new", data=b"top"), member("etc/b", data=b"top" * 400))


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def archive(*layers: bytes, name: str = "image:v1", comment: str = "") -> bytes:
    raw = json.dumps({
        "os": "linux", "architecture": "amd64", "comment": comment, "created": "0001-01-01T00:00:00Z",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest(layer)}" for layer in layers]},
    }).encode()  # fmt: skip
    files = [f"{number}.tar" for number in range(len(layers))]
    manifest = [{"Config": f"{digest(raw)}.json", "RepoTags": [name], "Layers": files}]
    parts = zip(files, layers, strict=True)
    return tar(
        member("manifest.json", data=json.dumps(manifest).encode()),
        member(f"{digest(raw)}.json", data=raw),
        *(member(file, data=layer) for file, layer in parts),
    )


def quiet(_layer: str, _done: int, _total: int) -> None:
    """Nobody looks."""


async def load(store: Store, data: bytes) -> str:
    (loaded,) = await store.loader.load(stream(data, 50_000), quiet)
    return loaded.image.id


async def saved(store: Store, ref: str) -> bytes:
    async with aclosing(store.saver.save(store.images.named(ref))) as pieces:
        return b"".join([piece async for piece in pieces])


async def is_empty(store: Store) -> bool:
    nothing = not store.images.list() and not await rows(store, "layers") and not layer_directories(store)
    temporary = store.root / "tmp"
    return nothing and not (temporary.exists() and os.listdir(temporary))


@pytest.mark.parametrize("driver", ["overlay", "vfs"])
def test_layers_lie_on_each_other_and_come_out_as_they_went_in(tmp_path: Path, driver: str) -> None:
    async def steps() -> None:
        async with opened(tmp_path / "root", driver) as store:
            before = await load(store, archive(BASE, MIDDLE, TOP))
            image = store.images.get("image:v1")
            row = a_container(store, image.id)
            await store.create_container(row, image.chain_id)
            async with store.layers.held_rw(row.id) as root:
                assert not (root / "etc/a").exists()
                assert (root / "etc/b").read_bytes() == b"top" * 400
                assert os.listdir(root / "d") == ["new"]
            await store.remove_container(row.id)
            data = await saved(store, "image")
            for layer in (BASE, MIDDLE, TOP):
                assert layer in data
            await store.images.remove("image:v1", lambda _: [])
            assert await is_empty(store)
            assert await load(store, data) == before
            assert await saved(store, "image") == data

    run(steps())


def test_an_image_without_layers_goes_in_and_out(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path / "root") as store:
            before = await load(store, archive())
            data = await saved(store, "image")
            await store.images.remove("image:v1", lambda _: [])
            assert await load(store, data) == before
            assert store.images.get("image:v1").created == 0

    run(steps())


def test_many_loads_and_removals_at_once_end_in_order(tmp_path: Path) -> None:
    archives = [
        archive(*layers, name=f"image{number}:v1", comment=str(number % 3))
        for number, layers in enumerate([(BASE,), (BASE, MIDDLE), (BASE, MIDDLE, TOP), (BASE, TOP)] * 5)
    ]

    async def one(store: Store, number: int) -> None:
        # A load that meets the removal of a layer it wanted to stand on says so.
        with contextlib.suppress(Conflict, NoSuchImage):
            await load(store, archives[number])
            await store.images.remove(f"image{number}:v1", lambda _: [], force=True)

    async def steps() -> None:
        async with opened(tmp_path / "root") as store:
            await asyncio.gather(*(one(store, number) for number in range(len(archives))))
            for image in store.images.list():
                await store.images.remove(image.id, lambda _: [], force=True)
            assert await is_empty(store)
            assert not await store.recover()

    run(steps())


def test_the_same_archive_loaded_twice_at_once_is_one_image(tmp_path: Path) -> None:
    async def steps() -> None:
        async with opened(tmp_path / "root") as store:
            data = archive(BASE, MIDDLE, TOP)
            first, second = await asyncio.gather(load(store, data), load(store, data))
            assert first == second
            assert len(await rows(store, "layers")) == len(layer_directories(store)) == 3
            await store.images.remove("image:v1", lambda _: [])
            assert await is_empty(store)

    run(steps())


def test_an_image_that_is_removed_while_it_is_saved_goes_out_whole(tmp_path: Path) -> None:
    big = tar(member("big", data=os.urandom(6 << 20)))

    async def steps() -> None:
        async with opened(tmp_path / "root") as store:
            await load(store, archive(BASE, big))
            data = b""
            async with aclosing(store.saver.save(store.images.named("image"))) as pieces:
                async for piece in pieces:
                    if not data:
                        await store.images.remove("image:v1", lambda _: [])
                    data += piece
            assert big in data
            assert await is_empty(store)

    run(steps())


def test_what_a_crash_leaves_of_a_load_is_taken_away(tmp_path: Path) -> None:
    async def crash() -> None:
        async with opened(tmp_path / "root") as store:
            async with store.layers.unpacked(stream(BASE)) as layer:
                holds = store.layers.holding()
                hold = await holds.__aenter__()
                await store.layers.adopt(layer, lambda connection, ready: hold.take(connection, ready.chain_id))
            (store.root / "tmp/load-1").mkdir(parents=True)
            assert len(await rows(store, "layers")) == 2

    async def restart() -> None:
        async with opened(tmp_path / "root") as store:
            assert await is_empty(store)

    run(crash())
    run(restart())


def test_a_layer_too_many_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    layers = [tar(member(f"f{number}")) for number in range(128)]

    async def steps() -> None:
        async with opened(tmp_path / "root") as store:
            with pytest.raises(BadParameter, match="max depth exceeded"):
                await load(store, archive(*layers))
            assert await is_empty(store)
            await load(store, archive(*layers[:127]))
            assert len(store.layers.chain(store.images.get("image:v1").chain_id)) == 127
            await store.images.remove("image:v1", lambda _: [])
            assert await is_empty(store)

    run(steps())


def test_an_archive_that_swells_stops_before_the_disk_is_full(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounts.mount("tmpfs", small, "tmpfs", data="size=8m")
    try:
        bomb = gzip.compress(tar(member("0.tar", data=bytes(64 << 20))))

        async def steps() -> None:
            with pytest.raises(BadArchive, match=r"more than the \d+ bytes that are free"):
                async with spooled(stream(bomb), small):
                    raise AssertionError
            assert os.listdir(small) == []

        run(steps())
    finally:
        mounts.unmount(small)


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_archive_is_loaded_or_refused_and_leaves_nothing(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    whole = archive(BASE, MIDDLE, TOP)

    async def steps() -> None:
        async with opened(tmp_path / "root") as store:
            for _ in range(12):
                data = bytearray(whole)
                for _ in range(random.randint(1, 4)):
                    at = random.randrange(len(data))
                    data[at : at + random.randint(0, 3)] = random.randbytes(random.randint(0, 3))
                with contextlib.suppress(BadArchive):
                    await load(store, bytes(data))
                for image in store.images.list():
                    await store.images.remove(image.id, lambda _: [], force=True)
                assert await is_empty(store)

    run(steps())


def test_a_source_that_fails_leaves_nothing(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield archive(BASE)[:3000]
        raise BadParameter("the request body broke off")

    async def steps() -> None:
        async with opened(tmp_path / "root") as store:
            with pytest.raises(BadParameter, match="broke off"):
                await store.loader.load(broken(), quiet)
            assert await is_empty(store)

    run(steps())
