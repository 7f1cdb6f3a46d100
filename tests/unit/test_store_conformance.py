"""One suite for all storage drivers: what each has to do, on a real file system of its kind.

A driver that this machine cannot mount is skipped, with the reason; what can be said of it all the same is in
test_store_drivers.py.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import stat
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from driver_house import layer, prepared, unpacked, writable
from loop_devices import file_system
from store_house import (
    SMALL,
    a_container,
    directory,
    facts,
    hardlink,
    layer_directories,
    member,
    needs_root,
    opened,
    rows,
    run,
    stream,
    tar,
    tree,
)

from dockerd_py.errors import BadParameter, StoreError
from dockerd_py.store import changes, contents, image_config, mounts, subvolumes
from dockerd_py.store.archive import outgoing
from dockerd_py.store.drivers.base import Driver, new_cache_id
from dockerd_py.store.drivers.choose import DRIVERS
from dockerd_py.store.images import StoredImage
from dockerd_py.store.recovery import Recovered
from dockerd_py.store.store import Store
from dockerd_py.store.trash import unmount_below

pytestmark = needs_root

NOBODY: dict[str, Any] = {"created_by": "", "container": "", "container_config": {}, "version": "", "adds_layer": True}
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw+ep


@pytest.fixture(scope="module", params=sorted(DRIVERS))
def ground(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A driver's name, and a directory in which it works."""
    name, path = request.param, tmp_path_factory.mktemp(request.param)
    if name == "btrfs":
        with file_system(path, "btrfs", 1 << 30) as point:
            yield name, point
        return
    (path / "probe").mkdir()
    try:
        DRIVERS[name].probe(path / "probe")
    except StoreError as error:
        pytest.skip(f"{name}: {error}")
    yield name, path


@pytest.fixture
def driver(ground: tuple[str, Path]) -> Iterator[Driver]:
    name, path = ground
    home = path / new_cache_id()
    yield from prepared(name, home)
    assert mounts.mounts_below(home) == []


@pytest.fixture
def root(ground: tuple[str, Path]) -> Iterator[Path]:
    """A daemon's root directory on the driver's ground."""
    path = ground[1] / new_cache_id()
    path.mkdir()
    yield path
    unmount_below(path)


# What a container sees of its layers


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


def test_a_layer_takes_away_files_directories_and_what_was_in_a_directory(driver: Driver) -> None:
    async def steps() -> None:
        base = await layer(driver, {"file": "", "tree/a/b": "", "opaque/old": "", "kept/old": "", "was/dir": ""})
        top = await unpacked(
            driver,
            member(".wh.file"),
            member(".wh.tree"),
            directory("opaque"),
            member("opaque/.wh..wh..opq"),
            member("opaque/new"),
            directory("kept"),
            member("kept/new"),
            member("was", data=b"a file now"),
            parents=(base,),
        )
        cache_id, root = await writable(driver, top, base)
        assert tree(root) == {"opaque", "opaque/new", "kept", "kept/old", "kept/new", "was"}
        assert tree(driver.target(base)) >= {"file", "tree/a/b", "opaque/old", "was/dir"}
        await driver.remove(cache_id)

    run(steps())


def test_what_a_layer_brings_back_shows_nothing_of_what_was_there_before(driver: Driver) -> None:
    async def steps() -> None:
        base = await layer(driver, {"d/old": "", "f": "old", "e/old": ""})
        middle = await unpacked(driver, member(".wh.d"), member(".wh.f"), parents=(base,))
        top = await unpacked(
            driver, directory("d"), member("d/new"), member("f", data=b"new"),
            member(".wh.e"), directory("e"), member("e/new"), parents=(middle, base),
        )  # fmt: skip
        cache_id, root = await writable(driver, top, middle, base)
        assert tree(root) == {"d", "d/new", "f", "e", "e/new"}
        assert (root / "f").read_text() == "new"
        await driver.remove(cache_id)

    run(steps())


def test_a_container_lies_on_as_many_layers_as_its_driver_says(driver: Driver) -> None:
    async def steps() -> None:
        depth = driver.max_depth
        assert depth >= 126
        chain: tuple[str, ...] = ()
        for number in range(depth):
            chain = (await layer(driver, {f"f{number}": str(number), "all": str(number)}, chain), *chain)
        cache_id, root = await writable(driver, *chain)
        assert len(tree(root)) == depth + 1
        assert ((root / "f0").read_text(), (root / "all").read_text()) == ("0", str(depth - 1))
        await driver.remove(cache_id)

    run(steps())


def test_one_layer_more_is_refused_with_the_limit(driver: Driver) -> None:
    parents = tuple(new_cache_id() for _ in range(driver.max_depth + 1))
    limit = rf"{driver.max_depth + 1} layers, and the storage driver {driver.name} takes {driver.max_depth};"
    with pytest.raises(BadParameter, match=limit):
        run(driver.create_rw(new_cache_id(), parents))
    assert driver.cache_ids() == set()


# What a container does to them


def test_what_a_container_deletes_and_makes_anew_is_its_own(driver: Driver) -> None:
    async def steps() -> None:
        base = await layer(driver, {"file": "old", "tree/a/b": "old", "tree/c": "old"})
        before = tree(driver.target(base))
        cache_id, root = await writable(driver, base)
        (root / "file").unlink()
        shutil.rmtree(root / "tree")
        assert tree(root) == set()
        (root / "file").mkdir()
        (root / "tree").mkdir()
        (root / "tree/new").write_text("new")
        await driver.unmount(cache_id)
        assert tree(await driver.mount(cache_id, (base,))) == {"file", "tree", "tree/new"}
        assert tree(driver.target(base)) == before
        await driver.remove(cache_id)

    run(steps())


def test_a_directory_of_a_layer_can_be_moved(driver: Driver) -> None:
    async def steps() -> None:
        base = await layer(driver, {"from/deep/file": "data", "from/other": ""})
        cache_id, root = await writable(driver, base)
        # Where rename(2) says EXDEV, as for a directory of another file system, mv copies; so does this.
        shutil.move(root / "from", root / "to")
        assert tree(root) == {"to", "to/deep", "to/deep/file", "to/other"}
        assert (root / "to/deep/file").read_text() == "data"
        os.rename(root / "to", root / "again")
        (root / "from").mkdir()
        assert list((root / "from").iterdir()) == []
        assert (driver.target(base) / "from/deep/file").read_text() == "data"
        await driver.remove(cache_id)

    run(steps())


def test_a_file_of_a_layer_can_be_linked_and_the_names_stay_one_file(driver: Driver) -> None:
    async def steps() -> None:
        base = await layer(driver, {"d/file": "old"})
        cache_id, root = await writable(driver, base)
        (root / "e").mkdir()
        os.link(root / "d/file", root / "e/link")
        (root / "e/link").write_text("new")
        await driver.unmount(cache_id)
        root = await driver.mount(cache_id, (base,))
        assert (root / "d/file").samefile(root / "e/link")
        assert (root / "d/file").read_text() == "new"
        assert (driver.target(base) / "d/file").read_text() == "old"
        assert await driver.rw_size(cache_id, (base,)) == 3
        await driver.remove(cache_id)

    run(steps())


def test_a_file_that_is_written_to_keeps_all_else_that_it_had(driver: Driver) -> None:
    async def steps() -> None:
        base = await layer(driver, {"f": "old", "tool": "x"})
        file, tool = driver.target(base) / "f", driver.target(base) / "tool"
        os.chown(file, 100_000, 200_000)
        os.chmod(file, 0o1640)
        os.setxattr(file, "user.note", b"\0binary\xff")
        os.setxattr(tool, "security.capability", CAPABILITY)
        os.utime(tool, ns=(5, 1_234_567_890_123_456_789))
        cache_id, root = await writable(driver, base)
        with (root / "f").open("a") as writing:
            writing.write(" and new")
        os.chmod(root / "tool", 0o711)
        os.setxattr(root / "f", "user.more", b"1")
        info = (root / "f").stat()
        assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (100_000, 200_000, 0o1640)
        assert os.getxattr(root / "f", "user.note") == b"\0binary\xff"
        assert (root / "f").read_text() == "old and new"
        assert os.getxattr(root / "tool", "security.capability") == CAPABILITY
        assert (root / "tool").stat().st_mtime_ns == 1_234_567_890_123_456_789
        assert "user.more" not in os.listxattr(file)
        assert (file.read_text(), stat.S_IMODE(tool.stat().st_mode)) == ("old", 0o644)
        await driver.remove(cache_id)

    run(steps())


def test_a_container_makes_every_kind_of_file(driver: Driver) -> None:
    async def steps() -> None:
        base = await layer(driver, {})
        cache_id, root = await writable(driver, base)
        os.mkfifo(root / "fifo", 0o622)
        os.mknod(root / "disk", stat.S_IFBLK | 0o660, os.makedev(7, 99))
        (root / "sticky").mkdir()
        os.chmod(root / "sticky", 0o3777)
        (root / "setuid").write_text("x")
        os.chown(root / "setuid", 70_000, 4_000_000_000)
        os.chmod(root / "setuid", 0o6755)
        os.setxattr(root / "sticky", "trusted.note", b"t")
        await driver.unmount(cache_id)
        root = await driver.mount(cache_id, (base,))
        assert stat.S_ISFIFO((root / "fifo").lstat().st_mode)
        assert (root / "disk").lstat().st_rdev == os.makedev(7, 99)
        assert stat.S_IMODE((root / "sticky").stat().st_mode) == 0o3777
        assert stat.S_IMODE((root / "setuid").stat().st_mode) == 0o6755
        assert (root / "setuid").stat().st_gid == 4_000_000_000
        assert os.getxattr(root / "sticky", "trusted.note") == b"t"
        await driver.remove(cache_id)

    run(steps())


@pytest.mark.parametrize(
    "name",
    [b"\xff\xfe not utf-8 \x80", b"new\nline", b"co:lon,comma=\\back", b"n" * 240, b"/".join([b"d" * 100] * 20)],
    ids=["bytes", "newline", "separators", "240 bytes", "2019 bytes of path"],
)
def test_every_name_is_kept_as_it_is(driver: Driver, name: bytes) -> None:
    async def steps() -> None:
        base = await layer(driver, {os.fsdecode(name): "below"})
        cache_id, root = await writable(driver, base)
        assert (root / os.fsdecode(name)).read_text() == "below"
        (root / os.fsdecode(name)).write_text("above")
        (root / "more").mkdir()
        (root / "more" / os.fsdecode(name)).parent.mkdir(parents=True, exist_ok=True)
        (root / "more" / os.fsdecode(name)).write_text("new")
        assert (driver.target(base) / os.fsdecode(name)).read_text() == "below"
        await driver.remove(cache_id)
        await driver.trash.close()
        assert os.listdir(driver.trash.directory) == []

    run(steps())


def test_a_file_of_9_gib_that_is_mostly_a_hole_stays_one(driver: Driver) -> None:
    async def steps() -> None:
        base = await layer(driver, {})
        with (driver.target(base) / "huge").open("wb") as file:
            file.seek(9 << 30)
            file.write(b"end")
        cache_id, root = await writable(driver, base)
        with (root / "huge").open("r+b") as file:
            file.seek(9 << 30)
            assert file.read() == b"end"
            file.seek(5 << 30)
            file.write(b"middle")
        assert (root / "huge").stat().st_size == (9 << 30) + 3
        assert (root / "huge").stat().st_blocks * 512 < 1 << 20
        assert await driver.rw_size(cache_id, (base,)) == (9 << 30) + 3
        await driver.remove(cache_id)

    run(steps())


# From an archive to a container, to an image, to another container


def make_everything(root: Path) -> None:
    """One of each kind of thing that a root filesystem can hold."""
    (root / "d/sub").mkdir(parents=True)
    (root / "d/file").write_bytes(b"data")
    os.link(root / "d/file", root / "d/same")
    os.link(root / "d/file", root / "d/sub/same")
    os.symlink("d/file", root / "soft")
    os.symlink("s" * 300, root / "long-link")
    os.link(root / "soft", root / "same-link", follow_symlinks=False)
    (root / "ping").write_bytes(b"ping")
    os.chown(root / "ping", 70_000, 4_000_000_000)
    os.chmod(root / "ping", 0o6755)
    os.setxattr(root / "ping", "security.capability", CAPABILITY)
    os.setxattr(root / "ping", "user.note", b"\0binary\xff")
    os.setxattr(root / "d", "user.directory", b"d")
    (root / "sticky").mkdir()
    os.chmod(root / "sticky", 0o3777)
    os.mkfifo(root / "fifo", 0o622)
    os.mknod(root / "disk", stat.S_IFBLK | 0o660, os.makedev(259, 1_000_000))
    os.mknod(root / "d/tty", stat.S_IFCHR | 0o620, os.makedev(4, 64))
    os.link(root / "disk", root / "same-disk")
    (root / os.fsdecode(b"\xff\xfe not utf-8")).write_bytes(b"odd")
    (root / os.fsdecode(b"\xff-link")).symlink_to(os.fsdecode(b"\xfe"))
    (root / "/".join(["a-directory-with-a-long-name"] * 12)).mkdir(parents=True)
    (root / "/".join(["a-directory-with-a-long-name"] * 12) / ("f" * 255)).write_bytes(b"deep")
    with (root / "huge").open("wb") as file:
        file.seek(9 << 30)
        file.write(b"end")
    (root / "old").write_bytes(b"")
    for name, time in (("d/file", 1_234_567_890_123_456_789), ("old", -1_500_000_000), ("sticky", 7), ("soft", 10**9)):
        os.utime(root / name, ns=(1, time), follow_symlinks=False)


async def committed(store: Store, container_id: str, chain: str | None) -> StoredImage:
    def describe(created: int, diff_ids: Sequence[str], adds_layer: bool) -> bytes:
        return image_config.derive({}, created=created, diff_ids=diff_ids, config={}, author="", comment="", **NOBODY)

    async with contents.layer(store.layers.view_rw(container_id)) as layer_tar:
        return await store.images.derive(layer_tar, describe, parent_id="", chain=chain, name=("made", "latest"))


async def a_mounted_one(store: Store, chain: str | None) -> tuple[str, Path]:
    row = a_container(store)
    await store.create_container(row, chain)
    return row.id, await store.layers.mount_rw(row.id)


async def bytes_of(pieces: AsyncGenerator[bytes, None]) -> bytes:
    async with aclosing(pieces):
        return b"".join([piece async for piece in pieces])


def test_all_that_a_container_makes_is_in_its_image_and_in_what_is_exported(
    ground: tuple[str, Path], root: Path
) -> None:
    async def steps() -> None:
        async with opened(root, ground[0]) as store:
            image = await store.images.import_(stream(SMALL), repo="base")
            container, mounted = await a_mounted_one(store, image.chain_id)
            make_everything(mounted)
            wanted = facts(mounted)
            made = await committed(store, container, image.chain_id)
            _, again = await a_mounted_one(store, made.chain_id)
            assert facts(again) == wanted
            assert (again / "huge").stat().st_blocks * 512 < 1 << 20
            data = await bytes_of(outgoing.canonical(mounted))
            assert len(data) < 1 << 20
            imported = await store.images.import_(stream(data), repo="flat")
            _, flat = await a_mounted_one(store, imported.chain_id)
            assert facts(flat) == wanted
            for one, tar_of_it in ((made, None), (imported, data)):
                top = store.layers.chain(one.chain_id)[0]
                out = await bytes_of(store.layers.tar(top))
                assert "sha256:" + hashlib.sha256(out).hexdigest() == top.diff_id
                assert tar_of_it in (None, out)

    run(steps())


def test_what_a_container_took_away_is_gone_in_its_image(ground: tuple[str, Path], root: Path) -> None:
    base = tar(
        member("file"), member("d/old", data=b"1"), member("d/sub/x"), member("opaque/old"), member("was-file"),
        member("was-dir/x"), member("kept/a"), member("kept/b"), hardlink("linked", "file"),
    )  # fmt: skip

    async def steps() -> None:
        async with opened(root, ground[0]) as store:
            image = await store.images.import_(stream(base), repo="base")
            container, mounted = await a_mounted_one(store, image.chain_id)
            (mounted / "file").unlink()
            shutil.rmtree(mounted / "d")
            shutil.rmtree(mounted / "opaque")
            (mounted / "opaque").mkdir()
            (mounted / "opaque/new").touch()
            (mounted / "was-file").unlink()
            (mounted / "was-file").mkdir()
            (mounted / "was-file/x").touch()
            shutil.rmtree(mounted / "was-dir")
            (mounted / "was-dir").symlink_to("kept")
            (mounted / "kept/a").unlink()
            found = await contents.changes(store.layers.view_rw(container))
            assert ("/file", changes.DELETED) in found
            assert ("/d", changes.DELETED) in found
            assert ("/opaque/old", changes.DELETED) in found
            assert ("/linked", changes.DELETED) not in found
            made = await committed(store, container, image.chain_id)
            _, again = await a_mounted_one(store, made.chain_id)
            assert tree(again) == tree(mounted) == {
                "linked", "opaque", "opaque/new", "was-file", "was-file/x", "was-dir", "kept", "kept/b",
            }  # fmt: skip

    run(steps())


def test_a_device_0_0_of_the_users_own_hides_nothing(ground: tuple[str, Path], root: Path) -> None:
    """The kernel lets nobody make one on overlayfs, where it is a whiteout; elsewhere it is a device."""

    async def steps() -> None:
        async with opened(root, ground[0]) as store:
            image = await store.images.import_(stream(SMALL), repo="base")
            container, mounted = await a_mounted_one(store, image.chain_id)
            if ground[0] == "overlay":
                with pytest.raises(PermissionError):
                    os.mknod(mounted / "zero", stat.S_IFCHR | 0o600, os.makedev(0, 0))
                return
            (mounted / "etc/motd").unlink()
            os.mknod(mounted / "etc/motd", stat.S_IFCHR | 0o600, os.makedev(0, 0))
            assert ("/etc/motd", changes.MODIFIED) in await contents.changes(store.layers.view_rw(container))
            made = await committed(store, container, image.chain_id)
            second, again = await a_mounted_one(store, made.chain_id)
            assert stat.S_ISCHR((again / "etc/motd").lstat().st_mode)
            assert await contents.changes(store.layers.view_rw(second)) == []
            (again / "etc/motd").unlink()
            assert ("/etc/motd", changes.DELETED) in await contents.changes(store.layers.view_rw(second))

    run(steps())


# Twice, half, and after a crash


def test_making_a_layer_again_after_a_crash_in_the_middle_is_the_same_as_once(driver: Driver) -> None:
    async def steps() -> None:
        base = await layer(driver, {"f": "below"})
        for make in (driver.create, driver.create_rw):
            half, whole = new_cache_id(), new_cache_id()
            driver.directory(half).mkdir()
            for cache_id in (half, whole, whole):
                await make(cache_id, (base,))
            assert driver.cache_ids() == {base, half, whole}
            for cache_id in (half, whole):
                if make == driver.create_rw:
                    assert (await driver.mount(cache_id, (base,)) / "f").read_text() == "below"
                await driver.remove(cache_id)
        assert driver.cache_ids() == {base}

    run(steps())


def test_removing_what_is_not_there_is_no_error(driver: Driver) -> None:
    async def steps() -> None:
        await driver.remove("never-made")
        await driver.unmount("never-made")
        assert not driver.is_mounted("never-made")
        driver.directory("empty").mkdir()
        await driver.remove("empty")
        await driver.trash.close()
        assert driver.cache_ids() == set()

    run(steps())


def test_whatever_a_crash_left_is_taken_away_and_what_was_said_is_there(ground: tuple[str, Path], root: Path) -> None:
    name = ground[0]

    async def steps() -> None:
        async with opened(root, name) as store:
            image = await store.images.import_(stream(SMALL), repo="base")
            kept, half = a_container(store), a_container(store)
            for row in (kept, half):
                await store.create_container(row, image.chain_id)
                (await store.layers.mount_rw(row.id) / "mine").write_text("mine")
            parents = tuple(layer.cache_id for layer in store.layers.chain(image.chain_id))
            await store.driver.create("stranger", parents)
            await store.driver.create_rw("strange-rw", parents)
            await store.driver.mount("strange-rw", parents)
            await store.driver.create("thrown", ())
            store.driver.trash.throw(store.driver.directory("thrown"))
            (root / ".probe-left/fs").mkdir(parents=True)
            await store.db.run(
                lambda connection: connection.execute(
                    "UPDATE containers SET phase = 'removing' WHERE id = ?", (half.id,),
                ),
            )
            await store.db.run(
                lambda connection: connection.execute(
                    "INSERT INTO layers (cache_id, driver, state) VALUES ('planned', ?, 'intended')", (name,),
                ),
            )
            done = await store.recover()
            assert (done.containers, done.layers, done.directories) == (1, 2, 3)
            await store.driver.trash.emptied()
            assert await store.recover() == Recovered(0, 0, 0, 0)
            assert len(layer_directories(store)) == 2
            assert len(await rows(store, "rw_layers")) == len(await rows(store, "layers")) == 1
            assert os.listdir(store.driver.trash.directory) == []
            assert not (root / ".probe-left").exists()
            assert (await store.layers.mount_rw(kept.id) / "mine").read_text() == "mine"
            await store.remove_container(kept.id)
            await store.images.remove("base", lambda _: [])
        assert layer_directories(store) == set()
        assert mounts.mounts_below(root) == []
        assert subvolumes.destroy_below(root) == 0

    run(steps())
