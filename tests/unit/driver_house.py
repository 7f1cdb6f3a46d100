"""What the tests of storage drivers share: a driver at work in a directory, and layers made by hand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from store_house import Member, stream, tar

from dockerd_py.store.archive.client import unpack
from dockerd_py.store.drivers.base import Driver, new_cache_id
from dockerd_py.store.drivers.choose import DRIVERS
from dockerd_py.store.trash import unmount_below


def prepared(name: str, home: Path) -> Iterator[Driver]:
    """A driver in ``home``, with the process in its working directory as the daemon is."""
    driver = DRIVERS[name](home)
    driver.prepare()
    before = os.getcwd()
    os.chdir(driver.home)
    yield driver
    os.chdir(before)
    unmount_below(driver.home)


async def layer(driver: Driver, files: dict[str, str], parents: tuple[str, ...] = ()) -> str:
    cache_id = new_cache_id()
    await driver.create(cache_id, parents)
    for name, text in files.items():
        path = driver.target(cache_id) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return cache_id


async def writable(driver: Driver, *parents: str) -> tuple[str, Path]:
    cache_id = new_cache_id()
    await driver.create_rw(cache_id, parents)
    return cache_id, await driver.mount(cache_id, parents)


async def unpacked(driver: Driver, *members: Member, parents: tuple[str, ...] = ()) -> str:
    """A layer made from a tar, whose whiteouts become what the driver wants."""
    cache_id = new_cache_id()
    await driver.create(cache_id, parents)
    await unpack(stream(tar(*members)), driver.target(cache_id), driver.whiteouts)
    return cache_id
