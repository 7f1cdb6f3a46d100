"""A daemon on one root with one storage driver after the other: what belongs to another driver is hidden, and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from daemons import Daemon, until
from loop_devices import file_system
from store_house import needs_root

from dockerd_py.store import subvolumes

pytestmark = needs_root

DRIVERS = ("overlay", "vfs", "btrfs")


@pytest.fixture
def on_btrfs(tmp_path: Path) -> Iterator[Daemon]:
    with file_system(tmp_path, "btrfs", 1 << 30) as point:
        one = Daemon(tmp_path)
        one.root = point / "root"
        yield one
        for driver in DRIVERS:
            if one.process is not None:
                one.stop()
            one.start("-s", driver)
            one.close()
        assert [path for path in one.leftovers() if f" {point} " not in path] == []


def names(daemon: Daemon) -> set[str]:
    return {container["Names"][0].lstrip("/") for container in daemon.get("/containers/json?all=1").json}


def tags(daemon: Daemon) -> list[str]:
    return [tag for image in daemon.get("/images/json").json for tag in image["RepoTags"]]


def test_images_and_containers_of_another_driver_are_hidden_untouched_and_back(on_btrfs: Daemon) -> None:
    daemon = on_btrfs
    pids: dict[str, int] = {}
    for driver in DRIVERS:
        daemon.start("-s", driver)
        assert daemon.get("/info").json["Driver"] == driver
        assert (tags(daemon), names(daemon)) == ([], set())
        daemon.import_busybox(f"box-{driver}")
        # The same name each time: it is free where the other one is hidden.
        command = ("sh", "-c", f"echo {driver} > /mine; echo said by {driver}; exec sleep 1000")
        runs = daemon.run_detached(*command, name="runs", Image=f"box-{driver}")
        pids[driver] = daemon.inspect(runs)["State"]["Pid"]
        daemon.create("cat", "/mine", name=f"made-{driver}", Image=f"box-{driver}")
        rm = ("rm", "-r", "/bin/busybox", "/home")
        assert daemon.run_to_end(*rm, name="ended", Image=f"box-{driver}") == (0, b"")
        daemon.stop()
    daemon.start()
    assert daemon.get("/info").json["Driver"] == DRIVERS[-1]
    daemon.stop()
    for driver in DRIVERS:
        daemon.start("-s", driver)
        assert tags(daemon) == [f"box-{driver}:latest"]
        assert names(daemon) == {"runs", f"made-{driver}", "ended"}
        state = daemon.inspect("runs")["State"]
        assert (state["Running"], state["Pid"]) == (True, pids[driver]), (state, daemon.log.read_text())
        assert Path(f"/proc/{pids[driver]}/root/mine").read_text() == f"{driver}\n"
        assert daemon.logs("runs") == f"said by {driver}\n".encode()
        assert daemon.delete("/containers/runs?force=1").status == 204
        assert daemon.run_to_end("ls", "/bin/busybox", name="again", Image=f"box-{driver}") == (0, b"/bin/busybox\n")
        for name in ("again", "ended", f"made-{driver}"):
            assert daemon.delete(f"/containers/{name}").status == 204
        assert daemon.delete(f"/images/box-{driver}").status == 200
        daemon.stop()
        assert [path.name for path in (daemon.root / driver).iterdir()] == ["trash"]
    assert subvolumes.destroy_below(daemon.root) == 0


def test_a_container_that_ended_while_it_was_hidden_has_its_exit_code(on_btrfs: Daemon) -> None:
    daemon = on_btrfs
    daemon.start("-s", "overlay")
    daemon.import_busybox()
    ends = daemon.run_detached("sh", "-c", "sleep 1; echo late; exit 7", name="ends")
    pid = daemon.inspect(ends)["State"]["Pid"]
    daemon.stop()
    daemon.start("-s", "vfs")
    assert daemon.get(f"/containers/{ends}/json").status == 404
    until(lambda: not Path(f"/proc/{pid}").exists())
    daemon.stop()
    daemon.start("-s", "overlay")
    assert daemon.wait("ends") == 7
    assert daemon.logs("ends") == b"late\n"
