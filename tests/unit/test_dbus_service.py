"""The D-Bus service: errors, callers, the bus.  A real engine, a real dbus-daemon with the installed policy."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import time
from pathlib import Path

import pytest
from bus_house import (
    CONTAINER,
    MANAGER,
    OBJECT_MANAGER,
    PROPERTIES,
    ROOT,
    BusError,
    Client,
    House,
    client_of,
    refused,
    traps_term,
    until_calls,
)
from dbus_next.signature import Variant
from private_bus import PrivateBus

from dockerd_py.dbus import calls
from dockerd_py.dbus.service import NAME, BusService
from dockerd_py.engine.model import ContainerConfig, HostConfig

NOBODY = 65534


# Errors


def test_each_failure_has_its_name_and_its_sentence(house: House) -> None:
    async def scenario(client: Client) -> None:
        await client.create("true", Name=Variant("s", "taken"))

        async def create(image: str, command: list[str], **options: Variant) -> tuple[str, str]:
            error = await refused(client.manager("RunContainer", "sasa{sv}", image, command, options))
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
        error = await refused(client.manager("RunContainer", "sasa{sv}", "busybox", ["no-such-program"], {}))
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
        error = await refused(client.container(path, "Kill", "s", "9"))
        assert error.full_name == "org.pydockerd1.Error.Failed"
        assert "inner secret" not in error.text
        assert "Traceback" not in error.text

    house.play(scenario)
    assert "inner secret" in caplog.text


def test_what_does_not_exist_on_the_bus_is_named(house: House) -> None:
    async def scenario(client: Client) -> None:
        async def name(path: str, interface: str, member: str, signature: str = "", *body: object) -> str:
            return (await refused(client.call(path, interface, member, signature, *body))).full_name

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


# Callers


def test_one_caller_has_a_bounded_number_of_calls_under_way_and_frees_them_by_leaving(house: House) -> None:
    async def scenario(client: Client) -> None:
        path = await client.run("sleep", "60")
        async with client_of(house.bus) as greedy:
            waiting = [asyncio.create_task(greedy.container(path, "Wait")) for _ in range(calls.CALLS_PER_CALLER)]
            await until_calls(house.service, calls.CALLS_PER_CALLER)
            error = await refused(greedy.container(path, "Wait"))
            assert error.full_name == "org.freedesktop.DBus.Error.LimitsExceeded"
            assert await client.get(path, "State") == "running"
            assert not any(each.done() for each in waiting)
        await until_calls(house.service, 0)
        for each in waiting:
            each.cancel()

    house.play(scenario)


def test_a_change_is_carried_through_though_its_caller_leaves(house: House) -> None:
    async def scenario(client: Client) -> None:
        path = await client.run("sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
        await traps_term(client, path)
        await until_calls(house.service, 0)
        async with client_of(house.bus) as hasty:
            task = asyncio.create_task(hasty.container(path, "Stop", "a{sv}", {"Timeout": Variant("u", 1)}))
            await until_calls(house.service, 1)
            task.cancel()
        assert await client.container(path, "Wait") == 137

    house.play(scenario)


def test_a_call_that_is_too_large_is_refused_and_the_next_one_answered(house: House) -> None:
    async def scenario(client: Client) -> None:
        error = await refused(client.manager("GetContainer", "s", "x" * 3_000_000))
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
        answer = busctl("call", NAME, target, interface, member, *arguments)
        assert (answer.returncode, answer.stderr) == (1, "Call failed: Access denied\n"), member
    said = house.bus.run("dbus-send", "--print-reply", f"--dest={NAME}", path, f"{CONTAINER}.Start", user=NOBODY)
    assert "org.freedesktop.DBus.Error.AccessDenied: only root may do this" in said.stderr
    assert busctl("get-property", NAME, path, CONTAINER, "State").stdout == 's "running"\n'


def test_busctl_shows_the_tree(house: House) -> None:
    async def scenario(client: Client) -> str:
        return await client.create("true")

    path = house.play(scenario)
    assert house.bus.busctl("--list", "tree", NAME).stdout.split() == ["/", "/org", ROOT, f"{ROOT}/container", path]
    assert ".Wait" in house.bus.busctl("introspect", NAME, path).stdout


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
                await until_calls(service, 0)
                waiting = asyncio.create_task(client.container(path, "Wait"))
                await until_calls(service, 1)
                await asyncio.to_thread(house.inside, service.stop())
                assert "is stopping" in (await refused(waiting)).text

        asyncio.run(asyncio.wait_for(scenario(), 30))


def test_a_change_that_has_begun_is_finished_before_the_daemon_leaves_the_bus(house: House) -> None:
    with PrivateBus() as bus:
        service = BusService(bus.address)
        house.inside(service.start(house.engine))

        async def scenario() -> None:
            async with client_of(bus) as client:
                path = await client.run("sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
                await traps_term(client, path)
                await until_calls(service, 0)
                stopping = asyncio.create_task(client.container(path, "Stop", "a{sv}", {"Timeout": Variant("u", 1)}))
                await until_calls(service, 1)
                await asyncio.to_thread(house.inside, service.stop())
                await stopping

        asyncio.run(asyncio.wait_for(scenario(), 30))
