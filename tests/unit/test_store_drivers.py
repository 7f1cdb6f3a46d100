"""Storage drivers: one suite for each that works here, then what is one driver's own, then the choice among them."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_house import needs_root, run, tree

from dockerd_py.errors import BadParameter, ConfigError, StoreError
from dockerd_py.store import mounts
from dockerd_py.store.drivers.base import Driver, new_cache_id
from dockerd_py.store.drivers.choose import DRIVERS, choose_driver
from dockerd_py.store.drivers.overlay import OverlayDriver

pytestmark = needs_root

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


@pytest.fixture(params=["overlay", "vfs"])
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Driver]:
    yield from prepared(request.param, tmp_path / "home")


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[Driver]:
    yield from prepared("overlay", tmp_path / "home")


def prepared(name: str, home: Path) -> Iterator[Driver]:
    driver = DRIVERS[name](home)
    driver.prepare()
    before = os.getcwd()
    os.chdir(driver.home)
    yield driver
    os.chdir(before)
    for point in mounts.mounts_below(driver.home):
        mounts.unmount(point.path, mounts.MNT_DETACH)


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


def test_a_container_sees_its_layers_and_writes_only_its_own(driver: Driver) -> None:
    async def steps() -> None:
        base = await layer(driver, {"etc/a": "base", "etc/b": "base"})
        top = await layer(driver, {"etc/b": "top"}, (base,))
        cache_id, root = await writable(driver, top, base)
        assert {name: (root / "etc" / name).read_text() for name in "ab"} == {"a": "base", "b": "top"}
        (root / "etc/a").write_text("mine")
        (root / "etc/b").unlink()
        assert (driver.target(base) / "etc/a").read_text() == "base"
        assert (driver.target(top) / "etc/b").read_text() == "top"
        await driver.unmount(cache_id)
        again = await driver.mount(cache_id, (top, base))
        assert tree(again) == {"etc", "etc/a"}
        assert (again / "etc/a").read_text() == "mine"
        await driver.remove(cache_id)
        await driver.trash.close()

    run(steps())


def test_a_container_without_layers_has_an_empty_root(driver: Driver) -> None:
    async def steps() -> None:
        cache_id, root = await writable(driver)
        assert tree(root) == set()
        assert stat.S_IMODE(root.stat().st_mode) == 0o755
        (root / "f").write_text("x")
        await driver.remove(cache_id)

    run(steps())


def test_the_root_directory_looks_like_the_topmost_layers(driver: Driver) -> None:
    async def steps() -> None:
        base = await layer(driver, {})
        os.chown(driver.target(base), 4, 5)
        driver.target(base).chmod(0o1751)
        top = await layer(driver, {"f": ""}, (base,))
        cache_id, root = await writable(driver, top, base)
        info = root.stat()
        assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (4, 5, 0o1751)
        await driver.remove(cache_id)

    run(steps())


def test_everything_a_file_has_is_there_in_the_container(driver: Driver) -> None:
    async def steps() -> None:
        base = await layer(driver, {"f": "data", "ping": "x"})
        target = driver.target(base)
        os.link(target / "f", target / "hard")
        os.symlink("f", target / "soft")
        os.mknod(target / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mkfifo(target / "fifo")
        os.chown(target / "ping", 70_000, 80_000)
        os.chmod(target / "ping", 0o4711)
        os.setxattr(target / "ping", "security.capability", CAPABILITY)
        os.setxattr(target / "f", "user.note", b"n")
        os.utime(target / "f", ns=(1, 1_234_567_890_123_456_789))
        with (target / "sparse").open("wb") as file:
            file.truncate(100 << 20)
        cache_id, root = await writable(driver, base)
        assert (root / "f").samefile(root / "hard")
        assert os.readlink(root / "soft") == "f"
        assert (root / "null").stat().st_rdev == os.makedev(1, 3)
        assert stat.S_ISFIFO((root / "fifo").stat().st_mode)
        ping = (root / "ping").stat()
        assert (ping.st_uid, ping.st_gid, stat.S_IMODE(ping.st_mode)) == (70_000, 80_000, 0o4711)
        assert os.getxattr(root / "ping", "security.capability") == CAPABILITY
        assert os.getxattr(root / "f", "user.note") == b"n"
        assert (root / "f").stat().st_mtime_ns == 1_234_567_890_123_456_789
        assert (root / "sparse").stat().st_blocks == 0
        await driver.remove(cache_id)

    run(steps())


def test_mounting_and_unmounting_twice_is_the_same_as_once(driver: Driver) -> None:
    async def steps() -> None:
        base = await layer(driver, {"f": ""})
        cache_id, root = await writable(driver, base)
        before = len(mounts.mounts_below(driver.home))
        assert await driver.mount(cache_id, (base,)) == root
        assert len(mounts.mounts_below(driver.home)) == before
        await driver.unmount(cache_id)
        await driver.unmount(cache_id)
        assert mounts.mounts_below(driver.home) == []
        assert not driver.is_mounted(cache_id)

    run(steps())


def test_the_size_is_that_of_the_files_that_were_written(driver: Driver) -> None:
    async def steps() -> None:
        base = await layer(driver, {"big": "x" * 100_000, "small": "x"})
        cache_id, root = await writable(driver, base)
        assert await driver.rw_size(cache_id, (base,)) == 0
        (root / "new").write_text("y" * 500)
        (root / "small").write_text("z" * 30)
        assert await driver.rw_size(cache_id, (base,)) == 530
        await driver.remove(cache_id)

    run(steps())


def test_a_removed_layer_is_gone_at_once_and_its_bytes_soon(driver: Driver) -> None:
    async def steps() -> None:
        base = await layer(driver, {"f": ""})
        cache_id, root = await writable(driver, base)
        (root / "f2").write_text("x")
        await driver.remove(cache_id)
        await driver.remove(cache_id)
        assert driver.cache_ids() == {base}
        assert mounts.mounts_below(driver.home) == []
        await driver.trash.close()
        assert os.listdir(driver.trash.directory) == []

    run(steps())


def test_a_layer_that_a_host_process_sits_in_is_removed_all_the_same(driver: Driver) -> None:
    async def steps() -> None:
        base = await layer(driver, {"f": ""})
        cache_id, root = await writable(driver, base)
        squatter = await asyncio.create_subprocess_exec("sleep", "100", cwd=root)
        try:
            await driver.remove(cache_id)
            assert driver.cache_ids() == {base}
        finally:
            squatter.kill()
            await squatter.wait()
        await driver.trash.close()
        assert os.listdir(driver.trash.directory) == []

    run(steps())


# overlay


def test_a_container_lies_on_127_layers(overlay: Driver) -> None:
    async def steps() -> None:
        chain: tuple[str, ...] = ()
        for number in range(127):
            chain = (await layer(overlay, {f"f{number}": str(number)}, chain), *chain)
        cache_id, root = await writable(overlay, *chain)
        assert len(tree(root)) == 127
        assert (root / "f0").read_text() == "0"
        await overlay.remove(cache_id)

    run(steps())


def test_a_128th_layer_is_refused_by_overlay_with_the_limit(overlay: Driver) -> None:
    parents = tuple(new_cache_id() for _ in range(128))
    with pytest.raises(BadParameter, match="128 layers, and the storage driver overlay takes 127"):
        run(overlay.create_rw(new_cache_id(), parents))


def test_mounting_from_another_working_directory_says_where_it_has_to_be(overlay: Driver) -> None:
    async def steps() -> None:
        base = await layer(overlay, {})
        os.chdir("/")
        with pytest.raises(StoreError, match=f"working directory is /, and has to be {overlay.home}"):
            await writable(overlay, base)

    run(steps())


def test_whiteouts_in_a_layer_hide_what_is_below(overlay: Driver) -> None:
    async def steps() -> None:
        base = await layer(overlay, {"gone": "", "d/old": ""})
        top = await layer(overlay, {"d/new": ""}, (base,))
        os.mknod(overlay.target(top) / "gone", stat.S_IFCHR, os.makedev(0, 0))
        os.setxattr(overlay.target(top) / "d", "trusted.overlay.opaque", b"y")
        cache_id, root = await writable(overlay, top, base)
        assert tree(root) == {"d", "d/new"}
        await overlay.remove(cache_id)

    run(steps())


def test_overlay_is_refused_on_a_file_system_that_cannot_carry_it(tmp_path: Path) -> None:
    # overlayfs does not take another overlayfs as its writable layer.
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    mounts.mount("overlay", tmp_path / "merged", "overlay", data=options)
    root = tmp_path / "merged/root"
    try:
        (root / "probe").mkdir(parents=True)
        with pytest.raises(StoreError, match=r"overlayfs (cannot be mounted|does not work)"):
            OverlayDriver.probe(root / "probe")
        assert choose_driver(root).name == "vfs"
        with pytest.raises(ConfigError, match=r"the storage driver cannot be used .*overlay"):
            choose_driver(root, "overlay")
        with pytest.raises(ConfigError, match="was used with a storage driver that does not work here now"):
            choose_driver(root, "", "overlay")
    finally:
        mounts.unmount(tmp_path / "merged", mounts.MNT_DETACH)


# The choice


def test_overlay_is_chosen_where_it_works_and_trying_it_leaves_nothing(tmp_path: Path) -> None:
    odd = tmp_path / "with:colon,comma and\\backslash"
    odd.mkdir()
    assert choose_driver(odd).name == "overlay"
    assert list(odd.iterdir()) == []
    assert mounts.mounts_below(odd) == []


def test_a_driver_asked_for_by_name_is_taken_and_else_the_remembered_one(tmp_path: Path) -> None:
    assert choose_driver(tmp_path, "vfs").name == "vfs"
    assert choose_driver(tmp_path, "", "vfs").name == "vfs"
    assert choose_driver(tmp_path, "overlay", "vfs").name == "overlay"


def test_an_unknown_driver_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='unknown storage driver "zfs": this daemon has aufs, btrfs, overlay, vfs'):
        choose_driver(tmp_path, "zfs")


# Mounts


def test_mountinfo_is_read_with_its_escapes_and_optional_fields(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_bytes(
        b"22 1 0:20 / /with\\040space\\134and\\011tab rw,nosuid shared:1 master:2 - tmpfs none\\040such rw,size=1k\n"
        b"23 22 8:1 /sub /b ro - ext4 /dev/sda1 rw\n",
    )
    first, second = mounts.mount_points(table)
    assert (first.path, first.source, first.filesystem) == ("/with space\\and\ttab", "none such", "tmpfs")
    assert (first.mount_id, first.parent_id, first.super_options) == (22, 1, "rw,size=1k")
    assert (second.root, second.path, second.options) == ("/sub", "/b", "ro")


def test_a_failed_mount_is_an_oserror_with_the_kernels_words(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="No such file or directory"):
        mounts.mount("tmpfs", tmp_path / "missing", "tmpfs")
    with pytest.raises(OSError, match="Invalid argument"):
        mounts.unmount(tmp_path)


def test_options_beyond_one_page_are_refused_not_cut_off(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="do not fit into one page"):
        mounts.mount("overlay", tmp_path, "overlay", data="x" * 4096)
