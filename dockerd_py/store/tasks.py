"""Steps that are never left half done because a client went away."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def uninterrupted(steps: Coroutine[Any, Any, T]) -> T:
    """Run ``steps`` to their end.  A caller that is cancelled meanwhile learns so when they have ended."""
    task = asyncio.get_running_loop().create_task(steps)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # nobody is there to hear of it
        raise
