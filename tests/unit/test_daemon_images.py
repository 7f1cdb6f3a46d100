"""Images through the API of a real daemon: what is imported, refused, removed, and what a failure leaves."""

from __future__ import annotations

import functools
import http.server
import io
import json
import socket
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from daemons import Daemon, busybox_tar


def messages(data: bytes) -> list[dict[str, object]]:
    return [json.loads(line) for line in data.splitlines() if line]


def image_ids(daemon: Daemon) -> set[str]:
    return {image["Id"] for image in daemon.get("/images/json?all=1").json}


def layer_directories(daemon: Daemon) -> set[str]:
    return {path.name for path in (daemon.root / "overlay").iterdir() if path.name != "trash"}


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A web server with busybox.tar; its URL."""
    directory = tmp_path_factory.mktemp("web")
    (directory / "busybox.tar").write_bytes(busybox_tar(directory))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(directory)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_an_import_from_a_url_shows_its_progress(daemon: Daemon, web: str) -> None:
    reply = daemon.post(f"/images/create?fromSrc={web}/busybox.tar&repo=fromurl&tag=v1")
    lines = messages(reply.data)
    assert str(lines[0]["status"]).startswith("Downloading from http://127.0.0.1")
    identity = str(lines[-1]["status"])
    image = daemon.get("/images/fromurl:v1/json").json
    assert image["Id"] == identity
    assert image["Comment"].startswith("Imported from http://127.0.0.1")
    daemon.delete("/images/fromurl:v1")


def test_a_url_without_a_scheme_is_http(daemon: Daemon, web: str) -> None:
    reply = daemon.post(f"/images/create?fromSrc={web.removeprefix('http://')}/busybox.tar&repo=plain")
    assert daemon.get("/images/plain/json").json["Id"] == messages(reply.data)[-1]["status"]
    daemon.delete("/images/plain")


@pytest.mark.parametrize(
    ("url", "text"),
    [("{web}/nothing", "404"), ("ftp://x/y", "no http or https URL"), ("http://127.0.0.1:1/x", "cannot import from")],
)
def test_a_url_that_cannot_be_read_is_refused(daemon: Daemon, web: str, url: str, text: str) -> None:
    before = image_ids(daemon), layer_directories(daemon)
    reply = daemon.post(f"/images/create?fromSrc={url.format(web=web)}")
    assert text in reply.data.decode()
    assert reply.status == 400 or "error" in messages(reply.data)[-1]
    assert (image_ids(daemon), layer_directories(daemon)) == before


def entry(name: str, **fields: object) -> Callable[[tarfile.TarFile], None]:
    def add(archive: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        for key, value in fields.items():
            setattr(info, key, value)
        archive.addfile(info, io.BytesIO(b"x" * info.size))

    return add


def archive(*entries: Callable[[tarfile.TarFile], None]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as one:
        for add in entries:
            add(one)
    return buffer.getvalue()


HOSTILE = {
    "no tar": b"this is no tar at all" * 100,
    "empty": b"",
    "truncated": archive(entry("a", size=100000))[:50000],
    "dot-dot": archive(entry("../outside", size=1)),
    "absolute": archive(entry("/etc/outside", size=1)),
    "device": archive(entry("whiteout", type=tarfile.CHRTYPE, devmajor=0, devminor=0)),
    "hard link out": archive(entry("a", type=tarfile.LNKTYPE, linkname="../../../../etc/passwd")),
    "symlink then write": archive(entry("a", type=tarfile.SYMTYPE, linkname="/tmp"), entry("a/outside", size=1)),
}


@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_a_hostile_archive_is_refused_and_leaves_nothing(daemon: Daemon, kind: str) -> None:
    before = image_ids(daemon), layer_directories(daemon)
    reply = daemon.post("/images/create?fromSrc=-&repo=hostile", HOSTILE[kind])
    error = reply.message if reply.status == 400 else str(messages(reply.data)[-1]["error"])
    assert len(error) > 20
    assert (image_ids(daemon), layer_directories(daemon)) == before
    assert not Path("/tmp/outside").exists()
    assert not Path("/etc/outside").exists()
    assert daemon.get("/images/hostile/json").status == 404


def test_an_upload_that_breaks_off_leaves_nothing(daemon: Daemon) -> None:
    before = image_ids(daemon), layer_directories(daemon)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(daemon.socket))
        head = b"POST /v1.43/images/create?fromSrc=- HTTP/1.1\r\nHost: d\r\nContent-Length: 5000000\r\n\r\n"
        sock.sendall(head + busybox_tar(daemon.directory)[:700000])
    from daemons import until

    until(lambda: (image_ids(daemon), layer_directories(daemon)) == before)


@pytest.mark.parametrize("name", ["UPPER", "a//b", "-x", "a b"])
def test_a_bad_name_is_refused_before_anything_is_read(daemon: Daemon, name: str) -> None:
    from urllib.parse import quote

    reply = daemon.post(f"/images/create?fromSrc=-&repo={quote(name)}", busybox_tar(daemon.directory))
    assert reply.status == 400
    assert "invalid reference format" in reply.message


def test_an_image_in_use_is_not_removed(daemon: Daemon) -> None:
    daemon.import_busybox("used")
    container = daemon.create("true", Image="used")
    reply = daemon.delete("/images/used")
    assert (reply.status, "is using its referenced image" in reply.message) == (409, True)
    daemon.delete(f"/containers/{container}")
    assert daemon.delete("/images/used").status == 200


def test_changes_become_the_images_settings(daemon: Daemon) -> None:
    changes = "changes=ENV%20A%3Dfrom-image&changes=CMD%20%5B%22sh%22%2C%22-c%22%2C%22echo%20%24A%22%5D"
    daemon.post(f"/images/create?fromSrc=-&repo=changed&{changes}", busybox_tar(daemon.directory))
    container = daemon.run_detached(Image="changed")
    daemon.wait(container)
    assert daemon.logs(container) == b"from-image\n"
    daemon.delete(f"/containers/{container}")
    daemon.delete("/images/changed")


def test_import_is_the_same_with_and_without_a_declared_length(daemon: Daemon) -> None:
    """Twenty times each, since what is tested is a race between the upload and the progress that is sent back."""
    tar = busybox_tar(daemon.directory)
    for number in range(40):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(20)
            sock.connect(str(daemon.socket))
            length = f"Content-Length: {len(tar)}" if number % 2 else "Transfer-Encoding: chunked"
            head = f"POST /v1.43/images/create?fromSrc=-&repo=race HTTP/1.1\r\nHost: d\r\n{length}\r\n\r\n"
            body = tar if number % 2 else b"%x\r\n%b\r\n0\r\n\r\n" % (len(tar), tar)
            sock.sendall(head.encode() + body)
            received = b""
            while not received.endswith(b"0\r\n\r\n"):
                chunk = sock.recv(65536)
                assert chunk, received
                received += chunk
        assert b"sha256:" in received
    for image in daemon.get("/images/json").json:
        if image["RepoTags"] in (["race:latest"], ["<none>:<none>"], []):
            daemon.delete(f"/images/{image['Id']}")
