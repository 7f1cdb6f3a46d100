"""The whole D-Bus interface: a real engine, a real dbus-daemon with the installed policy, ordinary clients."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from bus_house import (
    CONTAINER,
    MANAGER,
    MKIMAGE,
    OBJECT_MANAGER,
    PROPERTIES,
    ROOT,
    BusError,
    Client,
    House,
    client_of,
)
from dbus_next.signature import Variant
from private_bus import PrivateBus

from dockerd_py.dbus import calls
from dockerd_py.dbus.service import NAME, BusService
from dockerd_py.engine.model import ContainerConfig, HostConfig

NOBODY = 65534

Scenario = Callable[[Client], Awaitable[None]]


@pytest.fixture(scope="module")
def the_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    it = House(tmp_path_factory.mktemp("house"))
    it.open()
    yield it
    it.close()


@pytest.fixture
def house(the_house: House) -> Iterator[House]:
    yield the_house
    the_house.clear()


async def _refused(call: Awaitable[object]) -> BusError:
    with pytest.raises(BusError) as raised:
        await call
    return raised.value


# Containers


def test_a_container_runs_and_its_exit_code_is_waited_for(house: House) -> None:
    async def scenario(client: Client) -> None:
        path = await client.run("sh", "-c", "exit 7")
        assert await client.container(path, "Wait") == 7
        assert await client.get(path, "State") == "exited"
        assert await client.get(path, "ExitCode") == 7

    house.play(scenario)


def test_the_properties_of_a_running_container_are_true(house: House) -> None:
    async def scenario(client: Client) -> None:
        before = time.time() * 1e6
        path = await client.run("sleep", "60", Name=Variant("s", "web"), Labels=Variant("a{ss}", {"a": "b"}))
        values = {key: each.value for key, each in (await client.call(path, PROPERTIES, "GetAll", "s", "")).items()}
        assert path == f"{ROOT}/container/{values['Id']}"
        assert (values["Name"], values["Image"], values["State"]) == ("web", "busybox", "running")
        assert _command_line(values["Pid"]) == b"sleep\x0060\x00"
        assert values["Command"] == ["sleep", "60"]
        assert values["Labels"] == {"a": "b"}
        assert before <= values["Created"] <= values["StartedAt"] <= time.time() * 1e6
        assert values["FinishedAt"] == 0

    house.play(scenario)


def test_the_environment_which_may_hold_secrets_is_shown_to_nobody(house: House) -> None:
    async def scenario(client: Client) -> None:
        await client.create("true", Env=Variant("as", ["PASSWORD=geheim"]))
        assert "geheim" not in str(await client.call(ROOT, OBJECT_MANAGER, "GetManagedObjects"))

    house.play(scenario)


def test_options_reach_the_container(house: House) -> None:
    async def scenario(client: Client) -> None:
        path = await client.run(
            "sh", "-c", '[ "$A $PWD $(hostname) $(id -u)" = "1 /tmp box 7" ]',
            Env=Variant("as", ["A=1"]), WorkingDir=Variant("s", "/tmp"),
            Hostname=Variant("s", "box"), User=Variant("s", "7"),
        )  # fmt: skip
        assert await client.container(path, "Wait") == 0

    house.play(scenario)


def test_a_container_is_found_by_id_prefix_and_name(house: House) -> None:
    async def scenario(client: Client) -> None:
        path = await client.create("true", Name=Variant("s", "findme"))
        full = path.rpartition("/")[2]
        for reference in (full, full[:20], "findme", "/findme"):
            assert await client.manager("GetContainer", "s", reference) == path
        assert (await _refused(client.manager("GetContainer", "s", "nothing"))).name == "NoSuchContainer"

    house.play(scenario)


def test_a_prefix_of_two_containers_is_ambiguous(house: House) -> None:
    async def scenario(client: Client) -> None:
        firsts: set[str] = set()
        while (first := (await client.create("true")).rpartition("/")[2][0]) not in firsts:
            firsts.add(first)
        assert (await _refused(client.manager("GetContainer", "s", first))).name == "AmbiguousId"

    house.play(scenario)


def test_containers_are_listed_also_by_state(house: House) -> None:
    async def scenario(client: Client) -> None:
        running = await client.run("sleep", "60", Name=Variant("s", "runs"))
        created = await client.create("true", Name=Variant("s", "rests"))
        rows = await client.manager("ListContainers", "a{sv}", {})
        assert rows == [
            [created.rpartition("/")[2], "rests", "busybox", "created", created],
            [running.rpartition("/")[2], "runs", "busybox", "running", running],
        ]
        only = await client.manager("ListContainers", "a{sv}", {"States": Variant("as", ["running"])})
        assert only == rows[1:]
        wrong = client.manager("ListContainers", "a{sv}", {"States": Variant("as", ["asleep"])})
        assert (await _refused(wrong)).name == "BadParameter"

    house.play(scenario)


def test_a_container_is_stopped_started_restarted_killed_and_removed(house: House) -> None:
    async def scenario(client: Client) -> None:
        path = await client.run("sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.05; done")
        await asyncio.sleep(0.3)
        await client.container(path, "Stop", "a{sv}", {"Timeout": Variant("u", 10)})
        assert await client.get(path, "ExitCode") == 3
        await client.container(path, "Start")
        pid = await client.get(path, "Pid")
        await client.container(path, "Restart", "a{sv}", {"Timeout": Variant("u", 0)})
        assert await client.get(path, "State") == "running"
        assert await client.get(path, "Pid") != pid
        await client.container(path, "Kill", "s", "9")
        assert (await client.container(path, "Wait"), await client.get(path, "State")) == (137, "exited")
        await client.container(path, "Remove", "a{sv}", {})
        assert (await _refused(client.container(path, "Start"))).name == "UnknownObject"
        assert (await _refused(client.get(path, "State"))).name == "UnknownObject"

    house.play(scenario)


def test_a_running_container_is_removed_by_force_only(house: House) -> None:
    async def scenario(client: Client) -> None:
        path = await client.run("sleep", "60")
        assert (await _refused(client.container(path, "Remove", "a{sv}", {}))).name == "Conflict"
        await client.container(path, "Remove", "a{sv}", {"Force": Variant("b", True)})
        assert await client.manager("ListContainers", "a{sv}", {}) == []

    house.play(scenario)


# Signals


def test_the_life_of_a_container_is_told_before_the_callers_hear_of_it(house: House) -> None:
    async def scenario(client: Client) -> None:
        await client.listen()
        path = await client.create("sleep", "60")
        full = path.rpartition("/")[2]
        (added_at, _, (added, interfaces)), (_, told, body) = client.signals
        assert (added_at, added, told, body) == (ROOT, path, "ContainerAdded", [full, path])
        assert list(interfaces) == [CONTAINER]
        assert interfaces[CONTAINER]["State"].value == "created"

        client.signals.clear()
        await client.container(path, "Start")
        ((place, member, (name, changed, invalidated)),) = client.signals
        assert (place, member, name, invalidated) == (path, "PropertiesChanged", CONTAINER, [])
        assert changed["State"].value == "running"
        assert changed["Pid"].value > 0
        assert set(changed) <= {"State", "Pid", "StartedAt", "ControlGroup"}

        client.signals.clear()
        await client.container(path, "Remove", "a{sv}", {"Force": Variant("b", True)})
        *_, removed, told_removed = client.signals
        assert removed == (ROOT, "InterfacesRemoved", [path, [CONTAINER]])
        assert told_removed == (ROOT, "ContainerRemoved", [full, path])

    house.play(scenario)


def test_a_container_that_is_run_is_told_to_run_before_its_path_is_given_away(house: House) -> None:
    async def scenario(client: Client) -> None:
        await client.listen()
        path = await client.run("sleep", "60")
        (changes,) = [body[1] for place, _, body in client.signals if place == path]
        assert changes["State"].value == "running"

    house.play(scenario)


def test_what_happens_by_itself_or_through_http_is_told_too(house: House) -> None:
    async def scenario(client: Client) -> None:
        await client.listen()
        created = await asyncio.to_thread(
            house.inside,
            house.engine.containers.create(ContainerConfig(image="busybox", cmd=("false",)), HostConfig()),
        )
        path = f"{ROOT}/container/{created.id}"
        await asyncio.to_thread(house.inside, house.engine.containers.start(created.id))
        while True:
            _, changed, _ = await client.seen("PropertiesChanged", path)
            if "ExitCode" in changed:
                break
            client.signals = [each for each in client.signals if each[2][1] is not changed]
        assert changed["ExitCode"].value == 1
        assert changed["State"].value == "exited"
        await asyncio.to_thread(house.inside, house.engine.containers.remove(created.id))
        assert await client.seen("ContainerRemoved", ROOT) == [created.id, path]

    house.play(scenario)


def test_the_object_manager_has_all_containers_and_all_their_properties(house: House) -> None:
    async def scenario(client: Client) -> None:
        paths = {await client.create("true") for _ in range(3)}
        objects = await client.call(ROOT, OBJECT_MANAGER, "GetManagedObjects")
        assert set(objects) == paths
        for path in paths:
            assert objects[path] == {CONTAINER: await client.call(path, PROPERTIES, "GetAll", "s", CONTAINER)}

    house.play(scenario)


# Errors


def test_each_failure_has_its_name_and_its_sentence(house: House) -> None:
    async def scenario(client: Client) -> None:
        await client.create("true", Name=Variant("s", "taken"))

        async def create(image: str, command: list[str], **options: Variant) -> tuple[str, str]:
            error = await _refused(client.manager("RunContainer", "sasa{sv}", image, command, options))
            return error.name, error.text

        name, text = await create("nosuch", ["true"])
        assert (name, "nosuch" in text) == ("NoSuchImage", True)
        assert await create("", ["true"]) == ("BadParameter", "No image given")
        name, text = await create("busybox", ["true"], Name=Variant("s", "taken"))
        assert (name, "/taken" in text) == ("Conflict", True)
        name, text = await create("busybox", ["true"], Name=Variant("s", "a/b"))
        assert (name, "a/b" in text) == ("BadParameter", True)
        name, text = await create("busybox", ["true"], Memory=Variant("t", 1024))
        assert (name, "6MB" in text) == ("BadParameter", True)
        name, text = await create("busybox", ["true"], Colour=Variant("s", "red"))
        assert (name, "'Colour'" in text) == ("BadParameter", True)
        name, text = await create("busybox", ["true"], Memory=Variant("s", "1g"))
        assert (name, "Memory" in text) == ("BadParameter", True)

    house.play(scenario)


def test_a_container_that_cannot_start_leaves_nothing_behind(house: House) -> None:
    async def scenario(client: Client) -> None:
        await client.listen()
        error = await _refused(client.manager("RunContainer", "sasa{sv}", "busybox", ["no-such-program"], {}))
        assert error.name == "CommandNotFound"
        assert await client.manager("ListContainers", "a{sv}", {}) == []
        assert [member for _, member, _ in client.signals if member != "PropertiesChanged"] == [
            "InterfacesAdded", "ContainerAdded", "InterfacesRemoved", "ContainerRemoved"
        ]  # fmt: skip

    house.play(scenario)


def test_a_fault_of_ours_goes_to_the_log_and_not_to_the_caller(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(reference: str, signal: str) -> None:
        raise RuntimeError("inner secret")

    async def scenario(client: Client) -> None:
        path = await client.create("true")
        monkeypatch.setattr(house.engine.containers, "kill", broken)
        error = await _refused(client.container(path, "Kill", "s", "9"))
        assert error.full_name == "org.pydockerd1.Error.Failed"
        assert "inner secret" not in error.text
        assert "Traceback" not in error.text

    house.play(scenario)
    assert "inner secret" in caplog.text


def test_what_does_not_exist_on_the_bus_is_named(house: House) -> None:
    async def scenario(client: Client) -> None:
        async def name(path: str, interface: str, member: str, signature: str = "", *body: object) -> str:
            return (await _refused(client.call(path, interface, member, signature, *body))).full_name

        prefix = "org.freedesktop.DBus.Error."
        assert await name("/elsewhere", MANAGER, "GetContainer", "s", "x") == prefix + "UnknownObject"
        assert await name(f"{ROOT}/container", MANAGER, "GetContainer", "s", "x") == prefix + "UnknownInterface"
        assert await name(f"{ROOT}/container/{'0' * 64}", CONTAINER, "Start") == prefix + "UnknownObject"
        assert await name(ROOT, "org.example.Other", "GetContainer", "s", "x") == prefix + "UnknownInterface"
        assert await name(ROOT, MANAGER, "Explode") == prefix + "UnknownMethod"
        assert await name(ROOT, MANAGER, "GetContainer", "u", 3) == prefix + "UnknownMethod"
        assert await name(ROOT, PROPERTIES, "Get", "ss", MANAGER, "Colour") == prefix + "UnknownProperty"
        assert await name(ROOT, PROPERTIES, "Get", "ss", "org.example.Other", "X") == prefix + "UnknownInterface"
        value = Variant("s", "2.0")
        assert await name(ROOT, PROPERTIES, "Set", "ssv", MANAGER, "Version", value) == prefix + "PropertyReadOnly"
        path = await client.create("true")
        assert await name(path, OBJECT_MANAGER, "GetManagedObjects") == prefix + "UnknownInterface"

    house.play(scenario)


def test_the_standard_interfaces_answer_where_dbus_next_does_not(house: House) -> None:
    machine_id = Path("/etc/machine-id").read_text().strip()

    async def scenario(client: Client) -> None:
        assert await client.call("/anywhere", "org.freedesktop.DBus.Peer", "GetMachineId") == machine_id
        assert await client.call("/anywhere", "org.freedesktop.DBus.Peer", "Ping") is None
        everything = await client.call(ROOT, PROPERTIES, "GetAll", "s", "")
        assert everything["StorageDriver"].value == "vfs"

    house.play(scenario)


# Logs


def test_a_log_comes_as_a_pipe(house: House) -> None:
    async def scenario(client: Client) -> None:
        path = await client.run("sh", "-c", "echo out; echo err >&2; printf last")
        await client.container(path, "Wait")
        fd = await client.container(path, "Logs", "a{sv}", {})
        assert sorted((await asyncio.to_thread(_read_all, fd)).split(b"\n")) == [b"err", b"last", b"out"]
        fd = await client.container(path, "Logs", "a{sv}", {"Stdout": Variant("b", False)})
        assert await asyncio.to_thread(_read_all, fd) == b"err\n"
        fd = await client.container(path, "Logs", "a{sv}", {"Stderr": Variant("b", False), "Tail": Variant("u", 1)})
        assert await asyncio.to_thread(_read_all, fd) == b"last"

    house.play(scenario)


def test_a_followed_log_ends_with_its_container(house: House) -> None:
    async def scenario(client: Client) -> None:
        path = await client.run("sh", "-c", "echo first; sleep 0.5; echo second")
        fd = await client.container(path, "Logs", "a{sv}", {"Follow": Variant("b", True)})
        assert await asyncio.wait_for(asyncio.to_thread(_read_all, fd), 10) == b"first\nsecond\n"

    house.play(scenario)


def test_a_reader_that_never_reads_holds_nobody_up_and_ends_with_its_caller(house: House) -> None:
    async def scenario(client: Client) -> None:
        path = await client.run("sh", "-c", "dd if=/dev/zero bs=1000 count=3000 | tr '\\0' 'x'; sleep 60")
        fd = await client.container(path, "Logs", "a{sv}", {"Follow": Variant("b", True)})
        started = time.monotonic()
        for _ in range(50):
            await client.get(path, "State")
        assert time.monotonic() - started < 5
        async with client_of(house.bus) as another:
            theirs = await another.container(path, "Logs", "a{sv}", {"Follow": Variant("b", True)})
        await _until_calls(house, 1)
        assert await asyncio.wait_for(asyncio.to_thread(_read_all, theirs), 10) is not None
        os.close(fd)
        await _until_calls(house, 0)

    house.play(scenario)


# Callers


def test_one_caller_has_a_bounded_number_of_calls_under_way_and_frees_them_by_leaving(house: House) -> None:
    async def scenario(client: Client) -> None:
        path = await client.run("sleep", "60")
        async with client_of(house.bus) as greedy:
            waiting = [asyncio.create_task(greedy.container(path, "Wait")) for _ in range(calls.CALLS_PER_CALLER)]
            await _until_calls(house, calls.CALLS_PER_CALLER)
            error = await _refused(greedy.container(path, "Wait"))
            assert error.full_name == "org.freedesktop.DBus.Error.LimitsExceeded"
            assert await client.get(path, "State") == "running"
            assert not any(each.done() for each in waiting)
        await _until_calls(house, 0)
        for each in waiting:
            each.cancel()

    house.play(scenario)


def test_a_change_is_carried_through_though_its_caller_leaves(house: House) -> None:
    async def scenario(client: Client) -> None:
        path = await client.run("sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
        await asyncio.sleep(0.3)
        async with client_of(house.bus) as hasty:
            task = asyncio.create_task(hasty.container(path, "Stop", "a{sv}", {"Timeout": Variant("u", 1)}))
            await _until_calls(house, 1)
            task.cancel()
        assert await client.container(path, "Wait") == 137

    house.play(scenario)


def test_a_call_that_is_too_large_is_refused_and_the_next_one_answered(house: House) -> None:
    async def scenario(client: Client) -> None:
        error = await _refused(client.manager("GetContainer", "s", "x" * 3_000_000))
        assert error.name == "LimitsExceeded"
        assert await client.manager("ListContainers", "a{sv}", {}) == []

    house.play(scenario)


def test_file_descriptors_that_nobody_asked_for_are_closed(house: House) -> None:
    async def scenario(client: Client) -> None:
        await client.manager("ListImages", "a{sv}", {})
        before = len(os.listdir("/proc/self/fd"))
        reading, writing = os.pipe()
        for _ in range(10):
            await client.manager("ListImages", "a{sv}", {}, fds=(reading, writing))
            with pytest.raises(BusError):
                await client.manager("Explode", fds=(reading,))
        os.close(reading)
        os.close(writing)
        for _ in range(500):
            if len(os.listdir("/proc/self/fd")) <= before:
                break
            await asyncio.sleep(0.01)
        assert len(os.listdir("/proc/self/fd")) <= before

    house.play(scenario)


def test_others_than_root_may_read_and_without_polkit_change_nothing(house: House) -> None:
    async def scenario(client: Client) -> str:
        return await client.run("sleep", "60", Name=Variant("s", "web"))

    path = house.play(scenario)

    def busctl(*arguments: str) -> subprocess.CompletedProcess[str]:
        return house.bus.busctl(*arguments, user=NOBODY)

    assert '"web"' in busctl("call", NAME, ROOT, MANAGER, "ListContainers", "a{sv}", "0").stdout
    assert busctl("get-property", NAME, path, CONTAINER, "State").stdout == 's "running"\n'
    for target, interface, member, *arguments in (
        (ROOT, MANAGER, "CreateContainer", "sasa{sv}", "busybox", "1", "true", "0"),
        (ROOT, MANAGER, "RunContainer", "sasa{sv}", "busybox", "1", "true", "0"),
        (ROOT, MANAGER, "RemoveImage", "sa{sv}", "busybox", "0"),
        (path, CONTAINER, "Start"),
        (path, CONTAINER, "Stop", "a{sv}", "0"),
        (path, CONTAINER, "Restart", "a{sv}", "0"),
        (path, CONTAINER, "Kill", "s", "KILL"),
        (path, CONTAINER, "Remove", "a{sv}", "0"),
        (path, CONTAINER, "Logs", "a{sv}", "0"),
    ):
        refused = busctl("call", NAME, target, interface, member, *arguments)
        assert (refused.returncode, refused.stderr) == (1, "Call failed: Access denied\n"), member
    said = house.bus.run("dbus-send", "--print-reply", f"--dest={NAME}", path, f"{CONTAINER}.Start", user=NOBODY)
    assert "org.freedesktop.DBus.Error.AccessDenied: only root may do this" in said.stderr
    assert busctl("get-property", NAME, path, CONTAINER, "State").stdout == 's "running"\n'


def test_busctl_shows_the_tree(house: House) -> None:
    async def scenario(client: Client) -> str:
        return await client.create("true")

    path = house.play(scenario)
    assert house.bus.busctl("--list", "tree", NAME).stdout.split() == ["/", "/org", ROOT, f"{ROOT}/container", path]
    assert ".Wait" in house.bus.busctl("introspect", NAME, path).stdout


# Images


def test_an_image_is_imported_listed_used_and_removed(house: House, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    archive.write_bytes(subprocess.run([MKIMAGE, "busybox"], stdout=subprocess.PIPE, check=True).stdout)

    async def scenario(client: Client) -> None:
        with archive.open("rb") as file:
            options = {"Changes": Variant("as", ['CMD ["true"]'])}
            image = await client.manager("ImportImage", "hsa{sv}", 0, "mine:1", options, fds=(file.fileno(),))
        names = {row[0]: row[1] for row in await client.manager("ListImages", "a{sv}", {})}
        assert names[image] == ["mine:1"]
        path = await client.manager("RunContainer", "sasa{sv}", "mine:1", [], {})
        assert await client.container(path, "Wait") == 0
        await client.container(path, "Remove", "a{sv}", {})
        changes = await client.manager("RemoveImage", "sa{sv}", "mine:1", {})
        assert ["mine:1", ""] in changes

    house.play(scenario)


def test_an_image_that_is_no_archive_is_refused(house: House) -> None:
    async def scenario(client: Client) -> None:
        reading, writing = os.pipe()
        os.write(writing, b"this is no tar" * 100)
        os.close(writing)
        error = await _refused(client.manager("ImportImage", "hsa{sv}", 0, "bad:1", {}, fds=(reading,)))
        os.close(reading)
        assert error.name == "BadArchive"
        error = await _refused(client.manager("ImportImage", "hsa{sv}", 0, "bad:1", {}))
        assert (error.name, "file descriptor" in error.text) == ("BadParameter", True)

    house.play(scenario)


# The bus


def test_a_text_that_the_bus_cannot_carry_does_not_end_the_connection(house: House) -> None:
    async def scenario(client: Client) -> None:
        created = await asyncio.to_thread(
            house.inside,
            house.engine.containers.create(
                ContainerConfig(image="busybox", cmd=("true",), labels={"a\0b": "c\udc80d"}), HostConfig()
            ),
        )
        assert await client.get(f"{ROOT}/container/{created.id}", "Labels") == {"a\N{REPLACEMENT CHARACTER}b": "c?d"}

    house.play(scenario)


def test_the_service_comes_back_after_the_bus_did(house: House, caplog: pytest.LogCaptureFixture) -> None:
    async def create(client: Client) -> str:
        return await client.create("true")

    path = house.play(create)
    with caplog.at_level(logging.INFO):
        house.bus.stop()
        time.sleep(0.5)
        house.bus.start()
        deadline = time.monotonic() + 10
        while house.bus.busctl("status", NAME).returncode != 0:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert "the connection to the bus ended" in caplog.text

    async def get(client: Client) -> None:
        assert await client.get(path, "State") == "created"
        await client.listen()
        await client.container(path, "Start")
        await client.seen("PropertiesChanged", path)

    house.play(get)


def test_a_second_daemon_leaves_the_name_to_the_first(house: House, caplog: pytest.LogCaptureFixture) -> None:
    second = BusService(house.bus.address)
    with caplog.at_level(logging.INFO):
        house.inside(second.start(house.engine))
    assert "another pydockerd" in caplog.text
    house.inside(second.stop())
    assert house.bus.busctl("status", NAME).returncode == 0


def test_without_a_bus_the_daemon_says_so_and_goes_on(house: House, caplog: pytest.LogCaptureFixture) -> None:
    alone = BusService("unix:path=/nonexistent/bus")
    with caplog.at_level(logging.INFO):
        house.inside(alone.start(house.engine))
    assert "there is no bus at unix:path=/nonexistent/bus" in caplog.text
    house.inside(alone.stop())


def test_a_caller_that_waits_is_told_when_the_daemon_stops(house: House) -> None:
    with PrivateBus() as bus:
        service = BusService(bus.address)
        house.inside(service.start(house.engine))

        async def scenario() -> None:
            async with client_of(bus) as client:
                path = await client.run("sleep", "60")
                waiting = asyncio.create_task(client.container(path, "Wait"))
                await asyncio.sleep(0.2)
                await asyncio.to_thread(house.inside, service.stop())
                assert "is stopping" in (await _refused(waiting)).text

        asyncio.run(asyncio.wait_for(scenario(), 30))


def test_a_change_that_has_begun_is_finished_before_the_daemon_leaves_the_bus(house: House) -> None:
    with PrivateBus() as bus:
        service = BusService(bus.address)
        house.inside(service.start(house.engine))

        async def scenario() -> None:
            async with client_of(bus) as client:
                path = await client.run("sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
                await asyncio.sleep(0.3)
                stopping = asyncio.create_task(client.container(path, "Stop", "a{sv}", {"Timeout": Variant("u", 1)}))
                await asyncio.sleep(0.2)
                await asyncio.to_thread(house.inside, service.stop())
                await stopping

        asyncio.run(asyncio.wait_for(scenario(), 30))


async def _until_calls(house: House, count: int) -> None:
    """Wait until so many calls are under way."""
    session = house.service._session
    assert session is not None
    for _ in range(4000):
        if session.calls.count() == count:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{session.calls.count()} calls are under way, not {count}")


def _command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _read_all(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as pipe:
        return pipe.read()
