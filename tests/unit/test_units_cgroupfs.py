"""Plain control groups on this machine: limits bite, and nothing is left over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dockerd_py.errors import BadParameter, ConfigError, Conflict, NotRunning, PydockerdError
from dockerd_py.units import hierarchy
from dockerd_py.units.base import Limits, ScopeSpec
from dockerd_py.units.cgroupfs import CgroupfsUnits
from dockerd_py.units.connect import connect_units

MIB = 1 << 20


def writable() -> bool:
    return os.geteuid() == 0 and any(os.access(h.own, os.W_OK) for h in hierarchy.current())


pytestmark = pytest.mark.skipif(not writable(), reason="needs root and a writable control group file system")


@pytest.fixture
def units() -> Iterator[CgroupfsUnits]:
    units = CgroupfsUnits()
    yield units
    for name in ours(units):
        asyncio.run(units.remove(name))
    asyncio.run(units.close())


class Held:
    def __init__(self) -> None:
        self.pids: list[int] = []

    def start(self, then: str = "") -> tuple[int, Callable[[], None]]:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                os.close(write)
                os.read(read, 1)
                if then:
                    os.execv("/usr/bin/python3", ["python3", "-I", "-c", then])
                signal.pause()
            finally:
                os._exit(99)
        os.close(read)
        self.pids.append(pid)
        return pid, lambda: (os.write(write, b"x"), os.close(write))[1]

    def reap(self, pid: int) -> int:
        self.pids.remove(pid)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def end(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self.reap(pid)


@pytest.fixture
def held() -> Iterator[Held]:
    processes = Held()
    yield processes
    for pid in list(processes.pids):
        processes.end(pid)


_made: set[str] = set()


def scope_name() -> str:
    name = f"container-{secrets.token_hex(32)}.scope"
    _made.add(name)
    return name


def ours(units: CgroupfsUnits) -> set[str]:
    """Other daemons of this machine may have scopes too."""
    return asyncio.run(units.names()) & _made


def start(units: CgroupfsUnits, spec: ScopeSpec, pid: int) -> str:
    return asyncio.run(units.start_scope(spec, pid))


def needs(units: CgroupfsUnits, *controllers: str) -> None:
    if missing := set(controllers) - units.controllers:
        pytest.skip(f"no {', '.join(sorted(missing))} controller here")


def read(pid: int, v1: str, v2: str) -> str:
    where = hierarchy.of_controller(hierarchy.current(pid), v1.partition(".")[0])
    assert where is not None
    return (where.own / (v1 if where.version == 1 else v2)).read_text().strip()


def test_a_held_process_is_in_its_group_in_every_hierarchy(units: CgroupfsUnits, held: Held) -> None:
    pid, _go = held.start()
    name = scope_name()
    group = start(units, ScopeSpec(name), pid)
    assert group.endswith(f"/pydockerd/{name}")
    assert f":{group}\n" in Path(f"/proc/{pid}/cgroup").read_text()
    places = [h for h in hierarchy.current(pid) if os.access(h.own, os.W_OK)]
    assert all(place.path.endswith(f"/{name}") for place in places)
    assert asyncio.run(units.processes(name)) == [pid]
    assert asyncio.run(units.control_group(name)) == group
    assert ours(units) == {name}


def test_birth_limits_are_in_force_at_once_and_run_limits_only_when_applied(units: CgroupfsUnits, held: Held) -> None:
    needs(units, "memory", "cpu", "pids")
    pid, _go = held.start()
    name = scope_name()
    limits = Limits(memory=64 * MIB, memory_swap=80 * MIB, cpu_shares=512, cpu_quota_per_sec_usec=250_000, pids=17)
    start(units, ScopeSpec(name, limits=limits), pid)
    assert read(pid, "memory.limit_in_bytes", "memory.max") == str(64 * MIB)
    assert read(pid, "cpu.shares", "cpu.weight") in ("512", "50")
    assert read(pid, "pids.max", "pids.max") == "max"
    if units.cgroup_version == 1:
        assert read(pid, "memory.memsw.limit_in_bytes", "") == str(80 * MIB)
        assert read(pid, "cpu.cfs_quota_us", "") == "-1"
    asyncio.run(units.apply_run_limits(name, limits))
    assert read(pid, "pids.max", "pids.max") == "17"
    assert read(pid, "cpu.cfs_quota_us", "cpu.max") in ("25000", "25000 100000")


def test_memory_beyond_the_limit_is_an_oom_kill_that_is_counted(units: CgroupfsUnits, held: Held) -> None:
    needs(units, "memory")
    pid, go = held.start("import os\nif os.fork() == 0: x = b'x' * (200 << 20)\nos.wait()\nos.read(0, 1)")
    name = scope_name()
    group = start(units, ScopeSpec(name, limits=Limits(memory=32 * MIB)), pid)
    counter = units.oom_counter(name, group)
    assert counter is not None
    assert "oom_kill 0\n" in counter.read_text()
    go()

    async def counted() -> bool:
        for _ in range(250):
            if "oom_kill 1\n" in counter.read_text():
                return True
            await asyncio.sleep(0.02)
        return False

    assert asyncio.run(counted())


def test_the_pids_limit_stops_forks_beyond_it(units: CgroupfsUnits, held: Held) -> None:
    needs(units, "pids")
    pid, go = held.start(
        "import os, time\ntry:\n for _ in range(20):\n  if os.fork() == 0: time.sleep(60)\nexcept OSError: os._exit(7)"
    )
    name = scope_name()
    start(units, ScopeSpec(name), pid)
    asyncio.run(units.apply_run_limits(name, Limits(pids=5)))
    go()
    assert held.reap(pid) == 7
    assert len(asyncio.run(units.processes(name))) == 4


def test_the_processor_quota_bites(units: CgroupfsUnits, held: Held) -> None:
    needs(units, "cpu")
    burn = "import time\nend = time.monotonic() + 1\nwhile time.monotonic() < end: pass\n"
    pid, go = held.start(burn + "import os; os._exit(min(99, int(time.process_time() * 100)))")
    name = scope_name()
    start(units, ScopeSpec(name), pid)
    asyncio.run(units.apply_run_limits(name, Limits(cpu_quota_per_sec_usec=200_000)))
    go()
    assert held.reap(pid) < 45


def test_devices_outside_the_list_do_not_open(units: CgroupfsUnits, held: Held, tmp_path: Path) -> None:
    needs(units, "devices")
    pid, go = held.start(
        f"import os\nos.close(os.open('/dev/null', os.O_RDWR))\nnode = {os.fspath(tmp_path / 'fuse')!r}\n"
        "os.mknod(node, 0o20600, os.makedev(10, 229))\n"
        "try: os.open(node, os.O_RDWR)\nexcept PermissionError: os._exit(7)"
    )
    start(units, ScopeSpec(scope_name()), pid)
    go()
    assert held.reap(pid) == 7


def test_a_group_that_holds_processes_is_a_conflict_and_an_empty_one_is_taken_over(
    units: CgroupfsUnits, held: Held
) -> None:
    (first, _), (second, _) = held.start(), held.start()
    name = scope_name()
    start(units, ScopeSpec(name), first)
    with pytest.raises(Conflict, match="still holds processes"):
        start(units, ScopeSpec(name), second)
    held.end(first)
    start(units, ScopeSpec(name), second)
    assert asyncio.run(units.processes(name)) == [second]


def test_a_start_that_fails_leaves_nothing(units: CgroupfsUnits, held: Held) -> None:
    needs(units, "devices")
    pid, _go = held.start()
    with pytest.raises(BadParameter):
        start(units, ScopeSpec(scope_name(), devices=(("nonsense", "r"),)), pid)
    held.end(pid)
    with pytest.raises(PydockerdError, match=r"cgroup\.procs"):
        start(units, ScopeSpec(scope_name()), pid)
    assert ours(units) == set()


def test_kill_reaches_what_forks_and_sub_groups(units: CgroupfsUnits, held: Held) -> None:
    pid, go = held.start("import os, time\nfor _ in range(3): os.fork()\ntime.sleep(60)")
    name = scope_name()
    group = start(units, ScopeSpec(name), pid)
    inner = next(h for h in hierarchy.current(pid) if h.path == group).own / "inner"
    inner.mkdir()
    other, _go = held.start()
    (inner / "cgroup.procs").write_text(str(other))
    go()

    deadline = time.monotonic() + 10
    while len(asyncio.run(units.processes(name))) < 9:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    asyncio.run(units.kill(name, signal.SIGKILL))
    assert held.reap(pid) == -signal.SIGKILL
    assert held.reap(other) == -signal.SIGKILL
    asyncio.run(units.remove(name))
    assert ours(units) == set()


def test_remove_ends_what_still_lives_and_is_content_with_nothing(units: CgroupfsUnits, held: Held) -> None:
    pid, _go = held.start()
    name = scope_name()
    start(units, ScopeSpec(name), pid)
    asyncio.run(units.remove(name))
    assert held.reap(pid) == -signal.SIGKILL
    asyncio.run(units.remove(name))
    asyncio.run(units.kill(name, signal.SIGTERM))
    assert asyncio.run(units.control_group(name)) is None
    assert asyncio.run(units.processes(name)) == []
    assert asyncio.run(units.usage(name)) is None


def test_leftovers_of_an_earlier_daemon_are_found(units: CgroupfsUnits, held: Held) -> None:
    pid, _go = held.start()
    name = scope_name()
    start(units, ScopeSpec(name), pid)
    asyncio.run(units.close())  # the base is in use: it stays
    later = CgroupfsUnits()
    assert ours(later) == {name}
    assert asyncio.run(later.processes(name)) == [pid]


def test_closing_leaves_no_directory(units: CgroupfsUnits) -> None:
    if others := asyncio.run(units.names()):
        pytest.skip(f"another daemon of this machine has {', '.join(others)}")
    asyncio.run(units.close())
    for place in hierarchy.current():
        assert not (place.own / "pydockerd").exists()


def test_daemons_that_come_and_go_beside_ours_do_not_hurt_it(units: CgroupfsUnits, held: Held) -> None:
    warned: list[str] = []
    ended = threading.Event()

    def come_and_go() -> None:
        while not ended.is_set():
            other = CgroupfsUnits()
            if other.controllers != units.controllers:
                warned.append(f"{other.controllers ^ units.controllers}")
            asyncio.run(other.close())

    others = [threading.Thread(target=come_and_go) for _ in range(3)]
    for thread in others:
        thread.start()
    try:
        for _ in range(60):
            pid, _go = held.start()
            name = scope_name()
            start(units, ScopeSpec(name), pid)
            held.end(pid)
            asyncio.run(units.remove(name))
    finally:
        ended.set()
        for thread in others:
            thread.join()
    assert warned == []


@pytest.mark.skipif(Path("/run/systemd/system").is_dir(), reason="systemd runs here")
def test_without_systemd_plain_control_groups_are_chosen_and_the_reason_is_given() -> None:
    async def scenario() -> None:
        units = await connect_units()
        assert units.kind == "cgroupfs"
        assert units.reason == "systemd does not run here"
        await units.close()
        with pytest.raises(ConfigError, match="systemd cannot be used: systemd does not run here"):
            await connect_units("systemd")

    asyncio.run(scenario())


def test_frozen_processes_stand_still_until_they_are_thawed(units: CgroupfsUnits, held: Held, tmp_path: Path) -> None:
    pid, go = held.start(f"while True: open({os.fspath(tmp_path / 'alive')!r}, 'a').write('x')")
    name = scope_name()
    start(units, ScopeSpec(name), pid)
    go()
    alive = tmp_path / "alive"
    deadline = time.monotonic() + 10
    while not alive.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    asyncio.run(units.freeze(name))
    size = alive.stat().st_size
    time.sleep(0.2)
    assert alive.stat().st_size == size
    asyncio.run(units.thaw(name))
    time.sleep(0.2)
    assert alive.stat().st_size > size
    asyncio.run(units.thaw(name))  # once more does no harm
    asyncio.run(units.thaw(scope_name()))  # nor does one that is not there
    held.end(pid)


def test_the_groups_of_a_process_are_those_that_it_is_in_also_below_the_scope(
    units: CgroupfsUnits, held: Held
) -> None:
    name = scope_name()
    first, _ = held.start()
    second, _ = held.start()
    start(units, ScopeSpec(name), first)
    own = [directory / "own" for directory in units._directories(name) if (directory / "cgroup.events").exists()]
    for directory in own:  # version 2: a container that has made groups of its own
        directory.mkdir()
        (directory / "cgroup.procs").write_text(str(first))
    for door in units.groups_of(name, first):
        Path(door).write_text(str(second))
    assert Path(f"/proc/{second}/cgroup").read_text() == Path(f"/proc/{first}/cgroup").read_text()
    assert sorted(asyncio.run(units.processes(name))) == sorted((first, second))


def test_who_is_not_in_the_scope_has_no_groups_of_it(units: CgroupfsUnits, held: Held) -> None:
    name = scope_name()
    pid, _ = held.start()
    with pytest.raises(NotRunning):
        units.groups_of(name, pid)
    start(units, ScopeSpec(name), pid)
    assert units.groups_of(name, pid)
    held.end(pid)
    with pytest.raises(NotRunning):
        units.groups_of(name, pid)
