"""Save, load and export through a real daemon: what goes out, what comes back, what is refused and leaves nothing."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from daemons import Daemon, Reply, busybox_tar, until
from store_house import directory, member, tar

Files = dict[str, bytes]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def dump(value: object) -> bytes:
    return json.dumps(value).encode()


def files_in(data: bytes) -> Files:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive if entry.isreg()}  # type: ignore[union-attr]


def archive(files: Files) -> bytes:
    return tar(*(member(name, data=data) for name, data in files.items()))


def config(layers: list[bytes], **more: Any) -> bytes:
    diff_ids = [f"sha256:{digest(layer)}" for layer in layers]
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    return dump({
        "architecture": "amd64", "os": "linux", "rootfs": rootfs, "config": {"Cmd": ["/bin/sh"]},
        "created": "2020-01-02T03:04:05Z", **more,
    })  # fmt: skip


def docker_archive(layers: list[bytes], tags: list[str], **more: Any) -> tuple[Files, str]:
    raw = config(layers, **more)
    files = {f"{number}/layer.tar": layer for number, layer in enumerate(layers)}
    identity = digest(raw)
    manifest = [{"Config": f"{identity}.json", "RepoTags": tags, "Layers": list(files)}]
    return {**files, f"{identity}.json": raw, "manifest.json": dump(manifest)}, identity


def lines(reply: Reply) -> list[dict[str, Any]]:
    assert reply.status == 200, reply.data
    return [json.loads(line) for line in reply.data.splitlines() if line]


def load(daemon: Daemon, data: bytes) -> list[str]:
    found = lines(daemon.post("/images/load", data))
    assert not any("error" in line for line in found), found
    return [line["stream"].rstrip("\n") for line in found]


def refused(daemon: Daemon, data: bytes) -> str:
    """The message; and nothing of the archive is left."""
    before = state(daemon)
    reply = daemon.post("/images/load", data)
    if reply.status == 200:
        message = str(lines(reply)[-1]["error"])
    else:
        assert reply.status == 400, reply.data
        message = reply.message
    assert state(daemon) == before
    return message


def state(daemon: Daemon) -> tuple[object, ...]:
    images = {image["Id"]: image["RepoTags"] for image in daemon.get("/images/json?all=1").json}
    temporary = daemon.root / "tmp"
    return images, layer_directories(daemon), os.listdir(temporary) if temporary.exists() else []


def layer_directories(daemon: Daemon) -> set[str]:
    return {path.name for path in (daemon.root / "overlay").iterdir() if path.name != "trash"}


def remove(daemon: Daemon, *refs: str) -> None:
    for ref in refs:
        assert daemon.delete(f"/images/{ref}?force=1").status == 200


def remove_containers(daemon: Daemon) -> None:
    for container in daemon.get("/containers/json?all=1").json:
        daemon.delete(f"/containers/{container['Id']}?force=1")


UPPER = tar(directory("etc"), member("etc/greeting", data=b"hello\n"), member("bin/.wh.absent"))
TOP = tar(directory("etc"), member("etc/greeting", data=b"goodbye\n"))


@pytest.fixture
def three_layers(daemon: Daemon) -> Files:
    files, _ = docker_archive([busybox_tar(daemon.directory), UPPER, TOP], ["three:v1", "three:v2", "other/three:v1"])
    return files


def test_an_image_that_goes_out_and_comes_back_is_the_same(daemon: Daemon) -> None:
    before = daemon.get("/images/busybox/json").json
    data = daemon.get("/images/busybox/get").data
    layer = before["RootFS"]["Layers"][0]
    assert files_in(data)[f"blobs/sha256/{layer.removeprefix('sha256:')}"] == busybox_tar(daemon.directory)
    remove(daemon, "busybox")
    try:
        assert load(daemon, data) == ["Loaded image: busybox:latest"]
    except BaseException:
        daemon.import_busybox()
        raise
    assert daemon.get("/images/busybox/json").json == before
    assert daemon.get("/images/busybox/get").data == data
    assert daemon.run_to_end("echo", "again") == (0, b"again\n")
    remove_containers(daemon)


def test_what_is_saved_can_be_read_in_each_layout(daemon: Daemon) -> None:
    reply = daemon.get("/images/busybox/get")
    files = files_in(reply.data)
    identity = daemon.get("/images/busybox/json").json["Id"].removeprefix("sha256:")
    (item,) = json.loads(files["manifest.json"])
    assert item["RepoTags"] == ["busybox:latest"]
    assert digest(files[item["Config"]]) == identity
    diff_ids = json.loads(files[item["Config"]])["rootfs"]["diff_ids"]
    assert [f"sha256:{digest(files[name])}" for name in item["Layers"]] == diff_ids
    assert json.loads(files["repositories"]) == {"busybox": {"latest": identity}}
    with tarfile.open(fileobj=io.BytesIO(reply.data)) as saved:
        assert files[f"{identity}/VERSION"] == b"1.0"
        assert json.loads(files[f"{identity}/json"])["id"] == identity
        target = os.path.normpath(f"{identity}/{saved.getmember(f'{identity}/layer.tar').linkname}")
        assert target == item["Layers"][0]
    (described,) = json.loads(files["index.json"])["manifests"]
    for name, data in files.items():
        if name.startswith("blobs/sha256/"):
            assert digest(data) == name.rpartition("/")[2]
    manifest = json.loads(files["blobs/" + described["digest"].replace(":", "/")])
    assert manifest["config"]["digest"] == f"sha256:{identity}"
    assert [layer["digest"] for layer in manifest["layers"]] == diff_ids
    sizes = [len(files["blobs/" + layer["digest"].replace(":", "/")]) for layer in manifest["layers"]]
    assert [layer["size"] for layer in manifest["layers"]] == sizes


def test_several_layers_lie_on_each_other_and_go_with_the_image(daemon: Daemon, three_layers: Files) -> None:
    before = layer_directories(daemon)
    assert load(daemon, archive(three_layers)) == [
        "Loaded image: three:v1", "Loaded image: three:v2", "Loaded image: other/three:v1",
    ]  # fmt: skip
    assert len(layer_directories(daemon)) == len(before) + 2  # the lowest one was there
    code, output = daemon.run_to_end("cat", "/etc/greeting", Image="three:v1")
    assert (code, output) == (0, b"goodbye\n")
    remove_containers(daemon)
    saved = files_in(daemon.get("/images/get?names=three&names=other/three:v1").data)
    (item,) = json.loads(saved["manifest.json"])
    assert item["RepoTags"] == ["three:v1", "three:v2", "other/three:v1"]
    assert [saved[name] for name in item["Layers"]] == [busybox_tar(daemon.directory), UPPER, TOP]
    remove(daemon, "three:v1", "three:v2", "other/three:v1")
    until(lambda: layer_directories(daemon) == before)


def test_a_repository_is_saved_with_all_its_tags_and_an_id_with_none(daemon: Daemon, three_layers: Files) -> None:
    load(daemon, archive(three_layers))
    identity = daemon.get("/images/three:v1/json").json["Id"]

    def tags(query: str) -> object:
        return [item["RepoTags"] for item in json.loads(files_in(daemon.get(query).data)["manifest.json"])]

    assert tags("/images/three/get") == [["three:v1", "three:v2"]]
    assert tags("/images/three:v2/get") == [["three:v2"]]
    assert tags(f"/images/{identity}/get") == [None]
    assert tags("/images/get?names=busybox&names=three:v1") == [["busybox:latest"], ["three:v1"]]
    assert tags("/images/get?names=three:v1&names=three:v1") == [["three:v1"]]
    remove(daemon, "three:v1", "three:v2", "other/three:v1")


def test_an_image_that_is_not_there_cannot_be_saved(daemon: Daemon) -> None:
    assert daemon.get("/images/nobody/get").status == 404
    assert daemon.get("/images/get?names=busybox&names=nobody").status == 404
    assert daemon.get("/images/get").status == 400


def test_loading_what_is_there_changes_nothing_but_names(daemon: Daemon, three_layers: Files) -> None:
    load(daemon, archive(three_layers))
    daemon.post("/images/three:v1/tag?repo=mine&tag=kept")
    before = state(daemon)
    load(daemon, archive(three_layers))
    assert state(daemon) == before
    daemon.delete("/images/three:v2")
    load(daemon, archive(three_layers))
    assert state(daemon) == before
    remove(daemon, "three:v1", "three:v2", "other/three:v1", "mine:kept")


@pytest.mark.parametrize("compress", [gzip.compress, None], ids=["gzip", "plain"])
def test_an_oci_layout_with_compressed_layers_is_loaded(
    daemon: Daemon, compress: Callable[[bytes], bytes] | None
) -> None:
    base = gzip.compress(busybox_tar(daemon.directory), mtime=0)
    top = gzip.compress(TOP, mtime=0)
    raw = config([busybox_tar(daemon.directory), TOP])
    blobs = {digest(data): data for data in (base, top, raw)}

    def descriptor(data: bytes) -> dict[str, Any]:
        return {"digest": f"sha256:{digest(data)}", "size": len(data)}

    manifest = dump({"schemaVersion": 2, "config": descriptor(raw), "layers": [descriptor(base), descriptor(top)]})
    inner = dump({"schemaVersion": 2, "manifests": [
        {**descriptor(manifest), "platform": {"os": "linux", "architecture": "amd64"}},
        {"digest": "sha256:" + "0" * 64, "platform": {"os": "unknown", "architecture": "unknown"}},
    ]})  # fmt: skip
    for data in (manifest, inner):
        blobs[digest(data)] = data
    name = {"io.containerd.image.name": "docker.io/library/oci:v1"}
    files = {f"blobs/sha256/{key}": data for key, data in blobs.items()}
    files["index.json"] = dump({"schemaVersion": 2, "manifests": [{**descriptor(inner), "annotations": name}]})
    files["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    data = archive(files)
    assert load(daemon, compress(data) if compress else data) == ["Loaded image: oci:v1"]
    assert daemon.get("/images/oci:v1/json").json["Id"] == f"sha256:{digest(raw)}"
    remove(daemon, "oci:v1")
    files[f"blobs/sha256/{digest(top)}"] = gzip.compress(TOP, mtime=1)
    assert "digest" in refused(daemon, archive(files))


def first_year(daemon: Daemon) -> Files:
    lower, upper = "1" * 64, "2" * 64
    made = {"Cmd": ["/bin/sh", "-c", "touch /x"]}
    return {
        f"{lower}/VERSION": b"1.0",
        f"{lower}/json": dump({"id": lower, "created": "2013-06-01T00:00:00Z", "comment": "base"}),
        f"{lower}/layer.tar": busybox_tar(daemon.directory),
        f"{upper}/VERSION": b"1.0",
        f"{upper}/json": dump({
            "id": upper, "parent": lower, "created": "2013-07-01T00:00:00Z", "container_config": made,
            "config": {"Cmd": ["cat", "/etc/greeting"], "Env": ["A=b"]}, "architecture": "x86_64",
        }),
        f"{upper}/layer.tar": UPPER,
        "repositories": dump({"old": {"latest": upper, "base": lower}}),
    }  # fmt: skip


def test_an_archive_of_the_first_year_is_loaded(daemon: Daemon) -> None:
    before = layer_directories(daemon)
    assert sorted(load(daemon, archive(first_year(daemon)))) == ["Loaded image: old:base", "Loaded image: old:latest"]
    image = daemon.get("/images/old/json").json
    assert image["Config"]["Cmd"] == ["cat", "/etc/greeting"]
    assert image["Config"]["Env"] == ["A=b"]
    assert len(image["RootFS"]["Layers"]) == 2
    assert daemon.run_to_end("cat", "/etc/greeting", Image="old") == (0, b"hello\n")
    remove_containers(daemon)
    identity = image["Id"]
    remove(daemon, "old:latest", "old:base")
    load(daemon, archive(first_year(daemon)))
    assert daemon.get("/images/old/json").json["Id"] == identity
    remove(daemon, "old:latest", "old:base")
    until(lambda: layer_directories(daemon) == before)


def test_the_first_years_answer_to_load_is_empty(daemon: Daemon, three_layers: Files) -> None:
    reply = daemon.post("/images/load", archive(three_layers), version="1.9")
    assert (reply.status, reply.data) == (200, b"")
    remove(daemon, "three:v1", "three:v2", "other/three:v1")


def test_progress_is_told_to_who_wants_it(daemon: Daemon, three_layers: Files) -> None:
    found = lines(daemon.post("/images/load?quiet=0", archive(three_layers)))
    shown = [line for line in found if line.get("status") == "Loading layer"]
    assert {line["id"] for line in shown} >= {digest(TOP)[:12]}
    assert all(line["progressDetail"]["total"] > 0 for line in shown)
    remove(daemon, "three:v1", "three:v2", "other/three:v1")


# What is refused


def test_an_archive_of_something_else_is_refused(daemon: Daemon) -> None:
    assert "no archive of images" in refused(daemon, SMALL_ROOT)
    assert "no tar archive" in refused(daemon, b"x" * 2000)
    assert "empty" in refused(daemon, b"")


SMALL_ROOT = tar(directory("etc"), member("etc/motd", data=b"hello\n"))


def test_a_truncated_archive_is_refused(daemon: Daemon, three_layers: Files) -> None:
    data = archive(three_layers)
    assert "truncated" in refused(daemon, data[: len(data) // 2])


Change = Callable[[Files], object]


def edit_manifest(files: Files, **changes: object) -> None:
    (item,) = json.loads(files["manifest.json"])
    files["manifest.json"] = dump([{**item, **changes}])


def edit_config(files: Files, **changes: object) -> None:
    (item,) = json.loads(files["manifest.json"])
    files["c"] = dump({**json.loads(files[item["Config"]]), **changes})
    edit_manifest(files, Config="c")


BROKEN: dict[str, tuple[Change, str]] = {
    "a layer with another digest": (lambda f: f.update({"2/layer.tar": SMALL_ROOT}), "has the digest"),
    "a layer that is missing": (lambda f: f.pop("2/layer.tar"), "has no 2/layer.tar"),
    "a layer that is no tar": (lambda f: f.update({"2/layer.tar": b"x" * 3000}), "no tar archive"),
    "a layer that climbs out": (
        lambda f: (f.update({"2/layer.tar": (bad := tar(member("../../evil", data=b"x")))}), edit_config(
            f, rootfs={"type": "layers", "diff_ids": [
                f"sha256:{digest(f[n])}" for n in ("0/layer.tar", "1/layer.tar")] + [f"sha256:{digest(bad)}"]})),
        '".."',
    ),
    "a configuration with another digest": (
        lambda f: f.update({json.loads(f["manifest.json"])[0]["Config"]: b"{}"}), "has the digest"),
    "a configuration that is missing": (lambda f: edit_manifest(f, Config="nowhere.json"), "has no nowhere.json"),
    "a configuration outside": (lambda f: edit_manifest(f, Config="../../../etc/passwd"), "has no ../../../etc"),
    "an absolute layer": (lambda f: edit_manifest(f, Layers=["/etc/passwd"] * 3), "has no /etc/passwd"),
    "a huge manifest": (lambda f: f.update({"manifest.json": b" " * (9 << 20)}), "longer than"),
    "a deep manifest": (lambda f: f.update({"manifest.json": b"[" * 100_000}), "no JSON"),
    "no json": (lambda f: f.update({"manifest.json": b"\xff{"}), "no JSON"),
    "no list": (lambda f: f.update({"manifest.json": b"3"}), "no list"),
    "no image": (lambda f: f.update({"manifest.json": b"[]"}), "no image"),
    "too few layers": (lambda f: edit_manifest(f, Layers=["0/layer.tar"]), "3 layers, and 1"),
    "numbers as layers": (lambda f: edit_manifest(f, Layers=[1, 2, 3]), "no list of names"),
    "a name that is none": (lambda f: edit_manifest(f, RepoTags=["UPPER:x"]), "invalid reference format"),
    "a command that is none": (lambda f: edit_config(f, config={"Cmd": [1]}), "config.Cmd"),
    "a configuration of numbers": (lambda f: edit_config(f, config=7), "no object"),
    "a time that is none": (lambda f: edit_config(f, created=7), "no text"),
    "another system": (lambda f: edit_config(f, os="windows"), "only those for linux"),
    "no layers": (lambda f: edit_config(f, rootfs=None), "no list of layers"),
    "odd diff ids": (
        lambda f: edit_config(f, rootfs={"type": "layers", "diff_ids": ["x", "y", "z"]}), "no sha256 digest"),
    "a loop of links": (lambda f: edit_manifest(f, Config="loop"), "has no loop"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), BROKEN.values(), ids=list(BROKEN))
def test_a_hostile_archive_is_refused_and_leaves_nothing(
    daemon: Daemon, three_layers: Files, change: Change, message: str
) -> None:
    change(three_layers)
    assert message in refused(daemon, archive(three_layers))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (member("../evil", data=b"x"), '".."'),
        (member("a/../../evil", data=b"x"), '".."'),
        (member("/evil", data=b"x"), "absolute"),
        (member("s", tarfile.SYMTYPE, linkname="/etc/passwd"), "leads out"),
        (member("s", tarfile.SYMTYPE, linkname="../x"), '".."'),
        (member("h", tarfile.LNKTYPE, linkname="../../etc/passwd"), '".."'),
        (member("d", tarfile.CHRTYPE, devmajor=1, devminor=3), "files and links only"),
        (member("p", tarfile.FIFOTYPE), "files and links only"),
    ],
)
def test_an_archive_with_a_hostile_entry_is_refused(
    daemon: Daemon, three_layers: Files, entry: tuple[tarfile.TarInfo, bytes], message: str
) -> None:
    data = tar(entry, *(member(name, data=content) for name, content in three_layers.items()))
    assert message in refused(daemon, data)


def test_of_two_images_neither_stays_when_one_is_broken(daemon: Daemon, three_layers: Files) -> None:
    other, _ = docker_archive([UPPER], ["good:v1"])
    other[json.loads(other["manifest.json"])[0]["Config"]]
    (first,) = json.loads(other["manifest.json"])
    (second,) = json.loads(three_layers["manifest.json"])
    first["Layers"] = ["good/layer.tar"]
    files = {**three_layers, **other, "good/layer.tar": UPPER, "0/layer.tar": three_layers["0/layer.tar"]}
    files["2/layer.tar"] = SMALL_ROOT
    files["manifest.json"] = dump([first, second])
    assert "has the digest" in refused(daemon, archive(files))


def test_old_layers_that_are_each_others_parents_are_refused(daemon: Daemon) -> None:
    files = first_year(daemon)
    files[f"{'1' * 64}/json"] = dump({"id": "1" * 64, "parent": "2" * 64})
    assert "each other's parents" in refused(daemon, archive(files))
    files[f"{'1' * 64}/json"] = dump({"id": "1" * 64, "parent": "3" * 64})
    assert "not there" in refused(daemon, archive(files))


def test_links_inside_an_archive_are_followed(daemon: Daemon, three_layers: Files) -> None:
    top = three_layers.pop("2/layer.tar")
    entries = [member(name, data=content) for name, content in three_layers.items()]
    entries += [member("real", data=top), member("hard", tarfile.LNKTYPE, linkname="real")]
    entries.append(member("2/layer.tar", tarfile.SYMTYPE, linkname="../hard"))
    assert len(load(daemon, tar(*entries))) == 3
    remove(daemon, "three:v1", "three:v2", "other/three:v1")


def test_a_client_that_leaves_in_the_middle_of_load_leaves_nothing(daemon: Daemon, three_layers: Files) -> None:
    before = state(daemon)
    data = archive(three_layers)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(os.fspath(daemon.socket))
        client.sendall(b"POST /images/load HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(data))
        client.sendall(data[: len(data) // 2])
        until(lambda: state(daemon)[2] != [])
    until(lambda: state(daemon) == before)


def test_a_client_that_leaves_in_the_middle_of_save_ends_the_work(daemon: Daemon) -> None:
    for path in ("/images/busybox/get",):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(os.fspath(daemon.socket))
            client.sendall(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
            client.recv(100)
        until(lambda: not helpers(daemon))
    assert daemon.get("/_ping").status == 200


def helpers(daemon: Daemon) -> list[str]:
    return [line for line in daemon.processes() if "store.archive" in line]


# Export


def test_a_stopped_container_is_exported_and_not_left_mounted(daemon: Daemon) -> None:
    container = daemon.create("true")
    reply = daemon.get(f"/containers/{container}/export")
    assert reply.status == 200
    with tarfile.open(fileobj=io.BytesIO(reply.data)) as exported:
        names = set(exported.getnames())
    assert "bin/busybox" in names
    until(lambda: not [line for line in daemon.mounts() if "merged" in line])
    daemon.delete(f"/containers/{container}")


def test_a_running_container_is_exported_and_runs_on(daemon: Daemon) -> None:
    container = daemon.run_detached("sh", "-c", "echo news > /etc/news; sleep 60")

    def exported() -> Files:
        return files_in(daemon.get(f"/containers/{container}/export").data)

    until(lambda: exported().get("etc/news") == b"news\n")
    assert daemon.inspect(container)["State"]["Running"]
    assert [line for line in daemon.mounts() if "merged" in line]
    daemon.delete(f"/containers/{container}?force=1")


def test_an_exported_container_is_an_image_again(daemon: Daemon) -> None:
    container = daemon.create("true")
    data = daemon.get(f"/containers/{container}/export").data
    daemon.delete(f"/containers/{container}")
    assert daemon.post("/images/create?fromSrc=-&repo=again", data).status == 200
    code, output = daemon.run_to_end("echo", "hi", Image="again")
    assert (code, output) == (0, b"hi\n")
    remove_containers(daemon)
    remove(daemon, "again")


def test_a_client_that_leaves_in_the_middle_of_export_leaves_no_mount(own_daemon: Daemon) -> None:
    own_daemon.post("/images/create?fromSrc=-&repo=big", tar(member("big", data=os.urandom(40 << 20))))
    container = own_daemon.create("true", Image="big")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(os.fspath(own_daemon.socket))
        client.sendall(b"GET /containers/%b/export HTTP/1.1\r\nHost: x\r\n\r\n" % container.encode())
        client.recv(100)
        assert [line for line in own_daemon.mounts() if "merged" in line]
    until(lambda: not [line for line in own_daemon.mounts() if "merged" in line])
    until(lambda: not helpers(own_daemon))


def test_a_client_that_does_not_read_costs_no_memory(own_daemon: Daemon) -> None:
    own_daemon.post("/images/create?fromSrc=-&repo=big", tar(member("big", data=os.urandom(100 << 20))))
    assert own_daemon.process is not None
    before = resident(own_daemon.process.pid)
    clients = []
    for path in (own_daemon.create("true", Image="big").join(("/containers/", "/export")), "/images/big/get"):
        client = socket.socket(socket.AF_UNIX)
        client.connect(os.fspath(own_daemon.socket))
        client.sendall(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
        clients.append(client)
    time.sleep(1)
    assert resident(own_daemon.process.pid) < before + (16 << 20)
    assert len(helpers(own_daemon)) == 2
    for client in clients:
        client.close()
    until(lambda: not helpers(own_daemon))


def resident(pid: int) -> int:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) << 10


def test_a_container_that_starts_during_its_export_keeps_its_root(own_daemon: Daemon) -> None:
    container = own_daemon.create("sh", "-c", "while ls / >/dev/null; do sleep 0.1; done")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(os.fspath(own_daemon.socket))
        client.sendall(b"GET /containers/%b/export HTTP/1.1\r\nHost: x\r\n\r\n" % container.encode())
        client.recv(100)
        assert own_daemon.post(f"/containers/{container}/start").status == 204
    until(lambda: not helpers(own_daemon))
    time.sleep(0.3)
    assert [line for line in own_daemon.mounts() if "merged" in line]
    assert own_daemon.inspect(container)["State"]["Running"]


def test_a_container_that_is_not_there_cannot_be_exported(daemon: Daemon) -> None:
    assert daemon.get("/containers/nobody/export").status == 404


# The command lines


def pydocker(daemon: Daemon, *arguments: str, stdin: bytes = b"") -> bytes:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    program = "import sys; from dockerd_py.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "-H", f"unix://{daemon.socket}", *arguments]
    done = subprocess.run(command, check=False, input=stdin, capture_output=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_pydocker_saves_loads_and_exports(daemon: Daemon, tmp_path: Path, three_layers: Files) -> None:
    file = tmp_path / "saved.tar"
    assert pydocker(daemon, "load", stdin=archive(three_layers)).splitlines()[0] == b"Loaded image: three:v1"
    pydocker(daemon, "save", "-o", str(file), "three", "other/three:v1")
    assert pydocker(daemon, "save", "three", "other/three:v1") == file.read_bytes()
    assert os.listdir(tmp_path) == ["saved.tar"]
    remove(daemon, "three:v1", "three:v2", "other/three:v1")
    assert len(pydocker(daemon, "load", "-q", "-i", str(file)).splitlines()) == 3
    container = daemon.create("true", Image="three:v1")
    assert files_in(pydocker(daemon, "export", container))["etc/greeting"] == b"goodbye\n"
    daemon.delete(f"/containers/{container}")
    remove(daemon, "three:v1", "three:v2", "other/three:v1")


@pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker command line")
def test_the_docker_command_line_saves_loads_and_exports(
    daemon: Daemon, tmp_path: Path, three_layers: Files
) -> None:
    def docker(*arguments: str) -> bytes:
        command = ["docker", "-H", f"unix://{daemon.socket}", *arguments]
        done = subprocess.run(command, check=False, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    (tmp_path / "in.tar").write_bytes(archive(three_layers))
    assert b"Loaded image: three:v2" in docker("load", "-i", str(tmp_path / "in.tar"))
    identity = daemon.get("/images/three:v1/json").json["Id"]
    docker("save", "-o", str(tmp_path / "out.tar"), "three:v1", "three:v2", "other/three:v1")
    remove(daemon, "three:v1", "three:v2", "other/three:v1")
    docker("load", "-q", "-i", str(tmp_path / "out.tar"))
    assert daemon.get("/images/three:v1/json").json["Id"] == identity
    container = docker("create", "--network", "none", "three:v1", "true").decode().strip()
    docker("export", "-o", str(tmp_path / "root.tar"), container)
    assert files_in((tmp_path / "root.tar").read_bytes())["etc/greeting"] == b"goodbye\n"
    docker("rm", container)
    docker("rmi", "three:v1", "three:v2", "other/three:v1")
