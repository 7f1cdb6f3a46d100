"""Volumes and the containers that have them, for tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daemons import Daemon, busybox_tar


@pytest.fixture(scope="module")
def seeded(daemon: Daemon) -> Daemon:
    """The daemon, with an image "seeded" that has something at /data, where it wants a volume, and at /link."""
    rootfs = daemon.directory / "seed"
    data = rootfs / "data"
    (data / "sub").mkdir(parents=True)
    (data / "file").write_bytes(b"hello\n")
    os.link(data / "file", data / "sub/hard")
    (data / "sub/soft").symlink_to("../file")
    with open(data / "sparse", "wb") as file:
        file.seek(8 << 20)
        file.write(b"end")
    os.setxattr(data / "file", "user.colour", b"blue")
    os.mkfifo(data / "fifo")
    os.chown(data / "file", 5, 6)
    (data / "file").chmod(0o4711)
    os.chown(data, 7, 8)
    data.chmod(0o2751)
    os.utime(data / "file", ns=(1_000_000_001, 1_000_000_001))
    (rootfs / "link").symlink_to("/data")
    (rootfs / "outside").symlink_to("/../../../../../../etc")
    (rootfs / "etc").mkdir()
    (rootfs / "etc/inside").write_text("inside")
    (rootfs / "empty").mkdir(mode=0o700)
    os.chown(rootfs / "empty", 9, 9)
    subprocess.run(["tar", "-xf-", "-C", rootfs], input=busybox_tar(daemon.directory), check=True)
    subprocess.run(["tar", "--xattrs", "-Scf", daemon.directory / "seed.tar", "-C", rootfs, "."], check=True)
    tar = (daemon.directory / "seed.tar").read_bytes()
    reply = daemon.post("/images/create?fromSrc=-&repo=seeded&changes=VOLUME%20/data", tar)
    assert reply.status == 200, reply.data
    assert b'"error"' not in reply.data, reply.data
    return daemon


def data(daemon: Daemon, name: str) -> Path:
    return daemon.root / "volumes" / name / "_data"


def sh(daemon: Daemon, script: str, image: str = "busybox", **host: Any) -> str:
    """What a shell in a container says that is removed afterwards; its anonymous volumes stay."""
    container = daemon.run_detached("sh", "-c", script, Image=image, host=host)
    daemon.wait(container)
    text = daemon.logs(container).decode()
    daemon.delete(f"/containers/{container}")
    return text


def names(daemon: Daemon) -> list[str]:
    return [volume["Name"] for volume in daemon.get("/volumes").json["Volumes"]]


@pytest.fixture
def nothing_left(daemon: Daemon) -> Iterator[None]:
    """Each test's containers and volumes go after it."""
    yield
    for container in daemon.get("/containers/json?all=1").json:
        daemon.delete(f"/containers/{container['Id']}?force=1&v=1")
    for name in names(daemon):
        assert daemon.delete(f"/volumes/{name}").status == 204
