"""/containers: list, create, inspect and everything that changes one container's state."""

from __future__ import annotations

import asyncio
import contextlib

from aiohttp import web

from dockerd_py.api import encode, eras, first_year
from dockerd_py.api.call import Call, dump
from dockerd_py.api.decode import decode_create
from dockerd_py.api.decode_host import decode_update
from dockerd_py.api.filters import container_filter
from dockerd_py.api.graph import image_of, images_of
from dockerd_py.api.routing import ApiVersion, PageNotFound, Route
from dockerd_py.api.system import go_architecture
from dockerd_py.engine.model import Container, Image, WaitCondition, WaitResult
from dockerd_py.errors import (
    AlreadyInState,
    BadParameter,
    Conflict,
    NoSuchImage,
    NotFound,
    NotRunning,
    NotSupported,
    PydockerdError,
)

FORCED_STOP_SECONDS = 5
"""How long the first year's forced removal lets a container end by itself."""


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
        and (wants_all or container.state.running or not eras.knows_two_states(call.version))
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
    warnings: list[str] = []
    if eras.is_first_year(call.version):
        body, warnings = first_year.create_body(body, call.version)
    wanted = decode_create(body)
    config = wanted.config
    if eras.is_first_year(call.version):
        try:
            config = first_year.join_with_image(config, images_of(call).get(config.image).config)
        except NoSuchImage as error:
            raise first_year.no_such_image(config.image) from error
    if platform := call.text("platform"):
        await _check_platform(call, platform)
    host = eras.settle_restart_policy(call.version, wanted.host)
    try:
        created = await call.engine.containers.create(
            config,
            host,
            call.text("name"),
            image_ref=image_of(call, wanted.config.image),
            min_memory=eras.minimum_memory(call.version),
            max_layers=eras.most_layers(call.version),
        )
    except NotFound as error:
        raise eras.create_failure(call.version, error) from error
    warnings += created.warnings
    nothing = eras.is_first_year(call.version) and not warnings
    return call.json({"Id": created.id, "Warnings": None if nothing else warnings}, 201)


async def inspect(call: Call) -> web.StreamResponse:
    containers = call.engine.containers
    container = await containers.sizes(call.name) if call.flag("size") else containers.get(call.name)
    if eras.is_first_year(call.version) and _is_image(call):
        raise Conflict("Conflict between containers and images")
    return call.json(encode.container_inspect(container, call.version))


async def start(call: Call) -> web.StreamResponse:
    if call.text("checkpoint"):
        raise NotSupported("checkpoints are not supported by this version")
    container = call.engine.containers.get(call.name)
    ignored = eras.ignores_body_of_start(call.version, call.request.content_type)
    body = {} if ignored else await call.json_body()
    if body and not eras.has_settings_in_start(call.version):
        raise BadParameter(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"
        )
    try:
        host = first_year.settings_of_start(container, body, call.version) if body else None
        await call.engine.containers.start(container.id, host, min_memory=eras.minimum_memory(call.version))
    except PydockerdError as error:
        raise eras.start_failure(call.version, call.name, error, container.id) from error
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
    try:
        await call.engine.containers.kill(call.name, call.text("signal") or "SIGKILL")
    except NotRunning:
        if not eras.is_first_year(call.version):
            raise
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
        return call.json(_wait_result(await waiting, call.version))
    response = await call.stream("application/json")
    try:
        result = await call.front.while_connected(_finish(waiting))
    finally:
        waiting.cancel()
    await response.write(dump(_wait_result(result, call.version)))
    await response.write_eof()
    return response


async def resize(call: Call) -> web.StreamResponse:
    if eras.is_first_year(call.version) and not (call.text("h").isdecimal() and call.text("w").isdecimal()):
        raise PydockerdError(f'h and w must be numbers, not "{call.text("h")}" and "{call.text("w")}"')
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
    containers = call.engine.containers
    force = call.flag("force")
    if call.flag("link"):
        await call.engine.linking.unlink(call.name)
        return call.empty()
    if eras.is_first_year(call.version):
        force = force and eras.has_force_for_containers(call.version)
        if force and containers.get(call.name).state.active:
            with contextlib.suppress(AlreadyInState):
                await containers.stop(call.name, FORCED_STOP_SECONDS)
    await containers.remove(call.name, force=force, volumes=call.flag("v"))
    return call.empty()


async def _finish(waiting: asyncio.Future[WaitResult]) -> WaitResult:
    return await waiting


def _wait_result(result: WaitResult, version: ApiVersion) -> dict[str, object]:
    answer: dict[str, object] = {"StatusCode": result.exit_code}
    if result.error and not eras.is_first_year(version):
        answer["Error"] = {"Message": result.error}
    return answer


def _image_name(call: Call, container: Container, known: dict[tuple[str, str], str]) -> str:
    """The name that the container was made with, or the image's id if that name now means another image.  The first
    year's: the first of the image's names."""
    key = container.config.image, container.image_id
    if key in known:
        return known[key]
    ref = container.image_id if eras.is_first_year(call.version) else container.config.image
    try:
        image: Image | None = images_of(call).get(ref)
    except PydockerdError:
        image = None
    if eras.is_first_year(call.version):
        known[key] = image.tags[0] if image is not None and image.tags else container.image_id[:12]
    else:
        current = image.id if image is not None else ""
        known[key] = key[0] if current == key[1] else eras.image_id(call.version, container.image_id)
    return known[key]


def _is_image(call: Call) -> bool:
    try:
        images_of(call).get(call.name)
    except PydockerdError:
        return False
    return True


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
