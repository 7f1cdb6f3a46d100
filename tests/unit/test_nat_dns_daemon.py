"""The daemon's side of the name service: what it puts there is there, whoever is killed in between."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from name_house import Container, until

from dockerd_py.engine.nameservice import NameEntry, NameService, NetworkNames
from dockerd_py.errors import NetworkFailed
from dockerd_py.units.cgroupfs import CgroupfsUnits


@pytest.fixture
def containers() -> Iterator[Callable[[], Container]]:
    made: list[Container] = []

    def make() -> Container:
        made.append(Container())
        return made[-1]

    yield make
    for each in made:
        each.close()


def entry(container: Container, number: int, *names: str) -> NameEntry:
    return NameEntry(container.id, (NetworkNames("n", "shop", f"10.0.0.{number}", "", names),))


@contextlib.asynccontextmanager
async def serving(directory: Path, *, idle: bool = False) -> AsyncIterator[NameService]:
    service = NameService(directory, CgroupfsUnits(), installed=False)
    try:
        yield service
    finally:
        await service.close(idle=idle)


def run(story: Awaitable[None]) -> None:
    async def all_of_it() -> None:
        await asyncio.wait_for(story, 60)

    asyncio.run(all_of_it())


async def found(container: Container, name: str) -> list[str]:
    """Again until the service is back, or the name is known."""
    for _ in range(200):
        with contextlib.suppress(LookupError, TimeoutError, ConnectionRefusedError):
            return await asyncio.to_thread(container.addresses, name, timeout=0.3)
        await asyncio.sleep(0.02)
    raise AssertionError(f"{name} has no address")


async def not_found(container: Container, name: str) -> None:
    for _ in range(200):
        try:
            await asyncio.to_thread(container.addresses, name, timeout=0.3)
        except (LookupError, TimeoutError, ConnectionRefusedError):
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{name} has an address still")


def pid_of_service(directory: Path) -> int:
    for each in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if each.name.isdecimal() and os.fsencode(directory / "names.sock") in (each / "cmdline").read_bytes():
                return int(each.name)
    raise AssertionError("there is no service")


def files(directory: Path) -> set[str]:
    return {path.name for path in (directory / "names").iterdir()}


def test_a_start_an_end_and_all_in_between(tmp_path: Path, containers: Callable[[], Container]) -> None:
    async def story() -> None:
        async with serving(tmp_path) as service:
            asker, web = containers(), containers()
            assert not (tmp_path / "names.sock").exists(), "nothing runs until it is needed"
            await service.put(entry(asker, 2, "cart"), asker.namespace.fd, pid=asker.pid)
            await service.put(entry(web, 3, "web"), web.namespace.fd)
            assert asker.addresses("web") == ["10.0.0.3"]
            service.started(web.id, web.pid)
            await service.change(entry(web, 4, "www"))
            assert asker.addresses("www") == ["10.0.0.4"]
            assert service.has(web.id)
            assert files(tmp_path) == {f"{each.id}.json" for each in (asker, web)}
            await service.forget(web.id)
            assert not service.has(web.id)
            with pytest.raises(LookupError):
                asker.addresses("www")
            assert files(tmp_path) == {f"{asker.id}.json"}
            await service.forget(web.id)
            await service.change(entry(web, 5, "www"))
            service.started(web.id, web.pid)
        assert not (tmp_path / "names.sock").exists()

    run(story())


def test_a_start_that_fails_leaves_nothing(tmp_path: Path, containers: Callable[[], Container]) -> None:
    async def story() -> None:
        async with serving(tmp_path) as service:
            one, other = containers(), containers()
            await service.put(entry(other, 2, "other"), other.namespace.fd, pid=other.pid)
            broken = NameEntry(one.id, (NetworkNames("n", "shop", "10.0.0.300", "", ("one",)),))
            with pytest.raises(NetworkFailed, match=r"10\.0\.0\.300"):
                await service.put(broken, one.namespace.fd, pid=one.pid)
            with pytest.raises(NetworkFailed):
                await service.put(entry(one, 3, "one"), os.open("/dev/null", os.O_RDONLY))
            with pytest.raises(NetworkFailed, match="no process"):
                await service.put(entry(one, 3, "one"), one.namespace.fd, pid=2**22 + 1)
            assert not service.has(one.id)
            assert files(tmp_path) == {f"{other.id}.json"}
            with pytest.raises(NetworkFailed, match=r"10\.0\.0\.300"):
                await service.change(broken._replace(container_id=other.id))
            assert other.addresses("other") == ["10.0.0.2"]
            await service.change(entry(other, 4, "other"))
            assert other.addresses("other") == ["10.0.0.4"]

    run(story())


def test_what_has_more_names_than_a_message_holds_is_refused(
    tmp_path: Path, containers: Callable[[], Container]
) -> None:
    async def story() -> None:
        async with serving(tmp_path) as service:
            one = containers()
            with pytest.raises(NetworkFailed, match="too many names"):
                await service.put(entry(one, 2, *[f"name-{number}" for number in range(20000)]), one.namespace.fd)
            assert not service.has(one.id)
            await service.put(entry(one, 2, "one"), one.namespace.fd)

    run(story())


def test_a_killed_service_is_started_again_with_everything(
    tmp_path: Path, containers: Callable[[], Container]
) -> None:
    async def story() -> None:
        async with serving(tmp_path) as service:
            asker, web, early = containers(), containers(), containers()
            await service.put(entry(asker, 2, "cart"), asker.namespace.fd, pid=asker.pid)
            await service.put(entry(web, 3, "web"), web.namespace.fd, pid=web.pid)
            await service.put(entry(early, 4, "early"), early.namespace.fd)
            os.kill(pid_of_service(tmp_path), signal.SIGKILL)
            assert await found(asker, "web") == ["10.0.0.3"]
            assert await found(early, "early") == ["10.0.0.4"], "which was not started yet"
            service.started(early.id, early.pid)
            os.kill(pid_of_service(tmp_path), signal.SIGKILL)
            await service.change(entry(web, 5, "web"))
            assert await found(asker, "web") == ["10.0.0.5"]
            assert await found(asker, "early") == ["10.0.0.4"]
            os.kill(pid_of_service(tmp_path), signal.SIGKILL)
            last = containers()
            await service.put(entry(last, 6, "last"), last.namespace.fd)
            assert await found(asker, "last") == ["10.0.0.6"]

    run(story())


def test_the_next_daemon_finds_and_repairs_what_the_one_before_has_left(
    tmp_path: Path, containers: Callable[[], Container]
) -> None:
    asker, web, stranger, renamed, lost = (containers() for _ in range(5))

    async def before() -> None:
        async with serving(tmp_path) as service:
            for number, (each, name) in enumerate(((asker, "cart"), (web, "web"), (stranger, "old"), (renamed, "a"))):
                await service.put(entry(each, number + 2, name), each.namespace.fd, pid=each.pid)
            (tmp_path / "names" / "half.new").touch()

    async def after() -> None:
        async with serving(tmp_path) as service:
            kept = [(entry(asker, 2, "cart"), asker.pid), (entry(web, 3, "web"), web.pid)]
            await service.adopt([*kept, (entry(renamed, 5, "b"), renamed.pid), (entry(lost, 6, "lost"), lost.pid)])
            for name, address in (("web", "10.0.0.3"), ("b", "10.0.0.5"), ("lost", "10.0.0.6")):
                assert asker.addresses(name) == [address]
            assert lost.addresses("web") == ["10.0.0.3"]
            for name in ("old", "a"):
                with pytest.raises(LookupError):
                    asker.addresses(name)
            assert files(tmp_path) == {f"{each.id}.json" for each in (asker, web, renamed, lost)}
            web.end()
            await not_found(asker, "web")
            await service.adopt([])

    run(before())
    run(after())


def test_a_service_that_outlived_the_daemon_is_taken_over_untouched(
    tmp_path: Path, containers: Callable[[], Container]
) -> None:
    """As where systemd has it: it is there before, and stays."""

    async def story() -> None:
        async with serving(tmp_path) as first:
            asker, web, half = containers(), containers(), containers()
            await first.put(entry(asker, 2, "cart"), asker.namespace.fd, pid=asker.pid)
            await first.put(entry(web, 3, "web"), web.namespace.fd, pid=web.pid)
            await first.put(entry(half, 4, "half"), half.namespace.fd)
            pid = pid_of_service(tmp_path)
            with asker.socket(2) as sock:
                sock.settimeout(10)
                sock.connect(("127.0.0.11", 53))
                assert first._link is not None
                first._records, first._link = {}, first._link.close()  # type: ignore[func-returns-value]
                async with serving(tmp_path) as second:
                    await second.adopt([(entry(asker, 2, "cart"), asker.pid), (entry(web, 3, "web"), web.pid)])
                    assert pid_of_service(tmp_path) == pid
                    assert asker.addresses("web") == ["10.0.0.3"]
                    await not_found(asker, "half")
                    await second.change(entry(web, 5, "web"))
                    assert asker.addresses("web") == ["10.0.0.5"]

    run(story())


def test_a_service_of_another_version_is_started_again(
    tmp_path: Path, containers: Callable[[], Container], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with serving(tmp_path) as service:
            asker = containers()
            await service.put(entry(asker, 2, "cart"), asker.namespace.fd, pid=asker.pid)
            pid = pid_of_service(tmp_path)
            from dockerd_py.nat.dns import stamp

            code, calls = stamp.of_code(), []

            def once_newer() -> str:
                calls.append(1)
                return "newer" if len(calls) == 1 else code

            monkeypatch.setattr(stamp, "of_code", once_newer)
            assert service._link is not None
            service._link.close()
            service._link = None
            await service.ensure()
            assert pid_of_service(tmp_path) != pid
            assert asker.addresses("cart") == ["10.0.0.2"]

    run(story())


def test_a_container_that_has_ended_before_it_was_told_has_no_names(
    tmp_path: Path, containers: Callable[[], Container]
) -> None:
    async def story() -> None:
        async with serving(tmp_path) as service:
            asker, brief = containers(), containers()
            await service.put(entry(asker, 2, "cart"), asker.namespace.fd, pid=asker.pid)
            await service.put(entry(brief, 3, "brief"), brief.namespace.fd)
            brief.end()
            service.started(brief.id, brief.pid)
            await not_found(asker, "brief")
            await service.adopt([(entry(brief, 3, "brief"), brief.pid)])

    run(story())


def test_a_hundred_containers_at_once(tmp_path: Path, containers: Callable[[], Container]) -> None:
    async def story() -> None:
        async with serving(tmp_path) as service:
            many = [containers() for _ in range(100)]
            await asyncio.gather(
                *(service.put(entry(each, number, f"c{number}"), each.namespace.fd) for number, each in enumerate(many))
            )
            for each in many:
                service.started(each.id, each.pid)
            assert many[0].addresses("c99") == ["10.0.0.99"]
            await asyncio.gather(*(service.forget(each.id) for each in many))
            assert files(tmp_path) == set()

    run(story())


def test_a_call_that_is_given_up_leaves_nothing(tmp_path: Path, containers: Callable[[], Container]) -> None:
    async def story() -> None:
        async with serving(tmp_path) as service:
            await service.ensure()
            descriptors = len(os.listdir("/proc/self/fd"))
            for moment in range(30):
                one = containers()
                inside = len(os.listdir("/proc/self/fd")) - descriptors
                task = asyncio.ensure_future(service.put(entry(one, 2, "one"), one.namespace.fd, pid=one.pid))
                await asyncio.sleep(moment / 20000)
                if task.cancel():
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
                if task.cancelled():
                    assert not service.has(one.id)
                    file = tmp_path / f"names/{one.id}.json"
                    await asyncio.to_thread(until, lambda file=file: not file.exists(), 5)
                await service.forget(one.id)
                await asyncio.to_thread(
                    until, lambda was=inside: len(os.listdir("/proc/self/fd")) - descriptors <= was + 1, 5
                )

    run(story())
