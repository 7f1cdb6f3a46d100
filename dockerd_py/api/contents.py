"""What is in containers: /commit, and /containers/{id}/changes, /archive and /copy."""

from __future__ import annotations

import base64
import contextlib
import logging
import stat as modes

from aiohttp import web

from dockerd_py.api import eras, first_year
from dockerd_py.api.call import COMMON_HEADERS, Call, dump
from dockerd_py.api.decode import decode_commit
from dockerd_py.api.fields import Fields, JsonObject
from dockerd_py.api.routing import Route
from dockerd_py.api.times import rfc3339
from dockerd_py.engine.model import CommitOptions, PathStat
from dockerd_py.errors import BadParameter, NoSuchContainer, NotFound, PydockerdError

log = logging.getLogger(__name__)


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
            config=decode_commit(await _settings_of_commit(call)),
            merge=eras.commit_merges(call.version),
            changes=call.texts("changes"),
        ),
    )
    return call.json({"Id": eras.image_id(call.version, identity)}, 201)


async def _settings_of_commit(call: Call) -> JsonObject:
    if not eras.is_first_year(call.version):
        return await call.json_body()
    try:
        return first_year.typed(await call.json_body())
    except BadParameter as error:  # what cannot be read was nothing said then
        log.warning("commit of %s: %s", call.text("container"), error)
        return {}


async def stat(call: Call) -> web.StreamResponse:
    found = await call.engine.contents.stat(call.name, _path(call))
    return web.Response(headers={**COMMON_HEADERS, **_stat_header(found)})


async def archive(call: Call) -> web.StreamResponse:
    return await _send(call, _path(call))


async def copy(call: Call) -> web.StreamResponse:
    """The first year's way to copy files out of a container (removed in 1.24)."""
    if eras.is_first_year(call.version) and call.request.content_type != "application/json":
        raise PydockerdError(f"Content-Type must be application/json, not {call.request.content_type}")
    path = Fields(await call.json_body()).text("Resource")
    if not path:
        raise PydockerdError("Path cannot be empty")
    try:
        return await _send(call, path, follow=True)
    except NoSuchContainer:
        raise
    except NotFound:
        if eras.copy_names_what_is_missing(call.version):
            raise
        return web.Response(headers=COMMON_HEADERS, content_type="application/x-tar")


async def extract(call: Call) -> web.StreamResponse:
    async with contextlib.aclosing(call.upload()) as source:
        await call.engine.contents.extract(
            call.name,
            _path(call),
            source,
            no_overwrite=call.flag("noOverwriteDirNonDir"),
            users_own=call.flag("copyUIDGID"),
        )
    return call.empty(200)


def _path(call: Call) -> str:
    path = call.text("path")
    if not path:
        raise BadParameter("bad parameter: path cannot be empty")
    return path


async def _send(call: Call, path: str, *, follow: bool = False) -> web.StreamResponse:
    async def send() -> web.StreamResponse:
        async with call.engine.contents.archive(call.name, path, follow=follow) as (found, content):
            response = await call.stream("application/x-tar", _stat_header(found))
            async for piece in content:
                await response.write(piece)
        await response.write_eof()
        return response

    return await call.front.while_connected(send())


def _stat_header(found: PathStat) -> dict[str, str]:
    value = {
        "name": found.name,
        "size": found.size,
        "mode": _go_mode(found.mode),
        "mtime": rfc3339(found.mtime),
        "linkTarget": found.link_target,
    }
    return {"X-Docker-Container-Path-Stat": base64.b64encode(dump(value)[:-1]).decode()}


def _go_mode(mode: int) -> int:
    """st_mode as Go's os.FileMode, which clients read."""
    bits = mode & 0o777
    for bit, flag in _GO_BITS:
        if mode & bit:
            bits |= flag
    return bits | _GO_TYPES.get(modes.S_IFMT(mode), 0)


_GO_BITS = ((modes.S_ISUID, 1 << 23), (modes.S_ISGID, 1 << 22), (modes.S_ISVTX, 1 << 20))
_GO_TYPES = {
    modes.S_IFDIR: 1 << 31,
    modes.S_IFLNK: 1 << 27,
    modes.S_IFBLK: 1 << 26,
    modes.S_IFIFO: 1 << 25,
    modes.S_IFSOCK: 1 << 24,
    modes.S_IFCHR: 1 << 26 | 1 << 21,
}

ROUTES = (
    Route("GET", "/containers/{}/changes", changes),
    Route("POST", "/commit", commit),
    Route("HEAD", "/containers/{}/archive", stat),
    Route("GET", "/containers/{}/archive", archive),
    Route("PUT", "/containers/{}/archive", extract),
    Route("POST", "/containers/{}/copy", copy),
)
