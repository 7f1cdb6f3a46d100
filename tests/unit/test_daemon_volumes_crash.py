"""Volumes and a daemon that is killed: nothing half made counts, nothing is lost, nothing stays mounted."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from daemons import Daemon, busybox_tar, until

FILES = 400


def seed(daemon: Daemon) -> None:
    """An image that wants a volume where it has many files."""
    rootfs = daemon.directory / "seed"
    (rootfs / "data").mkdir(parents=True)
    for number in range(FILES):
        (rootfs / f"data/{number}").write_bytes(bytes(10_000))
    subprocess.run(["tar", "-xf-", "-C", rootfs], input=busybox_tar(daemon.directory), check=True)
    tar = subprocess.run(["tar", "-cf-", "-C", rootfs, "."], check=True, capture_output=True).stdout
    assert daemon.post("/images/create?fromSrc=-&repo=seeded&changes=VOLUME%20/data", tar).status == 200


def fsck(daemon: Daemon) -> str:
    """What is wrong while the daemon is stopped."""
    argv = [sys.executable, "-m", "dockerd_py.daemon.main", "fsck", "-g", daemon.root, "--exec-root", daemon.run]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=environment).stdout


def names(daemon: Daemon) -> list[str]:
    return [volume["Name"] for volume in daemon.get("/volumes").json["Volumes"]]


def held(daemon: Daemon) -> list[str]:
    return [Path(line.split()[4]).parent.name for line in daemon.mounts() if line.split()[4].endswith("/_data")]


def test_a_create_that_is_killed_leaves_whole_volumes_or_none(own_daemon: Daemon) -> None:
    daemon = own_daemon
    seed(daemon)
    daemon.post("/volumes/create", {"Name": "before"})
    chance = random.Random(4)
    body = {
        "Image": "seeded",
        "Cmd": ["true"],
        "HostConfig": {"NetworkMode": "none", "Binds": ["before:/data", "fresh:/data2"]},
        "Volumes": {"/bin": {}},
    }
    for _ in range(12):
        made: list[str] = []

        def create(made: list[str] = made) -> None:
            try:
                made.append(daemon.post("/containers/create", body).json["Id"])
            except (OSError, ValueError):
                pass  # it was killed meanwhile

        thread = threading.Thread(target=create)
        thread.start()
        time.sleep(chance.uniform(0.0, 0.25))
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGKILL)
        daemon.process.wait()
        thread.join()
        daemon.start()
        there = [container["Id"] for container in daemon.get("/containers/json?all=1").json]
        assert set(made) <= set(there)
        content = os.listdir(daemon.root / "volumes/before/_data")
        assert len(content) in ((FILES,) if there else (0, FILES))
        assert os.listdir(daemon.root / "volumes/before") == ["_data"]
        anonymous = [mount["Name"] for one in there for mount in daemon.inspect(one)["Mounts"] if mount["Name"]]
        assert sorted({"before", *anonymous}) == names(daemon)
        on_disk = {path.name for path in (daemon.root / "volumes").iterdir()} - {".trash"}
        assert on_disk == set(names(daemon))
        for one in there:
            assert daemon.delete(f"/containers/{one}?v=1").status == 204
        for name in set(names(daemon)) - {"before"}:
            assert daemon.delete(f"/volumes/{name}").status == 204
        for path in (daemon.root / "volumes/before/_data").iterdir():
            path.unlink()
    daemon.stop()
    assert fsck(daemon) == ""
    daemon.start()


def test_a_copy_that_is_killed_in_its_midst_does_not_count(own_daemon: Daemon) -> None:
    seed(own_daemon)
    own_daemon.post("/volumes/create", {"Name": "before"})
    volume = own_daemon.root / "volumes/before"
    body = {"Image": "seeded", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none", "Binds": ["before:/data"]}}
    with own_daemon.connect() as connection:
        text = json.dumps(body).encode()
        head = f"POST /v1.43/containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: {len(text)}\r\n\r\n"
        connection.sendall(head.encode() + text)
        while not (volume / "_copying/0").exists() and not (volume / "_data/0").exists():
            pass
        own_daemon.stop(signal.SIGKILL)
    own_daemon.start()
    assert os.listdir(volume) == ["_data"]
    assert len(os.listdir(volume / "_data")) in (0, FILES)
    assert own_daemon.get("/containers/json?all=1").json == []
    container = own_daemon.post("/containers/create", body).json["Id"]
    assert len(os.listdir(volume / "_data")) == FILES
    own_daemon.delete(f"/containers/{container}")


def test_a_removal_that_was_under_way_is_finished(own_daemon: Daemon) -> None:
    own_daemon.post("/volumes/create", {"Name": "going"})
    own_daemon.post("/volumes/create", {"Name": "coming"})
    own_daemon.stop()
    connection = sqlite3.connect(own_daemon.root / "pydockerd.db")
    with connection:
        connection.execute("UPDATE volumes SET state = 'removing' WHERE name = 'going'")
        connection.execute("UPDATE volumes SET state = 'intended' WHERE name = 'coming'")
    connection.close()
    (own_daemon.root / "volumes/stranger/_data").mkdir(parents=True)
    found = fsck(own_daemon)
    assert "volume going: half removed" in found
    assert "volume coming: half made" in found
    assert "volumes/stranger: no volume is recorded for it" in found
    own_daemon.start()
    assert names(own_daemon) == []
    assert [path.name for path in (own_daemon.root / "volumes").iterdir()] == [".trash"]


@pytest.mark.parametrize(("waiting", "expected"), [("_copying", ["mine"]), ("_copied", ["file", "mine"])])
def test_only_a_whole_copy_gets_into_a_volume(own_daemon: Daemon, waiting: str, expected: list[str]) -> None:
    own_daemon.post("/volumes/create", {"Name": "data"})
    own_daemon.stop()
    volume = own_daemon.root / "volumes/data"
    (volume / waiting).mkdir()
    for name in ("file", "mine"):
        (volume / waiting / name).write_text("of the image")
    (volume / "_data/mine").write_text("mine")
    assert f"volumes/data/{waiting}: left of what was to be copied" in fsck(own_daemon)
    own_daemon.start()
    assert sorted(os.listdir(volume / "_data")) == expected
    assert (volume / "_data/mine").read_text() == "mine"
    assert os.listdir(volume) == ["_data"]


def test_what_is_mounted_for_a_volume_outlives_the_daemon_but_not_the_container(own_daemon: Daemon) -> None:
    options = {"type": "tmpfs", "device": "tmpfs"}
    own_daemon.post("/volumes/create", {"Name": "mem", "DriverOpts": options})
    container = own_daemon.run_detached("sh", "-c", "echo hello >/x/file; sleep 100", host={"Binds": ["mem:/x"]})
    until((own_daemon.root / "volumes/mem/_data/file").exists)
    own_daemon.stop(signal.SIGKILL)
    own_daemon.start()
    assert (own_daemon.root / "volumes/mem/_data/file").read_text() == "hello\n"
    assert own_daemon.inspect(container)["State"]["Running"]
    own_daemon.post(f"/containers/{container}/kill")
    until(lambda: "mem" not in held(own_daemon))

    own_daemon.post(f"/containers/{container}/start")
    assert held(own_daemon) == ["mem"]
    pid = own_daemon.inspect(container)["State"]["Pid"]
    own_daemon.stop(signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    own_daemon.start()
    assert not own_daemon.inspect(container)["State"]["Running"]
    assert held(own_daemon) == []


def test_fsck_finds_a_volume_without_its_directory_and_a_strange_mount(own_daemon: Daemon) -> None:
    own_daemon.post("/volumes/create", {"Name": "lost"})
    own_daemon.post("/volumes/create", {"Name": "covered"})
    own_daemon.stop()
    (own_daemon.root / "volumes/lost/_data").rmdir()
    covered = own_daemon.root / "volumes/covered/_data"
    subprocess.run(["mount", "-t", "tmpfs", "none", covered], check=True)
    try:
        found = fsck(own_daemon)
    finally:
        subprocess.run(["umount", covered], check=True)
    assert "volume lost: its directory is not there" in found
    assert f"{covered}: a mount that belongs to no volume" in found
    own_daemon.start()
