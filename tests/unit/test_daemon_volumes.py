"""Volumes, binds and tmpfs: what containers find in them, what is recorded of them, and what becomes of them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daemons import Daemon, until
from volume_house import data, names, sh

pytestmark = pytest.mark.usefixtures("nothing_left")



def mounts(daemon: Daemon, container: str) -> dict[str, dict[str, Any]]:
    return {mount["Destination"]: mount for mount in daemon.inspect(container)["Mounts"]}


def refused(daemon: Daemon, **host: Any) -> tuple[int, str]:
    """Of a creation with these settings."""
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none", **host}}
    reply = daemon.post("/containers/create", body)
    return reply.status, reply.message


# The objects


def test_a_volume_is_made_shown_listed_and_removed(daemon: Daemon) -> None:
    made = daemon.post("/volumes/create", {"Name": "data", "Labels": {"a": "b"}})
    assert made.status == 201
    assert made.json == {
        "CreatedAt": made.json["CreatedAt"],
        "Driver": "local",
        "Labels": {"a": "b"},
        "Mountpoint": str(data(daemon, "data")),
        "Name": "data",
        "Options": None,
        "Scope": "local",
    }
    assert daemon.get("/volumes/data").json == made.json
    assert daemon.get("/volumes").json == {"Volumes": [made.json], "Warnings": None}
    assert data(daemon, "data").is_dir()
    assert daemon.delete("/volumes/data").status == 204
    assert not (daemon.root / "volumes/data").exists()
    gone = daemon.get("/volumes/data")
    assert (gone.status, gone.message) == (404, "get data: no such volume")
    assert daemon.delete("/volumes/data").status == 404
    assert daemon.delete("/volumes/data?force=1").status == 204


def test_a_volume_without_a_name_gets_one_and_a_label(daemon: Daemon) -> None:
    made = daemon.post("/volumes/create", {}).json
    assert len(made["Name"]) == 64
    assert made["Labels"] == {"com.docker.volume.anonymous": ""}


def test_making_a_volume_again_gives_it_back_unless_it_is_another(daemon: Daemon) -> None:
    first = daemon.post("/volumes/create", {"Name": "data", "Labels": {"a": "b"}}).json
    assert daemon.post("/volumes/create", {"Name": "data"}).json == first
    other = daemon.post("/volumes/create", {"Name": "data", "Labels": {"a": "c"}})
    assert other.status == 409
    assert "other options or labels" in other.message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"Name": "a"}, "create a: volume name is too short"),
        ({"Name": "a/b"}, 'create a/b: "a/b" includes invalid characters for a local volume name'),
        ({"Name": ".."}, 'create ..: ".." includes invalid characters'),
        ({"Name": "x" * 256}, "create " + "x" * 256 + ": volume name is too long"),
        ({"Name": "zz", "Driver": "nfs"}, "create zz: the volume driver 'nfs' is not supported"),
        ({"Name": "zz", "DriverOpts": {"foo": "bar"}}, 'create zz: invalid option: "foo"'),
        ({"Name": "zz", "DriverOpts": {"type": "tmpfs"}}, 'create zz: missing required option: "device"'),
        ({"Name": "zz", "DriverOpts": {"size": "1m"}}, "create zz: quota size requested but no quota support"),
    ],
)
def test_a_volume_that_cannot_be_is_refused(daemon: Daemon, body: dict[str, Any], message: str) -> None:
    reply = daemon.post("/volumes/create", body)
    assert reply.status == 400
    assert reply.message.startswith(message)
    assert names(daemon) == []


def test_lists_are_filtered(daemon: Daemon) -> None:
    for name, labels in (("one", {"a": "b"}), ("two", {"a": "c"}), ("three", {})):
        daemon.post("/volumes/create", {"Name": name, "Labels": labels})
    daemon.create("true", host={"Binds": ["one:/x"]})

    def listed(**filters: list[str]) -> list[str]:
        from urllib.parse import quote

        reply = daemon.get("/volumes?filters=" + quote(json.dumps(filters)))
        return [volume["Name"] for volume in reply.json["Volumes"]]

    assert listed(name=["t"]) == ["three", "two"]
    assert listed(label=["a"]) == ["one", "two"]
    assert listed(label=["a=c"]) == ["two"]
    assert listed(dangling=["true"]) == ["three", "two"]
    assert listed(dangling=["0"]) == ["one"]
    assert listed(driver=["nfs"]) == []
    assert daemon.get('/volumes?filters={"foo":["x"]}').status == 400


def test_a_volume_in_use_is_not_removed(daemon: Daemon) -> None:
    container = daemon.create("true", host={"Binds": ["data:/x"]})
    reply = daemon.delete("/volumes/data")
    assert (reply.status, reply.message) == (409, f"remove data: volume is in use - [{container}]")
    assert daemon.delete("/volumes/data?force=1").status == 409


def test_pruning_takes_anonymous_volumes_and_all_where_that_is_asked(daemon: Daemon) -> None:
    def fill() -> None:
        daemon.post("/volumes/create", {"Name": "named", "Labels": {"keep": ""}})
        anonymous = daemon.post("/volumes/create", {}).json
        (data(daemon, anonymous["Name"]) / "file").write_bytes(b"12345")

    fill()
    daemon.create("true", host={"Binds": ["used:/x"]})
    done = daemon.post("/volumes/prune")
    assert len(done.json["VolumesDeleted"]) == 1
    assert done.json["SpaceReclaimed"] == 5
    assert names(daemon) == ["named", "used"]
    fill()
    assert daemon.post('/volumes/prune?filters={"all":["1"],"label!":["keep"]}').json["SpaceReclaimed"] == 5
    assert names(daemon) == ["named", "used"]
    fill()
    assert len(daemon.post("/volumes/prune", version="1.41").json["VolumesDeleted"]) == 2
    assert names(daemon) == ["used"]
    assert daemon.post("/volumes/prune").json == {"VolumesDeleted": None, "SpaceReclaimed": 0}


def test_volumes_are_not_known_before_api_1_21(daemon: Daemon) -> None:
    assert daemon.get("/volumes", version="1.20").status == 404
    assert daemon.get("/volumes", version="1.21").status == 200


def test_disk_usage_counts_volumes(daemon: Daemon) -> None:
    daemon.create("true", host={"Binds": ["data:/x"]})
    (data(daemon, "data") / "file").write_bytes(b"123")
    (volume,) = daemon.get("/system/df").json["Volumes"]
    assert (volume["Name"], volume["UsageData"]) == ("data", {"RefCount": 1, "Size": 3})


# In containers


def test_what_is_written_into_a_named_volume_stays(daemon: Daemon) -> None:
    sh(daemon, "echo hello >/x/file", Binds=["data:/x"])
    assert sh(daemon, "cat /x/file; echo no >/x/file", Binds=["data:/x:ro"]).startswith("hello\nsh: ")
    assert names(daemon) == ["data"]


def test_anonymous_volumes_go_with_the_last_container_that_has_them(daemon: Daemon) -> None:
    one = daemon.create("true", Volumes={"/v": {}}, host={"Binds": ["named:/n", "/bound"]})
    two = daemon.create("true", host={"VolumesFrom": [one]})
    assert len(names(daemon)) == 3
    assert daemon.delete(f"/containers/{one}?v=1").status == 204
    assert len(names(daemon)) == 3
    assert daemon.delete(f"/containers/{two}?v=1").status == 204
    assert names(daemon) == ["named"]


def test_anonymous_volumes_stay_where_nobody_asks_for_their_removal(daemon: Daemon) -> None:
    container = daemon.create("true", Volumes={"/v": {}})
    daemon.delete(f"/containers/{container}")
    assert len(names(daemon)) == 1


def test_auto_remove_takes_anonymous_volumes_along(daemon: Daemon) -> None:
    daemon.run_detached("true", Volumes={"/v": {}}, host={"AutoRemove": True, "Binds": ["named:/n"]})
    until(lambda: daemon.get("/containers/json?all=1").json == [])
    assert names(daemon) == ["named"]


def test_inspect_spells_mounts_as_docker_does(daemon: Daemon, tmp_path: Path) -> None:
    host = {
        "Binds": ["data:/named", "imp:/imp:ro", f"{tmp_path}:/b:ro,rprivate", f"{tmp_path}:/c"],
        "Mounts": [
            {"Type": "volume", "Source": "mv", "Target": "/mv"},
            {"Type": "volume", "Target": "/anonymous"},
            {"Type": "tmpfs", "Target": "/tm", "TmpfsOptions": {"SizeBytes": 65536}},
        ],
        "Tmpfs": {"/tt": "size=1m"},
    }
    container = daemon.create("true", Volumes={"/v": {}}, host=host)
    found = mounts(daemon, container)
    hidden = found["/v"]["Name"]
    bind = {"Type": "bind", "Source": str(tmp_path), "Propagation": "rprivate"}
    volume = {"Type": "volume", "Driver": "local", "Propagation": ""}
    assert found["/named"] == {
        **volume, "Name": "data", "Source": str(data(daemon, "data")), "Destination": "/named", "Mode": "z", "RW": True,
    }  # fmt: skip
    assert (found["/imp"]["Mode"], found["/imp"]["RW"]) == ("ro", False)
    assert found["/b"] == {**bind, "Destination": "/b", "Mode": "ro,rprivate", "RW": False}
    assert found["/c"] == {**bind, "Destination": "/c", "Mode": "", "RW": True}
    assert (found["/mv"]["Name"], found["/mv"]["Mode"]) == ("mv", "z")
    assert len(found["/anonymous"]["Name"]) == 64
    assert found["/tm"] == {
        "Type": "tmpfs", "Source": "", "Destination": "/tm", "Mode": "", "RW": True, "Propagation": "",
    }  # fmt: skip
    assert found["/v"] == {
        **volume, "Name": hidden, "Source": str(data(daemon, hidden)), "Destination": "/v", "Mode": "", "RW": True,
    }  # fmt: skip
    shown = daemon.inspect(container)["HostConfig"]
    assert shown["Binds"] == host["Binds"]
    assert shown["Mounts"] == host["Mounts"]
    assert shown["Tmpfs"] == host["Tmpfs"]
    first_year = daemon.get(f"/containers/{container}/json", version="1.9").json
    assert first_year["Volumes"]["/named"] == str(data(daemon, "data"))
    assert (first_year["VolumesRW"]["/named"], first_year["VolumesRW"]["/imp"]) == (True, False)
    assert "/tm" not in first_year["Volumes"]


def test_volumes_from_takes_mounts_over_and_can_make_them_read_only(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("bound")
    one = daemon.create("true", name="one", host={"Binds": ["data:/d", f"{tmp_path}:/b:ro"]}, Volumes={"/v": {}})
    two = daemon.create("true", host={"VolumesFrom": ["one"], "Binds": ["mine:/d"]})
    found = mounts(daemon, two)
    assert found["/v"]["Name"] == mounts(daemon, one)["/v"]["Name"]
    assert (found["/b"]["RW"], found["/d"]["Name"]) == (False, "mine")
    three = daemon.create("true", host={"VolumesFrom": ["one:ro"]})
    assert {mount["RW"] for mount in daemon.inspect(three)["Mounts"]} == {False}
    output = sh(daemon, "cat /b/file; touch /v/x", VolumesFrom=["one:ro"])
    assert "bound" in output
    assert "Read-only" in output
    reply = daemon.call(
        "POST", "/containers/create", {"Image": "busybox", "Cmd": ["true"], "VolumesFrom": "one:ro"}, version="1.9"
    )
    assert daemon.inspect(reply.json["Id"])["HostConfig"]["VolumesFrom"] == ["one:ro"]
    assert refused(daemon, VolumesFrom=["nosuch"]) == (400, "No such container: nosuch")
    assert refused(daemon, VolumesFrom=["one:foo"]) == (400, "invalid mode: foo")


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ({"Binds": ["aa:/x", "bb:/x/"]}, "Duplicate mount point: /x"),
        ({"Binds": ["aa:/x"], "Tmpfs": {"/x": ""}}, "Duplicate mount point: /x"),
        ({"Binds": ["aa:/"]}, "invalid volume specification: 'aa:/': invalid mount config for type \"volume\": inv"),
        ({"Binds": ["a!b:/x"]}, 'create a!b: "a!b" includes invalid characters for a local volume name'),
        ({"Tmpfs": {"/x": "foo"}}, 'invalid tmpfs option ["foo"]'),
        ({"Tmpfs": {"/x": "bind"}}, 'invalid tmpfs option ["bind"]'),
        ({"Tmpfs": {"x": ""}}, "invalid mount config for type \"tmpfs\": invalid mount path: 'x'"),
        ({"ShmSize": -1}, "SHM size can not be less than 0"),
        ({"Binds": ["aa:/x"], "VolumeDriver": "foo"}, "create aa: the volume driver 'foo' is not supported"),
        ({"Mounts": [{"Type": "bind", "Source": "/nosuch/dir", "Target": "/x"}]},
         'invalid mount config for type "bind": bind source path does not exist: /nosuch/dir'),
        ({"Mounts": [{"Type": "volume", "Source": "vv", "Target": "/x",
                      "VolumeOptions": {"DriverConfig": {"Options": {"foo": "bar"}}}}]},
         'create vv: invalid option: "foo"'),
    ],
)  # fmt: skip
def test_mounts_that_cannot_be_are_refused_and_leave_nothing(daemon: Daemon, host: Any, message: str) -> None:
    status, text = refused(daemon, **host)
    assert status == 400
    assert text.startswith(message)
    assert names(daemon) == []
    assert daemon.get("/containers/json?all=1").json == []


def test_a_failed_create_leaves_no_volume(seeded: Daemon) -> None:
    body = {
        "Image": "seeded",
        "Cmd": ["true"],
        "Volumes": {"/v": {}},
        "HostConfig": {"NetworkMode": "none", "Binds": ["new:/etc/passwd"]},
    }
    reply = seeded.post("/containers/create", body)
    assert reply.status == 400
    assert reply.message == "cannot mount volume over existing file, file exists /etc/passwd"
    assert names(seeded) == []
    assert [path.name for path in (seeded.root / "volumes").iterdir()] == [".trash"]


# What the image has


def test_a_new_volume_gets_what_the_image_has(seeded: Daemon) -> None:
    container = seeded.create("true", Image="seeded")
    name = mounts(seeded, container)["/data"]["Name"]
    there = data(seeded, name)
    assert (there.stat().st_uid, there.stat().st_gid, there.stat().st_mode & 0o7777) == (7, 8, 0o2751)
    file = (there / "file").stat()
    assert (file.st_uid, file.st_gid, file.st_mode & 0o7777, file.st_mtime_ns) == (5, 6, 0o4711, 1_000_000_001)
    assert (there / "file").read_bytes() == b"hello\n"
    assert os.getxattr(there / "file", "user.colour") == b"blue"
    assert (there / "sub/hard").stat().st_ino == file.st_ino
    assert os.readlink(there / "sub/soft") == "../file"
    sparse = (there / "sparse").stat()
    assert (sparse.st_size, sparse.st_blocks * 512 < 1 << 20) == ((8 << 20) + 3, True)
    assert (there / "fifo").is_fifo()


def test_an_empty_directory_gives_a_volume_its_owner(seeded: Daemon) -> None:
    seeded.create("true", Image="seeded", host={"Binds": ["data:/empty"]})
    info = data(seeded, "data").stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o7777) == (9, 9, 0o700)


def test_links_in_the_image_lead_inside_its_root_only(seeded: Daemon) -> None:
    seeded.create("true", Image="seeded", host={"Binds": ["one:/link", "two:/outside"]})
    assert (data(seeded, "one") / "file").read_bytes() == b"hello\n"
    assert (data(seeded, "two") / "inside").read_text() == "inside"
    assert not (data(seeded, "two") / "shadow").exists()
    # and what is mounted is mounted there, not on the host
    assert sh(seeded, "cat /etc/inside /data/f2", "seeded", Binds=["two:/outside", "one:/link"]) != ""
    (data(seeded, "two") / "inside").write_text("from the volume")
    assert sh(seeded, "cat /etc/inside", "seeded", Binds=["two:/outside"]) == "from the volume"


def test_a_volume_with_something_in_it_is_left_as_it_is(seeded: Daemon) -> None:
    seeded.post("/volumes/create", {"Name": "data"})
    (data(seeded, "data") / "mine").write_text("mine")
    seeded.create("true", Image="seeded", host={"Binds": ["data:/data"]})
    assert os.listdir(data(seeded, "data")) == ["mine"]


def test_an_empty_volume_that_was_there_before_is_filled(seeded: Daemon) -> None:
    seeded.post("/volumes/create", {"Name": "data"})
    seeded.create("true", Image="seeded", host={"Binds": ["data:/data"]})
    assert sorted(os.listdir(data(seeded, "data"))) == ["fifo", "file", "sparse", "sub"]
    assert data(seeded, "data").stat().st_mode & 0o7777 == 0o2751
    assert os.listdir(seeded.root / "volumes/data") == ["_data"]


def test_nocopy_leaves_a_volume_empty(seeded: Daemon) -> None:
    mount = {"Type": "volume", "Source": "two", "Target": "/link", "VolumeOptions": {"NoCopy": True}}
    seeded.create("true", Image="seeded", host={"Binds": ["one:/data:nocopy"], "Mounts": [mount]})
    assert os.listdir(data(seeded, "one")) == []
    assert os.listdir(data(seeded, "two")) == []


# Binds


def test_a_missing_source_is_made_for_a_bind_and_a_file_can_be_bound(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    output = sh(daemon, "cat /file; echo x >/d/new", Binds=[f"{tmp_path}/file:/file", f"{tmp_path}/a/b:/d"])
    assert output == "text"
    assert (tmp_path / "a/b/new").read_text() == "x\n"
    mount = {"Type": "bind", "Source": f"{tmp_path}/c", "Target": "/d", "BindOptions": {"CreateMountpoint": True}}
    sh(daemon, "echo y >/d/new", Mounts=[mount])
    assert (tmp_path / "c/new").read_text() == "y\n"


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A mount of its own that propagates."""
    directory = tmp_path / "shared"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", directory], check=True)
    subprocess.run(["mount", "--make-rshared", directory], check=True)
    yield directory
    subprocess.run(["umount", "-R", directory], check=True)


def test_a_slave_bind_sees_what_the_host_mounts_later_and_a_private_one_does_not(daemon: Daemon, shared: Path) -> None:
    (shared / "later").mkdir()
    binds = [f"{shared}:/slave:rslave", f"{shared}:/private"]
    container = daemon.run_detached("sleep", "100", host={"Binds": binds})
    pid = daemon.inspect(container)["State"]["Pid"]
    subprocess.run(["mount", "-t", "tmpfs", "none", shared / "later"], check=True)
    (shared / "later/file").write_text("x")
    assert Path(f"/proc/{pid}/root/slave/later/file").exists()
    assert not Path(f"/proc/{pid}/root/private/later/file").exists()


def test_a_shared_bind_shows_the_host_what_the_container_mounts(daemon: Daemon, shared: Path) -> None:
    (shared / "inner").mkdir()
    container = daemon.run_detached("sleep", "100", host={"Binds": [f"{shared}:/s:rshared"]})
    pid = daemon.inspect(container)["State"]["Pid"]
    subprocess.run(["nsenter", "-t", str(pid), "-m", "mount", "-t", "tmpfs", "none", "/s/inner"], check=True)
    assert os.path.ismount(shared / "inner")
    daemon.delete(f"/containers/{container}?force=1")


def test_a_bind_that_cannot_propagate_is_refused_at_the_start(daemon: Daemon, tmp_path: Path) -> None:
    directory = tmp_path / "private"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", directory], check=True)
    subprocess.run(["mount", "--make-private", directory], check=True)
    try:
        for mode, kind in (("shared", "a shared mount"), ("rslave", "a shared or slave mount")):
            container = daemon.create("true", host={"Binds": [f"{directory}:/x:{mode}"]})
            reply = daemon.post(f"/containers/{container}/start")
            assert reply.status == 400
            assert reply.message == f"path {directory} is mounted on {directory} but it is not {kind}"
    finally:
        subprocess.run(["umount", directory], check=True)


def test_a_bind_without_recursion_leaves_out_what_is_mounted_below(daemon: Daemon, shared: Path) -> None:
    (shared / "inner").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", shared / "inner"], check=True)
    (shared / "inner/file").write_text("x")
    mount = {"Type": "bind", "Source": str(shared), "Target": "/x"}
    assert sh(daemon, "ls /x/inner", Mounts=[mount]) == "file\n"
    assert sh(daemon, "ls /x/inner", Mounts=[{**mount, "BindOptions": {"NonRecursive": True}}]) == ""


def test_what_lies_in_another_mount_is_mounted_after_it_whatever_the_order(daemon: Daemon, tmp_path: Path) -> None:
    for name in ("outer", "inner", "deep"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(name)
    binds = [f"{tmp_path}/deep:/a/b/c", "vol:/a/b", f"{tmp_path}/outer:/a"]
    assert sh(daemon, "cat /a/b/c/deep /a/outer", Binds=binds, Tmpfs={"/a/b/t": ""}) == "deepouter"


# tmpfs and /dev/shm


def test_a_tmpfs_has_its_options(daemon: Daemon) -> None:
    tmpfs = {"/t": "size=1m,exec,mode=700,uid=3", "/home/ann": ""}
    mount = {"Type": "tmpfs", "Target": "/m", "ReadOnly": True, "TmpfsOptions": {"SizeBytes": 65536, "Mode": 0o1711}}
    script = "grep -E ' (/t|/m|/home/ann) ' /proc/mounts; stat -c '%a %u' /t /m /home/ann"
    lines = sh(daemon, script, Tmpfs=tmpfs, Mounts=[mount]).splitlines()
    options = {line.split()[1]: line.split()[3].split(",") for line in lines[:3]}
    assert {"rw", "nosuid", "nodev", "size=1024k"} <= set(options["/t"])
    assert "noexec" not in options["/t"]
    assert {"ro", "size=64k"} <= set(options["/m"])
    assert {"nosuid", "nodev", "noexec"} <= set(options["/home/ann"])
    assert lines[3:] == ["700 3", "1711 0", "755 0"]


def test_shm_has_the_size_that_was_asked_for(daemon: Daemon) -> None:
    assert sh(daemon, "df -k /dev/shm | tail -1 | awk '{print $2}'") == "65536\n"
    assert sh(daemon, "df -k /dev/shm | tail -1 | awk '{print $2}'", ShmSize=1 << 20) == "1024\n"
