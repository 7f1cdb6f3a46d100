"""The daemon's end of `systemd_worker`: calls to systemd that may be awaited, and that survive the worker.

The worker is started with the first request and again after it ended; requests that were on their way then fail
with ``Disconnected``, and the caller knows whether to repeat them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import socket
import sys
from typing import Any

from dockerd_py import subprocesses
from dockerd_py.errors import PydockerdError, TimedOut

log = logging.getLogger(__name__)

WORKER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "systemd_worker.py")
ANSWER_WITHIN = 20.0  # seconds, beyond what the worker itself bounds
MOST_BYTES = 64 * 1024 * 1024  # of one answer: a list of units

# systemd was not there to take the call: nothing has happened.
NOT_SENT = frozenset({"ServiceUnknown", "NameHasNoOwner", "NoServer", "ENOENT", "FileNotFound", "ConnectionRefused"})
# The answer was lost: it may have happened.
UNCERTAIN = frozenset({"Disconnected", "NoReply", "ETIMEDOUT", "Timeout", "Interrupted"})

Properties = list[tuple[str, str, Any]]  # name, D-Bus signature, value
Waiting = dict[int, "asyncio.Future[Any]"]


class BusError(PydockerdError):
    """What systemd or the bus answered.  ``name``: the last part of the D-Bus error's name."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"systemd: {text}" if text else f"systemd: {name}")
        self.name = name

    @property
    def uncertain(self) -> bool:
        return self.name in UNCERTAIN

    @property
    def not_sent(self) -> bool:
        return self.name in NOT_SENT or self.name.startswith(("ExecFailed", "ChildExited", "ChildSignaled"))


class SystemdLink:
    """Requests to the worker, in the words of its docstring."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._waiting: Waiting = {}
        self._starting = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._listener: asyncio.Task[None] | None = None

    async def call(self, member: str, signature: str = "", *args: Any, **where: str) -> Any:
        """A method of systemd's manager, or of what ``destination``, ``path`` and ``interface`` name."""
        return await self._request({"op": "call", "member": member, "signature": signature, "args": args, **where})

    async def get(self, unit: str, interface: str, name: str, signature: str) -> Any:
        """A property of a unit; ``interface`` is the last part of its name ("Unit", "Scope")."""
        interface = f"org.freedesktop.systemd1.{interface}"
        request = {"op": "get", "unit": unit, "interface": interface, "property": name, "signature": signature}
        return await self._request(request)

    async def set(self, unit: str, properties: Properties) -> None:
        """Change a unit's properties until the next boot, in one step."""
        await self._request({"op": "set", "unit": unit, "properties": properties})

    async def job(
        self,
        member: str,
        unit: str,
        mode: str,
        properties: Properties | None = None,
        *,
        timeout: float,
    ) -> str:
        """Call a method that queues a job and return the job's result ("done", "failed", ...)."""
        request: dict[str, Any] = {"op": "job", "member": member, "unit": unit, "mode": mode, "timeout": timeout}
        if properties is not None:
            request["properties"] = properties
        return str(await self._request(request, timeout + ANSWER_WITHIN))

    async def close(self) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write_eof()  # also where a forked process still holds a copy of the socket
        if self._process is not None:
            try:
                await asyncio.wait_for(self._process.wait(), 5)
            except asyncio.TimeoutError:
                self._process.kill()
                await self._process.wait()
        if self._listener is not None:
            await self._listener
        self._writer = self._process = self._listener = None

    async def _request(self, request: dict[str, Any], within: float = ANSWER_WITHIN) -> Any:
        writer = await self._running()
        waiting, number = self._waiting, next(self._ids)
        answer = waiting[number] = asyncio.get_running_loop().create_future()
        try:
            writer.write(json.dumps({"id": number, **request}).encode() + b"\n")
            return await asyncio.wait_for(answer, within)
        except asyncio.TimeoutError:
            raise TimedOut(f"systemd has not answered {request.get('member', 'a question')} in {within:g} s") from None
        finally:
            waiting.pop(number, None)

    async def _running(self) -> asyncio.StreamWriter:
        async with self._starting:
            if self._writer is not None and not self._writer.is_closing():
                return self._writer
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            with theirs:
                try:
                    self._process = await subprocesses.spawn([sys.executable, "-I", WORKER], stdin=theirs.fileno())
                except BaseException:
                    ours.close()
                    raise
            reader, self._writer = await asyncio.open_connection(sock=ours, limit=MOST_BYTES)
            self._waiting = {}  # the requests of this connection; an earlier one's listener fails its own
            listener = _listen(reader, self._writer, self._process, self._waiting)
            self._listener = asyncio.create_task(listener)
            return self._writer


async def _listen(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    process: asyncio.subprocess.Process,
    waiting: Waiting,
) -> None:
    with contextlib.suppress(ConnectionError):
        while line := await reader.readline():
            _settle(waiting, json.loads(line))
    writer.close()
    for answer in waiting.values():
        if not answer.done():
            answer.set_exception(BusError("Disconnected", "the connection to systemd broke"))
    code = await process.wait()
    if code:
        log.warning("the process that speaks to systemd ended with code %d; it is started again when needed", code)


def _settle(waiting: Waiting, message: dict[str, Any]) -> None:
    answer = waiting.get(message["id"])
    if answer is None or answer.done():
        return
    if "error" not in message:
        answer.set_result(message["value"])
    elif message["error"] == "TimedOut":
        answer.set_exception(TimedOut(f"systemd: {message['text']}"))
    else:
        answer.set_exception(BusError(message["error"], message["text"]))
