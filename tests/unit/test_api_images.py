"""/images: uploads as they arrive, their messages, and names with anything in them."""

from __future__ import annotations

import http.client
import json
import sqlite3
from collections.abc import Iterator

import pytest
from daemons import Daemon, busybox_tar, until
from wire import UnixConnection, read_until


def pieces(data: bytes, size: int = 100_000) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


class Upload:
    """A chunked upload that the test feeds by hand."""

    def __init__(self, daemon: Daemon, query: str = "") -> None:
        self.client = UnixConnection(daemon.socket, 20)
        self.client.putrequest("POST", f"/v1.41/images/create?fromSrc=-{query}")
        self.client.putheader("Transfer-Encoding", "chunked")
        self.client.endheaders()

    def send(self, data: bytes) -> None:
        self.client.send(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        self.client.send(b"0\r\n\r\n")

    def answer(self) -> http.client.HTTPResponse:
        return self.client.getresponse()


def test_an_import_streams_its_body_and_answers_with_the_id(daemon: Daemon) -> None:
    tar = busybox_tar(daemon.directory)
    url = "/v1.41/images/create?fromSrc=-&repo=a&tag=b&message=m&changes=CMD+x&changes=ENV+a=b"
    reply = daemon.ask("POST", url, pieces(tar))
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/json")
    assert reply.data.endswith(b"\r\n")
    image = daemon.get("/images/a:b/json").json
    assert json.loads(reply.data.split(b"\r\n")[-2]) == {"status": image["Id"]}
    assert (image["Comment"], image["Config"]["Env"]) == ("m", ["a=b"])
    assert image["Config"]["Cmd"] == ["/bin/sh", "-c", "x"]
    daemon.delete("/images/a:b")


def test_progress_is_told_while_an_import_goes_on(daemon: Daemon) -> None:
    tar = busybox_tar(daemon.directory)
    upload = Upload(daemon, "&repo=going")
    for piece in pieces(tar[:-1024]):
        upload.send(piece)
    response = upload.answer()  # though the upload has not ended
    assert response.status == 200
    first = json.loads(response.readline())
    assert (first["status"], 0 < first["progressDetail"]["current"] <= len(tar)) == ("Importing", True)
    upload.send(tar[-1024:])
    upload.end()
    lines = response.read().split(b"\r\n")
    assert json.loads(lines[-2])["status"].startswith("sha256:")
    upload.client.close()
    daemon.delete("/images/going")


def test_a_failure_before_the_first_message_is_an_ordinary_error(daemon: Daemon) -> None:
    reply = daemon.post("/images/create?fromSrc=-", b"")
    assert (reply.status, set(reply.json), reply.headers["Content-Length"]) == (
        400,
        {"message"},
        str(len(reply.data)),
    )


def test_a_failure_after_it_is_the_last_message(daemon: Daemon) -> None:
    tar = busybox_tar(daemon.directory)
    upload = Upload(daemon)
    for piece in pieces(tar[: len(tar) // 2]):
        upload.send(piece)
    response = upload.answer()
    response.readline()
    upload.end()
    last = json.loads(response.read().split(b"\r\n")[-2])
    assert response.status == 200
    assert last["errorDetail"] == {"message": last["error"]}
    assert len(last["error"]) > 10
    upload.client.close()


@pytest.mark.parametrize("form", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
def test_an_upload_that_breaks_off_fails_the_import(daemon: Daemon, form: str) -> None:
    before = daemon.resting()
    images = daemon.get("/images/json?all=1").json
    half = busybox_tar(daemon.directory)[:500_000]
    body = half if form.startswith("Content") else b"%x\r\n%b\r\n" % (len(half), half)
    with daemon.connect() as client:
        client.sendall(f"POST /images/create?fromSrc=- HTTP/1.1\r\nHost: d\r\n{form}\r\n\r\n".encode() + body)
        read_until(client, b"Importing")
        assert len(layers(daemon)) == 2
        assert daemon.held() > before
    until(lambda: len(layers(daemon)) == 1)
    until(lambda: daemon.held() == before)
    assert daemon.get("/images/json?all=1").json == images


def layers(daemon: Daemon) -> list[str]:
    return [path.name for path in (daemon.root / "overlay").iterdir() if path.name != "trash"]


def test_pulls_are_refused_in_words(daemon: Daemon) -> None:
    reply = daemon.post("/images/create?fromImage=busybox&tag=latest")
    message = "pulling images is not supported by this version; import one with fromSrc"
    assert (reply.status, reply.json) == (400, {"message": message})


def test_names_of_images_may_hold_slashes_and_escapes(daemon: Daemon) -> None:
    identity = daemon.get("/images/busybox/json").json["Id"]
    assert daemon.post("/images/busybox/tag?repo=host:5000/a/b&tag=c").status == 201
    for name in ("host:5000/a/b:c", "host:5000%2Fa%2Fb:c", identity[:20]):
        assert daemon.get(f"/images/{name}/json").json["Id"] == identity
    assert daemon.post("/images/host:5000/a/b:c/tag?repo=x/y&tag=1").status == 201
    assert daemon.delete("/images/host:5000/a/b:c?noprune=1").json == [{"Untagged": "host:5000/a/b:c"}]
    assert daemon.delete("/images/x/y:1").json == [{"Untagged": "x/y:1"}]


def test_the_first_years_tags_move_only_by_force(daemon: Daemon) -> None:
    daemon.import_busybox("newer")
    assert daemon.post("/images/busybox/tag?repo=here").status == 201
    reply = daemon.post("/images/newer/tag?repo=here&force=0", version="1.10")
    assert (reply.status, b"already set" in reply.data) == (409, True)
    assert daemon.post("/images/newer/tag?repo=here&force=1", version="1.10").status == 201
    assert daemon.post("/images/busybox/tag?repo=here").status == 201
    daemon.delete("/images/here")
    (untagged, deleted) = daemon.delete("/images/newer").json
    assert (untagged, list(deleted)) == ({"Untagged": "newer:latest"}, ["Deleted"])


def test_parents_without_a_name_are_listed_only_on_demand(own_daemon: Daemon) -> None:
    for _ in range(3):
        own_daemon.import_busybox()  # each takes the name from the one before
    named, child, parent, alone = (image["Id"] for image in own_daemon.get("/images/json?all=1").json)
    own_daemon.stop()
    with sqlite3.connect(own_daemon.root / "pydockerd.db") as connection:  # as a build will leave it
        bare = (parent.removeprefix("sha256:"), child.removeprefix("sha256:"))
        assert connection.execute("UPDATE images SET parent_id = ? WHERE id = ?", bare).rowcount == 1
    connection.close()
    own_daemon.start()

    def listed(query: str) -> list[str]:
        return [image["Id"] for image in own_daemon.get(f"/images/json?{query}").json]

    assert listed("") == [named, child, alone]
    assert listed("all=1") == [named, child, parent, alone]
    assert listed('filters={"dangling":["true"]}') == [child, alone]
    assert listed('filters={"reference":["busy*"]}') == [named]
    assert own_daemon.get("/images/json").json[1]["RepoTags"] == []
    old = own_daemon.get("/images/json", version="1.41").json
    assert (old[1]["RepoTags"], old[1]["ParentId"]) == (["<none>:<none>"], parent)
