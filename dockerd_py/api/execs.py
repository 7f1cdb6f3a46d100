"""/containers/{id}/exec and /exec: more processes in a running container.

A start that is not detached takes the connection over before the process is started, as Docker's does: what fails
afterwards is told on the stream, and by the exit code.
"""

from __future__ import annotations

import contextlib
import logging
import os
import posixpath

from aiohttp import web

from dockerd_py.api import encode, eras
from dockerd_py.api.call import Call
from dockerd_py.api.fields import Fields
from dockerd_py.api.hijack import NoAnswer
from dockerd_py.api.routing import PageNotFound, Route
from dockerd_py.api.specs import console_size
from dockerd_py.api.streams import stream_head
from dockerd_py.engine.model import STDOUT, ExecConfig
from dockerd_py.errors import BadParameter, NoSuchContainer, PydockerdError

log = logging.getLogger(__name__)


async def create(call: Call) -> web.StreamResponse:
    _check_version(call)
    fields = Fields(await call.json_body())
    container = call.engine.containers.get(call.name)
    return call.json({"Id": call.engine.execs.create(container.id, _config(fields)), "Warnings": []}, 201)


async def start(call: Call) -> web.StreamResponse:
    _check_version(call)
    fields = Fields(await call.json_body())
    execs = call.engine.execs
    found = execs.check_start(call.name)
    detach, tty = fields.flag("Detach"), fields.flag("Tty")
    size = console_size(fields)
    if detach:
        await execs.start(found.id)
        return call.empty(200)
    if not call.front.holding:
        raise BadParameter("Bad parameter: start needs a well-formed request with a connection of its own")
    descriptor, early = await call.front.take(stream_head(call, not tty))
    try:
        await execs.start(found.id, descriptor, early, framed=not tty, console_size=size)
    except PydockerdError as error:
        log.info("exec %s: %s", found.id, error)
        _tell(descriptor, f"{error}\r\n".encode(), framed=not tty)
    finally:
        os.close(descriptor)
    return NoAnswer()


async def inspect(call: Call) -> web.StreamResponse:
    _check_version(call)
    found = await call.engine.execs.inspect(call.name)
    container = None
    with contextlib.suppress(NoSuchContainer):
        container = call.engine.containers.get(found.container_id)
    return call.json(encode.exec_inspect(found, container, call.version))


async def resize(call: Call) -> web.StreamResponse:
    _check_version(call)
    await call.engine.execs.resize(call.name, *call.terminal_size())
    return call.empty(200)


def _check_version(call: Call) -> None:
    if not eras.has_exec(call.version):
        raise PageNotFound


def _config(fields: Fields) -> ExecConfig:
    working_dir = fields.text("WorkingDir")
    env = fields.texts("Env")
    for variable in env:
        if not variable or variable.startswith("="):
            raise BadParameter(f"invalid environment variable: {variable}")
    if working_dir and not posixpath.isabs(working_dir):
        raise BadParameter(f"the working directory '{working_dir}' is invalid, it needs to be an absolute path")
    return ExecConfig(
        cmd=fields.texts("Cmd"),
        user=fields.text("User"),
        privileged=fields.flag("Privileged"),
        tty=fields.flag("Tty"),
        attach_stdin=fields.flag("AttachStdin"),
        attach_stdout=fields.flag("AttachStdout"),
        attach_stderr=fields.flag("AttachStderr"),
        env=env,
        working_dir=working_dir,
        detach_keys=fields.text("DetachKeys"),
        console_size=console_size(fields),
    )


def _tell(descriptor: int, message: bytes, *, framed: bool) -> None:
    """Send ``message`` as output of the process that could not be started."""
    if framed:
        message = bytes((STDOUT, 0, 0, 0)) + len(message).to_bytes(4, "big") + message
    with contextlib.suppress(OSError):  # who does not read it has the exit code
        os.write(descriptor, message)


ROUTES = (
    Route("POST", "/containers/{}/exec", create),
    Route("POST", "/exec/{}/start", start),
    Route("GET", "/exec/{}/json", inspect),
    Route("POST", "/exec/{}/resize", resize),
)
