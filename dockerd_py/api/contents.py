"""What is in containers: /containers/{id}/changes and /commit."""

from __future__ import annotations

from aiohttp import web

from dockerd_py.api import eras
from dockerd_py.api.call import Call
from dockerd_py.api.decode import decode_commit
from dockerd_py.api.routing import Route
from dockerd_py.engine.model import CommitOptions
from dockerd_py.errors import BadParameter


async def changes(call: Call) -> web.StreamResponse:
    found = await call.engine.contents.changes(call.name)
    listed = [{"Path": change.path, "Kind": int(change.kind)} for change in found]
    return call.json(listed or (None if eras.lists_can_be_null(call.version) else []))


async def commit(call: Call) -> web.StreamResponse:
    container = call.text("container")
    if not container:
        raise BadParameter("Bad parameter: container is needed: name the container to commit")
    identity = await call.engine.contents.commit(
        container,
        CommitOptions(
            repo=call.text("repo"),
            tag=call.text("tag"),
            comment=call.text("comment"),
            author=call.text("author"),
            pause=call.flag("pause", default=eras.commit_pauses(call.version)),
            config=decode_commit(await call.json_body()),
            merge=eras.commit_merges(call.version),
            changes=call.texts("changes"),
        ),
    )
    return call.json({"Id": eras.image_id(call.version, identity)}, 201)


ROUTES = (
    Route("GET", "/containers/{}/changes", changes),
    Route("POST", "/commit", commit),
)
