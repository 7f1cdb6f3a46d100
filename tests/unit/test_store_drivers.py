"""What is one storage driver's own, and the choice among them; test_store_conformance.py has what all share."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from driver_house import layer, prepared, unpacked, writable
from loop_devices import file_system
from store_house import directory, hardlink, member, needs_root, run, tree

from dockerd_py.errors import BadArchive, ConfigError, StoreError
from dockerd_py.store import mounts, subvolumes
from dockerd_py.store.drivers.aufs import AufsDriver, mount_options
from dockerd_py.store.drivers.base import Driver, new_cache_id
from dockerd_py.store.drivers.choose import choose_driver, remove_probe
from dockerd_py.store.drivers.overlay import OverlayDriver

pytestmark = needs_root

HAS_AUFS = "aufs" in Path("/proc/filesystems").read_text()


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[Driver]:
    yield from prepared("overlay", tmp_path / "home")


# overlay


def test_mounting_from_another_working_directory_says_where_it_has_to_be(overlay: Driver) -> None:
    async def steps() -> None:
        base = await layer(overlay, {})
        os.chdir("/")
        with pytest.raises(StoreError, match=f"working directory is /, and has to be {overlay.home}"):
            await writable(overlay, base)

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


# btrfs


@pytest.fixture(scope="module")
def btrfs_ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with file_system(tmp_path_factory.mktemp("btrfs"), "btrfs", 1 << 28) as point:
        yield point


@pytest.fixture(params=["btrfs", "vfs"])
def on_btrfs(request: pytest.FixtureRequest, btrfs_ground: Path, tmp_path: Path) -> Iterator[Driver]:
    yield from prepared(request.param, btrfs_ground / tmp_path.name)


def test_subvolumes_that_a_container_made_go_with_it(on_btrfs: Driver) -> None:
    async def steps() -> None:
        base = await layer(on_btrfs, {"var/f": "below"})
        cache_id, root = await writable(on_btrfs, base)
        subvolumes.create(root / "var/images")
        subvolumes.create(root / "var/images/one")
        (root / "var/images/one/f").write_text("x")
        subvolumes.snapshot(root / "var/images/one", root / "var/images/two")
        os.rename(root / "var/images/two", root / "moved")
        subvolumes.create(root / "moved/deep")
        set_read_only(root / "moved")
        with pytest.raises(OSError, match="Read-only file system"):
            (root / "moved/f2").touch()
        await on_btrfs.remove(cache_id)
        await on_btrfs.trash.close()
        assert on_btrfs.cache_ids() == {base}
        assert os.listdir(on_btrfs.trash.directory) == []
        assert (on_btrfs.target(base) / "var/f").read_text() == "below"
        await on_btrfs.remove(base)
        await on_btrfs.trash.close()
        assert subvolumes.destroy_below(on_btrfs.home) == 0

    run(steps())


def test_a_layer_shares_its_blocks_with_the_one_below(btrfs_ground: Path) -> None:
    async def steps(driver: Driver) -> None:
        def used() -> int:
            mounts.sync_filesystem(btrfs_ground)
            space = os.statvfs(btrfs_ground)
            return (space.f_blocks - space.f_bfree) * space.f_frsize

        base = await layer(driver, {})
        (driver.target(base) / "big").write_bytes(os.urandom(20 << 20))
        before = used()
        cache_ids = [(await writable(driver, base))[0] for _ in range(5)]
        assert used() - before < 4 << 20
        for cache_id in cache_ids:
            await driver.remove(cache_id)
        await driver.trash.close()

    for driver in prepared("btrfs", btrfs_ground / "sharing"):
        run(steps(driver))


def test_btrfs_is_refused_elsewhere_by_name(tmp_path: Path) -> None:
    with file_system(tmp_path, "ext4", 1 << 24) as root:
        with pytest.raises(ConfigError, match=r"cannot be used in .*/ext4: btrfs: the file system is not btrfs"):
            choose_driver(root, "btrfs")
        assert os.listdir(root) == ["lost+found"]


def test_trying_btrfs_leaves_no_subvolume(btrfs_ground: Path, tmp_path: Path) -> None:
    root = btrfs_ground / "choice"
    root.mkdir()
    assert choose_driver(root, "btrfs").name == "btrfs"
    assert choose_driver(root, "", "btrfs").name == "btrfs"
    assert choose_driver(root).name == "overlay"
    assert os.listdir(root) == []
    # as a start that was killed meanwhile leaves it
    subvolumes.create(root / "fs")
    subvolumes.create(root / "fs/nested")
    remove_probe(root)
    assert not root.exists()


def set_read_only(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    fcntl.ioctl(fd, 0x4008941A, struct.pack("Q", 2))  # BTRFS_IOC_SUBVOL_SETFLAGS, BTRFS_SUBVOL_RDONLY
    os.close(fd)


# aufs, as far as it goes without the kernel's part


def test_the_mount_options_of_aufs_name_the_writable_branch_and_then_the_layers_from_the_top() -> None:
    assert mount_options("c/diff", ["top/diff", "base/diff"]) == [
        "br:c/diff=rw:top/diff=ro+wh:base/diff=ro+wh,dio,xino=/dev/shm/aufs.xino",
    ]
    assert mount_options("c/diff", []) == ["br:c/diff=rw,dio,xino=/dev/shm/aufs.xino"]


def test_as_many_branches_as_aufs_takes_fit_into_one_mount_call() -> None:
    lowers = [f"{new_cache_id()}/diff" for _ in range(AufsDriver.max_depth)]
    assert len(mount_options(f"{new_cache_id()}/diff", lowers, 4096)) == 1


def test_branches_beyond_a_page_are_appended_by_remounts_in_their_order() -> None:
    lowers = [f"/{'long' * 20}/{number}" for number in range(126)]
    first, *more = mount_options("/c", lowers, 4096)
    assert len(more) > 1
    assert all(len(call) < 4096 for call in (first, *more))
    assert len(first) > 3900
    assert first.startswith("br:/c=rw:" + lowers[0] + "=ro+wh:")
    assert first.endswith("=ro+wh,dio,xino=/dev/shm/aufs.xino")
    named = [part.removesuffix("=ro+wh") for part in first.removesuffix(",dio,xino=/dev/shm/aufs.xino").split(":")[2:]]
    for call in more:
        for part in call.split(","):
            assert part.startswith("append:")
            assert part.endswith("=ro+wh")
            named.append(part.removeprefix("append:").removesuffix("=ro+wh"))
    assert named == lowers


def test_a_branch_that_fits_onto_no_page_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit into 4096 bytes"):
        mount_options("/c", ["/short", "/" + "x" * 4090], 4096)


def test_aufs_is_refused_with_what_the_kernel_lacks(tmp_path: Path) -> None:
    if HAS_AUFS:
        pytest.skip("this kernel has aufs")
    with pytest.raises(ConfigError, match="aufs: this kernel has no aufs: its module is not installed"):
        choose_driver(tmp_path, "aufs")
    assert os.listdir(tmp_path) == []


def test_a_layer_of_aufs_is_a_branch_with_aufss_own_whiteouts(tmp_path: Path) -> None:
    async def steps(driver: Driver) -> None:
        base = await layer(driver, {"gone": "", "d/old": "", "back/old": "", "f": ""})
        os.chown(driver.target(base), 3, 4)
        top = await unpacked(
            driver,
            member(".wh.gone"),
            member(".wh..wh.plnk"),
            directory("d"),
            member("d/.wh..wh..opq"),
            member("d/new"),
            member(".wh.back"),
            directory("back"),
            member(".wh.f"),
            member("f", data=b"new"),
            member("both"),
            member(".wh.both"),
            directory("tree"),
            member(".wh.tree"),
            member(".wh.below"),
            member("below/made/on/the/way"),
            parents=(base,),
        )
        branch = driver.target(top)
        assert branch == tmp_path / "home" / top / "diff"
        assert {name for name in tree(branch) if "/" not in name} == {
            ".wh.gone", "d", "back", "f", "both", "tree", "below",
        }  # fmt: skip
        for opaque in ("d", "back", "tree", "below"):
            info = (branch / opaque / ".wh..wh..opq").lstat()
            assert (stat.S_ISREG(info.st_mode), info.st_size, stat.S_IMODE(info.st_mode)) == (True, 0, 0o444)
        assert stat.S_ISREG((branch / ".wh.gone").lstat().st_mode)
        assert (branch.stat().st_uid, branch.stat().st_gid) == (3, 4)
        await driver.create_rw("container", (top, base))
        assert sorted(os.listdir(driver.directory("container"))) == ["diff", "merged"]
        assert driver.root("container") == tmp_path / "home/container/merged"
        assert not driver.is_mounted("container")
        (driver.target("container") / "new").write_bytes(b"x" * 10)
        (driver.target("container") / ".wh.f").write_bytes(b"")
        assert await driver.rw_size("container", (top, base)) == 10
        if not HAS_AUFS:
            with pytest.raises(StoreError, match="cannot mount the root filesystem of layer container: No such device"):
                await driver.mount("container", (top, base))
        await driver.remove("container")
        assert driver.cache_ids() == {base, top}
        await driver.trash.close()

    for driver in prepared("aufs", tmp_path / "home"):
        run(steps(driver))


def test_a_hard_link_to_a_whiteout_of_aufs_is_refused(tmp_path: Path) -> None:
    async def steps(driver: Driver) -> None:
        with pytest.raises(BadArchive, match=r"hard link to .*\.wh\.gone.*, which is no file"):
            await unpacked(driver, member(".wh.gone"), hardlink("link", ".wh.gone"))

    for driver in prepared("aufs", tmp_path / "home"):
        run(steps(driver))


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


@needs_root
def test_layers_are_spread_over_an_ext4_so_that_none_is_made_among_what_was_just_deleted(tmp_path: Path) -> None:
    def places(home: Path) -> set[int]:
        """In which parts of the inode table directories come to be that are made in ``home``."""
        for number in range(16):
            (home / str(number)).mkdir()
        return {os.stat(home / str(number)).st_ino >> 16 for number in range(16)}

    with file_system(tmp_path, "ext4", 32 << 30) as ground:
        (ground / "plain").mkdir()
        driver = OverlayDriver(ground / "overlay")
        driver.prepare()
        driver.prepare()
        assert len(places(ground / "plain")) == 1
        assert len(places(driver.home)) > 3


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
