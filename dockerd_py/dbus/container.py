"""``org.pydockerd1.Container``: one container as its object on the bus."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dbus_next.signature import Variant

from dockerd_py.dbus import options, polkit
from dockerd_py.dbus.calls import BusObject, Call, clean, exported
from dockerd_py.dbus.streams import write_log
from dockerd_py.engine.model import Container
from dockerd_py.errors import BadParameter

if TYPE_CHECKING:
    from dockerd_py.engine.engine import Engine

_MAX_SECONDS = 7 * 24 * 3600


class ContainerObject(BusObject):
    interface_name = "org.pydockerd1.Container"

    def __init__(self, engine: Engine, container: Container, announce: Callable[[str], None]) -> None:
        """``announce`` tells the bus what has changed about the container with this id."""
        self._engine = engine
        self._container = container
        self._announce = announce

    def values(self) -> dict[str, Any]:
        return values_of(self._container)

    def settle(self) -> None:
        self._announce(self._container.id)

    def details(self, member: str, arguments: list[Any]) -> dict[str, str]:
        it = self._container
        return {"method": member, "id": it.id, "name": it.name, "image": it.config.image}

    @exported("Start", needs=(polkit.START,))
    async def start(self, call: Call) -> None:
        await self._engine.containers.start(self._container.id)

    @exported("Stop", needs=(polkit.STOP,))
    async def stop(self, call: Call, given: dict[str, Variant]) -> None:
        await self._engine.containers.stop(self._container.id, _timeout(given))

    @exported("Restart", needs=(polkit.STOP, polkit.START))
    async def restart(self, call: Call, given: dict[str, Variant]) -> None:
        await self._engine.containers.restart(self._container.id, _timeout(given))

    @exported("Kill", needs=(polkit.KILL,))
    async def kill(self, call: Call, signal: str) -> None:
        await self._engine.containers.kill(self._container.id, signal or "SIGKILL")

    @exported("Pause", needs=(polkit.PAUSE,))
    async def pause(self, call: Call) -> None:
        await self._engine.containers.pause(self._container.id)

    @exported("Unpause", needs=(polkit.PAUSE,))
    async def unpause(self, call: Call) -> None:
        await self._engine.containers.unpause(self._container.id)

    @exported("Rename", needs=(polkit.RENAME,))
    async def rename(self, call: Call, name: str) -> None:
        await self._engine.containers.rename(self._container.id, name)

    @exported("Wait", held=True)
    async def wait(self, call: Call) -> int:
        return (await self._engine.containers.wait(self._container.id)).exit_code

    @exported("Remove", needs=(polkit.REMOVE,))
    async def remove(self, call: Call, given: dict[str, Variant]) -> None:
        wanted = options.read(given, {"Force": "b", "Volumes": "b"})
        await self._engine.containers.remove(
            self._container.id, force=wanted.get("Force", False), volumes=wanted.get("Volumes", False)
        )

    @exported("Logs", needs=(polkit.LOGS,), held=True)
    async def logs(self, call: Call, given: dict[str, Variant]) -> int:
        wanted, timestamps = options.log_options(given)
        batches = self._engine.containers.logs(self._container.id, wanted)
        reading, writing = os.pipe2(os.O_CLOEXEC)
        pipe = os.fdopen(writing, "wb", buffering=0)
        call.go_on_with(write_log(pipe, batches, timestamps=timestamps))
        return reading


def values_of(it: Container) -> dict[str, Any]:
    """The properties of a container's object, in the order of the interface."""
    state = it.state
    return {
        "Id": it.id,
        "Name": clean(it.name),
        "Image": clean(it.config.image),
        "ImageId": it.image_id,
        "State": state.status.value,
        "Health": state.health.status.value if state.health else "",
        "ExitCode": state.exit_code,
        "OomKilled": state.oom_killed,
        "Error": clean(state.error),
        "Pid": state.pid,
        "Scope": it.scope,
        "ControlGroup": clean(it.cgroup),
        "Created": it.created // options.MICROSECOND,
        "StartedAt": state.started_at // options.MICROSECOND,
        "FinishedAt": state.finished_at // options.MICROSECOND,
        "Command": [clean(each) for each in (it.path, *it.args)],
        "Labels": {clean(key): clean(value) for key, value in it.config.labels.items()},
        "LogDriver": it.log_driver,
        "RestartPolicy": [it.host.restart.name or "no", it.host.restart.maximum_retries],
        "RestartCount": state.restarts,
        "Tty": it.config.tty,
        "AutoRemove": it.host.auto_remove,
    }


def _timeout(given: dict[str, Variant]) -> int | None:
    seconds: int | None = options.read(given, {"Timeout": "u"}).get("Timeout")
    if seconds is not None and seconds > _MAX_SECONDS:
        raise BadParameter(f"Option Timeout is at most {_MAX_SECONDS} seconds, not {seconds}")
    return seconds
