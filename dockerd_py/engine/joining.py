"""Namespaces that one container takes over from another, which has to run.

A process id names another process as soon as its own has been reaped.  So a namespace's file is opened first, and then
the other container's monitor, who is the one to reap, is asked: if it says that the process is not reaped yet, what was
opened is the right one, and holds the namespace from then on.  The runtime reaches it through our own descriptor.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from dockerd_py.engine.isolation import Namespaces, joined_container
from dockerd_py.engine.record import Record
from dockerd_py.errors import NotRunning, PydockerdError

Find = Callable[[str], Record]

_FILES = {"network": "net"}  # /proc/<pid>/ns has other names for some


@asynccontextmanager
async def opened(given: Namespaces, network: str, find: Find) -> AsyncIterator[dict[str, str]]:
    """For each kind of namespace (as the OCI runtime names it) that is another container's, a file to setns(2) to, good
    until the end of the context.

    Raises NoSuchContainer; NotRunning for a container that does not run.
    """
    modes = {"pid": given.pid, "ipc": given.ipc, "network": network}
    wanted = {kind: donor for kind, mode in modes.items() if (donor := joined_container(mode))}
    async with AsyncExitStack() as stack:
        paths = {}
        for kind, container in wanted.items():
            fd = await open_namespace(kind, find(container))
            stack.callback(os.close, fd)
            paths[kind] = f"/proc/{os.getpid()}/fd/{fd}"
        yield paths


async def open_namespace(kind: str, record: Record) -> int:
    """A descriptor of one of a running container's namespaces, the caller's to close.  Raises NotRunning."""
    monitor = record.monitor
    if not record.state.running or monitor is None:
        raise _not_running(kind, record)
    pid = record.state.pid
    try:
        fd = os.open(f"/proc/{pid}/ns/{_FILES.get(kind, kind)}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        raise _not_running(kind, record) from None
    try:
        state = await monitor.request("hello")
        if state["phase"] != "running" or state["exit"] is not None or state["pid"] != pid:
            raise _not_running(kind, record)
    except (PydockerdError, asyncio.TimeoutError):
        os.close(fd)
        raise _not_running(kind, record) from None
    except BaseException:
        os.close(fd)
        raise
    return fd


def _not_running(kind: str, record: Record) -> NotRunning:
    return NotRunning(
        f"cannot join the {kind} namespace of container {record.name}: Container {record.id} is not running"
    )
