"""Files out of containers and into them: the archive endpoints of a real daemon, docker's clients, and our own."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import docker
import pytest
from clients import DOCKERS
from daemons import Daemon, until
from wire import UnixConnection

Done = subprocess.CompletedProcess[bytes]

REPOSITORY = Path(__file__).parents[2]
PROGRAMS = {
    **{argv[-1]: argv for argv in DOCKERS},
    "pydocker": [
        sys.executable,
        "-c",
        "import sys; sys.argv[0] = 'pydocker'\nfrom dockerd_py.cli.main import main\nsys.exit(main())",
    ],
}


@pytest.fixture(params=sorted(PROGRAMS))
def program(request: pytest.FixtureRequest) -> list[str]:
    return PROGRAMS[request.param]


@pytest.fixture(params=["running", "stopped"])
def container(request: pytest.FixtureRequest, daemon: Daemon) -> Iterator[str]:
    script = (
        "mkdir -p /data/sub && echo one >/data/one && echo two >/data/sub/two && ln -s one /data/link "
        "&& ln -s /data /datalink && ln -s nowhere /data/broken && chmod 640 /data/one && echo ready; sleep 100"
    )
    one = daemon.run_detached("sh", "-c", script)
    until(lambda: b"ready" in daemon.logs(one))
    if request.param == "stopped":
        daemon.post(f"/containers/{one}/kill")
    yield one
    daemon.delete(f"/containers/{one}?force=1")
    assert daemon.mounts() == []


def tar(*members: tuple[str, bytes], **types: Any) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def entry(name: str, type_: bytes, linkname: str = "", **fields: Any) -> bytes:
    info = tarfile.TarInfo(name)
    info.type = type_
    info.linkname = linkname
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.PAX_FORMAT)


END = bytes(1024)


def put(daemon: Daemon, container: str, path: str, data: bytes, query: str = "") -> Any:
    return daemon.call("PUT", f"/containers/{container}/archive?path={quote(path)}{query}", data)


def get(daemon: Daemon, container: str, path: str) -> tarfile.TarFile:
    reply = daemon.get(f"/containers/{container}/archive?path={quote(path)}")
    assert reply.status == 200, reply.data
    return opened(reply.data)


def opened(data: bytes) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(data))


def content(daemon: Daemon, container: str, path: str) -> bytes:
    """Of the one file that the path names."""
    archive = get(daemon, container, path)
    file = archive.extractfile(archive.getmembers()[0])
    assert file is not None
    return file.read()


def path_stat(daemon: Daemon, container: str, path: str) -> Any:
    connection = UnixConnection(daemon.socket, 30)
    connection.request("HEAD", f"/v1.43/containers/{container}/archive?path={quote(path)}")
    response = connection.getresponse()
    response.read()
    connection.close()
    assert response.status == 200
    return json.loads(base64.b64decode(response.headers["X-Docker-Container-Path-Stat"]))


def shell(daemon: Daemon, container: str, script: str) -> bytes:
    """What ``script`` prints in a container of the same files."""
    image = daemon.post(f"/commit?container={container}&pause=0").json["Id"]
    code, out = daemon.run_to_end("sh", "-c", script, Image=image)
    assert code == 0, out
    return out


# The endpoints


def test_a_path_has_a_stat(daemon: Daemon, container: str) -> None:
    found = path_stat(daemon, container, "/data/one")
    assert (found["name"], found["size"], found["mode"], found["linkTarget"]) == ("one", 4, 0o640, "")
    assert found["mtime"].startswith("20")
    assert path_stat(daemon, container, "data")["mode"] == 1 << 31 | 0o755
    assert path_stat(daemon, container, "/tmp")["mode"] == 1 << 31 | 1 << 20 | 0o777
    link = path_stat(daemon, container, "/datalink/link")
    assert (link["mode"] & 1 << 27, link["linkTarget"]) == (1 << 27, "/data/one")
    assert path_stat(daemon, container, "/data/broken")["linkTarget"] == "/data/nowhere"
    assert path_stat(daemon, container, "/datalink/")["mode"] == 1 << 31 | 0o755
    assert path_stat(daemon, container, "/datalink/.")["name"] == "."
    assert path_stat(daemon, container, "/../../data/../data/one")["name"] == "one"
    assert path_stat(daemon, container, "/")["name"] == "/"


def test_a_path_that_is_not_there_is_named(daemon: Daemon, container: str) -> None:
    for method in ("GET", "PUT"):
        reply = daemon.call(method, f"/containers/{container}/archive?path=/nothing", END if method == "PUT" else None)
        assert (reply.status, reply.message) == (404, f"Could not find the file /nothing in container {container}")
    assert daemon.get(f"/containers/{container}/archive").status == 400
    assert daemon.get("/containers/nosuch/archive?path=/").status == 404
    assert daemon.get(f"/containers/{container}/archive?path=/data/one/").status == 400


def test_an_archive_has_the_last_name_of_its_path(daemon: Daemon, container: str) -> None:
    assert get(daemon, container, "/data/one").getnames() == ["one"]
    assert get(daemon, container, "/data/link").getmembers()[0].issym()
    names = ["data", "data/broken", "data/link", "data/one", "data/sub", "data/sub/two"]
    assert get(daemon, container, "/data").getnames() == names
    assert get(daemon, container, "/data/.").getnames()[:2] == [".", "./broken"]
    assert get(daemon, container, "/datalink/").getnames()[0] == "datalink"
    whole = get(daemon, container, "/").getnames()
    assert "/bin/busybox" in whole
    assert not any(name.startswith("/proc/") for name in whole)


def test_what_is_mounted_is_seen(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("on the host")
    binds = [f"{tmp_path}:/mnt/dir", f"{tmp_path}/file:/mnt/file:ro"]
    for running in (False, True):
        one = daemon.create("sleep", "100", host={"Binds": binds})
        if running:
            daemon.post(f"/containers/{one}/start")
            assert content(daemon, one, "/etc/hostname").decode() == one[:12] + "\n"
        assert get(daemon, one, "/mnt/dir").getnames() == ["dir", "dir/file"]
        assert content(daemon, one, "/mnt/file") == b"on the host"
        assert put(daemon, one, "/mnt/dir", tar(("new", b"x"))).status == 200
        assert (tmp_path / "new").read_bytes() == b"x"
        (tmp_path / "new").unlink()
        daemon.delete(f"/containers/{one}?force=1")
    one = daemon.create("true", host={"Binds": [f"{tmp_path}:/mnt/dir:ro"]})
    assert put(daemon, one, "/mnt/dir", tar(("new", b"x"))).status == 403
    assert not (tmp_path / "new").exists()
    daemon.delete(f"/containers/{one}")


def test_an_archive_is_unpacked_into_a_directory(daemon: Daemon, container: str) -> None:
    data = (
        entry("d", tarfile.DIRTYPE, mode=0o751, uid=7, gid=8, mtime=1000)
        + entry("d/f", tarfile.REGTYPE, mode=0o4755, uid=7, gid=70000, mtime=2000.5)
        + entry("d/hard", tarfile.LNKTYPE, "d/f")
        + entry("d/soft", tarfile.SYMTYPE, "/etc/passwd", uid=9)
        + entry("d/fifo", tarfile.FIFOTYPE, mode=0o600)
        + END
    )
    assert put(daemon, container, "/datalink/sub", data).status == 200
    out = shell(daemon, container, "cd /data/sub/d; stat -c '%n %a %u %g %h %Y' . f hard fifo; readlink soft")
    assert out == (
        b". 751 7 8 2 1000\nf 4755 7 70000 2 2000\nhard 4755 7 70000 2 2000\nfifo 600 0 0 1 0\n/etc/passwd\n"
    )


def test_a_compressed_archive_is_unpacked(daemon: Daemon, container: str) -> None:
    import gzip

    assert put(daemon, container, "/tmp", gzip.compress(tar(("packed", b"x")))).status == 200
    assert get(daemon, container, "/tmp/packed").getnames() == ["packed"]


def test_what_is_in_the_way_is_replaced_unless_it_may_not_be(daemon: Daemon, container: str) -> None:
    flag = "&noOverwriteDirNonDir=1"
    reply = put(daemon, container, "/data", tar(("sub", b"x")), flag)
    assert (reply.status, "cannot overwrite directory" in reply.message) == (400, True)
    reply = put(daemon, container, "/data", entry("one", tarfile.DIRTYPE) + END, flag)
    assert (reply.status, "cannot overwrite non-directory" in reply.message) == (400, True)
    assert put(daemon, container, "/data", tar(("one", b"new")), flag).status == 200
    assert put(daemon, container, "/data", tar(("sub", b"file"))).status == 200
    assert put(daemon, container, "/data", entry("one", tarfile.DIRTYPE, mode=0o755) + END).status == 200
    assert shell(daemon, container, "cat /data/sub; test -d /data/one") == b"file"


def test_a_file_is_no_place_to_unpack(daemon: Daemon, container: str) -> None:
    reply = put(daemon, container, "/data/one", tar(("x", b"")))
    assert (reply.status, reply.message) == (400, "extraction point is not a directory")


def test_files_can_be_given_to_the_containers_user(daemon: Daemon) -> None:
    one = daemon.create("true", User="ann")
    assert put(daemon, one, "/tmp", tar(("mine", b"")), "&copyUIDGID=1").status == 200
    assert put(daemon, one, "/tmp", tar(("roots", b""))).status == 200
    assert get(daemon, one, "/tmp/mine").getmember("mine").uid == 1000
    assert get(daemon, one, "/tmp/roots").getmember("roots").uid == 0
    daemon.delete(f"/containers/{one}")


@pytest.mark.parametrize(
    "data",
    [
        tar(("../escaped", b"x")),
        tar(("a/../../escaped", b"x")),
        entry("out", tarfile.SYMTYPE, "/") + tar(("out/{here}/escaped", b"x")),
        entry("out", tarfile.SYMTYPE, "../../../../../../..") + tar(("out/{here}/escaped", b"x")),
        entry("hard", tarfile.LNKTYPE, "../../../../../../etc/shadow") + END,
        entry("hard", tarfile.LNKTYPE, "/proc/1/environ") + END,
        entry("disk", tarfile.BLKTYPE, devmajor=8, devminor=0) + END,
    ],
)
def test_a_hostile_archive_does_not_leave_the_container(
    daemon: Daemon, container: str, data: bytes, tmp_path: Path
) -> None:
    here = str(tmp_path)[1:]
    if b"{here}" in data:
        link = data[:512]
        data = link + tar((f"out/{here}/escaped", b"x"))
    put(daemon, container, "/data", data)
    assert not (tmp_path / "escaped").exists()
    assert not Path("/escaped").exists()
    assert "disk" not in get(daemon, container, "/data").getnames()


def test_a_link_of_the_containers_leads_nowhere_else(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    one = daemon.run_detached("sh", "-c", f"ln -s {tmp_path} /out; ln -s {tmp_path}/secret /file")
    daemon.wait(one)
    assert daemon.get(f"/containers/{one}/archive?path=/out/secret").status == 404
    assert put(daemon, one, "/out", tar(("x", b""))).status == 404
    reply = daemon.post(f"/containers/{one}/copy", {"Resource": "/file"}, version="1.10")
    assert reply.status == 404
    assert os.listdir(tmp_path) == ["secret"]
    daemon.delete(f"/containers/{one}")


def test_a_broken_upload_leaves_no_mount(daemon: Daemon) -> None:
    one = daemon.create("true")
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(daemon.socket))
    head = f"PUT /v1.43/containers/{one}/archive?path=/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
    connection.sendall(head.encode() + tar(("half", b"x" * 20000))[:15000])
    until(daemon.mounts)
    connection.close()
    until(lambda: not daemon.mounts())
    reply = put(daemon, one, "/", tar(("half", b"x" * 20000))[:15000])
    assert reply.status == 400
    assert "truncated" in reply.message
    daemon.delete(f"/containers/{one}")


def test_a_client_that_goes_away_leaves_no_mount(daemon: Daemon) -> None:
    one = daemon.run_detached("sh", "-c", "dd if=/dev/zero of=/big bs=1M count=64")
    daemon.wait(one)
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(daemon.socket))
    connection.sendall(f"GET /v1.43/containers/{one}/archive?path=/big HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert connection.recv(100)
    assert daemon.mounts()
    connection.close()
    until(lambda: not daemon.mounts())
    daemon.delete(f"/containers/{one}")


def test_a_container_can_start_and_end_while_it_is_copied(daemon: Daemon) -> None:
    one = daemon.run_detached("sh", "-c", "test -e /big || dd if=/dev/zero of=/big bs=1M count=16; sleep 100")
    until(lambda: path_stat_or_none(daemon, one, "/big"))
    connection = UnixConnection(daemon.socket, 30)
    connection.request("GET", f"/v1.43/containers/{one}/archive?path=/big")
    response = connection.getresponse()
    first = response.read(1000)
    daemon.post(f"/containers/{one}/kill")
    daemon.post(f"/containers/{one}/start")
    assert daemon.inspect(one)["State"]["Running"]
    daemon.post(f"/containers/{one}/kill")
    data = first + response.read()
    assert opened(data).getmember("big").size == 16 << 20
    connection.close()
    until(lambda: not daemon.mounts())
    daemon.delete(f"/containers/{one}")


def path_stat_or_none(daemon: Daemon, one: str, path: str) -> Any:
    return daemon.get(f"/containers/{one}/archive?path={path}").status == 200 and path_stat(daemon, one, path)["size"]


def test_the_first_year_copies_by_post(daemon: Daemon, container: str) -> None:
    reply = daemon.post(f"/containers/{container}/copy", {"Resource": "/datalink/sub", "HostPath": "."}, version="1.9")
    assert opened(reply.data).getnames() == ["sub", "sub/two"]
    reply = daemon.post(f"/containers/{container}/copy", {"Resource": "nothing"}, version="1.9")
    assert (reply.status, reply.data) == (200, b"")
    assert daemon.post(f"/containers/{container}/copy", {"Resource": "nothing"}, version="1.10").status == 404
    reply = daemon.post(f"/containers/{container}/copy", {"Resource": ""}, version="1.9")
    assert (reply.status, reply.data) == (500, b"Path cannot be empty\n")


# The command lines


def cp(daemon: Daemon, program: list[str], *args: str, stdin: bytes | None = None) -> Done:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [*program, "-H", f"unix://{daemon.socket}", "cp", *args],
        input=stdin, capture_output=True, timeout=60, check=False, env=environment,
    )  # fmt: skip


def ok(done: Done) -> bytes:
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_cp_takes_files_and_directories_out(
    daemon: Daemon, container: str, program: list[str], tmp_path: Path
) -> None:
    ok(cp(daemon, program, f"{container}:/data/one", f"{tmp_path}/renamed"))
    assert (tmp_path / "renamed").read_text() == "one\n"
    assert stat.S_IMODE((tmp_path / "renamed").stat().st_mode) == 0o640
    (tmp_path / "dir").mkdir()
    ok(cp(daemon, program, f"{container}:data/one", f"{tmp_path}/dir"))
    assert (tmp_path / "dir/one").read_text() == "one\n"
    ok(cp(daemon, program, f"{container}:/data", f"{tmp_path}/dir"))
    assert (tmp_path / "dir/data/sub/two").read_text() == "two\n"
    ok(cp(daemon, program, f"{container}:/data", f"{tmp_path}/fresh"))
    assert sorted(os.listdir(tmp_path / "fresh")) == ["broken", "link", "one", "sub"]
    (tmp_path / "flat").mkdir()
    ok(cp(daemon, program, f"{container}:/datalink/.", f"{tmp_path}/flat"))
    assert sorted(os.listdir(tmp_path / "flat")) == ["broken", "link", "one", "sub"]
    ok(cp(daemon, program, f"{container}:/data/link", f"{tmp_path}/aslink"))
    assert os.readlink(tmp_path / "aslink") == "one"
    ok(cp(daemon, program, "-L", f"{container}:/data/link", f"{tmp_path}/followed"))
    assert (tmp_path / "followed").read_text() == "one\n"


def test_cp_takes_the_whole_file_system_out(
    daemon: Daemon, container: str, program: list[str], tmp_path: Path
) -> None:
    ok(cp(daemon, program, f"{container}:/", f"{tmp_path}/all"))
    assert (tmp_path / "all/data/one").read_text() == "one\n"


def test_cp_writes_a_tar_to_standard_output(daemon: Daemon, container: str, program: list[str]) -> None:
    data = ok(cp(daemon, program, f"{container}:/data/sub", "-"))
    assert opened(data).getnames() == ["sub", "sub/two"]


def test_cp_brings_files_and_directories_in(
    daemon: Daemon, container: str, program: list[str], tmp_path: Path
) -> None:
    (tmp_path / "src/in").mkdir(parents=True)
    (tmp_path / "src/in/file").write_text("deep")
    (tmp_path / "src/top").write_text("top")
    os.symlink("top", tmp_path / "src/soft")
    ok(cp(daemon, program, f"{tmp_path}/src/top", f"{container}:/data/renamed"))
    ok(cp(daemon, program, f"{tmp_path}/src/top", f"{container}:/datalink"))
    ok(cp(daemon, program, f"{tmp_path}/src", f"{container}:/data"))
    ok(cp(daemon, program, f"{tmp_path}/src", f"{container}:/data/fresh"))
    ok(cp(daemon, program, f"{tmp_path}/src/.", f"{container}:/data/sub/"))
    ok(cp(daemon, program, f"{tmp_path}/src/soft", f"{container}:/data/aslink"))
    ok(cp(daemon, program, "-L", f"{tmp_path}/src/soft", f"{container}:/data/followed"))
    found = {name for name in get(daemon, container, "/data").getnames() if "broken" not in name}
    assert found == {
        "data", "data/aslink", "data/followed", "data/fresh", "data/fresh/in", "data/fresh/in/file",
        "data/fresh/soft", "data/fresh/top", "data/link", "data/one", "data/renamed", "data/src", "data/src/in",
        "data/src/in/file", "data/src/soft", "data/src/top", "data/sub", "data/sub/in", "data/sub/in/file",
        "data/sub/soft", "data/sub/top", "data/sub/two", "data/top",
    }  # fmt: skip
    assert get(daemon, container, "/data/aslink").getmember("aslink").linkname == "top"
    assert content(daemon, container, "/data/followed") == b"top"


def test_cp_reads_a_tar_from_standard_input(daemon: Daemon, container: str, program: list[str]) -> None:
    ok(cp(daemon, program, "-", f"{container}:/datalink", stdin=tar(("piped", b"x"))))
    assert get(daemon, container, "/data/piped").getnames() == ["piped"]
    failed = cp(daemon, program, "-", f"{container}:/data/one", stdin=tar(("piped", b"x")))
    assert failed.returncode == 1
    assert b"must be a directory" in failed.stderr


@pytest.mark.parametrize(
    ("source", "target", "text"),
    [
        ("{c}:/nothing", "{tmp}/x", b"nothing"),
        ("{c}:/data", "{tmp}/file", b"cannot copy directory"),
        ("{c}:/data/one", "{tmp}/missing/", b"directory"),
        ("{c}:/data/one", "{tmp}/missing/x", b"missing"),
        ("{tmp}/nothing", "{c}:/data", b"nothing"),
        ("{tmp}", "{c}:/data/one", b"cannot copy directory"),
        ("{tmp}/file", "{c}:/nothing/", b""),
        ("{tmp}/file", "{c}:/no/where/x", b"/no/where"),
        ("{tmp}/file", "nosuch:/x", b"No such container"),
        ("{c}:/a", "{c}:/b", b"copying between containers is not supported"),
        ("{tmp}/file", "{tmp}/x", b"must specify at least one container source"),
    ],
)
def test_cp_says_what_cannot_be_copied(
    daemon: Daemon, container: str, program: list[str], tmp_path: Path, source: str, target: str, text: bytes
) -> None:
    (tmp_path / "file").write_text("")
    done = cp(daemon, program, *(each.format(c=container, tmp=tmp_path) for each in (source, target)))
    assert done.returncode != 0
    assert text.lower() in done.stderr.lower()


def test_docker_py_copies_both_ways(daemon: Daemon, container: str) -> None:
    client = docker.DockerClient(base_url=f"unix://{daemon.socket}")
    one = client.containers.get(container)
    assert one.put_archive("/data", tar(("frompy", b"hello")))
    pieces, found = one.get_archive("/data/frompy")
    assert (found["name"], found["size"]) == ("frompy", 5)
    assert opened(b"".join(pieces)).getnames() == ["frompy"]
    assert content(daemon, container, "/data/frompy") == b"hello"
    with pytest.raises(docker.errors.NotFound):
        one.get_archive("/nothing")
    client.close()
