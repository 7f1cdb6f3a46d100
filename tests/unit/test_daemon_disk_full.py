"""A full disk: each error says so, nothing half made stays, what frees space works, and all does when there is room."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemons import Daemon, Reply, until
from loop_devices import file_system
from store_house import needs_root

pytestmark = needs_root

SIZE = 40 << 20
FULL = "no space left on the disk"


class Small:
    """A daemon whose root is on a file system of 40 MB; its sockets and its log are elsewhere."""

    def __init__(self, directory: Path, point: Path) -> None:
        self.point = point
        self.daemon = Daemon(directory)
        self.daemon.root = point / "root"

    def free(self) -> int:
        space = os.statvfs(self.point)
        return space.f_bavail * space.f_frsize

    def fill(self) -> None:
        """Take all that is free, to the last block."""
        (self.point / "fillers").mkdir(exist_ok=True)
        for _ in range(3):
            fd = os.open(self.point / "filler", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for size in (1 << 20, 1 << 12, 1):
                try:
                    while True:
                        os.write(fd, os.urandom(size))
                except OSError:
                    continue
            os.close(fd)
            os.sync()
        # A last block, that the file cannot have because it would need another for its extents, is a directory's.
        with contextlib.suppress(OSError):
            for number in itertools.count():
                (self.point / "fillers" / f"{number}").mkdir(exist_ok=True)
        with pytest.raises(OSError, match="No space left"):
            (self.point / "nothing").mkdir()

    def make_room(self) -> None:
        (self.point / "filler").unlink()
        shutil.rmtree(self.point / "fillers")

    def fsck(self) -> tuple[int, str]:
        """Of the daemon that is stopped."""
        argv = ["-m", "dockerd_py.daemon.main", "fsck", "-g", self.daemon.root, "--exec-root", self.daemon.run]
        done = subprocess.run(
            [sys.executable, *argv], capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def works(self) -> None:
        """With room, everything does; and in the end nothing is left."""
        self.daemon.import_busybox("fresh")
        assert self.daemon.run_to_end("echo", "fine", Image="fresh") == (0, b"fine\n")
        self.daemon.close()
        assert self.fsck() == (0, "")
        assert [path for path in self.daemon.leftovers() if not path.startswith("mount")] == []


@pytest.fixture(params=["overlay", "vfs"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Small]:
    with file_system(tmp_path, "ext4", SIZE) as point:
        one = Small(tmp_path, point)
        one.daemon.start("-s", request.param)
        one.daemon.flags = ("-s", request.param)
        one.daemon.import_busybox()
        yield one
        if one.daemon.process is not None:
            one.daemon.close()


def too_large() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number in range(SIZE >> 22):
            info = tarfile.TarInfo(f"f{number}")
            info.size = 5 << 20
            archive.addfile(info, io.BytesIO(os.urandom(info.size)))
    return buffer.getvalue()


def create(daemon: Daemon, name: str) -> Reply:
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}
    return daemon.post(f"/containers/create?name={name}", body)


def test_an_image_that_is_too_large_leaves_nothing_behind(small: Small) -> None:
    before = small.free()
    reply = small.daemon.post("/images/create?fromSrc=-&repo=large", too_large())
    assert FULL in reply.data.decode(), reply.data[-300:]
    until(lambda: small.free() > before - (1 << 20))
    assert [image["RepoTags"] for image in small.daemon.get("/images/json").json] == [["busybox:latest"]]
    small.works()


def test_a_container_that_fills_the_disk_gets_enospc_and_can_be_removed(small: Small) -> None:
    before = small.free()
    container = small.daemon.run_detached("dd", "if=/dev/zero", "of=/zeros", "bs=1M", "count=100")
    assert small.daemon.wait(container) == 1
    assert small.free() < 1 << 20
    assert small.daemon.delete(f"/containers/{container}").status == 204
    until(lambda: small.free() > before - (1 << 20))
    small.works()


def test_on_a_full_disk_what_needs_room_says_so_and_what_frees_it_works(small: Small) -> None:
    daemon = small.daemon
    daemon.create("true", name="kept")
    daemon.create("true", name="gone")
    small.fill()
    assert FULL in daemon.post("/images/create?fromSrc=-&repo=large", too_large()).data.decode()
    for _ in range(5):
        reply = create(daemon, "new")
        assert (reply.status, FULL in reply.message) == (500, True)
    reply = daemon.post("/containers/kept/start")
    assert (reply.status, FULL in reply.message) == (500, True)
    assert FULL in daemon.inspect("kept")["State"]["Error"]
    assert daemon.delete("/containers/gone").status == 204
    daemon.stop()
    assert small.fsck() == (0, "")
    small.make_room()
    daemon.start()
    assert daemon.post("/containers/kept/start").status == 204
    assert daemon.wait("kept") == 0
    small.works()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_daemon_starts_on_a_full_disk(small: Small, how: int) -> None:
    daemon = small.daemon
    container = daemon.create("true")
    small.fill()
    daemon.stop(how)
    small.fill()
    daemon.start()
    assert daemon.inspect(container)["State"]["Status"] == "created"
    assert FULL in create(daemon, "new").message
    # What frees space works now, too.
    assert daemon.delete(f"/containers/{container}").status == 204
    assert daemon.delete("/images/busybox").status == 200
    until(lambda: small.free() > 1 << 20)
    daemon.import_busybox()
    small.make_room()
    small.works()


def test_the_exit_code_of_a_container_that_ends_on_a_full_disk_is_kept(small: Small) -> None:
    daemon = small.daemon
    watched = daemon.run_detached("sh", "-c", "while [ ! -e /tmp/go ]; do sleep 0.1; done; exit 5")
    unseen = daemon.run_detached("sh", "-c", "while [ ! -e /tmp/go ]; do sleep 0.1; done; exit 6")
    roots = {one: Path(f"/proc/{daemon.inspect(one)['State']['Pid']}/root") for one in (watched, unseen)}
    # Made before the disk is full, and renamed when it is.
    for root in roots.values():
        (root / "tmp/ready").touch()
    small.fill()
    os.rename(roots[watched] / "tmp/ready", roots[watched] / "tmp/go")
    assert daemon.wait(watched) == 5
    daemon.stop()
    small.fill()
    os.rename(roots[unseen] / "tmp/ready", roots[unseen] / "tmp/go")
    until(lambda: not roots[unseen].exists())
    time.sleep(0.3)
    daemon.start()
    assert daemon.wait(unseen) == 6
    small.make_room()
    small.works()
