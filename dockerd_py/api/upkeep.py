"""History, disk usage and cleaning up, and the first year's insert."""

from __future__ import annotations

from aiohttp import web

from dockerd_py.api import encode, eras
from dockerd_py.api.call import Call
from dockerd_py.api.fields import JsonObject
from dockerd_py.api.filters import parse_filters, prune_containers_filter, prune_images_filter
from dockerd_py.api.graph import image_of, images_of
from dockerd_py.api.routing import PageNotFound, Route
from dockerd_py.api.stream import answer_with_messages
from dockerd_py.engine.model import Container, ProgressSink
from dockerd_py.errors import BadParameter, NoSuchContainer, NoSuchVolume

_USAGE_TYPES = frozenset(("container", "image", "volume", "build-cache"))

_BUILD_CACHE = frozenset(
    ("description", "id", "inuse", "label", "label!", "parent", "private", "shared", "type", "until", "unused-for")
)


async def history(call: Call) -> web.StreamResponse:
    return call.json([encode.history_entry(step, call.version) for step in images_of(call).history(call.name)])


async def prune_containers(call: Call) -> web.StreamResponse:
    done = await call.engine.upkeep.prune_containers(prune_containers_filter(call.text("filters")))
    return call.json({"ContainersDeleted": list(done.containers) or None, "SpaceReclaimed": done.reclaimed})


async def prune_images(call: Call) -> web.StreamResponse:
    passes, dangling = prune_images_filter(call.text("filters"))
    done = await call.engine.upkeep.prune_images(passes, dangling=dangling)
    deleted = encode.image_changes(done.images, call.version)
    return call.json({"ImagesDeleted": deleted or None, "SpaceReclaimed": done.reclaimed})


async def prune_build_cache(call: Call) -> web.StreamResponse:
    """There is no build cache, so nothing was in it."""
    parse_filters(call.text("filters"), _BUILD_CACHE, frozenset())
    return call.json({"CachesDeleted": None, "SpaceReclaimed": 0})


async def usage(call: Call) -> web.StreamResponse:
    """What everything takes on the disk; with ``type``, only those kinds."""
    kinds = frozenset(call.texts("type"))
    if kinds - _USAGE_TYPES:
        raise BadParameter(f"unknown object type: {', '.join(sorted(kinds - _USAGE_TYPES))}")
    kinds = kinds or _USAGE_TYPES
    engine = call.engine
    result: JsonObject = {}
    if "image" in kinds:
        shared = engine.upkeep.shared_sizes()
        summaries = []
        for image in engine.images.list():
            summary = encode.image_summary(image, call.version, shared.get(image.id, 0))
            summaries.append({**summary, "Containers": image.container_count})
        result |= {"LayersSize": engine.upkeep.layers_size(), "Images": summaries}
    if "container" in kinds:
        result["Containers"] = [
            encode.container_summary(container, call.version, container.config.image)
            for container in await _sizes(call)
        ]
    if "volume" in kinds:
        result["Volumes"] = await _volumes(call)
    if "build-cache" in kinds:
        result |= {"BuildCache": [], "BuilderSize": 0}
    return call.json(result)


async def insert(call: Call) -> web.StreamResponse:
    if not eras.has_insert(call.version):
        raise PageNotFound
    url, path = call.text("url"), call.text("path")
    if not url or not path:
        raise BadParameter("Bad parameter: url and path are needed")

    async def work(progress: ProgressSink) -> JsonObject:
        identity = await call.engine.upkeep.insert(image_of(call, call.name), url, path, progress)
        return {"status": eras.image_id(call.version, identity)}

    return await answer_with_messages(call, work)


async def _sizes(call: Call) -> list[Container]:
    found = []
    for container in call.engine.containers.list(all=True):
        try:
            found.append(await call.engine.containers.sizes(container.id))
        except NoSuchContainer:
            continue  # removed meanwhile
    return found


async def _volumes(call: Call) -> list[JsonObject]:
    found = []
    for volume in call.engine.volumes.list():
        try:
            size = await call.engine.volumes.size(volume.name)
        except NoSuchVolume:
            continue  # removed meanwhile
        found.append({**encode.volume(volume), "UsageData": {"RefCount": len(volume.users), "Size": size}})
    return found


ROUTES = (
    Route("GET", "/images/{}/history", history),
    Route("POST", "/images/{}/insert", insert),
    Route("POST", "/images/prune", prune_images),
    Route("POST", "/containers/prune", prune_containers),
    Route("POST", "/build/prune", prune_build_cache),
    Route("GET", "/system/df", usage),
)
