"""Files that are mostly holes go every way through a real daemon without becoming as large as they look."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients import DOCKERS
from daemons import Daemon
from test_daemon_cp import PROGRAMS

REPOSITORY = Path(__file__).resolve().parent.parent.parent
HUGE = (9 << 30) + 7  # beyond what a number of a tar's header can say
MAKE = f"truncate -s {HUGE - 4} /huge && printf end. >>/huge"
SHOW = f"stat -c '%s %b' /huge; dd if=/huge bs=1 skip={HUGE - 4} 2>/dev/null"
LITTLE = 8 << 20


@pytest.fixture(params=["overlay", "vfs"], scope="module")
def each_driver(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    one = Daemon(tmp_path_factory.mktemp("sparse"), "-s", request.param)
    one.start()
    one.import_busybox()
    yield one
    one.close()
    assert one.leftovers() == []


@pytest.fixture
def container(each_driver: Daemon) -> Iterator[str]:
    made = each_driver.run_detached("sh", "-c", MAKE)
    assert each_driver.wait(made) == 0
    yield made
    each_driver.delete(f"/containers/{made}")


def check_shown(daemon: Daemon, image: str) -> None:
    code, out = daemon.run_to_end("sh", "-c", SHOW, Image=image)
    shown, last = out.split(b"\n", 1)
    size, blocks = map(int, shown.split())
    assert (code, size, last) == (0, HUGE, b"end.")
    assert blocks * 512 < LITTLE


def used(daemon: Daemon) -> int:
    """Bytes on the disk below the daemon's root."""
    shown = subprocess.run(["du", "-skx", daemon.directory], check=True, capture_output=True, text=True).stdout
    return int(shown.split()[0]) << 10


def test_commit_makes_an_image_with_the_holes(each_driver: Daemon, container: str) -> None:
    before = used(each_driver)
    reply = each_driver.post(f"/commit?container={container}&repo=huge")
    assert reply.status == 201, reply.data
    check_shown(each_driver, "huge")
    assert used(each_driver) - before < 4 * LITTLE


def test_save_writes_little_and_load_brings_the_holes_back(each_driver: Daemon, container: str) -> None:
    assert each_driver.post(f"/commit?container={container}&repo=saved").status == 201
    image = each_driver.get("/images/saved/json").json["Id"]
    saved = each_driver.get("/images/saved/get").data
    assert len(saved) < LITTLE
    assert each_driver.delete("/images/saved").status == 200
    assert each_driver.post("/images/load?quiet=1", saved).status == 200
    assert each_driver.get("/images/saved/json").json["Id"] == image
    check_shown(each_driver, "saved")


def test_export_writes_little_and_import_brings_the_holes_back(each_driver: Daemon, container: str) -> None:
    exported = each_driver.get(f"/containers/{container}/export").data
    assert len(exported) < LITTLE
    assert each_driver.post("/images/create?fromSrc=-&repo=imported", exported).status == 200
    check_shown(each_driver, "imported")


def test_pydocker_copies_the_holes_both_ways(each_driver: Daemon, container: str, tmp_path: Path) -> None:
    cp(each_driver, PROGRAMS["pydocker"], f"{container}:/huge", str(tmp_path / "out"))
    assert (tmp_path / "out").stat().st_size == HUGE
    assert (tmp_path / "out").stat().st_blocks * 512 < LITTLE
    with open(tmp_path / "out", "r+b") as file:
        file.seek(5 << 30)
        file.write(b"middle")
    cp(each_driver, PROGRAMS["pydocker"], str(tmp_path / "out"), f"{container}:/huge")
    back = each_driver.get(f"/containers/{container}/archive?path=/huge").data
    assert len(back) < LITTLE
    with tarfile.open(fileobj=io.BytesIO(back)) as archive:
        entry = archive.getmember("huge")
        assert entry.size == HUGE
        reader = archive.extractfile(entry)
        assert reader is not None
        reader.seek(5 << 30)
        assert reader.read(6) == b"middle"


def test_a_sparse_tar_of_any_format_is_imported_with_its_holes(each_driver: Daemon, tmp_path: Path) -> None:
    with open(tmp_path / "huge", "wb") as file:
        file.seek(HUGE - 4)
        file.write(b"end.")
    for options in (["--format=gnu"], ["--format=posix", "--sparse-version=0.0"], ["--format=posix"]):
        command = ["tar", "-C", tmp_path, "-cSf", "-", *options, "huge"]
        data = subprocess.run(command, check=True, capture_output=True).stdout
        assert each_driver.post("/images/create?fromSrc=-&repo=tar", data).status == 200
        layer = each_driver.get("/images/tar/json").json["RootFS"]["Layers"]
        assert layer == ["sha256:" + hashlib.sha256(data).hexdigest()]
    assert used(each_driver) < 10 * LITTLE


@pytest.mark.parametrize("program", DOCKERS)
def test_the_docker_command_line_takes_sparse_entries(each_driver: Daemon, program: list[str], tmp_path: Path) -> None:
    container = each_driver.run_detached(
        "sh", "-c", "truncate -s 40M /holes && printf middle >>/holes && truncate -s 60M /holes"
    )
    assert each_driver.wait(container) == 0
    wanted = bytes(40 << 20) + b"middle" + bytes((20 << 20) - 6)
    cp(each_driver, program, f"{container}:/holes", str(tmp_path / "holes"))
    assert (tmp_path / "holes").read_bytes() == wanted
    cp(each_driver, program, f"{container}:/holes", str(tmp_path / "another name"))
    assert (tmp_path / "another name").read_bytes() == wanted
    cp(each_driver, program, str(tmp_path / "holes"), f"{container}:/back")
    back = each_driver.get(f"/containers/{container}/archive?path=/back").data
    with tarfile.open(fileobj=io.BytesIO(back)) as archive:
        assert archive.getmember("back").issparse()
        reader = archive.extractfile("back")
        assert reader is not None
        assert reader.read() == wanted


def cp(daemon: Daemon, program: list[str], source: str, target: str) -> None:
    done = subprocess.run(
        [*program, "-H", f"unix://{daemon.socket}", "cp", source, target],
        capture_output=True, timeout=120, check=False, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
