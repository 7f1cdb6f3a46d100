"""/volumes: list, create, inspect, remove and prune."""

from __future__ import annotations

from aiohttp import web

from dockerd_py.api import encode, eras
from dockerd_py.api.call import Call
from dockerd_py.api.fields import Fields
from dockerd_py.api.filters import prune_volumes_filter, volume_filter
from dockerd_py.api.routing import PageNotFound, Route
from dockerd_py.errors import NotSupported


async def list_(call: Call) -> web.StreamResponse:
    _check_era(call)
    passes = volume_filter(call.text("filters"))
    found = [encode.volume(volume) for volume in call.engine.volumes.list() if passes(volume)]
    return call.json({"Volumes": found, "Warnings": None})


async def create(call: Call) -> web.StreamResponse:
    _check_era(call)
    fields = Fields(await call.json_body())
    if fields.raw("ClusterVolumeSpec"):
        raise NotSupported("ClusterVolumeSpec is not supported: there is no cluster")
    volume = await call.engine.volumes.create(
        fields.text("Name"),
        driver=fields.text("Driver"),
        options=fields.text_map("DriverOpts"),
        labels=fields.text_map("Labels"),
    )
    return call.json(encode.volume(volume), 201)


async def inspect(call: Call) -> web.StreamResponse:
    _check_era(call)
    return call.json(encode.volume(call.engine.volumes.get(call.name)))


async def remove(call: Call) -> web.StreamResponse:
    _check_era(call)
    await call.engine.volumes.remove(call.name, force=call.flag("force"))
    return call.empty()


async def prune(call: Call) -> web.StreamResponse:
    _check_era(call)
    anonymous_only = eras.prunes_anonymous_volumes_only(call.version)
    passes = prune_volumes_filter(call.text("filters"), anonymous_only=anonymous_only)
    removed, reclaimed = await call.engine.volumes.prune(passes)
    return call.json({"VolumesDeleted": list(removed) or None, "SpaceReclaimed": reclaimed})


def _check_era(call: Call) -> None:
    if not eras.has_volumes(call.version):
        raise PageNotFound


ROUTES = (
    Route("GET", "/volumes", list_),
    Route("POST", "/volumes/create", create),
    Route("POST", "/volumes/prune", prune),
    Route("GET", "/volumes/{}", inspect),
    Route("DELETE", "/volumes/{}", remove),
)
