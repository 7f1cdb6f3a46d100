"""Containers, their logs and images on D-Bus: a real engine, a real dbus-daemon, ordinary clients."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from pathlib import Path

from bus_house import (
    CONTAINER,
    MKIMAGE,
    OBJECT_MANAGER,
    PROPERTIES,
    ROOT,
    Client,
    House,
    client_of,
    refused,
    traps_term,
    until_calls,
)
from daemons import until
from dbus_next.signature import Variant

from dockerd_py.engine.health_model import Healthcheck
from dockerd_py.engine.model import ContainerConfig, HostConfig

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
        # Started is not yet executed.
        await asyncio.to_thread(until, lambda: _command_line(values["Pid"]) == b"sleep\x0060\x00")
        assert values["Command"] == ["sleep", "60"]
        assert values["Labels"] == {"a": "b"}
        assert before <= values["Created"] <= values["StartedAt"] <= time.time() * 1e6
        assert values["FinishedAt"] == 0

    house.play(scenario)


def test_a_container_is_paused_goes_on_and_gets_another_name(house: House) -> None:
    async def scenario(client: Client) -> None:
        path = await client.run("sleep", "60", Name=Variant("s", "first"), RestartPolicy=Variant("(su)", ["always", 0]))
        await client.container(path, "Pause")
        assert await client.get(path, "State") == "paused"
        assert (await refused(client.container(path, "Pause"))).name == "Conflict"
        await client.container(path, "Unpause")
        assert await client.get(path, "State") == "running"
        await client.container(path, "Rename", "s", "second")
        assert await client.get(path, "Name") == "second"
        assert await client.get(path, "RestartPolicy") == ["always", 0]
        assert await client.get(path, "RestartCount") == 0
        assert await client.get(path, "Health") == ""

    house.play(scenario)


def test_a_change_of_health_is_told(house: House) -> None:
    check = Healthcheck(("CMD", "true"), interval=200_000_000)
    config = ContainerConfig(image="busybox", cmd=("sleep", "60"), healthcheck=check)
    created = house.inside(house.engine.containers.create(config, HostConfig(network_mode="none")))
    path = f"{ROOT}/container/{created.id}"

    async def scenario(client: Client) -> None:
        await client.listen()
        await client.container(path, "Start")
        told: list[str] = []
        while "healthy" not in told:
            await asyncio.sleep(0.01)
            changes = [body[1] for place, name, body in client.signals if (place, name) == (path, "PropertiesChanged")]
            told = [changed["Health"].value for changed in changes if "Health" in changed]
        assert told == ["starting", "healthy"]
        assert await client.get(path, "Health") == "healthy"

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
        assert (await refused(client.manager("GetContainer", "s", "nothing"))).name == "NoSuchContainer"

    house.play(scenario)


def test_a_prefix_of_two_containers_is_ambiguous(house: House) -> None:
    async def scenario(client: Client) -> None:
        firsts: set[str] = set()
        while (first := (await client.create("true")).rpartition("/")[2][0]) not in firsts:
            firsts.add(first)
        assert (await refused(client.manager("GetContainer", "s", first))).name == "AmbiguousId"

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
        assert (await refused(wrong)).name == "BadParameter"

    house.play(scenario)


def test_a_container_is_stopped_started_restarted_killed_and_removed(house: House) -> None:
    async def scenario(client: Client) -> None:
        path = await client.run("sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.05; done")
        await traps_term(client, path)
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
        assert (await refused(client.container(path, "Start"))).name == "UnknownObject"
        assert (await refused(client.get(path, "State"))).name == "UnknownObject"

    house.play(scenario)


def test_a_running_container_is_removed_by_force_only(house: House) -> None:
    async def scenario(client: Client) -> None:
        path = await client.run("sleep", "60")
        assert (await refused(client.container(path, "Remove", "a{sv}", {}))).name == "Conflict"
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
        while (removed := await client.seen("ContainerRemoved", ROOT)) != [created.id, path]:
            client.signals = [each for each in client.signals if each[2] is not removed]  # of the test before

    house.play(scenario)


def test_the_object_manager_has_all_containers_and_all_their_properties(house: House) -> None:
    async def scenario(client: Client) -> None:
        paths = {await client.create("true") for _ in range(3)}
        objects = await client.call(ROOT, OBJECT_MANAGER, "GetManagedObjects")
        assert set(objects) == paths
        for path in paths:
            assert objects[path] == {CONTAINER: await client.call(path, PROPERTIES, "GetAll", "s", CONTAINER)}

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
        await until_calls(house.service, 1)
        assert await asyncio.wait_for(asyncio.to_thread(_read_all, theirs), 10) is not None
        os.close(fd)
        await until_calls(house.service, 0)

    house.play(scenario)


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
        error = await refused(client.manager("ImportImage", "hsa{sv}", 0, "bad:1", {}, fds=(reading,)))
        os.close(reading)
        assert error.name == "BadArchive"
        error = await refused(client.manager("ImportImage", "hsa{sv}", 0, "bad:1", {}))
        assert (error.name, "file descriptor" in error.text) == ("BadParameter", True)

    house.play(scenario)


def _command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _read_all(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as pipe:
        return pipe.read()
