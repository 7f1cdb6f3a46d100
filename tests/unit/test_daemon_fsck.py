"""``pydockerd fsck``: silent about a root in order, one line for each thing that is wrong, and no hand on anything."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from daemons import Daemon
from store_house import SMALL, a_container, needs_root, opened, stream

from dockerd_py.store import mounts
from dockerd_py.store.trash import unmount_below

pytestmark = needs_root

TOP = Path(__file__).parents[2]


def fsck(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dockerd_py.daemon.main", "fsck", *argv]
    return subprocess.run(command, capture_output=True, text=True, cwd=TOP, check=False)


def pictured(directory: Path) -> dict[str, Any]:
    """Everything below ``directory`` by which a change would show."""
    found: dict[str, Any] = {}
    for top, _dirs, files in os.walk(directory):
        for path in (Path(top), *(Path(top) / name for name in files)):
            info = path.lstat()
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            found[str(path)] = (info.st_mode, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns, content)
    return found


class House:
    """A root with an image of one layer and a container on it, for overlay and for vfs."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "root"
        self.exec_root = directory / "run"
        self.image = ""
        self.chain = ""
        self.layer: dict[str, str] = {}
        self.rw: dict[str, str] = {}
        self.container: dict[str, str] = {}
        asyncio.run(self._build())

    async def _build(self) -> None:
        for driver in ("overlay", "vfs"):
            async with opened(self.root, driver) as store:
                image = await store.images.import_(stream(SMALL), repo="base")
                row = a_container(store, image.id)
                await store.create_container(row, image.chain_id)
                await store.layers.mount_rw(row.id)
                self.image, self.chain = image.id, str(image.chain_id)
                self.container[driver] = row.id
                (layer,) = store.layers.chain(image.chain_id)
                self.layer[driver] = layer.cache_id
                self.rw[driver] = (store.driver.cache_ids() - {layer.cache_id}).pop()
        for directory in ("containers", "runtime"):
            (self.exec_root / directory / self.container["overlay"]).mkdir(parents=True)
        for directory in ("containers", "spool"):
            (self.root / directory).mkdir()
        (self.root / "containers" / self.container["vfs"]).mkdir()
        (self.root / "spool" / f"{self.container['vfs']}.json").write_text("{}")

    def fsck(self, *more: str) -> subprocess.CompletedProcess[str]:
        return fsck(*more, "-g", self.root, "--exec-root", self.exec_root)

    def sql(self, statement: str, *values: object) -> None:
        connection = sqlite3.connect(self.root / "pydockerd.db")
        with connection:
            assert connection.execute(statement, values).rowcount > 0
        connection.close()

    def sql_each(self, statements: Iterable[str]) -> None:
        for statement in statements:
            self.sql(statement)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    one = House(tmp_path)
    yield one
    unmount_below(tmp_path)


def test_nothing_is_said_of_a_root_in_order_and_nothing_changed(house: House) -> None:
    before = pictured(house.root), pictured(house.exec_root)
    done = house.fsck()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (pictured(house.root), pictured(house.exec_root)) == before


Damage = Callable[[House], None]

DAMAGES: dict[str, tuple[Damage, list[str]]] = {
    "a layer's directory": (
        lambda h: shutil.rmtree(h.root / "vfs" / h.layer["vfs"]),
        ["layer {layer_vfs} (vfs): its directory is not there"],
    ),
    "a container's directory": (
        lambda h: shutil.rmtree(h.root / "vfs" / h.rw["vfs"]),
        ["container {container_vfs} (vfs): the directory of its layer {rw_vfs} is not there"],
    ),
    "a directory too many": (
        lambda h: (h.root / "overlay/nobodys").mkdir(),
        ["{root}/overlay/nobodys: no layer or container is recorded for it"],
    ),
    "a directory of a driver without rows": (
        lambda h: (h.root / "btrfs/new\nline").mkdir(parents=True),
        ["'{root}/btrfs/new\\nline': no layer or container is recorded for it"],
    ),
    "something in the trash": (
        lambda h: (h.root / "vfs/trash/0123").mkdir(),
        ["{root}/vfs/trash/0123: removed, and not deleted yet"],
    ),
    "a trial's rest": (
        lambda h: (h.root / ".probe-x").mkdir(),
        ["{root}/.probe-x: left by the trial of a storage driver"],
    ),
    "a temporary file": (
        lambda h: (h.root / "tmp/load-1").mkdir(parents=True),
        ["{root}/tmp/load-1: a temporary file of a daemon that was killed"],
    ),
    "a mount of nothing": (
        lambda h: mounts.mount("tmpfs", h.root / "overlay" / h.layer["overlay"] / "diff/etc", "tmpfs"),
        ["{root}/overlay/{layer_overlay}/diff/etc: a mount that belongs to no container"],
    ),
    "what was kept of a layer's archive": (
        lambda h: (h.root / "overlay" / h.layer["overlay"] / "skeleton").unlink(),
        ["layer {layer_overlay} (overlay): what was kept of its archive is not there, so it cannot be saved"],
    ),
    "a dangling tag": (
        lambda h: h.sql("UPDATE tags SET image_id = 'feed' WHERE driver = 'vfs'"),
        ["tag base:latest (vfs): its image feed is not there"],
    ),
    "a missing layer": (
        lambda h: h.sql("DELETE FROM layers WHERE driver = 'vfs'"),
        [
            "image {image} (vfs): layer {chain} is not there",
            "container {container_vfs} (vfs): layer {chain} of its image is not there",
            "{root}/vfs/{layer_vfs}: no layer or container is recorded for it",
        ],
    ),
    "a changed configuration": (
        lambda h: h.sql("UPDATE images SET config = '{}' WHERE driver = 'vfs'"),
        ["image {image} (vfs): its configuration is not the one that its id names"],
    ),
    "another chain": (
        lambda h: h.sql("UPDATE images SET chain_id = NULL WHERE driver = 'vfs'"),
        ["image {image} (vfs): its layers are not those of its configuration"],
    ),
    "another diff id": (
        lambda h: h.sql("UPDATE layers SET diff_id = 'sha256:00' WHERE driver = 'vfs'"),
        ["layer {layer_vfs} (vfs): its chain id is not that of its diff id"],
    ),
    "a layer half made": (
        lambda h: h.sql("INSERT INTO layers (cache_id, driver, state) VALUES ('half', 'vfs', 'intended')"),
        ["layer half (vfs): half made"],
    ),
    "a layer that nothing needs": (
        lambda h: h.sql_each(f"DELETE FROM {table} WHERE driver = 'vfs'" for table in ("tags", "images", "rw_layers")),
        [
            "layer {layer_vfs} (vfs): no image, layer or container needs it",
            "container {container_vfs} (vfs): it has no layer",
            "{root}/vfs/{rw_vfs}: no layer or container is recorded for it",
        ],
    ),
    "a container half removed": (
        lambda h: h.sql("UPDATE containers SET phase = 'removing' WHERE driver = 'vfs'"),
        ["container {container_vfs} (vfs): half removed"],
    ),
    "a container's layer half made": (
        lambda h: h.sql("UPDATE rw_layers SET state = 'intended' WHERE driver = 'vfs'"),
        ["container {container_vfs} (vfs): its layer is half made"],
    ),
    "a driver of the future": (
        lambda h: h.sql("INSERT INTO layers (cache_id, driver, state) VALUES ('x', 'zfs', 'intended')"),
        ["the database has rows of the storage driver 'zfs', which this version does not have"],
    ),
    "a container's row": (
        lambda h: h.sql("DELETE FROM containers WHERE driver = 'overlay'"),
        [
            "layer {rw_overlay} (overlay): its container {container_overlay} is not there",
            "{run}/containers/{container_overlay}: run-time files of a container that is not there",
            "{run}/runtime/{container_overlay}: the OCI runtime's state of a container that is not there",
        ],
    ),
    "a socket that was never used": (
        lambda h: (h.exec_root / ".monitor.sock.999999999").touch(),
        ["{run}/.monitor.sock.999999999: a socket of a process that was killed"],
    ),
    "names of no container": (
        lambda h: ((h.exec_root / "names").mkdir(), (h.exec_root / "names/feed.json").touch()),
        ["{run}/names/feed.json: names of a container that is not there"],
    ),
    "files of no container": (
        lambda h: (h.root / "containers/feed").mkdir(),
        ["{root}/containers/feed: files of a container that is not there"],
    ),
    "an exit record of no container": (
        lambda h: (h.root / "spool/feed.json.tmp").touch(),
        ["{root}/spool/feed.json.tmp: the exit record of a container that is not there"],
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_each_thing_that_is_wrong_is_one_line_and_stays_as_it_is(house: House, name: str) -> None:
    damage, lines = DAMAGES[name]
    damage(house)
    before = pictured(house.root), pictured(house.exec_root)
    done = house.fsck()
    words = {
        "root": house.root, "run": house.exec_root, "image": house.image, "chain": house.chain,
        **{f"layer_{driver}": cache_id for driver, cache_id in house.layer.items()},
        **{f"rw_{driver}": cache_id for driver, cache_id in house.rw.items()},
        **{f"container_{driver}": container for driver, container in house.container.items()},
    }  # fmt: skip
    assert done.stdout.splitlines() == [line.format_map(words) for line in lines]
    assert (done.returncode, done.stderr) == (1, "")
    assert (pictured(house.root), pictured(house.exec_root)) == before


def test_contents_that_are_not_what_came_in_are_found_by_a_deep_look_alone(house: House) -> None:
    before = pictured(house.root)
    done = house.fsck("--deep")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert pictured(house.root) == before
    motd = house.root / "overlay" / house.layer["overlay"] / "diff/etc/motd"
    info = motd.stat()
    motd.write_bytes(b"hullo\n")
    os.utime(motd, ns=(info.st_atime_ns, info.st_mtime_ns))
    (house.root / "vfs" / house.layer["vfs"] / "fs/etc/motd").unlink()
    assert house.fsck().returncode == 0
    done = house.fsck("--deep")
    changed, gone = done.stdout.splitlines()
    assert changed.startswith(f"layer {house.layer['overlay']} (overlay): its contents are not what came in (sha256:")
    assert changed.endswith("etc/motd changed since")
    expected = "etc/motd, which came with it, cannot be read: No such file or directory"
    assert gone == f"layer {house.layer['vfs']} (vfs): {expected}"
    assert (done.returncode, done.stderr) == (1, "")


def test_an_image_removed_by_force_under_a_container_is_in_order(house: House) -> None:
    async def steps() -> None:
        async with opened(house.root, "vfs") as store:
            await store.images.remove("base", lambda _: [], force=True)

    asyncio.run(steps())
    done = house.fsck()
    assert (done.returncode, done.stdout) == (0, "")


def test_a_running_daemon_is_named_and_a_killed_one_is_looked_at_with_what_it_committed_last(
    own_daemon: Daemon,
) -> None:
    def check() -> subprocess.CompletedProcess[str]:
        return fsck("-g", own_daemon.root, "--exec-root", own_daemon.run)

    assert own_daemon.process is not None
    done = check()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"pydockerd fsck: {own_daemon.root} is in use by pydockerd with process id {own_daemon.process.pid}: "
        "stop it first (systemctl stop pydockerd.socket pydockerd.service); containers go on running\n"
    )
    own_daemon.run_detached("sleep", "100", name="running")
    own_daemon.create("true", name="made")
    own_daemon.stop(signal.SIGKILL)
    # What was committed is in the write-ahead log alone.
    assert (own_daemon.root / "pydockerd.db-wal").stat().st_size > 0
    before = pictured(own_daemon.root)
    done = check()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert pictured(own_daemon.root) == before
    own_daemon.start()
    own_daemon.close()
    assert check().returncode == 0


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["-g", "/nowhere"], "/nowhere is not a directory: name the root directory by -g"),
        (["-D"], "-D/--debug means nothing to fsck: leave it out"),
        (["--unknown"], "flag provided but not defined: --unknown"),
        (["what"], "unexpected argument 'what': pydockerd takes only flags"),
    ],
)
def test_what_cannot_be_looked_at_is_said_with_2(argv: list[str], said: str) -> None:
    done = fsck(*argv)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"pydockerd fsck: {said}\n")


def test_a_database_that_is_none_is_said_with_2(tmp_path: Path) -> None:
    (tmp_path / "pydockerd.db").write_text("no database at all" * 100)
    done = fsck("-g", tmp_path, "--exec-root", tmp_path / "run")
    assert (done.returncode, "pydockerd.db cannot be read: file is not a database" in done.stderr) == (2, True)


def test_a_directory_without_anything_of_a_daemons_is_in_order(tmp_path: Path) -> None:
    done = fsck("-g", tmp_path, "--exec-root", tmp_path / "run")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert os.listdir(tmp_path) == []


def test_its_help_names_its_options() -> None:
    done = fsck("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in ("pydockerd fsck", "--deep", "--graph", "--exec-root", "--config"))
    assert "--debug" not in done.stdout
