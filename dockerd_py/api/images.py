"""/images: list, import, inspect, tag and remove."""

from __future__ import annotations

import contextlib

from aiohttp import web

from dockerd_py.api import encode, eras
from dockerd_py.api.call import Call
from dockerd_py.api.fields import JsonObject
from dockerd_py.api.filters import image_filter, matches_reference
from dockerd_py.api.routing import Route
from dockerd_py.api.stream import answer_with_messages
from dockerd_py.engine.model import Image, ProgressSink
from dockerd_py.errors import BadParameter, Conflict, NotSupported, PydockerdError


async def list_(call: Call) -> web.StreamResponse:
    passes = image_filter(call.text("filters"), call.engine)
    pattern = call.text("filter")
    images = call.engine.images.list()
    parents = {image.parent_id for image in images}
    shown = [
        image
        for image in images
        if (call.flag("all") or image.tags or image.id not in parents) and passes(image) and _named(image, pattern)
    ]
    shared = call.engine.upkeep.shared_sizes() if call.flag("shared-size") else {}
    return call.json([encode.image_summary(image, call.version, shared.get(image.id, -1)) for image in shown])


async def create(call: Call) -> web.StreamResponse:
    """Import an image from a root filesystem's tar, in the body or at a URL."""
    if call.text("fromImage"):
        raise NotSupported("pulling images is not supported by this version; import one with fromSrc")
    source = call.text("fromSrc")
    if not source:
        raise BadParameter("Bad parameter: one of fromImage and fromSrc is needed")

    async def work(progress: ProgressSink) -> JsonObject:
        images = call.engine.images
        content = call.upload() if source == "-" else images.fetch(source, progress)
        async with contextlib.aclosing(content):
            identity = await images.import_(
                content,
                repo=call.text("repo"),
                tag=call.text("tag"),
                message=call.text("message"),
                changes=call.texts("changes"),
                origin=source,
                progress=progress,
            )
        return {"status": eras.image_id(call.version, identity)}

    return await answer_with_messages(call, work)


async def inspect(call: Call) -> web.StreamResponse:
    if eras.is_first_year(call.version) and _is_container(call):
        raise Conflict("Conflict between containers and images")
    return call.json(encode.image_inspect(call.engine.images.get(call.name), call.version))


async def tag(call: Call) -> web.StreamResponse:
    force = eras.always_moves_tags(call.version) or call.flag("force", default=eras.is_first_year(call.version))
    await call.engine.images.tag(call.name, call.text("repo"), call.text("tag"), force)
    return call.empty(201)


async def remove(call: Call) -> web.StreamResponse:
    changes = await call.engine.images.remove(call.name, force=call.flag("force"), prune=not call.flag("noprune"))
    return call.json(encode.image_changes(changes, call.version))


def _is_container(call: Call) -> bool:
    try:
        call.engine.containers.get(call.name)
    except PydockerdError:
        return False
    return True


def _named(image: Image, pattern: str) -> bool:
    return not pattern or any(matches_reference(name, pattern) for name in image.tags)


ROUTES = (
    Route("GET", "/images/json", list_),
    Route("POST", "/images/create", create),
    Route("GET", "/images/{}/json", inspect),
    Route("POST", "/images/{}/tag", tag),
    Route("DELETE", "/images/{}", remove),
)
