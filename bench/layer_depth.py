#!/usr/bin/python3
"""What the number of an image's layers costs a container: create, mount and remove on one layer and on many.

    layer_depth.py [--root DIRECTORY] [--driver overlay] [--layers 40] [--rounds 200]

Asks the store itself, so that the container's process, which costs ten times as much, does not hide it.  Run it as root
with the interpreter that has pydockerd.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import secrets
import sqlite3
import statistics
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from dockerd_py.store.containers import ContainerRow
from dockerd_py.store.layers import Layer
from dockerd_py.store.store import Store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", default=tempfile.gettempdir(), help="where to work, on the file system in question")
    parser.add_argument("--driver", default="overlay")
    parser.add_argument("--layers", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.root) as directory:
        asyncio.run(measure(Path(directory), options.driver, options.layers, options.rounds))


async def measure(directory: Path, driver: str, layers: int, rounds: int) -> None:
    store = await Store.open(directory / "root", driver)
    await store.recover()
    os.chdir(store.working_directory)
    try:
        chains = {count: await make_chain(store, count) for count in (1, layers)}
        for mount in (False, True):
            times: dict[int, list[float]] = {count: [] for count in chains}
            for number in range(rounds):
                # In turns, and each first as often as the other.
                for count in sorted(chains, reverse=number % 2 == 0):
                    times[count].append(await one_container(store, chains[count], mount=mount))
            medians = {count: statistics.median(each) * 1000 for count, each in times.items()}
            what = "create, mount, remove" if mount else "create, remove"
            print(
                f"{driver}, {what}: {medians[1]:.2f} ms on one layer, {medians[layers]:.2f} ms on {layers}, "
                f"ratio {medians[layers] / medians[1]:.2f}",
            )
    finally:
        os.chdir("/")
        await store.close()


async def make_chain(store: Store, count: int) -> str | None:
    chain: str | None = None
    for number in range(count):
        image = f"{count}-{number}"
        async with store.layers.unpacked(small_tar(image), parent=chain) as layer:

            def record(connection: sqlite3.Connection, layer: Layer, image: str = image) -> None:
                connection.execute(
                    "INSERT INTO images (driver, id, config, created, chain_id, size) VALUES (?, ?, '{}', 0, ?, 0)",
                    (store.driver.name, image, layer.chain_id),
                )

            await store.layers.adopt(layer, record)
        chain = layer.chain_id
    return chain


async def small_tar(name: str) -> AsyncIterator[bytes]:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    yield buffer.getvalue()


async def one_container(store: Store, chain: str | None, *, mount: bool) -> float:
    container_id = secrets.token_hex(32)
    row = ContainerRow(container_id, container_id[:12], "", time.time_ns(), "{}", "{}")
    start = time.perf_counter()
    await store.create_container(row, chain)
    if mount:
        await store.layers.mount_rw(row.id)
    await store.remove_container(row.id)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
