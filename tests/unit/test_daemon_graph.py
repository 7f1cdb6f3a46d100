"""The first year's images, where each layer is one: API 1.0 to 1.10 beside today's, through a real daemon."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import itertools
import json
import os
import re
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from daemons import Daemon, Reply, busybox_tar
from store_house import member, tar
from wire import objects

FIRST_YEAR = [f"1.{minor}" for minor in range(11)]
OLD = [*FIRST_YEAR, "1.21"]
AT_EACH_CHANGE = ["1.0", "1.2", "1.9", "1.10"]
"""For what takes long: the versions from which on something differs, and the last."""
TODAY = ["1.22", "1.43"]
SIZES = (3, 10, 5, 1)  # bytes of the files that the layers bring, the lowest first; busybox itself is not counted
REPOSITORY = Path(__file__).parents[2]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def dump(value: object) -> bytes:
    return json.dumps(value).encode()


def layers_of(daemon: Daemon) -> list[bytes]:
    layers = [tar(member(f"file{number}", data=b"x" * size)) for number, size in enumerate(SIZES)]
    return [busybox_tar(daemon.directory)[:-1024] + layers[0], *layers[1:]]


def image_archive(layers: list[bytes], name: str, **more: Any) -> tuple[bytes, str]:
    """An archive in Docker's layout and the image's id."""
    raw = dump({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["cat", "/file0"], "Env": ["A=b"]},
        "created": "2020-01-02T03:04:05Z", "author": "me", "comment": "all of it",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(layer)}" for layer in layers]}, **more,
    })  # fmt: skip
    files = {f"{number}/layer.tar": layer for number, layer in enumerate(layers)}
    identity = sha256(raw)
    manifest = [{"Config": f"{identity}.json", "RepoTags": [name] if name else None, "Layers": list(files)}]
    files |= {f"{identity}.json": raw, "manifest.json": dump(manifest)}
    return tar(*(member(name, data=data) for name, data in files.items())), identity


STEPS = [
    {"created": "2020-01-01T00:00:00Z", "created_by": "base"},
    {"created": "2020-01-01T00:00:01Z", "created_by": "second"},
    {"created": "2020-01-01T00:00:02Z", "created_by": "ENV A=b", "empty_layer": True},
    {"created": "2020-01-01T00:00:03Z", "created_by": "third"},
    {"created": "2020-01-01T00:00:04Z", "created_by": "fourth"},
    {"created": "2020-01-01T00:00:05Z", "created_by": "CMD cat", "empty_layer": True},
]


@dataclass(frozen=True)
class Flat:
    """An image with four layers that came in at once."""

    id: str
    layers: list[str]  # the ids of the three below its own one, the lowest first

    @property
    def chain(self) -> list[str]:
        """From the image down."""
        return [self.id, *reversed(self.layers)]


def listed(daemon: Daemon, query: str = "", version: str = "1.10") -> list[dict[str, Any]]:
    reply = daemon.get(f"/images/json?{query}", version=version)
    assert reply.status == 200, reply.data
    return list(reply.json)


def remove(daemon: Daemon, name: str, version: str = "1.10", query: str = "") -> Reply:
    return daemon.call("DELETE", f"/images/{name}?{query}", version=version)


def load_flat(daemon: Daemon, name: str = "flat:latest") -> Flat:
    data, identity = image_archive(layers_of(daemon), name, history=STEPS)
    reply = daemon.post("/images/load", data)
    assert (reply.status, b"error" in reply.data) == (200, False), reply.data
    parents = {item["Id"]: item["ParentId"] for item in listed(daemon, "all=1")}
    layers: list[str] = []
    at = parents[identity]
    while at:
        layers.insert(0, at)
        at = parents[at]
    return Flat(identity, layers)


@pytest.fixture
def flat(daemon: Daemon) -> Iterator[Flat]:
    one = load_flat(daemon)
    yield one
    for container in daemon.get("/containers/json?all=1").json:
        daemon.delete(f"/containers/{container['Id']}?force=1")
    for item in listed(daemon):
        for name in item["RepoTags"]:
            if name not in ("busybox:latest", "<none>:<none>"):
                remove(daemon, name)
    for item in listed(daemon):
        if item["RepoTags"] == ["<none>:<none>"]:
            assert remove(daemon, item["Id"]).status == 200
    assert len(listed(daemon, "all=1")) == 1


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, Flat]]:
    """A daemon with busybox and the image flat, for tests that only look."""
    one = Daemon(tmp_path_factory.mktemp("still"))
    one.start()
    one.import_busybox()
    yield one, load_flat(one)
    one.close()
    assert one.leftovers() == []


def names_of(item: dict[str, Any]) -> list[str]:
    return item["RepoTags"] if "RepoTags" in item else [f"{item['Repository']}:{item['Tag']}"]


# What is there


@pytest.mark.parametrize("version", OLD)
def test_all_images_are_those_with_names_and_each_layer_below(still: tuple[Daemon, Flat], version: str) -> None:
    daemon, flat = still
    items = {item["Id"]: item for item in listed(daemon, "all=1", version)}
    assert [items[one]["ParentId"] for one in flat.chain] == [*flat.chain[1:], ""]
    assert [items[one]["Size"] for one in flat.chain[:3]] == [1, 5, 10]
    totals = [items[one]["VirtualSize"] for one in flat.chain]
    assert [more - less for more, less in itertools.pairwise(totals)] == [1, 5, 10]
    assert [names_of(items[one]) for one in flat.chain] == [["flat:latest"], *[["<none>:<none>"]] * 3]
    assert len(items) == 5
    assert all(re.fullmatch("[0-9a-f]{64}", one) for one in items)


@pytest.mark.parametrize("version", OLD)
def test_without_all_layers_below_others_are_left_out(still: tuple[Daemon, Flat], version: str) -> None:
    daemon, _ = still
    items = listed(daemon, "", version)
    assert [names_of(item) for item in items] == [["busybox:latest"], ["flat:latest"]]
    assert items[0]["Created"] > items[1]["Created"] == 1577934245


@pytest.mark.parametrize("version", FIRST_YEAR)
def test_the_list_is_spelt_as_the_version_has_it(still: tuple[Daemon, Flat], version: str) -> None:
    daemon, flat = still
    daemon.post("/images/flat/tag?repo=host:5000/a/b&tag=two")
    common = {"Id", "ParentId", "Created", "Size", "VirtualSize"}
    items = [item for item in listed(daemon, "", version) if item["Id"] == flat.id]
    if int(version[2:]) < 7:
        assert all(item.keys() == common | {"Repository", "Tag"} for item in items)
        assert [names_of(item) for item in items] == [["flat:latest"], ["host:5000/a/b:two"]]
    else:
        (item,) = items
        assert item.keys() == common | {"RepoTags"}
        assert item["RepoTags"] == ["flat:latest", "host:5000/a/b:two"]
    (chosen,) = listed(daemon, "all=1&filter=fl*", version)
    assert names_of(chosen) == ["flat:latest"]
    assert listed(daemon, "filter=host*", version) == []
    assert len(listed(daemon, "filter=host*/a/*", version)) == 1
    remove(daemon, "host:5000/a/b:two")


@pytest.mark.parametrize("version", FIRST_YEAR)
def test_the_graph_is_drawn_until_1_6(still: tuple[Daemon, Flat], version: str) -> None:
    daemon, flat = still
    reply = daemon.get("/images/viz", version=version)
    if int(version[2:]) >= 7:
        assert reply.status == 404
        return
    assert (reply.status, reply.headers.get_content_type()) == (200, "text/plain")
    lines = reply.data.decode().splitlines()
    short = [one[:12] for one in flat.chain]
    assert (lines[0], lines[-2:]) == ("digraph docker {", [" base [style=invisible]", "}"])
    for child, parent in itertools.pairwise(short):
        assert f' "{parent}" -> "{child}"' in lines
    assert f' base -> "{short[-1]}" [style=invis]' in lines
    assert any(line.startswith(f' "{short[0]}" [label="{short[0]}\\nflat:latest"') for line in lines)
    assert len([line for line in lines if "->" in line]) == 5


@pytest.mark.parametrize("version", FIRST_YEAR)
def test_inspect_shows_each_layer_in_lower_case(still: tuple[Daemon, Flat], version: str) -> None:
    daemon, flat = still
    keys = {
        "id", "parent", "comment", "created", "container", "container_config", "docker_version", "author", "config",
        "architecture", "os", "Size",
    }  # fmt: skip
    values = [daemon.get(f"/images/{one}/json", version=version).json for one in flat.chain]
    assert all(value.keys() == keys for value in values)
    assert [value["id"] for value in values] == flat.chain
    assert [value["parent"] for value in values] == [*flat.chain[1:], ""]
    assert [value["Size"] for value in values[:3]] == [1, 5, 10]
    assert (values[0]["config"]["Cmd"], values[0]["author"]) == (["cat", "/file0"], "me")
    assert (values[1]["config"], values[1]["created"]) == (None, "1970-01-01T00:00:00Z")
    assert daemon.get("/images/flat/json", version=version).json == values[0]
    assert daemon.get("/images/nosuch/json", version=version).status == 404


def test_inspect_is_spelt_in_upper_case_from_1_12_on(still: tuple[Daemon, Flat]) -> None:
    daemon, flat = still
    assert daemon.get("/images/flat/json", version="1.11").json["parent"] == flat.layers[-1]
    middle = daemon.get(f"/images/{flat.layers[1]}/json", version="1.12").json
    assert (middle["Id"], middle["Parent"], middle["Size"]) == (flat.layers[1], flat.layers[0], 10)
    assert middle["VirtualSize"] > middle["Size"]


@pytest.mark.parametrize("version", OLD)
def test_history_names_the_layer_of_each_step(still: tuple[Daemon, Flat], version: str) -> None:
    daemon, flat = still
    steps = daemon.get("/images/flat/history", version=version).json
    top, third, second, base = flat.chain
    assert [step["Id"] for step in steps] == [top, top, third, second, second, base]
    assert [step["CreatedBy"] for step in steps] == [step["created_by"] for step in reversed(STEPS)]
    assert [step["Tags"] for step in steps] == [["flat:latest"], *[None] * 5]
    assert [step["Size"] for step in steps][:5] == [0, 1, 5, 0, 10]
    below = daemon.get(f"/images/{third[:12]}/history", version=version).json
    assert [step["Id"] for step in below] == [third, second, base]


def test_info_counts_layers_as_images_until_1_21(still: tuple[Daemon, Flat]) -> None:
    daemon, _ = still
    counts = {version: daemon.get("/info", version=version).json["Images"] for version in ("1.9", "1.21", "1.43")}
    assert counts == {"1.9": 5, "1.21": 5, "1.43": 2}


# Their ids


def test_the_ids_are_the_same_in_another_place_and_after_a_restart(own_daemon: Daemon, daemon: Daemon) -> None:
    data, _ = image_archive(layers_of(own_daemon)[:3], "other:latest", comment="made otherwise")
    assert own_daemon.post("/images/load", data).status == 200
    first = load_flat(own_daemon)
    own_daemon.stop()
    own_daemon.start()
    again = load_flat(own_daemon)
    elsewhere = load_flat(daemon)
    remove(daemon, "flat")
    assert first == again == elsewhere
    # The third layer is other's own one; as a layer below flat's it has an id of its own.
    parents = {item["Id"]: item["ParentId"] for item in listed(own_daemon, "all=1")}
    other = own_daemon.get("/images/other/json", version="1.9").json
    assert other["parent"] == first.layers[1] == parents[first.layers[2]]


@pytest.mark.parametrize("version", OLD)
def test_a_layer_is_found_by_the_beginning_of_its_id(still: tuple[Daemon, Flat], version: str) -> None:
    daemon, flat = still
    seen = [item["Id"] for item in listed(daemon, "all=1")]
    for one in flat.layers:
        for length in range(1, 65):
            reply = daemon.get(f"/images/{one[:length]}/json", version=version)
            if sum(other.startswith(one[:length]) for other in seen) == 1:
                value = reply.json
                assert value.get("id", value.get("Id")) == one
            else:
                assert reply.status == 404
                assert b"Multiple IDs" in reply.data


def test_a_tag_wins_over_a_layers_id_that_begins_like_it(daemon: Daemon, flat: Flat) -> None:
    prefix = flat.layers[0][:12]
    assert daemon.post(f"/images/busybox/tag?repo={prefix}").status == 201
    busybox = daemon.get("/images/busybox/json", version="1.9").json["id"]
    for version in ("1.0", "1.9"):
        assert daemon.get(f"/images/{prefix}/json", version=version).json["id"] == busybox
        assert daemon.get(f"/images/{prefix}0/json", version=version).status in (200, 404)
        assert daemon.get(f"/images/{flat.layers[0]}/json", version=version).json["id"] == flat.layers[0]
    assert remove(daemon, prefix).json == [{"Untagged": f"{prefix}:latest"}]


@pytest.mark.parametrize("version", TODAY)
def test_todays_clients_see_no_layers_as_images(still: tuple[Daemon, Flat], version: str) -> None:
    daemon, flat = still
    items = {item["Id"]: item for item in listed(daemon, "all=1", version)}
    assert len(items) == 2
    item = items[f"sha256:{flat.id}"]
    assert (item["ParentId"], item["Size"]) == ("", item["VirtualSize"])
    steps = daemon.get("/images/flat/history", version=version).json
    assert [step["Id"] for step in steps] == [f"sha256:{flat.id}", *["<missing>"] * 5]
    # A layer's id can be typed, but not so short that a name is taken for it.
    for ref in (flat.layers[1], f"sha256:{flat.layers[1]}", flat.layers[1][:12]):
        value = daemon.get(f"/images/{ref}/json", version=version).json
        assert (value["Id"], value["Parent"]) == (f"sha256:{flat.layers[1]}", "")
    assert daemon.get(f"/images/{flat.layers[1][:11]}/json", version=version).status == 404


# What is made of them


def run_layer(daemon: Daemon, image: str, *command: str, version: str = "1.9") -> str:
    body = {"Image": image, "Cmd": list(command), "NetworkDisabled": True}
    reply = daemon.post("/containers/create", body, version=version)
    assert reply.status == 201, reply.data
    container = str(reply.json["Id"])
    daemon.post(f"/containers/{container}/start")
    assert daemon.wait(container) == 0, daemon.logs(container)
    return container


@pytest.mark.parametrize("version", [*AT_EACH_CHANGE, "1.21"])
def test_a_container_runs_on_a_layer_and_is_committed_onto_it(daemon: Daemon, flat: Flat, version: str) -> None:
    second = flat.layers[1]
    container = run_layer(daemon, second[:12], "sh", "-c", "ls /; echo new >/new", version=version)
    shown = daemon.logs(container).split()
    assert (b"file1" in shown, b"file2" in shown) == (True, False)
    assert daemon.get(f"/containers/{container}/json", version=version).json["Image"] == second
    reply = daemon.post(f"/commit?container={container}&repo=made", version=version)
    assert reply.status == 201, reply.data
    made = reply.json["Id"]
    key = "parent" if version != "1.21" else "Parent"
    assert daemon.get("/images/made/json", version=version).json[key] == second
    assert listed(daemon, "", version)[0]["ParentId"] == second
    steps = daemon.get("/images/made/history", version=version).json
    assert [step["Id"] for step in steps] == [made, second, flat.layers[0]]
    assert daemon.get("/images/made/json").json["Parent"] == ""  # to today's clients, it is no image's child


def test_a_commit_without_changes_stands_on_its_layer(daemon: Daemon, flat: Flat) -> None:
    container = run_layer(daemon, flat.layers[1], "true")
    made = daemon.post(f"/commit?container={container}&repo=made", version="1.9").json["Id"]
    value = daemon.get("/images/made/json", version="1.9").json
    assert (value["parent"], value["Size"]) == (flat.layers[1], 0)
    steps = daemon.get("/images/made/history", version="1.9").json
    assert [step["Id"] for step in steps] == [made, flat.layers[1], flat.layers[0]]


def test_an_image_made_from_another_names_that_as_its_parent(daemon: Daemon, flat: Flat) -> None:
    container = run_layer(daemon, "flat", "sh", "-c", "echo new >/new")
    made = daemon.post(f"/commit?container={container}&repo=made", version="1.9").json["Id"]
    assert daemon.get("/images/made/json", version="1.9").json["parent"] == flat.id
    steps = daemon.get("/images/made/history", version="1.9").json
    assert list(dict.fromkeys(step["Id"] for step in steps)) == [made, *flat.chain]
    daemon.delete(f"/containers/{container}")
    # As a whole they go again.
    assert remove(daemon, "flat").json == [{"Untagged": "flat:latest"}]
    gone = remove(daemon, "made").json
    assert gone == [{"Untagged": "made:latest"}, *({"Deleted": one} for one in (made, *flat.chain))]


@pytest.mark.parametrize("version", ["1.0", "1.10", "1.21", "1.43"])
def test_a_layer_with_a_name_is_an_image_with_its_own_id(daemon: Daemon, flat: Flat, version: str) -> None:
    second = flat.layers[1]
    assert daemon.post(f"/images/{second[:12]}/tag?repo=second", version=version).status == 201
    assert daemon.get("/images/second/json", version="1.9").json["id"] == second
    today = daemon.get("/images/second/json").json
    assert (today["Id"], today["RepoTags"]) == (f"sha256:{second}", ["second:latest"])
    assert (today["Config"]["Cmd"], today["Config"]["Env"]) == (None, [])
    assert len(today["RootFS"]["Layers"]) == 2
    # It stands where it stood.
    items = {item["Id"]: item for item in listed(daemon, "all=1")}
    assert len(items) == 5
    assert items[second]["RepoTags"] == ["second:latest"]
    assert items[flat.layers[2]]["ParentId"] == second
    # Without its name, it's what it was.
    assert remove(daemon, "second").json == [{"Untagged": "second:latest"}]
    assert {item["Id"]: item["ParentId"] for item in listed(daemon, "all=1")} == {
        key: item["ParentId"] for key, item in items.items()
    }
    assert len(daemon.get("/images/json?all=1").json) == 2


def test_a_named_layer_outlives_the_images_above_it_and_restarts(own_daemon: Daemon) -> None:
    flat = load_flat(own_daemon)
    own_daemon.post(f"/images/{flat.layers[1]}/tag?repo=second", version="1.9")
    top = remove(own_daemon, "flat").json
    assert top == [{"Untagged": "flat:latest"}, {"Deleted": flat.id}, {"Deleted": flat.layers[2]}]
    own_daemon.stop()
    own_daemon.start()
    assert own_daemon.get("/images/second/json", version="1.9").json["parent"] == flat.layers[0]
    container = run_layer(own_daemon, "second", "cat", "/file1")
    assert own_daemon.logs(container) == b"x" * 10
    own_daemon.delete(f"/containers/{container}")
    gone = remove(own_daemon, flat.layers[1][:12]).json
    assert gone == [{"Untagged": "second:latest"}, {"Deleted": flat.layers[1]}, {"Deleted": flat.layers[0]}]
    assert len(listed(own_daemon, "all=1")) == 1


def test_a_layer_is_saved_as_an_image_and_comes_back_with_its_id(daemon: Daemon, flat: Flat) -> None:
    second, first = flat.layers[1], flat.layers[0]
    reply = daemon.get(f"/images/{second[:12]}/get", version="1.9")
    assert reply.status == 200, reply.data
    with tarfile.open(fileobj=io.BytesIO(reply.data)) as archive:
        names = set(archive.getnames())
        assert {f"{one}/{file}" for one in (first, second) for file in ("VERSION", "json", "layer.tar")} <= names
        found = archive.extractfile(f"{second}/json")
        assert found is not None
        described = json.load(found)
    assert (described["id"], described["parent"], described["Size"]) == (second, first, 10)
    assert flat.id not in "".join(names)
    remove(daemon, "flat")
    assert daemon.post("/images/load", reply.data, version="1.9").status == 200
    (item,) = [item for item in listed(daemon) if item["RepoTags"] == ["<none>:<none>"]]
    assert (item["Id"], item["ParentId"]) == (second, first)
    assert remove(daemon, second).json == [{"Deleted": second}, {"Deleted": first}]
    # An image's archive names its layers the same way.
    load_flat(daemon)
    with tarfile.open(fileobj=io.BytesIO(daemon.get("/images/flat/get", version="1.9").data)) as archive:
        assert {f"{one}/json" for one in flat.chain} <= set(archive.getnames())


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("web")
    (directory / "file").write_text("from the web\n")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(directory)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.7", "1.8", "1.10"])
def test_a_file_is_inserted_on_a_layer(daemon: Daemon, flat: Flat, web: str, version: str) -> None:
    reply = daemon.post(f"/images/{flat.layers[1][:12]}/insert?url={web}/file&path=/inserted", version=version)
    assert reply.status == 200, reply.data
    if version == "1.0":
        assert reply.headers.get_content_type() == "text/plain"
        made = reply.data.split()[-1].decode()
        assert b"{" not in reply.data
    else:
        assert reply.headers.get_content_type() == "application/json"
        made = objects(reply.data)[-1]["status"]
    details = b"progressDetail" in reply.data
    assert details == (int(version[2:]) >= 8)
    assert daemon.get(f"/images/{made}/json", version=version).json["parent"] == flat.layers[1]
    container = run_layer(daemon, made, "cat", "/inserted", "/file1")
    assert daemon.logs(container) == b"from the web\n" + b"x" * 10
    daemon.delete(f"/containers/{container}")
    assert remove(daemon, made).json == [{"Deleted": made}]
    failed = daemon.post(f"/images/flat/insert?url={web}/nothing&path=/x", version=version)
    assert b"404" in failed.data


@pytest.mark.parametrize("version", FIRST_YEAR)
def test_an_import_ends_with_its_id(daemon: Daemon, version: str) -> None:
    data = tar(member("only", data=b"1"))
    reply = daemon.post("/images/create?fromSrc=-&repo=imported", data, version=version)
    made = reply.data.split()[-1].decode() if version == "1.0" else objects(reply.data)[-1]["status"]
    value = daemon.get("/images/imported/json", version=version).json
    assert (value["id"], value["parent"], value["comment"], value["config"]) == (made, "", "Imported from -", None)
    remove(daemon, "imported")


# Removal


@pytest.mark.parametrize("version", [*AT_EACH_CHANGE, "1.21"])
def test_removing_an_image_removes_the_layers_below_it(daemon: Daemon, flat: Flat, version: str) -> None:
    data, other = image_archive(layers_of(daemon)[:2], "other:latest", comment="shares two")
    daemon.post("/images/load", data)
    reply = remove(daemon, "flat", version)
    # The second layer is the other image's own one now, and below it is the lowest.
    deleted = [{"Deleted": one} for one in (flat.id, flat.layers[2], flat.layers[1])]
    if int(version[2:]) < 2:
        assert (reply.status, reply.data) == (204, b"")
    elif int(version[2:]) < 10:
        assert reply.json == [{"Untagged": flat.id}, *deleted]
    else:
        assert reply.json == [{"Untagged": "flat:latest"}, *deleted]
    assert {item["Id"] for item in listed(daemon, "all=1")} >= {other, flat.layers[0]}
    assert daemon.get(f"/images/{flat.layers[2]}/json", version=version).status == 404
    assert remove(daemon, flat.id, version).status == 404


@pytest.mark.parametrize("version", FIRST_YEAR)
def test_a_layer_below_others_is_not_removed(still: tuple[Daemon, Flat], version: str) -> None:
    daemon, flat = still
    reply = remove(daemon, flat.layers[1], version)
    assert (reply.status, reply.data) == (409, f"Conflict, {flat.layers[1]} wasn't deleted\n".encode())
    assert [item["Id"] for item in listed(daemon, "", version)][1] == flat.id


@pytest.mark.parametrize("version", ["1.21", "1.43"])
def test_a_layer_below_others_is_not_removed_later_either(still: tuple[Daemon, Flat], version: str) -> None:
    daemon, flat = still
    for query in ("", "force=1"):
        reply = remove(daemon, flat.layers[1], version, query)
        assert (reply.status, b"cannot be forced" in reply.data) == (409, True)


@pytest.mark.parametrize("version", AT_EACH_CHANGE)
def test_an_id_stands_for_all_names_in_one_repository(daemon: Daemon, flat: Flat, version: str) -> None:
    daemon.post("/images/flat/tag?repo=flat&tag=two")
    daemon.post("/images/flat/tag?repo=elsewhere")
    reply = remove(daemon, flat.id, version)
    hint = ", use -f to force" if version == "1.10" else ""
    message = f"Conflict, cannot delete image {flat.id[:12]} because it is tagged in multiple repositories{hint}\n"
    assert (reply.status, reply.data.decode()) == (409, message)
    # force is of 1.10
    forced = remove(daemon, flat.id, version, "force=1")
    assert forced.status == (200 if version == "1.10" else 409)
    if forced.status == 200:
        assert [next(iter(line)) for line in forced.json] == ["Untagged"] * 3 + ["Deleted"] * 4
        return
    remove(daemon, "elsewhere", version)
    reply = remove(daemon, flat.id[:12], version)
    assert reply.status == (200 if int(version[2:]) >= 2 else 204)
    assert [item["Id"] for item in listed(daemon, "all=1")] != flat.id
    assert len(listed(daemon, "all=1")) == 1


@pytest.mark.parametrize("version", AT_EACH_CHANGE)
def test_what_a_container_uses_stays(daemon: Daemon, flat: Flat, version: str) -> None:
    container = run_layer(daemon, "flat", "true", version=version)
    reply = remove(daemon, "flat", version)
    short = flat.id[:12]
    assert reply.status == 409
    message = f"Conflict, cannot delete {short} because the container {container[:12]} is using it\n"
    assert reply.data.decode() == message
    # By its id, it loses its names and stays.
    assert remove(daemon, flat.id, version).status == (200 if int(version[2:]) >= 2 else 204)
    assert [item["Id"] for item in listed(daemon, "", version) if names_of(item) == ["<none>:<none>"]] == [flat.id]
    reply = remove(daemon, flat.id, version)
    assert (reply.status, b"wasn't deleted" in reply.data) == (409, True)


@pytest.mark.parametrize("version", AT_EACH_CHANGE)
def test_the_layer_of_a_container_outlives_the_images_above(daemon: Daemon, flat: Flat, version: str) -> None:
    container = run_layer(daemon, flat.layers[1], "true", version=version)
    reply = remove(daemon, "flat", version)
    if int(version[2:]) >= 2:
        assert [line.get("Deleted") for line in reply.json[1:]] == [flat.id, flat.layers[2]]
    heads = [item["Id"] for item in listed(daemon, "", version) if names_of(item) == ["<none>:<none>"]]
    assert heads == [flat.layers[1]]
    reply = remove(daemon, flat.layers[1], version)
    assert (reply.status, b"wasn't deleted" in reply.data) == (409, True)
    daemon.delete(f"/containers/{container}")
    assert len(listed(daemon, "all=1")) == 1


def test_the_first_years_events_have_bare_ids(daemon: Daemon, flat: Flat) -> None:
    begun = time.time()
    remove(daemon, "flat")
    reply = daemon.get(f"/events?since={begun:.9f}&until={time.time():.9f}", version="1.10")
    events = objects(reply.data)
    assert [(event["status"], event["id"]) for event in events] == [
        ("untag", flat.id), *(("delete", one) for one in flat.chain),
    ]  # fmt: skip


def test_what_needs_a_registry_is_refused_by_name(daemon: Daemon) -> None:
    for version in (*OLD, "1.43"):
        status = 500 if version in FIRST_YEAR else 400
        reply = daemon.get("/images/search?term=x", version=version)
        assert (reply.status, b"searching a registry is not supported" in reply.data) == (status, True)
        reply = daemon.post("/images/busybox/push", version=version)
        assert (reply.status, b"pushing images is not supported" in reply.data) == (status, True)
        assert daemon.post("/images/nosuch/push", version=version).status == 404


# The command line


def pydocker(daemon: Daemon, *args: str) -> str:
    command = [sys.executable, "-c", "import sys\nfrom dockerd_py.cli.main import main\nsys.exit(main())"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [*command, "-H", f"unix://{daemon.socket}", *args],
        capture_output=True, text=True, timeout=60, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_pydocker_draws_the_layers(daemon: Daemon, flat: Flat) -> None:
    lines = pydocker(daemon, "images", "--tree", "--no-trunc").splitlines()
    drawn = [line for line in lines if any(one in line for one in flat.chain)]
    assert [re.sub("[^0-9a-f]", "", line.partition(" Virtual")[0]) for line in drawn] == flat.chain[::-1]
    assert drawn[-1].endswith(" Tags: flat:latest")
    branch = pydocker(daemon, "images", "-t", flat.layers[1][:12]).splitlines()
    assert [line.partition("─")[2][:12] for line in branch] == [one[:12] for one in reversed(flat.chain[:3])]
    graph = pydocker(daemon, "images", "--viz")
    assert f' "{flat.layers[0][:12]}" -> "{flat.layers[1][:12]}"\n' in graph


def test_pydocker_shows_todays_images_else_and_takes_a_layers_id(daemon: Daemon, flat: Flat) -> None:
    assert len(pydocker(daemon, "images", "-a", "-q").split()) == 2
    assert pydocker(daemon, "history", "-q", "flat").split() == [flat.id[:12], *["<missing>"] * 5]
    layer = flat.layers[1][:12]
    assert pydocker(daemon, "inspect", "-f", "{{.Id}}", layer).strip() == f"sha256:{flat.layers[1]}"
    assert pydocker(daemon, "run", "--rm", "--network", "none", layer, "cat", "/file1") == "x" * 10
    pydocker(daemon, "tag", layer, "tagged")
    assert pydocker(daemon, "images", "-q", "tagged").strip() == layer
    assert pydocker(daemon, "rmi", "tagged").splitlines()[0] == "Untagged: tagged:latest"


# Many of them


def test_many_layers_are_listed_and_found(own_daemon: Daemon) -> None:
    layers = [tar(member(f"file{number}", data=b"1")) for number in range(20)]
    for number in range(3):
        data, _ = image_archive([tar(member(f"base{number}")), *layers], f"deep{number}:latest")
        assert b"error" not in own_daemon.post("/images/load", data).data
    items = listed(own_daemon, "all=1")
    assert len(items) == 1 + 3 * 21
    for item in items[::7]:
        assert own_daemon.get(f"/images/{item['Id'][:12]}/json", version="1.9").json["parent"] == item["ParentId"]
    assert len(remove(own_daemon, "deep1").json) == 22
    assert len(listed(own_daemon, "all=1")) == 1 + 2 * 21
