"""Archives that go out and come in: a container's export, and the images of save and load."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

from aiohttp import web

from dockerd_py.api import eras
from dockerd_py.api.call import Call
from dockerd_py.api.fields import JsonObject
from dockerd_py.api.graph import image_of
from dockerd_py.api.routing import Route
from dockerd_py.api.stream import answer_with_messages
from dockerd_py.engine.model import Progress, ProgressSink
from dockerd_py.errors import BadParameter, NotSupported


async def export(call: Call) -> web.StreamResponse:
    return await _send(call, await call.engine.containers.export(call.name), "application/octet-stream")


async def save_one(call: Call) -> web.StreamResponse:
    return await _save(call, (image_of(call, call.name),))


async def save_many(call: Call) -> web.StreamResponse:
    names = tuple(name for text in call.texts("names") for name in text.split(",") if name)
    if not names:
        raise BadParameter("Bad parameter: names has to name at least one image")
    return await _save(call, tuple(image_of(call, name) for name in names))


async def load(call: Call) -> web.StreamResponse:
    quiet = call.flag("quiet", default=True)
    _refuse_platform(call)

    async def work(progress: ProgressSink) -> list[JsonObject]:
        async with contextlib.aclosing(call.upload()) as content:
            loaded = await call.engine.images.load(content, _nowhere if quiet else progress)
        lines = []
        for identity, names in loaded:
            lines += [f"Loaded image: {name}" for name in names] or [f"Loaded image ID: sha256:{identity}"]
        return [{"stream": line + "\n"} for line in lines]

    if eras.answers_load_with_messages(call.version):
        return await answer_with_messages(call, work)
    await call.front.while_connected(work(_nowhere))
    return call.empty(200)


async def _save(call: Call, names: tuple[str, ...]) -> web.StreamResponse:
    _refuse_platform(call)
    return await _send(call, await call.engine.images.save(names), "application/x-tar")


async def _send(call: Call, content: AsyncGenerator[bytes, None], content_type: str) -> web.StreamResponse:
    """Pass an archive on as fast as the client takes it.  A failure before its first bytes is an ordinary error
    reply; after them, the connection breaks off without the end of the answer."""

    async def pump() -> web.StreamResponse:
        response: web.StreamResponse | None = None
        async with contextlib.aclosing(content):
            async for piece in content:
                if response is None:  # not "or": a response is a mapping, and so an empty one is false
                    response = await call.stream(content_type)
                await response.write(piece)
        if response is None:
            response = await call.stream(content_type)
        await response.write_eof()
        return response

    return await call.front.while_connected(pump())


def _refuse_platform(call: Call) -> None:
    if call.text("platform"):
        raise NotSupported("the parameter platform is not supported by this version: images have one platform here")


def _nowhere(_progress: Progress) -> None:
    """Nobody wants to know."""


ROUTES = (
    Route("GET", "/containers/{}/export", export),
    Route("GET", "/images/get", save_many),
    Route("GET", "/images/{}/get", save_one),
    Route("POST", "/images/load", load),
)
