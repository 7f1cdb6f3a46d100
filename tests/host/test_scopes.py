"""Scopes on a booted systemd: what a container's processes are held by."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from dockerd_py.errors import Conflict, PydockerdError
from dockerd_py.units import hierarchy
from dockerd_py.units.base import Limits, ScopeSpec
from dockerd_py.units.connect import connect_units
from dockerd_py.units.limits import INFINITY
from dockerd_py.units.systemd import SystemdUnits

MIB = 1 << 20


class Held:
    """Processes that wait until they are told to run a Python text."""

    def __init__(self) -> None:
        self.pids: list[int] = []

    def start(self, then: str = "") -> tuple[int, Callable[[], None]]:
        """(pid, go): the process waits for go() and then executes ``then``; without it waits for ever."""
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

    def end(self, pid: int) -> int:
        """Kill and reap; the exit code, negative for a signal."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return self.reap(pid)

    def reap(self, pid: int) -> int:
        self.pids.remove(pid)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def held() -> Iterator[Held]:
    processes = Held()
    yield processes
    for pid in list(processes.pids):
        processes.end(pid)


def scope_name() -> str:
    return f"container-{secrets.token_hex(32)}.scope"


def run(scenario: Callable[[SystemdUnits], Awaitable[None]]) -> None:
    async def main() -> None:
        units = await connect_units()
        assert isinstance(units, SystemdUnits), units.reason
        try:
            await asyncio.wait_for(scenario(units), 60)
        finally:
            await units.close()

    asyncio.run(main())


def show(unit: str, name: str) -> str:
    return subprocess.check_output(["systemctl", "show", "-P", name, unit], text=True).strip()


def controller_file(pid: int, v1: str, v2: str) -> Path:
    """A file of ``pid``'s group: of the version 1 controller that ``v1`` begins with, else of version 2."""
    found = hierarchy.current(pid)
    where = hierarchy.of_controller(found, v1.partition(".")[0])
    assert where is not None
    return where.own / (v1 if where.version == 1 else v2)


def drop_ins(name: str) -> list[Path]:
    return [*Path("/run/systemd").glob(f"*/{name}.d"), *Path("/etc/systemd").glob(f"*/{name}.d")]


async def reached(condition: Callable[[], Awaitable[bool]], within: float = 10) -> bool:
    deadline = time.monotonic() + within
    while not await condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.01)
    return True


async def gone(units: SystemdUnits, name: str) -> bool:
    async def is_gone() -> bool:
        return name not in await units.names()

    return await reached(is_gone, 5)


def test_a_held_process_is_inside_its_scope_when_start_scope_returns(held: Held) -> None:
    async def scenario(units: SystemdUnits) -> None:
        pid, _go = held.start()
        name = scope_name()
        group = await units.start_scope(ScopeSpec(name, description="web (busybox)"), pid)
        assert group == f"/machine.slice/{name}"
        assert group in {place.path for place in hierarchy.current(pid)}
        assert await units.processes(name) == [pid]
        assert await units.control_group(name) == group
        assert name in await units.names()
        assert show(name, "Description") == "web (busybox)"

    run(scenario)


def test_the_scope_is_delegated_survives_an_oom_kill_and_collects_itself(held: Held) -> None:
    async def scenario(units: SystemdUnits) -> None:
        pid, _go = held.start()
        name = scope_name()
        await units.start_scope(ScopeSpec(name, kill_signal=signal.SIGINT, stop_timeout_usec=3_000_000), pid)
        shown = {key: show(name, key) for key in ("Delegate", "OOMPolicy", "CollectMode", "KillSignal", "KillMode")}
        assert shown == {
            "Delegate": "yes",
            "OOMPolicy": "continue" if shown["OOMPolicy"] else "",  # an older systemd has none for scopes
            "CollectMode": "inactive-or-failed",
            "KillSignal": "2",
            "KillMode": "control-group",
        }
        assert show(name, "TimeoutStopUSec") == "3s"
        held.end(pid)
        assert await gone(units, name)
        assert await units.control_group(name) is None
        assert await units.processes(name) == []

    run(scenario)


def test_birth_limits_are_in_force_at_once_and_run_limits_only_when_applied(held: Held) -> None:
    async def scenario(units: SystemdUnits) -> None:
        pid, _go = held.start()
        name = scope_name()
        limits = Limits(memory=64 * MIB, memory_swap=80 * MIB, cpu_shares=512, cpu_quota_per_sec_usec=250_000, pids=17)
        await units.start_scope(ScopeSpec(name, limits=limits), pid)
        assert int(controller_file(pid, "memory.limit_in_bytes", "memory.max").read_text()) == 64 * MIB
        if units.cgroup_version == 1:
            assert int(controller_file(pid, "memory.memsw.limit_in_bytes", "").read_text()) == 80 * MIB
            assert controller_file(pid, "cpu.shares", "").read_text() == "512\n"
        else:
            assert int(controller_file(pid, "memory", "memory.swap.max").read_text()) == 16 * MIB
            assert controller_file(pid, "cpu", "cpu.weight").read_text() == "50\n"
        assert show(name, "TasksMax") != "17"
        assert show(name, "CPUQuotaPerSecUSec") == "infinity"

        await units.apply_run_limits(name, limits)
        assert controller_file(pid, "pids.max", "pids.max").read_text() == "17\n"
        assert show(name, "CPUQuotaPerSecUSec") == "250ms"

        # A second start of the same container must not meet the first one's limits at its birth.
        held.end(pid)
        await units.remove(name)
        assert drop_ins(name) == []
        again, _go = held.start()
        await units.start_scope(ScopeSpec(name), again)
        assert show(name, "TasksMax") != "17"
        assert show(name, "MemoryMax") == "infinity"

    run(scenario)


def test_a_process_that_takes_more_memory_than_allowed_is_killed_and_counted(held: Held) -> None:
    async def scenario(units: SystemdUnits) -> None:
        child = "import os\nif os.fork():\n import time; time.sleep(60)\nx = b'x' * (200 << 20)"
        pid, go = held.start(child)
        name = scope_name()
        group = await units.start_scope(ScopeSpec(name, limits=Limits(memory=32 * MIB)), pid)
        counter = units.oom_counter(name, group)
        assert counter is not None
        go()
        for _ in range(250):
            if "oom_kill 0\n" not in counter.read_text():
                break
            await asyncio.sleep(0.02)
        assert "oom_kill 1\n" in counter.read_text()
        # OOMPolicy=continue: what did not take the memory lives on.  (The kernel counts before the process is gone.)
        for _ in range(250):
            if await units.processes(name) == [pid]:
                break
            await asyncio.sleep(0.02)
        assert await units.processes(name) == [pid]

    run(scenario)


def test_the_pids_limit_stops_forks_beyond_it(held: Held) -> None:
    async def scenario(units: SystemdUnits) -> None:
        forks = (
            "import os, time\ntry:\n for _ in range(20):\n  if os.fork() == 0: time.sleep(60)\n"
            "except OSError: os._exit(7)"
        )
        pid, go = held.start(forks)
        name = scope_name()
        await units.start_scope(ScopeSpec(name), pid)
        await units.apply_run_limits(name, Limits(pids=5))
        go()
        assert await asyncio.to_thread(held.reap, pid) == 7
        assert len(await units.processes(name)) == 4
        await units.remove(name)
        assert await units.processes(name) == []

    run(scenario)


def test_the_processor_quota_bites(held: Held) -> None:
    async def scenario(units: SystemdUnits) -> None:
        burn = "import time\nend = time.monotonic() + 1\nwhile time.monotonic() < end: pass\n"
        pid, go = held.start(burn + "import os; os._exit(min(99, int(time.process_time() * 100)))")
        name = scope_name()
        await units.start_scope(ScopeSpec(name), pid)
        await units.apply_run_limits(name, Limits(cpu_quota_per_sec_usec=200_000))
        go()
        assert await asyncio.to_thread(held.reap, pid) < 45  # hundredths of a second of one processor

    run(scenario)


def test_default_devices_open_and_others_do_not(held: Held) -> None:
    async def scenario(units: SystemdUnits) -> None:
        look = (
            "import os\n"
            "for n in ('null', 'zero', 'full', 'random', 'urandom'): os.close(os.open('/dev/' + n, os.O_RDWR))\n"
            "os.mknod('/tmp/t%d' % os.getpid(), 0o20600, os.makedev(10, 229))\n"
            "try: os.open('/tmp/t%d' % os.getpid(), os.O_RDWR)\nexcept PermissionError: os._exit(7)"
        )
        pid, go = held.start(look)
        await units.start_scope(ScopeSpec(scope_name()), pid)
        go()
        assert await asyncio.to_thread(held.reap, pid) == 7

    run(scenario)


def test_a_scope_without_device_rules_may_open_every_device(held: Held) -> None:
    async def scenario(units: SystemdUnits) -> None:
        pid, _go = held.start()
        name = scope_name()
        await units.start_scope(ScopeSpec(name, devices=()), pid)
        assert show(name, "DevicePolicy") == "auto"

    run(scenario)


def test_a_taken_name_is_a_conflict_and_the_first_scope_stays(held: Held) -> None:
    async def scenario(units: SystemdUnits) -> None:
        (first, _), (second, _) = held.start(), held.start()
        name = scope_name()
        await units.start_scope(ScopeSpec(name), first)
        with pytest.raises(Conflict, match="still holds processes"):
            await units.start_scope(ScopeSpec(name), second)
        assert await units.processes(name) == [first]

    run(scenario)


def test_a_container_started_again_at_once_waits_for_its_old_scope_to_go(held: Held) -> None:
    async def scenario(units: SystemdUnits) -> None:
        name = scope_name()
        for _ in range(10):
            pid, _go = held.start()
            await units.start_scope(ScopeSpec(name), pid)
            assert await units.processes(name) == [pid]
            held.end(pid)

    run(scenario)


def test_kill_reaches_every_process_of_the_scope_and_not_the_caller(held: Held) -> None:
    async def scenario(units: SystemdUnits) -> None:
        pid, go = held.start("import os, time\nfor _ in range(3): os.fork()\ntime.sleep(60)")
        name = scope_name()
        await units.start_scope(ScopeSpec(name), pid)
        go()

        async def forked() -> bool:
            return len(await units.processes(name)) == 8

        assert await reached(forked)
        await units.kill(name, signal.SIGKILL)
        assert await asyncio.to_thread(held.reap, pid) == -signal.SIGKILL
        assert await gone(units, name)

    run(scenario)


def test_kill_and_remove_of_a_scope_that_is_gone_do_nothing(held: Held) -> None:
    async def scenario(units: SystemdUnits) -> None:
        name = scope_name()
        await units.kill(name, signal.SIGTERM)
        await units.remove(name)
        assert await units.names() - {name} == await units.names()
        assert await units.usage(name) is None

    run(scenario)


def test_remove_ends_what_still_lives_in_the_scope(held: Held) -> None:
    async def scenario(units: SystemdUnits) -> None:
        pid, _go = held.start()
        name = scope_name()
        await units.start_scope(ScopeSpec(name), pid)
        await units.remove(name)
        assert await asyncio.to_thread(held.reap, pid) == -signal.SIGTERM
        assert name not in await units.names()

    run(scenario)


def test_a_process_that_is_gone_gives_an_error_and_leaves_no_scope(held: Held) -> None:
    async def scenario(units: SystemdUnits) -> None:
        pid, _go = held.start()
        held.end(pid)
        name = scope_name()
        with pytest.raises(PydockerdError):
            await units.start_scope(ScopeSpec(name), pid)
        assert await gone(units, name)

    run(scenario)


def test_a_property_that_systemd_refuses_is_dropped_once_with_a_log_line(
    held: Held, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from dockerd_py.units import systemd

    birth = SystemdUnits._birth
    monkeypatch.setattr(systemd, "OPTIONAL", systemd.OPTIONAL | {"FutureProperty"})
    monkeypatch.setattr(SystemdUnits, "_birth", lambda *a: [*birth(*a), ("FutureProperty", "s", "x")])

    async def scenario(units: SystemdUnits) -> None:
        for _ in range(2):
            held_up = [held.start()[0] for _ in range(5)]  # all of them ask before the first is answered
            await asyncio.gather(*(units.start_scope(ScopeSpec(scope_name()), pid) for pid in held_up))

    run(scenario)
    assert [r.getMessage() for r in caplog.records if "FutureProperty" in r.getMessage()] == [
        "this systemd refuses FutureProperty on a scope: going on without it"
    ]


def test_twenty_scopes_start_at_once(held: Held) -> None:
    async def scenario(units: SystemdUnits) -> None:
        started = [(scope_name(), held.start()[0]) for _ in range(20)]
        await asyncio.gather(*(units.start_scope(ScopeSpec(name), pid) for name, pid in started))
        for name, pid in started:
            assert await units.processes(name) == [pid]

    run(scenario)


def test_to_expect_a_start_moves_nobody(held: Held) -> None:
    async def scenario(units: SystemdUnits) -> None:
        before = Path("/proc/self/cgroup").read_text()  # noqa: ASYNC240
        await units.expect_start()
        assert Path("/proc/self/cgroup").read_text() == before  # noqa: ASYNC240
        pid, _go = held.start()
        name = scope_name()
        await units.start_scope(ScopeSpec(name), pid)
        assert await units.processes(name) == [pid]

    run(scenario)


def test_starts_go_on_while_systemd_re_executes_itself(held: Held) -> None:
    async def scenario(units: SystemdUnits) -> None:
        reexec = await asyncio.create_subprocess_exec("systemctl", "daemon-reexec")
        names = []
        while reexec.returncode is None:
            pid, _go = held.start()
            names.append(name := scope_name())
            await units.start_scope(ScopeSpec(name), pid)
            assert await units.processes(name) == [pid]
        assert await reexec.wait() == 0
        assert set(names) <= await units.names()

    run(scenario)


def test_a_killed_worker_process_is_replaced(held: Held) -> None:
    async def scenario(units: SystemdUnits) -> None:
        worker = units._link._process
        assert worker is not None
        started = [(scope_name(), held.start()[0]) for _ in range(10)]
        starts = [asyncio.create_task(units.start_scope(ScopeSpec(name), pid)) for name, pid in started]
        await asyncio.sleep(0.004)
        worker.kill()
        await asyncio.gather(*starts)
        for name, pid in started:
            assert await units.processes(name) == [pid]

    run(scenario)


def test_a_transient_service_runs_with_its_properties_and_a_taken_name_is_a_conflict() -> None:
    async def scenario(units: SystemdUnits) -> None:
        name = f"pydockerd-test-{secrets.token_hex(4)}.service"
        properties = {
            "Type": "notify",
            "NotifyAccess": "all",
            "KillMode": "process",
            "Restart": "always",
            "TasksMax": INFINITY,
            "OOMPolicy": "continue",
            "LogRateLimitIntervalUSec": 1_000_000,
            "LogRateLimitBurst": 10_000_000,
            "StartLimitIntervalUSec": 0,
            "CollectMode": "inactive-or-failed",
        }
        argv = ["/bin/sh", "-c", "systemd-notify --ready; exec sleep 60"]
        try:
            await units.start_service(name, argv, properties)
            assert await units.unit_state(name) == ("loaded", "active")
            assert show(name, "KillMode") == "process"
            assert show(name, "TasksMax") == "infinity"
            assert show(name, "LogRateLimitBurst") == "10000000"
            with pytest.raises(Conflict):
                await units.start_service(name, argv, properties)
        finally:
            await asyncio.to_thread(subprocess.run, ["systemctl", "stop", name], check=True)
        assert await units.unit_state(name) == ("not-found", "inactive")

    run(scenario)


def test_a_service_that_fails_to_start_is_an_error() -> None:
    async def scenario(units: SystemdUnits) -> None:
        name = f"pydockerd-test-{secrets.token_hex(4)}.service"
        with pytest.raises(PydockerdError, match="job ended as failed"):
            await units.start_service(name, ["/bin/false"], {"Type": "oneshot", "CollectMode": "inactive-or-failed"})
        with pytest.raises(PydockerdError, match="nonesuch"):
            await units.start_unit("pydockerd-nonesuch.service")

    run(scenario)


def test_frozen_processes_stand_still_until_they_are_thawed(held: Held, tmp_path: Path) -> None:
    alive = tmp_path / "alive"

    async def scenario(units: SystemdUnits) -> None:
        pid, go = held.start(f"while True: open({os.fspath(alive)!r}, 'a').write('x')")
        name = scope_name()
        await units.start_scope(ScopeSpec(name), pid)
        go()

        async def begun() -> bool:
            return alive.exists()

        assert await reached(begun)
        await units.freeze(name)
        size = alive.stat().st_size
        await asyncio.sleep(0.2)
        assert alive.stat().st_size == size
        await units.thaw(name)
        await asyncio.sleep(0.2)
        assert alive.stat().st_size > size
        await units.thaw(name)  # once more does no harm
        await units.thaw(scope_name())  # nor does one that is not there
        held.end(pid)

    run(scenario)
