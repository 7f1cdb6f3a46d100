"""/images: list, import, inspect, tag and remove; what needs a registry is refused."""

from __future__ import annotations

import contextlib

from aiohttp import web

from dockerd_py.api import encode, eras
from dockerd_py.api.call import Call
from dockerd_py.api.fields import JsonObject
from dockerd_py.api.filters import image_filter, matches_reference, matches_repository
from dockerd_py.api.graph import image_of, images_of
from dockerd_py.api.routing import ApiVersion, Route
from dockerd_py.api.stream import answer_with_messages
from dockerd_py.engine.model import Image, ProgressSink
from dockerd_py.errors import BadParameter, Conflict, NotSupported, PydockerdError


async def list_(call: Call) -> web.StreamResponse:
    passes = image_filter(call.text("filters"), call.engine)
    pattern = call.text("filter")
    images = images_of(call).list()
    parents = {image.parent_id for image in images}
    shown = [
        image
        for image in images
        if (call.flag("all") or image.tags or image.id not in parents)
        and passes(image)
        and _named(image, pattern, call.version)
    ]
    if eras.is_first_year(call.version):
        return call.json([item for image in shown for item in encode.first_year_images(image, pattern, call.version)])
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
    return call.json(encode.image_inspect(images_of(call).get(call.name), call.version))


async def tag(call: Call) -> web.StreamResponse:
    force = eras.always_moves_tags(call.version) or call.flag("force", default=eras.is_first_year(call.version))
    await call.engine.images.tag(image_of(call, call.name), call.text("repo"), call.text("tag"), force)
    return call.empty(201)


async def remove(call: Call) -> web.StreamResponse:
    force: bool | None = call.flag("force")
    prune = not call.flag("noprune")
    if not eras.layers_are_images(call.version):
        changes = await call.engine.images.remove(call.name, force=force, prune=prune)
        return call.json(encode.image_changes(changes, call.version))
    image = images_of(call).get(call.name)
    first_year = eras.is_first_year(call.version)
    if first_year:
        force, prune = force if eras.has_force_for_images(call.version) else None, True
    changes = await call.engine.graph.remove(call.name, force=force, prune=prune, first_year=first_year)
    if not eras.tells_what_was_removed(call.version):
        return call.empty()
    return call.json(encode.image_changes(changes, call.version, image.id))


def _is_container(call: Call) -> bool:
    try:
        call.engine.containers.get(call.name)
    except PydockerdError:
        return False
    return True


async def search(call: Call) -> web.StreamResponse:
    raise NotSupported("searching a registry is not supported by this version")


async def push(call: Call) -> web.StreamResponse:
    images_of(call).get(call.name)
    raise NotSupported("pushing images is not supported by this version; save writes them to an archive")


def _named(image: Image, pattern: str, version: ApiVersion) -> bool:
    matches = matches_repository if eras.is_first_year(version) else matches_reference
    return not pattern or any(matches(name, pattern) for name in image.tags)


ROUTES = (
    Route("GET", "/images/json", list_),
    Route("POST", "/images/create", create),
    Route("GET", "/images/{}/json", inspect),
    Route("POST", "/images/{}/tag", tag),
    Route("POST", "/images/{}/push", push),
    Route("GET", "/images/search", search),
    Route("DELETE", "/images/{}", remove),
)
