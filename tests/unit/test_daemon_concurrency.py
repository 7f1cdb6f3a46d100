"""Many clients at once: imports, commits and removals that meet end in order, and nothing is left over."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from daemons import Daemon, Reply, busybox_tar, until
from store_house import directory, member, needs_root, tar

pytestmark = needs_root

AT_ONCE = 20


@pytest.fixture(scope="module", params=["overlay", "vfs"])
def crowded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that has busybox, and in the end, after all the tests, nothing but what its rows speak of."""
    one = Daemon(tmp_path_factory.mktemp("crowded"), "-s", request.param)
    one.start()
    one.import_busybox()
    yield one
    one.close()
    assert one.leftovers() == []
    assert fsck(one) == ""


def fsck(daemon: Daemon) -> str:
    argv = [sys.executable, "-m", "dockerd_py.daemon.main", "fsck", "-g", daemon.root, "--exec-root", daemon.run]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    return done.stdout + done.stderr


def layer_directories(daemon: Daemon) -> set[str]:
    home = daemon.root / daemon.flags[1]
    until(lambda: not (home / "trash").exists() or not list((home / "trash").iterdir()))
    return {path.name for path in home.iterdir() if path.name not in ("trash", "l")}


def at_once(*works: Callable[[], Reply]) -> list[Reply]:
    """The answers, in order, to requests that set out at the same moment."""
    barrier = threading.Barrier(len(works))

    def run(work: Callable[[], Reply]) -> Reply:
        barrier.wait(30)
        return work()

    with ThreadPoolExecutor(len(works)) as threads:
        return list(threads.map(run, works))


def root_filesystem(number: int) -> bytes:
    return tar(directory("etc"), member("etc/number", data=b"%d" % number), member("same", data=b"s" * 5000))


def do_import(daemon: Daemon, number: int, name: str) -> Reply:
    return daemon.post(f"/images/create?fromSrc=-&repo={name}&tag=v{number}", root_filesystem(number))


def imported(reply: Reply) -> str:
    assert reply.status == 200, reply.data
    last = json.loads(reply.data.splitlines()[-1])
    assert "error" not in last, last
    return str(last["status"]).removeprefix("sha256:")


def image_ids(daemon: Daemon) -> set[str]:
    return {image["Id"].removeprefix("sha256:") for image in daemon.get("/images/json?all=1").json}


def remove_all_but_busybox(daemon: Daemon) -> None:
    for container in daemon.get("/containers/json?all=1").json:
        assert daemon.delete(f"/containers/{container['Id']}?force=1").status == 204
    for image in daemon.get("/images/json?all=1").json:
        for name in image["RepoTags"]:
            if name not in ("busybox:latest", "<none>:<none>"):
                assert daemon.delete(f"/images/{name}?force=1").status == 200
    for image in daemon.get("/images/json").json:
        if "busybox:latest" not in (image["RepoTags"] or ()):
            assert daemon.delete(f"/images/{image['Id']}?force=1").status == 200


def test_twenty_imports_of_layers_that_overlap_are_all_there(crowded: Daemon) -> None:
    before = layer_directories(crowded)
    replies = at_once(*(lambda n=n: do_import(crowded, n % 5, f"image{n}") for n in range(AT_ONCE)))  # type: ignore[misc]
    made = [imported(reply) for reply in replies]
    for number, identity in enumerate(made):
        image = crowded.get(f"/images/image{number}:v{number % 5}/json").json
        assert image["Id"] == f"sha256:{identity}"
        layer = hashlib.sha256(root_filesystem(number % 5)).hexdigest()
        assert image["RootFS"]["Layers"] == [f"sha256:{layer}"]
    assert len(layer_directories(crowded) - before) == 5  # each once, however many brought it
    remove_all_but_busybox(crowded)
    assert layer_directories(crowded) == before


def test_imports_commits_and_removals_that_meet_leave_what_was_acknowledged(crowded: Daemon) -> None:
    before = layer_directories(crowded)
    containers = [crowded.create("true", name=f"c{number}") for number in range(4)]
    for number, container in enumerate(containers):
        body = tar(member(f"changed{number % 2}", data=b"x"))
        reply = crowded.call("PUT", f"/containers/{container}/archive?path=/", body)
        assert reply.status == 200, reply.data
    kept: dict[str, str] = {}

    def work(number: int) -> Reply:
        name = f"image{number}"
        for turn in range(3):
            kind = (number + turn) % 3
            if kind == 0:
                kept[f"{name}:i{turn}"] = imported(
                    crowded.post(f"/images/create?fromSrc=-&repo={name}&tag=i{turn}", root_filesystem(turn))
                )
            elif kind == 1:
                reply = crowded.post(f"/commit?container=c{number % 4}&repo={name}&tag=c{turn}")
                assert reply.status == 201, reply.data
                kept[f"{name}:c{turn}"] = str(reply.json["Id"]).removeprefix("sha256:")
            elif kept and (mine := [each for each in kept if each.startswith(f"{name}:")]):
                reply = crowded.delete(f"/images/{mine[0]}")
                assert reply.status == 200, reply.data
                del kept[mine[0]]
        return crowded.get("/_ping")

    at_once(*(lambda n=n: work(n) for n in range(AT_ONCE)))  # type: ignore[misc]
    names = {
        name: image["Id"].removeprefix("sha256:")
        for image in crowded.get("/images/json").json
        for name in image["RepoTags"] or ()
    }
    del names["busybox:latest"]
    assert names == kept
    for name in sorted(kept)[::3]:  # each can be used, of all kinds
        body = {"Image": name, "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}
        made = crowded.post("/containers/create", body)
        assert made.status == 201, made.data
        found = crowded.get(f"/containers/{made.json['Id']}/archive?path=/{'same' if ':i' in name else 'bin'}")
        assert found.status == 200
    remove_all_but_busybox(crowded)
    assert layer_directories(crowded) == before


def test_of_two_removals_of_one_image_one_does_it_and_the_other_says_so(crowded: Daemon) -> None:
    before = image_ids(crowded), layer_directories(crowded)
    for ref in ("twice:v1", "id"):
        for _ in range(2):
            identity = imported(do_import(crowded, 1, "twice"))
            target = identity if ref == "id" else ref
            replies = at_once(*[lambda: crowded.delete(f"/images/{target}")] * 3)  # noqa: B023
            assert sorted(reply.status for reply in replies) == [200, 404, 404], [reply.data for reply in replies]
            (done,) = [reply.json for reply in replies if reply.status == 200]
            assert done == [{"Untagged": "twice:v1"}, {"Deleted": f"sha256:{identity}"}]
            assert (image_ids(crowded), layer_directories(crowded)) == before


def test_an_image_that_is_removed_while_containers_are_made_of_it_has_them_or_is_gone(crowded: Daemon) -> None:
    body = {"Image": "used:v1", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}
    for _ in range(5):
        imported(do_import(crowded, 1, "used"))
        creates = [lambda: crowded.post("/containers/create", body)] * 4
        *made, removed = at_once(*creates, lambda: crowded.delete("/images/used:v1"))
        assert {reply.status for reply in made} <= {201, 404, 409}, [reply.data for reply in made]
        assert removed.status in (200, 409), removed.data
        for reply in made:
            if reply.status == 201:
                assert crowded.get(f"/containers/{reply.json['Id']}/archive?path=/same").status == 200
        remove_all_but_busybox(crowded)


def test_a_commit_of_a_container_that_is_being_removed_is_whole_or_refused(crowded: Daemon) -> None:
    for turn in range(4):
        container = crowded.create("true")
        body = tar(*(member(f"f{number}", data=b"%d" % turn) for number in range(50)))
        assert crowded.call("PUT", f"/containers/{container}/archive?path=/tmp", body).status == 200
        commits = [lambda: crowded.post(f"/commit?container={container}&repo=late")] * 2  # noqa: B023
        *made, removed = at_once(*commits, lambda: crowded.delete(f"/containers/{container}?force=1"))  # noqa: B023
        assert removed.status == 204, removed.data
        assert crowded.get(f"/containers/{container}/json").status == 404
        for reply in made:
            assert reply.status in (201, 404, 409), reply.data
            if reply.status == 201:
                one = crowded.create("true", Image=reply.json["Id"])
                assert crowded.get(f"/containers/{one}/archive?path=/tmp/f49").status == 200
        remove_all_but_busybox(crowded)


def test_a_running_container_that_is_committed_and_removed_at_once_leaves_nothing_frozen(crowded: Daemon) -> None:
    for _ in range(3):
        container = crowded.run_detached("sh", "-c", "while :; do echo x > /tmp/f; done")
        made, removed = at_once(
            lambda: crowded.post(f"/commit?container={container}&repo=live"),  # noqa: B023
            lambda: crowded.delete(f"/containers/{container}?force=1"),  # noqa: B023
        )
        assert removed.status == 204, removed.data
        assert made.status in (201, 404, 409), made.data
        remove_all_but_busybox(crowded)
    until(lambda: not [line for line in crowded.processes() if "pydockerd" not in line and "while :" in line])


def test_removals_by_force_win_over_a_start(crowded: Daemon) -> None:
    for _ in range(4):
        container = crowded.create("sleep", "100")
        removal = lambda: crowded.delete(f"/containers/{container}?force=1")  # noqa: B023, E731
        first, second, start = at_once(
            removal, removal, lambda: crowded.post(f"/containers/{container}/start"),  # noqa: B023
        )
        assert 204 in (first.status, second.status), (first.data, second.data, start.data)
        assert {first.status, second.status} <= {204, 404, 409}, (first.data, second.data)
        assert start.status in (204, 404, 409), start.data
        assert crowded.get(f"/containers/{container}/json").status == 404


def test_what_was_done_at_once_is_still_there_after_a_kill(crowded: Daemon) -> None:
    replies = at_once(*(lambda n=n: do_import(crowded, n % 3, f"image{n}") for n in range(8)))  # type: ignore[misc]
    made = {imported(reply) for reply in replies}
    assert crowded.process is not None
    crowded.stop(9)
    crowded.start()
    assert made <= image_ids(crowded)
    remove_all_but_busybox(crowded)


def test_a_tag_that_two_give_at_once_is_one_of_theirs(crowded: Daemon) -> None:
    one, other = imported(do_import(crowded, 1, "one")), imported(do_import(crowded, 2, "other"))
    tags = [lambda i=i: crowded.post(f"/images/{i}/tag?repo=shared&tag=now") for i in (one, other) * 5]  # type: ignore[misc]
    assert {reply.status for reply in at_once(*tags)} == {201}
    assert crowded.get("/images/shared:now/json").json["Id"].removeprefix("sha256:") in (one, other)
    owners = [image for image in crowded.get("/images/json").json if "shared:now" in (image["RepoTags"] or ())]
    assert len(owners) == 1
    remove_all_but_busybox(crowded)


def test_busybox_is_imported_by_many_under_one_name(crowded: Daemon) -> None:
    data = busybox_tar(crowded.directory)
    replies = at_once(*[lambda: crowded.post("/images/create?fromSrc=-&repo=busybox&tag=many", data)] * 6)
    made = {imported(reply) for reply in replies}
    assert crowded.get("/images/busybox:many/json").json["Id"].removeprefix("sha256:") in made
    remove_all_but_busybox(crowded)
