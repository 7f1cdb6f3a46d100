"""``org.pydockerd1.Manager``: what concerns no container or image that exists already."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbus_next.signature import Variant

from dockerd_py.dbus import options, polkit
from dockerd_py.dbus.calls import BusObject, Call, clean, exported
from dockerd_py.dbus.streams import read_all
from dockerd_py.engine.model import Status
from dockerd_py.errors import BadParameter, NoSuchContainer, PydockerdError

if TYPE_CHECKING:
    from dockerd_py.engine.engine import Engine

log = logging.getLogger(__name__)

ROOT = "/org/pydockerd1"
CONTAINERS = ROOT + "/container"


@dataclass(frozen=True)
class Facts:
    """What stays the same while the daemon runs."""

    version: str
    api_version: str
    root: str
    storage_driver: str
    log_driver: str
    cgroup_driver: str


class ManagerObject(BusObject):
    interface_name = "org.pydockerd1.Manager"

    def __init__(self, engine: Engine, facts: Facts, announce: Callable[[str], None]) -> None:
        """``announce`` tells the bus about a container, by its id, before its path is given away."""
        self._engine = engine
        self._facts = facts
        self._announce = announce

    def values(self) -> dict[str, Any]:
        return {
            "Version": self._facts.version,
            "ApiVersion": self._facts.api_version,
            "Root": clean(self._facts.root),
            "StorageDriver": self._facts.storage_driver,
            "LogDriver": self._facts.log_driver,
            "CgroupDriver": self._facts.cgroup_driver,
        }

    def details(self, member: str, arguments: list[Any]) -> dict[str, str]:
        details = {"method": member}
        if member in ("CreateContainer", "RunContainer"):
            details["image"] = arguments[0]
            name = arguments[2].get("Name")
            if name is not None and name.signature == "s":
                details["name"] = name.value
        elif member == "ImportImage":
            details["image"] = arguments[1]
        elif member == "RemoveImage":
            details["image"] = arguments[0]
        return details

    @exported("CreateContainer", needs=(polkit.CREATE,))
    async def create_container(self, call: Call, image: str, command: list[str], given: dict[str, Variant]) -> str:
        return container_path(await self._create(image, command, given))

    @exported("RunContainer", needs=(polkit.CREATE, polkit.START))
    async def run_container(self, call: Call, image: str, command: list[str], given: dict[str, Variant]) -> str:
        container = await self._create(image, command, given)
        try:
            await self._engine.containers.start(container)
        except Exception:
            # The caller learns no path, so nothing may be left that it could not find.
            await self._take_back(container)
            raise
        self._announce(container)
        return container_path(container)

    @exported("ListContainers")
    async def list_containers(self, call: Call, given: dict[str, Variant]) -> list[list[str]]:
        states = _states(options.read(given, {"States": "as"}).get("States"))
        return [
            [each.id, clean(each.name), clean(each.config.image), each.state.status.value, container_path(each.id)]
            for each in self._engine.containers.list(all=True)
            if each.state.status in states
        ]

    @exported("GetContainer")
    async def get_container(self, call: Call, reference: str) -> str:
        return container_path(self._engine.containers.get(reference).id)

    @exported("ListImages")
    async def list_images(self, call: Call, given: dict[str, Variant]) -> list[list[Any]]:
        options.read(given, {})
        return [
            [each.id, [clean(tag) for tag in each.tags], each.created // options.MICROSECOND, each.size]
            for each in self._engine.images.list()
        ]

    @exported("ImportImage", needs=(polkit.IMPORT_IMAGE,))
    async def import_image(self, call: Call, archive: int, reference: str, given: dict[str, Variant]) -> str:
        source = read_all(archive, call.gone)
        try:
            wanted = options.read(given, {"Message": "s", "Author": "s", "Changes": "as"})
            repo, tag = _split(reference)
            return await self._engine.images.import_(
                source,
                repo=repo,
                tag=tag,
                message=wanted.get("Message", ""),
                author=wanted.get("Author", ""),
                changes=tuple(wanted.get("Changes", ())),
            )
        finally:
            await source.aclose()

    @exported("RemoveImage", needs=(polkit.REMOVE_IMAGE,))
    async def remove_image(self, call: Call, reference: str, given: dict[str, Variant]) -> list[list[str]]:
        wanted = options.read(given, {"Force": "b", "NoPrune": "b"})
        changes = await self._engine.images.remove(
            reference, force=wanted.get("Force", False), prune=not wanted.get("NoPrune", False)
        )
        return [[clean(each.untagged), each.deleted] for each in changes]

    async def _create(self, image: str, command: list[str], given: dict[str, Variant]) -> str:
        name, config, host = options.container_settings(image, command, given)
        created = await self._engine.containers.create(config, host, name)
        for warning in created.warnings:
            log.info("container %s: %s", created.id[:12], warning)
        self._announce(created.id)
        return created.id

    async def _take_back(self, container: str) -> None:
        try:
            await self._engine.containers.remove(container, force=True, volumes=True)
        except NoSuchContainer:
            pass  # it was to remove itself, and did
        except PydockerdError as error:
            log.warning("container %s did not start and cannot be removed: %s", container[:12], error)
        self._announce(container)


def container_path(container: str) -> str:
    """The object path of the container with this id of 64 hexadecimal digits."""
    return f"{CONTAINERS}/{container}"


def _states(names: list[str] | None) -> frozenset[Status]:
    if names is None:
        return frozenset(Status)
    try:
        return frozenset(Status(name) for name in names)
    except ValueError:
        known = ", ".join(each.value for each in Status)
        raise BadParameter(f"Option States knows {known}; not all of {names} are among them") from None


def _split(reference: str) -> tuple[str, str]:
    """Repository and tag.  A colon before the last slash belongs to a registry's port."""
    head, slash, last = reference.rpartition("/")
    name, _, tag = last.partition(":")
    return head + slash + name, tag
