"""SIGKILL before every step of every operation on images and containers: see `faults`.

All of it takes an hour, and runs with PYDOCKERD_FAULTS=all in the environment: each step with each fate of the
helpers, on two storage drivers, and each step of a recovery.  Without it, each step has one of the fates in turn, and
of a row of equal ones (SQLite writes its log page by page) only the first and the last are run; of the operations on
containers that run, which have hundreds of steps, it is POINTS of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest
from daemons import Daemon
from faults.harness import NEVER, TRACER, Crash, Crashes, checked, start_and_die, stop_and_die
from faults.net_scenarios import NET_SCENARIOS
from faults.nursery import Nursery
from faults.picture import differences, picture, settled
from faults.scenarios import SCENARIOS
from net_house import NetDaemon
from store_house import needs_root

from dockerd_py.store import mounts

ALL = os.environ.get("PYDOCKERD_FAULTS") == "all"
pytestmark = [needs_root, *([pytest.mark.timeout(0)] if ALL else [])]
WORKERS = 3  # two cores have enough to do: much of the time somebody waits
DRIVERS = ("overlay", "vfs") if ALL else ("overlay",)
AGAIN = 1000 if ALL else 4  # steps of a recovery, of a first start and of a stop; the same ones each time

IPTABLES = "iptables"
"""In a name instead of the storage driver: the firewall's other backend, which writes whole tables."""

NAMES = [
    *(f"{scenario.name}-{driver}" for scenario in SCENARIOS for driver in DRIVERS),
    *(f"{scenario.name}-overlay" for scenario in NET_SCENARIOS),
    *([f"publish-{IPTABLES}"] if find_spec("iptc") else []),
]

Fate = tuple[str, bool]
FATES: tuple[Fate, ...] = (("daemon", False), ("*", False), ("daemon", True))
CONTAINER_FATES: dict[str, tuple[Fate, ...]] = {
    **dict.fromkeys(
        ("start", "exec", "stop", "publish", "release"),
        tuple((victims, False) for victims in ("daemon", "monitor", "crun", "fork server", "*", "init")),
    ),
    "connect": tuple((victims, False) for victims in ("daemon", "*", "monitor")),
    "restart": (("daemon", False), ("*", False)),  # a start that another one's death makes fail is not tried again
}
POINTS = {"start": 30, "exec": 18, "stop": 15, "restart": 6, "connect": 18, "publish": 30, "release": 18, "unlink": 40}


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    one = Nursery()
    yield one
    one.close()


@pytest.fixture(scope="module")
def runs(
    nursery: Nursery, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[list[str]]]]:
    """The scenarios that are asked for, at once: from their names to the steps at which the daemon was killed."""
    wanted = {item.callspec.params.get("name") for item in request.session.items if hasattr(item, "callspec")}
    with ThreadPoolExecutor(WORKERS) as pool:
        yield {
            name: pool.submit(crash_everywhere, name, nursery, tmp_path_factory.mktemp(f"{name}-"))
            for name in NAMES
            if name in wanted
        }


def crash_everywhere(name: str, nursery: Nursery, directory: Path) -> list[str]:
    crashes = new_crashes(name, nursery, directory)
    try:
        return crashed_everywhere(crashes)
    except BaseException:
        with contextlib.suppress(Exception):
            crashes.daemon.close()
        raise


def crashed_everywhere(crashes: Crashes) -> list[str]:
    crashes.record()
    steps = []
    fates = CONTAINER_FATES.get(crashes.scenario.name, FATES)
    for turn, step in enumerate(worthwhile(crashes)):
        for victims, late in fates if ALL else (fates[turn % len(fates)],):
            steps.append(crashes.crash(Crash(step, victims, late)))
    middle = len(crashes.steps) // 2
    recovery = crashes.record_recovery(middle)
    for again in chosen(len(recovery)):
        steps.append(crashes.crash(Crash(middle, again=again)))
    crashes.end()
    return [step for step in steps if step]


def new_crashes(name: str, nursery: Nursery, directory: Path) -> Crashes:
    operation, _, variant = name.rpartition("-")
    flags = ("-s", "overlay", "--firewall-backend", IPTABLES) if variant == IPTABLES else ("-s", variant)
    scenario = next(each for each in (*SCENARIOS, *NET_SCENARIOS) if each.name == operation)
    kind = NetDaemon if scenario in NET_SCENARIOS else Daemon
    return Crashes(scenario, kind(directory, *flags), nursery)


def worthwhile(crashes: Crashes) -> list[int]:
    """The numbers, from 1 on, of the steps to run: without those in the middle of a row of equal ones, or all."""
    steps = crashes.steps
    if crashes.scenario.of_container and not ALL:
        points = POINTS[crashes.scenario.name]
        return chosen(len(steps), points // 3 if IPTABLES in crashes.daemon.flags else points)
    inner = {at for at in range(1, len(steps) - 1) if steps[at - 1] == steps[at] == steps[at + 1]}
    return [at + 1 for at in range(len(steps)) if ALL or at not in inner]


def chosen(count: int, wanted: int = AGAIN) -> list[int]:
    """Steps from 1 on, as many as are wanted or all, evenly spread."""
    return sorted({1 + number * (count - 1) // max(1, wanted - 1) for number in range(min(wanted, count))})


@pytest.mark.parametrize("name", NAMES)
def test_a_daemon_killed_before_any_step_has_done_it_all_or_nothing(
    name: str, runs: dict[str, Future[list[str]]]
) -> None:
    assert len(runs[name].result()) > (5 if name.startswith(tuple(POINTS)) else 10)


def test_these_are_more_than_two_hundred_points(runs: dict[str, Future[list[str]]]) -> None:
    if len(runs) < len(NAMES):
        pytest.skip("some were left out")
    assert sum(len(run.result()) for run in runs.values()) > 200


def test_a_daemon_killed_before_any_step_of_its_first_start_can_start_again(nursery: Nursery, tmp_path: Path) -> None:
    first = Daemon(tmp_path / "first")
    first.directory.mkdir()
    steps = start_and_die(first, nursery, NEVER)
    first.start()
    expected = picture(first)
    first.close()
    for step in chosen(len(steps)):
        daemon = Daemon(tmp_path / str(step))
        daemon.directory.mkdir()
        killed = start_and_die(daemon, nursery, step, "*" if step % 2 else "daemon")
        daemon.start()
        settled(daemon)
        assert picture(daemon) == expected, killed[-1]
        assert checked(daemon) == [], killed[-1]
        daemon.close()


def test_a_daemon_killed_before_any_step_of_its_stop_is_in_order_after_the_next_start(
    nursery: Nursery, tmp_path: Path
) -> None:
    daemon = Daemon(tmp_path)
    daemon.spawn = nursery.spawn
    daemon.start()
    daemon.import_busybox()
    daemon.create("true")
    settled(daemon)
    expected = picture(daemon)
    steps = stop_and_die(daemon, NEVER)
    assert len(steps) > 5
    for step in chosen(len(steps)):
        daemon.start()
        killed = stop_and_die(daemon, step)
        daemon.start()
        settled(daemon)
        assert picture(daemon) == expected, killed[-1]
        assert checked(daemon) == [], killed[-1]
        daemon.stop()
    daemon.close()


# The harness itself


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_program_is_killed_before_the_step_and_not_after_it(step: int, tmp_path: Path) -> None:
    script = f"read _; mkdir {tmp_path}/1; mkdir {tmp_path}/2; true"
    with subprocess.Popen(["bash", "-c", script], stdin=subprocess.PIPE) as program:
        tracer = subprocess.Popen(
            [sys.executable, "-IS", str(TRACER), f"daemon={program.pid}", str(tmp_path), str(2 * step), "*", "soon"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert tracer.stdout is not None
        assert tracer.stdout.readline() == b"ready\n"
        program.communicate(b"\n", timeout=20)
        said, _ = tracer.communicate(timeout=20)
    # Each mkdir(1) is started, which is a step, and makes its directory, which is the next.
    words = json.loads(said)
    mkdir = shutil.which("mkdir")
    steps = [text for number in (1, 2) for text in (f"a fork: execve {mkdir}", f"mkdir: mkdir {number}")]
    assert words == {"killed": step < 3, "steps": steps[: 2 * step]}
    assert sorted(os.listdir(tmp_path)) == [str(number) for number in range(1, step)]


def _stray_mount(directory: Path) -> Callable[[], object]:
    mounts.mount("tmpfs", directory / "root/overlay/trash", "tmpfs")
    return lambda: mounts.unmount(directory / "root/overlay/trash")


def _stray_file(name: str) -> Callable[[Path], Callable[[], object]]:
    def make(directory: Path) -> Callable[[], object]:
        (directory / name).mkdir(parents=True)
        return (directory / name).rmdir

    return make


@pytest.mark.parametrize(
    "stray",
    [
        _stray_mount,
        *map(_stray_file, ("root/overlay/x", "root/tmp/x", "root/spool/x", "root/x", "run/x", "run/containers/x")),
    ],
)
def test_anything_that_is_left_over_shows(stray: Callable[[Path], Callable[[], object]], daemon: Daemon) -> None:
    before = picture(daemon)
    assert picture(daemon) == before
    remove = stray(daemon.directory)
    try:
        assert differences(before, picture(daemon))
    finally:
        remove()
    assert picture(daemon) == before
