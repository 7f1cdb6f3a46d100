"""Volumes on a mount of their own, copies, events, and what clients show."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from clients import DOCKERS
from daemons import Daemon, until
from volume_house import data, sh

pytestmark = pytest.mark.usefixtures("nothing_left")


REPOSITORY = Path(__file__).parents[2]


# Volumes that are mounted


def held(daemon: Daemon) -> list[str]:
    """The volumes that something is mounted for."""
    return [Path(line.split()[4]).parent.name for line in daemon.mounts() if line.split()[4].endswith("/_data")]


def test_a_volume_with_a_device_is_mounted_while_somebody_uses_it(daemon: Daemon, tmp_path: Path) -> None:
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=2m,mode=711"}
    assert daemon.post("/volumes/create", {"Name": "mem", "DriverOpts": options}).json["Options"] == options
    one = daemon.run_detached("sleep", "100", host={"Binds": ["mem:/x"]})
    two = daemon.run_detached("sh", "-c", "echo hello >/x/file; sleep 100", host={"Binds": ["mem:/x"]})
    until((data(daemon, "mem") / "file").exists)
    daemon.delete(f"/containers/{two}?force=1")
    assert held(daemon) == ["mem"]
    assert sh(daemon, "cat /x/file; df -k /x | tail -1 | awk '{print $2}'", Binds=["mem:/x"]) == "hello\n2048\n"
    daemon.delete(f"/containers/{one}?force=1")
    until(lambda: "mem" not in held(daemon))


def test_a_volume_can_be_a_directory_of_the_host(seeded: Daemon, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("host")
    mount = {
        "Type": "volume", "Source": "dir", "Target": "/x",
        "VolumeOptions": {"DriverConfig": {"Options": {"type": "none", "o": "bind", "device": str(tmp_path)}}},
    }  # fmt: skip
    assert sh(seeded, "cat /x/file; echo new >/x/new", Mounts=[mount]) == "host"
    assert (tmp_path / "new").read_text() == "new\n"
    assert seeded.delete("/volumes/dir").status == 204
    assert (tmp_path / "file").read_text() == "host"
    empty = tmp_path / "empty"
    empty.mkdir()
    mount["VolumeOptions"]["DriverConfig"]["Options"]["device"] = str(empty)  # type: ignore[index]
    mount["Target"] = "/data"
    seeded.create("true", Image="seeded", host={"Mounts": [mount]})
    assert sorted(os.listdir(empty)) == ["fifo", "file", "sparse", "sub"]


def test_a_device_that_cannot_be_mounted_is_named_at_the_start(daemon: Daemon) -> None:
    options = {"type": "none", "o": "bind", "device": "/nosuch/place"}
    daemon.post("/volumes/create", {"Name": "bad", "DriverOpts": options})
    mount = {"Type": "volume", "Source": "bad", "Target": "/x", "VolumeOptions": {"NoCopy": True}}
    container = daemon.create("true", host={"Mounts": [mount]})
    reply = daemon.post(f"/containers/{container}/start")
    assert reply.status == 500
    assert "volume bad: /nosuch/place cannot be mounted" in reply.message
    assert daemon.inspect(container)["State"]["Status"] == "created"


# Copies


def archive(name: str, text: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
    return buffer.getvalue()


def test_copies_go_into_volumes_and_out_of_them(daemon: Daemon) -> None:
    options = {"type": "tmpfs", "device": "tmpfs"}
    daemon.post("/volumes/create", {"Name": "mem", "DriverOpts": options})
    container = daemon.create("true", host={"Binds": ["data:/x", "data:/ro:ro", "mem:/mem"]})
    assert daemon.call("PUT", f"/containers/{container}/archive?path=/x", archive("f", b"hello")).status == 200
    assert (data(daemon, "data") / "f").read_bytes() == b"hello"
    reply = daemon.call("PUT", f"/containers/{container}/archive?path=/ro", archive("f", b"no"))
    assert (reply.status, reply.message) == (403, "/ro: mounted volume is marked read-only")
    reply = daemon.get(f"/containers/{container}/archive?path=/ro/f")
    with tarfile.open(fileobj=io.BytesIO(reply.data)) as tar:
        assert tar.getnames() == ["f"]
    assert daemon.call("PUT", f"/containers/{container}/archive?path=/mem", archive("f", b"gone")).status == 200
    assert held(daemon) == []


# Events


def test_events_tell_the_life_of_a_volume(daemon: Daemon) -> None:
    since = time.time()
    container = daemon.run_detached("true", host={"Binds": ["data:/x:ro"]})
    daemon.wait(container)
    until(lambda: "unmount" in actions(daemon, since))
    daemon.delete(f"/containers/{container}")
    daemon.delete("/volumes/data")
    assert actions(daemon, since) == ["create", "mount", "unmount", "destroy"]
    mount = events(daemon, since)[1]
    assert mount["Actor"] == {
        "ID": "data",
        "Attributes": {
            "container": container, "destination": "/x", "driver": "local", "propagation": "", "read/write": "false",
        },
    }  # fmt: skip
    assert "status" not in mount


def events(daemon: Daemon, since: float) -> list[dict[str, Any]]:
    filters = '{"type":["volume"],"volume":["data"]}'
    reply = daemon.get(f"/events?since={since:.6f}&until={time.time():.6f}&filters={filters}")
    return [json.loads(line) for line in reply.data.splitlines()]


def actions(daemon: Daemon, since: float) -> list[str]:
    return [event["Action"] for event in events(daemon, since)]


# Clients


@pytest.mark.parametrize("docker", DOCKERS, ids=lambda argv: argv[-1])
def test_the_docker_command_line_works_with_volumes(seeded: Daemon, docker: list[str]) -> None:
    def run(*words: str) -> str:
        argv = [*docker, "-H", f"unix://{seeded.socket}", *words]
        done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    base = ("run", "--rm", "--net=none")
    assert run("volume", "create", "--label", "a=b", "data") == "data"
    run(*base, "-v", "data:/x", "busybox", "sh", "-c", "echo hi >/x/f")
    assert run(*base, "--mount", "type=volume,src=data,dst=/x,readonly", "busybox", "cat", "/x/f") == "hi"
    assert run(*base, "--mount", "type=tmpfs,dst=/x,tmpfs-size=64k", "--tmpfs", "/y:size=1m", "--shm-size", "2m",
               "busybox", "sh", "-c", "df -k /x /y /dev/shm | awk 'NR>1 {print $2}'") == "64\n1024\n2048"  # fmt: skip
    assert run("volume", "ls", "-q", "--filter", "label=a=b") == "data"
    assert run("volume", "inspect", "-f", "{{.Name}} {{.Driver}} {{.Labels.a}}", "data") == "data local b"
    run("create", "--name", "keeper", "--net=none", "seeded", "true")
    assert run(*base, "--volumes-from", "keeper", "seeded", "cat", "/data/file") == "hello"
    assert "1" in run("system", "df")
    run("rm", "-v", "keeper")
    assert run("volume", "ls", "-q") == "data"
    assert run("volume", "rm", "data") == "data"
    anonymous = run("volume", "create")
    assert anonymous in run("volume", "prune", "-f")


def test_pydocker_works_with_volumes(seeded: Daemon) -> None:
    program = "import sys; sys.argv[0] = 'pydocker'\nfrom dockerd_py.cli.main import main\nsys.exit(main())"

    def run(*words: str, code: int = 0) -> str:
        argv = [sys.executable, "-c", program, "-H", f"unix://{seeded.socket}", *words]
        done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60, cwd=REPOSITORY)
        assert done.returncode == code, done.stderr
        return (done.stdout or done.stderr).strip()

    base = ("run", "--rm", "--net=none")
    assert run("volume", "create", "--label", "a=b", "data") == "data"
    run(*base, "-v", "data:/x", "busybox", "sh", "-c", "echo hi >/x/f")
    assert run(*base, "--mount", "src=data,dst=/x,ro", "busybox", "cat", "/x/f") == "hi"
    assert run(*base, "--mount", "type=tmpfs,dst=/x,tmpfs-size=64k", "--tmpfs", "/y:size=1m", "--shm-size", "2m",
               "busybox", "sh", "-c", "df -k /x /y /dev/shm | awk 'NR>1 {print $2}'") == "64\n1024\n2048"  # fmt: skip
    assert run("volume", "ls").split() == ["DRIVER", "VOLUME", "NAME", "local", "data"]
    assert run("volume", "ls", "-q", "-f", "dangling=false") == ""
    assert run("volume", "inspect", "-f", "{{.Mountpoint}}", "data") == str(data(seeded, "data"))
    assert json.loads(run("inspect", "data"))[0]["Labels"] == {"a": "b"}
    run("create", "--name", "keeper", "--net=none", "--volume-driver", "local", "seeded", "true")
    assert run(*base, "--volumes-from", "keeper:ro", "seeded", "cat", "/data/file") == "hello"
    assert "Local Volumes 2 1 " in " ".join(run("system", "df").split())
    run("rm", "-v", "keeper")
    assert run("volume", "ls", "-q") == "data"
    anonymous = run("volume", "create")
    assert run("volume", "prune", "-f") == f"Deleted Volumes:\n{anonymous}\n\nTotal reclaimed space: 0B"
    assert run("volume", "rm", "nosuch", code=1) == "pydocker: Error response from daemon: get nosuch: no such volume"
    assert run("volume", "rm", "data") == "data"
    assert "has no 'paint'" in run("volume", "paint", code=2)


def test_docker_py_works_with_volumes(seeded: Daemon) -> None:
    import docker
    from docker.types import DriverConfig, Mount

    client = docker.DockerClient(base_url=f"unix://{seeded.socket}")
    try:
        volume = client.volumes.create("data", labels={"a": "b"})
        assert (volume.name, volume.attrs["Labels"]) == ("data", {"a": "b"})
        assert client.volumes.list(filters={"label": "a"}) == [volume]
        output = client.containers.run(
            "busybox", ["sh", "-c", "echo hi >/x/f; cat /x/f; grep -c /tm /proc/mounts"], network_mode="none",
            remove=True, volumes={"data": {"bind": "/x", "mode": "rw"}}, tmpfs={"/tm": "size=1m"}, shm_size="1m",
            mounts=[
                Mount("/y", None, type="volume"),
                Mount("/z", None, type="tmpfs", tmpfs_size="1m"),
                Mount("/w", "mem", type="volume", no_copy=True, labels={"c": "d"}, driver_config=DriverConfig(
                    "local", {"type": "tmpfs", "device": "tmpfs"}
                )),
            ],
        )  # fmt: skip
        assert output == b"hi\n1\n"
        assert {"data", "mem"} < {one.name for one in client.volumes.list()}  # docker-py leaves anonymous ones
        with pytest.raises(docker.errors.NotFound):
            client.volumes.get("nosuch")
        volume.remove()
        assert "mem" in client.volumes.prune(filters={"all": True})["VolumesDeleted"]
    finally:
        client.close()
