from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest
from bus_house import CONTAINER, MANAGER, OBJECT_MANAGER, PROPERTIES, ROOT, Client, House

from dockerd_py.dbus import interface, polkit
from dockerd_py.dbus.container import ContainerObject
from dockerd_py.dbus.manager import ManagerObject

FILES = Path(interface.__file__).parent / "interfaces"
POLICY = Path(__file__).parents[2] / "packaging" / "polkit" / "org.pydockerd1.policy"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    it = House(tmp_path_factory.mktemp("house"))
    it.open()
    yield it
    it.close()


def _introspect(house: House, path: str) -> tuple[dict[str, interface.Interface], list[str]]:
    async def scenario(client: Client) -> str:
        return str(await client.call(path, "org.freedesktop.DBus.Introspectable", "Introspect"))

    root = ElementTree.fromstring(house.play(scenario))
    found = {each.name: each for each in map(interface.parse, root.findall("interface"))}
    return found, [str(each.get("name")) for each in root.findall("node")]


def test_each_file_describes_the_interface_that_it_is_named_after() -> None:
    files = sorted(FILES.glob("*.xml"))
    assert [each.stem for each in files] == [
        "org.freedesktop.DBus.Introspectable",
        "org.freedesktop.DBus.ObjectManager",
        "org.freedesktop.DBus.Peer",
        "org.freedesktop.DBus.Properties",
        "org.pydockerd1.Container",
        "org.pydockerd1.Manager",
    ]
    for each in files:
        assert interface.load(each.stem).name == each.stem


def test_the_manager_is_on_the_bus_what_its_file_says(house: House) -> None:
    live, children = _introspect(house, ROOT)
    for name in (MANAGER, OBJECT_MANAGER, PROPERTIES):
        file = interface.load(name)
        assert (live[name].methods, live[name].signals, live[name].properties) == (
            file.methods, file.signals, file.properties
        )  # fmt: skip
    assert children == ["container"]


def test_a_container_is_on_the_bus_what_its_file_says(house: House) -> None:
    async def create(client: Client) -> str:
        return await client.create("true")

    path = house.play(create)
    live, _ = _introspect(house, path)
    file = interface.load(CONTAINER)
    assert live[CONTAINER].methods == file.methods
    assert live[CONTAINER].properties == file.properties
    assert OBJECT_MANAGER not in live


def test_properties_have_the_types_that_the_files_say(house: House) -> None:
    async def scenario(client: Client) -> None:
        for path, name in ((ROOT, MANAGER), (await client.create("true"), CONTAINER)):
            values = await client.call(path, PROPERTIES, "GetAll", "s", name)
            assert {key: value.signature for key, value in values.items()} == {
                each.name: each.type for each in interface.load(name).properties.values()
            }

    house.play(scenario)


def test_the_published_names_stay() -> None:
    """A name once published is never renamed or taken away, nor its types changed: only added to."""
    manager, container = interface.load(MANAGER), interface.load(CONTAINER)
    assert {name: (each.takes, each.gives) for name, each in manager.methods.items()} == {
        "CreateContainer": ("sasa{sv}", "o"),
        "RunContainer": ("sasa{sv}", "o"),
        "ListContainers": ("a{sv}", "a(sssso)"),
        "GetContainer": ("s", "o"),
        "ListImages": ("a{sv}", "a(sastt)"),
        "ImportImage": ("hsa{sv}", "s"),
        "RemoveImage": ("sa{sv}", "a(ss)"),
    }
    assert manager.signals == {"ContainerAdded": "so", "ContainerRemoved": "so"}
    assert {name: (each.takes, each.gives) for name, each in container.methods.items()} == {
        "Start": ("", ""),
        "Stop": ("a{sv}", ""),
        "Restart": ("a{sv}", ""),
        "Kill": ("s", ""),
        "Pause": ("", ""),
        "Unpause": ("", ""),
        "Rename": ("s", ""),
        "Wait": ("", "i"),
        "Remove": ("a{sv}", ""),
        "Logs": ("a{sv}", "h"),
    }
    assert {name: each.type for name, each in container.properties.items()} == {
        "Id": "s", "Name": "s", "Image": "s", "ImageId": "s", "State": "s", "ExitCode": "i", "OomKilled": "b",
        "Error": "s", "Pid": "u", "Scope": "s", "ControlGroup": "s", "Created": "t", "StartedAt": "t",
        "FinishedAt": "t", "Command": "as", "Labels": "a{ss}", "LogDriver": "s", "Tty": "b", "AutoRemove": "b",
        "Health": "s", "RestartPolicy": "(su)", "RestartCount": "u",
    }  # fmt: skip


def test_every_method_that_changes_something_asks_polkit() -> None:
    needs = {
        name: function.__dict__["bus_terms"].needs
        for target in (ManagerObject, ContainerObject)
        for name, function in target.methods.items()
    }
    free = {name for name, actions in needs.items() if not actions}
    assert free == {"ListContainers", "GetContainer", "ListImages", "Wait"}
    assert needs["RunContainer"] == (polkit.CREATE, polkit.START)


def test_the_policy_file_knows_each_action_and_asks_an_administrator() -> None:
    actions = {each.get("id"): each for each in ElementTree.parse(POLICY).getroot().findall("action")}
    assert set(actions) == set(polkit.ACTIONS)
    for action in actions.values():
        defaults = action.find("defaults")
        assert defaults is not None
        assert [each.text for each in defaults] == ["auth_admin", "auth_admin", "auth_admin_keep"]
