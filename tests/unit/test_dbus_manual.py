"""docs/dbus.md is the interface's manual: what it prints works, and it leaves out nothing."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bus_house import CONTAINER, MANAGER, Client, House

from dockerd_py import errors
from dockerd_py.dbus import calls, connection, options, polkit
from dockerd_py.dbus import errors as bus_errors
from dockerd_py.dbus.interface import load

TEXT = (Path(__file__).parents[2] / "docs" / "dbus.md").read_text()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    it = House(tmp_path_factory.mktemp("house"))
    it.open()
    yield it
    it.close()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def _sh(house: House, script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-eux", "-c", script],
        env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": house.bus.address},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_commands_work_as_printed(house: House) -> None:
    done = _sh(house, "\n".join(_blocks("sh")))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "i 0\n" in done.stdout
    assert '"nap" "busybox" "exited"' in done.stdout


def test_the_program_prints_a_log_as_printed(house: House, tmp_path: Path) -> None:
    (program,) = _blocks("python")
    (tmp_path / "log.py").write_text(program)

    async def scenario(client: Client) -> str:
        path = await client.run("echo", "hello")
        await client.container(path, "Wait")
        return path

    done = _sh(house, f"{sys.executable} {tmp_path}/log.py {house.play(scenario)}")
    assert done.stdout == "hello\n", done.stderr


def test_every_member_every_option_every_action_and_every_error_is_there() -> None:
    for name in (MANAGER, CONTAINER):
        interface = load(name)
        for member in (*interface.methods, *interface.signals, *interface.properties):
            assert re.search(rf"\b{member}\b", TEXT), member
    known = {**options.CREATE, **options.LOGS}
    for option in known:
        assert f"`{option}`" in TEXT, option
    for action in polkit.ACTIONS:
        assert f"`{action}`" in TEXT, action
    for module in (errors, bus_errors):
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, errors.PydockerdError):
                assert f"`{kind.bus_name.rpartition('.')[2]}`" in TEXT, kind.bus_name


def test_the_types_of_the_options_are_those_of_the_table() -> None:
    rows = re.findall(r"^\| (`[^|]*`) \| (\S+) \| ", TEXT, re.MULTILINE)
    types = {name: kind for names, kind in rows for name in re.findall(r"`(\w+)`", names)}
    assert {name: types.get(name) for name in options.CREATE} == options.CREATE


def test_the_signatures_of_the_methods_are_those_of_the_interfaces() -> None:
    for name in (MANAGER, CONTAINER):
        for method in load(name).methods.values():
            heads = re.findall(rf"`{method.name}\(([^)`]*(?:\(\w*\))?[^)`]*)\)(?: → ([^`]*))?`", TEXT)
            assert heads, method.name
            takes = "".join(each.split()[0] for each in heads[0][0].split(", ") if each)
            gives = heads[0][1].split()[0] if heads[0][1] else ""
            assert (takes, gives) == (method.takes, method.gives), method.name


def test_the_limits_are_those_of_the_code() -> None:
    assert connection.MAX_BODY == 128 * 1024
    assert f"at most {connection.MAX_BODY // 1024} KiB" in TEXT
    assert f"at most {calls.CALLS_PER_CALLER} calls under way" in TEXT
    assert f"at most {calls.HELD_PER_USER} calls that last" in TEXT
