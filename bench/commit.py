#!/usr/bin/python3
"""What it costs to list and to commit one changed file in a container of many.

    commit.py [--root DIRECTORY] [--driver overlay] [--files 11000] [--rounds 20]

Asks the store itself.  Run it as root with the interpreter that has pydockerd.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import secrets
import statistics
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from dockerd_py.store import contents, image_config
from dockerd_py.store.containers import ContainerRow
from dockerd_py.store.images import StoredImage
from dockerd_py.store.store import Store

IN_A_DIRECTORY = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", default=tempfile.gettempdir(), help="where to work, on the file system in question")
    parser.add_argument("--driver", default="overlay")
    parser.add_argument("--files", type=int, default=11_000)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.root) as directory:
        asyncio.run(measure(Path(directory), options.driver, options.files, options.rounds))


async def measure(directory: Path, driver: str, files: int, rounds: int) -> None:
    store = await Store.open(directory / "root", driver)
    await store.recover()
    os.chdir(store.working_directory)
    try:
        image = await store.images.import_(many_files(files), repo="many")
        times = [await one_container(store, image, str(number)) for number in range(rounds)]
        for what, each in zip(("diff", "commit"), zip(*times, strict=True), strict=True):
            print(
                f"{driver}, {what} of one changed file of {files}: median {statistics.median(each) * 1000:.0f} ms, "
                f"{min(each) * 1000:.0f} to {max(each) * 1000:.0f}",
            )
    finally:
        os.chdir("/")
        await store.close()


async def many_files(count: int) -> AsyncIterator[bytes]:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number in range(count):
            info = tarfile.TarInfo(f"usr/lib/{number // IN_A_DIRECTORY}/{number % IN_A_DIRECTORY}")
            info.size = 2000
            archive.addfile(info, io.BytesIO(os.urandom(info.size)))
    yield buffer.getvalue()


async def one_container(store: Store, image: StoredImage, text: str) -> tuple[float, float]:
    """Seconds of the list of changes, and of the commit."""
    container_id = secrets.token_hex(32)
    row = ContainerRow(container_id, container_id[:12], image.id, time.time_ns(), "{}", "{}")
    await store.create_container(row, image.chain_id)
    root = await store.layers.mount_rw(container_id)
    (root / "usr/lib/7/7").write_text(text)
    view = store.layers.view_rw(container_id)
    begun = time.perf_counter()
    await contents.changes(view)
    listed = time.perf_counter()

    def describe(created: int, diff_ids: Sequence[str], adds_layer: bool) -> bytes:
        return image_config.derive(
            {}, created=created, diff_ids=diff_ids, config={}, author="", comment="", created_by="", container="",
            container_config={}, version="", adds_layer=adds_layer,
        )  # fmt: skip

    async with contents.layer(view) as tar:
        await store.images.derive(tar, describe, parent_id=image.id, chain=image.chain_id)
    done = time.perf_counter()
    await store.remove_container(container_id)
    return listed - begun, done - listed


if __name__ == "__main__":
    main()
