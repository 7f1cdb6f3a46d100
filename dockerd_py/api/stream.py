"""Long operations as a stream of JSON messages: ``{"status": …, "progressDetail": {…}, "id": …}``; API 1.0 has them
as lines of text.

A failure before the first message is an ordinary error reply; after it the status stays 200 and the last message
tells of it, which is where Docker's clients look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from dockerd_py.api import eras
from dockerd_py.api.call import Call, dump
from dockerd_py.api.fields import JsonObject
from dockerd_py.api.routing import ApiVersion
from dockerd_py.engine.model import Progress, ProgressSink
from dockerd_py.errors import PydockerdError

LastMessages = JsonObject | list[JsonObject]
Work = Callable[[ProgressSink], Awaitable[LastMessages]]
"""Does the work, telling its progress, and returns the last message, or several."""


async def answer_with_messages(call: Call, work: Work) -> web.StreamResponse:
    """Run ``work`` and stream its messages; it is cancelled when the client goes away."""
    messages = _Messages(call.version)
    task = asyncio.ensure_future(work(messages.put))
    task.add_done_callback(lambda _: messages.wake())
    try:
        return await call.front.while_connected(_pump(call, messages, task))
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _pump(call: Call, messages: _Messages, task: asyncio.Future[LastMessages]) -> web.StreamResponse:
    response: web.StreamResponse | None = None
    while not task.done():
        if batch := await messages.next_batch():
            if response is None:  # not "or": a response is a mapping, and so an empty one is false
                response = await call.stream(_content_type(call))
            await response.write(batch)
    last = messages.take()
    try:
        result = await task
        for message in result if isinstance(result, list) else [result]:
            last += _spelled(message, call.version)
    except PydockerdError as error:
        if response is None:
            raise
        last += _spelled({"errorDetail": {"message": str(error)}, "error": str(error)}, call.version)
    if response is None:
        response = await call.stream(_content_type(call))
    await response.write(last)
    await response.write_eof()
    return response


def _spelled(message: JsonObject, version: ApiVersion) -> bytes:
    if eras.streams_json(version):
        is_progress = "progress" in message or "progressDetail" in message
        return dump(message)[:-1] + eras.message_separator(version, is_progress=is_progress)
    if "error" in message:
        return f"Error: {message['error']}\r\n".encode("utf-8", "replace")
    words = (message.get(key) for key in ("id", "status", "progress"))
    return (" ".join(word for word in words if word) + "\r\n").encode("utf-8", "replace")


def _content_type(call: Call) -> str:
    return "application/json" if eras.streams_json(call.version) else "text/plain"


class _Messages:
    """Messages on their way to the client.  When it reads slowly, only the newest of each id waits for it."""

    def __init__(self, version: ApiVersion) -> None:
        self._version = version
        self._waiting: dict[tuple[str, str], Progress] = {}
        self._wakeup = asyncio.Event()

    def put(self, progress: Progress) -> None:
        self._waiting[progress.id, progress.status] = progress
        self._wakeup.set()

    def wake(self) -> None:
        self._wakeup.set()

    async def next_batch(self) -> bytes:
        await self._wakeup.wait()
        self._wakeup.clear()
        return self.take()

    def take(self) -> bytes:
        version = self._version
        batch = b"".join(_spelled(_message(progress, version), version) for progress in self._waiting.values())
        self._waiting.clear()
        return batch


def _message(progress: Progress, version: ApiVersion) -> JsonObject:
    message: JsonObject = {"status": progress.status}
    if (progress.current or progress.total) and not eras.has_progress_detail(version):
        share = f"{100 * progress.current // progress.total}%" if progress.total else "n/a"
        message["progress"] = f"{progress.current}/{progress.total or '?'} ({share})"
    elif progress.current or progress.total:
        detail = {"current": progress.current}
        if progress.total:
            detail["total"] = progress.total
        message["progressDetail"] = detail
    if progress.id:
        message["id"] = progress.id
    return message
