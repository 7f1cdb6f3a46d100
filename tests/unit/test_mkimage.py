"""contrib/mkimage: base images of this machine's busybox, and of a Debian where its mirror may be asked."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from daemons import Daemon
from store_house import needs_root

pytestmark = needs_root

TOP = Path(__file__).parents[2]
MKIMAGE = TOP / "contrib" / "mkimage"
MIRROR = os.environ.get("MKIMAGE_MIRROR", "")
"""Set it to try debootstrap, which takes minutes: http://deb.debian.org/debian"""


def mkimage(*argv: str | Path, path: str = "") -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, **({"PATH": path} if path else {})}
    return subprocess.run([MKIMAGE, *argv], capture_output=True, check=False, env=environment)


def our_command(daemon: Daemon) -> Path:
    """pydocker, which asks the daemon."""
    path = daemon.directory / "pydocker"
    path.write_text(
        f"#!/bin/sh\nPYTHONPATH={TOP} exec {sys.executable} -m dockerd_py.cli.main -H unix://{daemon.socket} \"$@\"\n"
    )
    path.chmod(0o755)
    return path


def test_busybox_is_a_whole_root_filesystem_and_always_the_same(tmp_path: Path) -> None:
    first = mkimage("busybox")
    assert (first.returncode, first.stderr) == (0, b"")
    assert mkimage("busybox", "--output", tmp_path / "b.tar").returncode == 0
    assert (tmp_path / "b.tar").read_bytes() == first.stdout
    assert os.listdir(tmp_path) == ["b.tar"]
    with tarfile.open(fileobj=io.BytesIO(first.stdout)) as archive:
        entries = {entry.name: entry for entry in archive}
        assert archive.getnames() == sorted(archive.getnames())
    assert (entries["./bin/sh"].linkname, entries["./bin/busybox"].mode) == ("/bin/busybox", 0o755)
    assert (entries["./tmp"].mode, entries["./root"].mode, entries["./proc"].isdir()) == (0o1777, 0o700, True)
    assert {(entry.uid, entry.gid, entry.mtime) for entry in entries.values()} == {(0, 0, 0)}


def test_a_tag_imports_it_and_it_runs(daemon: Daemon) -> None:
    done = mkimage("busybox", "--tag", "made:v1", "--pydocker", our_command(daemon))
    assert done.returncode == 0, done.stderr
    assert daemon.run_to_end("sh", "-c", "id -un; ls /", Image="made:v1")[1].startswith(b"root\nbin\n")
    for container in daemon.get("/containers/json?all=1").json:
        daemon.delete(f"/containers/{container['Id']}?force=1")
    assert daemon.delete("/images/made:v1").status == 200


@pytest.mark.parametrize(
    ("argv", "path", "said"),
    [
        (["busybox"], "/nowhere:/usr/lib", "there is no busybox here: apt-get install busybox-static"),
        (["busybox", "--output", "/nowhere/x.tar"], "", "/nowhere/x.tar cannot be written"),
        (["busybox", "--tag", "x", "--pydocker", "/nowhere/p"], "", "/nowhere/p cannot be run"),
        (["busybox", "--tag", "x", "--pydocker", "/bin/false"], "", "mkimage: "),
        (["debootstrap", "no-such-suite", "--mirror", "http://127.0.0.1:1/"], "", "mkimage: "),
    ],
)
def test_what_does_not_work_is_said(tmp_path: Path, argv: list[str], path: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, MKIMAGE, *argv], capture_output=True, text=True, check=False,
        env={**os.environ, "TMPDIR": str(tmp_path), **({"PATH": path} if path else {})},
    )  # fmt: skip
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not MIRROR, reason="MKIMAGE_MIRROR names no mirror of Debian: it would take minutes")
def test_debootstrap_makes_a_debian_that_runs_and_installs_nothing_by_itself(daemon: Daemon, tmp_path: Path) -> None:
    tar = tmp_path / "debian.tar"
    done = mkimage("debootstrap", "bookworm", "--mirror", MIRROR, "--output", tar)
    assert done.returncode == 0, done.stderr[-2000:]
    with tar.open("rb") as body:
        reply = daemon.post("/images/create?fromSrc=-&repo=debian&tag=made", iter(lambda: body.read(1 << 20), b""))
    assert b'"error"' not in reply.data, reply.data
    script = ". /etc/os-release; echo $VERSION_CODENAME; /usr/sbin/policy-rc.d; echo $?; ls /var/lib/apt/lists"
    code, said = daemon.run_to_end("sh", "-c", script, Image="debian:made")
    assert (code, said) == (0, b"bookworm\n101\npartial\n")
    for container in daemon.get("/containers/json?all=1").json:
        daemon.delete(f"/containers/{container['Id']}?force=1")
    assert daemon.delete("/images/debian:made").status == 200
