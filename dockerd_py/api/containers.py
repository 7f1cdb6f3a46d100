"""/containers: list, create, inspect and everything that changes one container's state."""

from __future__ import annotations

import asyncio

from aiohttp import web

from dockerd_py.api import encode, eras
from dockerd_py.api.call import Call, dump
from dockerd_py.api.decode import decode_create
from dockerd_py.api.decode_host import decode_host, decode_update
from dockerd_py.api.fields import Fields
from dockerd_py.api.filters import container_filter
from dockerd_py.api.graph import image_of
from dockerd_py.api.routing import PageNotFound, Route
from dockerd_py.api.system import go_architecture
from dockerd_py.engine.model import Container, HostConfig, WaitCondition, WaitResult
from dockerd_py.errors import AlreadyInState, BadParameter, NotRunning, NotSupported, PydockerdError


async def list_(call: Call) -> web.StreamResponse:
    engine = call.engine
    passes, every_state = container_filter(call.text("filters"), engine)
    limit = max(0, call.number("limit") or 0)
    bounds = {key: engine.containers.get(call.text(key)).created for key in ("before", "since") if call.text(key)}
    wants_all = call.flag("all") or every_state or limit > 0 or bool(bounds)
    found = [
        container
        for container in engine.containers.list(all=wants_all)
        if passes(container)
        and container.created < bounds.get("before", container.created + 1)
        and container.created > bounds.get("since", -1)
    ]
    if limit:
        found = found[:limit]
    if call.flag("size"):
        found = [await engine.containers.sizes(container.id) for container in found]
    image_names: dict[tuple[str, str], str] = {}
    return call.json(
        [encode.container_summary(one, call.version, _image_name(call, one, image_names)) for one in found]
    )


async def create(call: Call) -> web.StreamResponse:
    body = await call.json_body()
    if not body:
        raise BadParameter("Config cannot be empty in order to create a container")
    wanted = decode_create(body)
    if platform := call.text("platform"):
        await _check_platform(call, platform)
    host = eras.settle_restart_policy(call.version, wanted.host)
    created = await call.engine.containers.create(
        wanted.config,
        host,
        call.text("name"),
        image_ref=image_of(call, wanted.config.image),
        min_memory=eras.minimum_memory(call.version),
        max_layers=eras.most_layers(call.version),
    )
    return call.json({"Id": created.id, "Warnings": list(created.warnings)}, 201)


async def inspect(call: Call) -> web.StreamResponse:
    containers = call.engine.containers
    container = await containers.sizes(call.name) if call.flag("size") else containers.get(call.name)
    return call.json(encode.container_inspect(container, call.version))


async def start(call: Call) -> web.StreamResponse:
    if call.text("checkpoint"):
        raise NotSupported("checkpoints are not supported by this version")
    container = call.engine.containers.get(call.name)
    body = await call.json_body()
    if body:
        _check_start_settings(call, container, body)
    try:
        await call.engine.containers.start(container.id)
    except AlreadyInState as error:
        if eras.reports_unchanged_state(call.version):
            raise
        raise PydockerdError(f"Cannot start container {call.name}: {error}") from error
    return call.empty()


async def stop(call: Call) -> web.StreamResponse:
    try:
        await call.engine.containers.stop(call.name, call.number("t"), call.text("signal"))
    except AlreadyInState:
        if eras.reports_unchanged_state(call.version):
            raise
    return call.empty()


async def restart(call: Call) -> web.StreamResponse:
    await call.engine.containers.restart(call.name, call.number("t"), call.text("signal"))
    return call.empty()


async def pause(call: Call) -> web.StreamResponse:
    await call.engine.containers.pause(call.name)
    return call.empty()


async def unpause(call: Call) -> web.StreamResponse:
    await call.engine.containers.unpause(call.name)
    return call.empty()


async def rename(call: Call) -> web.StreamResponse:
    await call.engine.containers.rename(call.name, call.text("name"))
    return call.empty()


async def kill(call: Call) -> web.StreamResponse:
    await call.engine.containers.kill(call.name, call.text("signal") or "SIGKILL")
    return call.empty()


async def update(call: Call) -> web.StreamResponse:
    await call.engine.containers.update(call.name, decode_update(await call.json_body()))
    return call.json({"Warnings": []})


async def wait(call: Call) -> web.StreamResponse:
    """The head of the answer is sent as soon as the wait has begun: clients start the container only then."""
    try:
        condition = WaitCondition(call.text("condition") or WaitCondition.NOT_RUNNING.value)
    except ValueError:
        raise BadParameter(f'invalid condition: "{call.text("condition")}"') from None
    container = call.engine.containers.get(call.name)
    waiting = asyncio.ensure_future(call.engine.containers.wait(container.id, condition))
    await asyncio.sleep(0)  # the wait has begun once its task has run
    if waiting.done():
        return call.json(_wait_result(await waiting))
    response = await call.stream("application/json")
    try:
        result = await call.front.while_connected(_finish(waiting))
    finally:
        waiting.cancel()
    await response.write(dump(_wait_result(result)))
    await response.write_eof()
    return response


async def resize(call: Call) -> web.StreamResponse:
    await call.engine.containers.resize(call.name, *call.terminal_size())
    return call.empty(200)


async def top(call: Call) -> web.StreamResponse:
    if not eras.has_top(call.version):
        raise PageNotFound
    if call.text("ps_args") and not eras.has_ps_args(call.version):
        raise BadParameter("Bad parameter: ps_args needs API version 1.4 or newer")
    try:
        found = await call.engine.top(call.name, call.text("ps_args"))
    except NotRunning as error:
        if eras.top_conflicts(call.version):
            raise
        raise PydockerdError(str(error)) from error
    return call.json(encode.processes(found))


async def remove(call: Call) -> web.StreamResponse:
    if call.flag("link"):
        raise NotSupported("removing a link is not supported by this version")
    await call.engine.containers.remove(call.name, force=call.flag("force"), volumes=call.flag("v"))
    return call.empty()


async def _finish(waiting: asyncio.Future[WaitResult]) -> WaitResult:
    return await waiting


def _wait_result(result: WaitResult) -> dict[str, object]:
    answer: dict[str, object] = {"StatusCode": result.exit_code}
    if result.error:
        answer["Error"] = {"Message": result.error}
    return answer


def _image_name(call: Call, container: Container, known: dict[tuple[str, str], str]) -> str:
    """The name that the container was made with, or the image's id if that name now means another image."""
    key = container.config.image, container.image_id
    if key not in known:
        try:
            current = call.engine.images.get(container.config.image).id
        except PydockerdError:
            current = ""
        known[key] = key[0] if current == key[1] else eras.image_id(call.version, container.image_id)
    return known[key]


def _check_start_settings(call: Call, container: Container, body: dict[str, object]) -> None:
    if not eras.has_settings_in_start(call.version):
        raise BadParameter(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"
        )
    settings = decode_host(Fields(body))
    if settings not in (HostConfig(), container.host):
        raise NotSupported("settings in the body of start are not supported by this version; give them to create")


async def _check_platform(call: Call, platform: str) -> None:
    system, _, rest = platform.lower().partition("/")
    info = await call.engine.info()
    if system != "linux" or rest.partition("/")[0] not in ("", go_architecture(info.architecture), info.architecture):
        raise NotSupported(f"the platform {platform} is not supported on this machine")


ROUTES = (
    Route("GET", "/containers/json", list_),
    Route("GET", "/containers/ps", list_),
    Route("POST", "/containers/create", create),
    Route("GET", "/containers/{}/json", inspect),
    Route("POST", "/containers/{}/start", start),
    Route("POST", "/containers/{}/stop", stop),
    Route("POST", "/containers/{}/restart", restart),
    Route("POST", "/containers/{}/kill", kill),
    Route("POST", "/containers/{}/pause", pause),
    Route("POST", "/containers/{}/unpause", unpause),
    Route("POST", "/containers/{}/rename", rename),
    Route("POST", "/containers/{}/update", update),
    Route("POST", "/containers/{}/wait", wait),
    Route("POST", "/containers/{}/resize", resize),
    Route("GET", "/containers/{}/top", top),
    Route("DELETE", "/containers/{}", remove),
)
